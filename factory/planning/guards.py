"""Which gates, builds and written files come before a step, whatever happens to them: what it may take for its run's.

Pure functions on the nodes of a plan; they judge nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from factory.language.errors import Path
from factory.language.templates import Template
from factory.planning.graph import ancestors, stopped
from factory.planning.plan import GuardsBefore, JudgedBefore, Node, Plan, WrittenBefore
from factory.planning.values import texts
from factory.registry import KEYS, Registry
from tasks.contract import BuiltIn, TextKind


@dataclass(frozen=True)
class Guards:
    """What each step of a plan builds, judges and takes, and what certainly comes before it."""

    plan: Plan
    registry: Registry

    @cached_property
    def upstream(self) -> dict[str, tuple[str, ...]]:
        """What each step waits for, of the steps that the plan has."""
        known = {node.task_id for node in self.plan.nodes}
        return {node.task_id: tuple(one for one in node.upstream if one in known) for node in self.plan.nodes}

    @cached_property
    def trigger_rules(self) -> Mapping[str, str]:
        """Airflow's rule of each step for when it runs."""
        default = str(self.plan.default_args.get("trigger_rule", "all_success"))
        return {node.task_id: str(node.airflow.get("trigger_rule", default)) for node in self.plan.nodes}

    def guards(self, guard: str, guarded: str) -> bool:
        """Return whether `guarded` certainly does not run when `guard` fails or is skipped."""
        halted = (stopped(self.upstream, self.trigger_rules, [guard], skipped=skipped) for skipped in (False, True))
        return all(guarded in names for names in halted)

    def before(self, node: Node, role: str) -> list[Node]:
        """Return the steps of `role` without whose success `node` does not run."""
        return [one for one in self.plan.nodes if one.role == role and self.guards(one.task_id, node.task_id)]

    def tables(self, node: Node, of: str) -> set[str]:
        """Return the tables that a step builds ("build"), judges ("judge") or loads ("load")."""
        return set(self._tables(node, of))

    def _tables(self, node: Node, of: str) -> Iterator[str]:
        if node.uses in self.registry:
            definition = self.registry[node.uses]
            for path, text in texts(node.arguments):
                kind = definition.kind_at(path)
                if kind and kind.name == "table" and kind.of == of:
                    yield text

    def unnamed(self, node: Node, of: str) -> list[str]:
        """Return the arguments that name such a table only when the step runs: by a template, or an item of a list."""
        if node.uses not in self.registry:
            return []
        definition, given = self.registry[node.uses], {**node.arguments, **node.expand}
        named = [name for name in definition.parameters if definition.kind_at((name,)) == TextKind("table", of)]
        return [name for name in named if name in given and not isinstance(given[name], str)]

    def files(self, node: Node, *, written: bool) -> list[Any]:
        """Return the files, and folders of files, that a step writes or reads: texts and templates."""
        if node.uses not in self.registry:
            return []
        definition, mapped = self.registry[node.uses], node.expand.items()
        values = [(name, value) for name, value in node.arguments.items() if name not in definition.suites]
        values += [(name, one) for name, many in mapped for one in (many if isinstance(many, list) else [many])]
        kinds = [(definition.kind_at(path), text) for name, value in values for path, text in _leaves(value, (name,))]
        return [text for kind, text in kinds if kind and kind.name == "file" and kind.written is written]

    def files_before(self, node: Node) -> tuple[WrittenBefore, ...]:
        """Return the files that earlier steps write and `node` may read, those of later steps last.

        A path that an output of some step is part of counts only if `node` reads it in the same words: elsewhere it
        cannot be rendered if that step was skipped.
        """
        earlier, read = ancestors(self.upstream, node.task_id), self.files(node, written=False)
        steps = [one for one in self.plan.nodes if one.task_id in earlier]
        steps.sort(key=lambda one: len(ancestors(self.upstream, one.task_id)))
        paths = [(path, one.task_id) for one in steps for path in self.files(one, written=True)] if read else []
        return tuple(WrittenBefore(*one) for one in paths if one[0] in read or not _needs_steps(one[0]))

    def builders(self, table: str) -> list[Node]:
        """Return the steps that build `table`."""
        return [node for node in self.plan.nodes if table in self.tables(node, "build")]

    def builders_before(self, table: str, node: Node) -> list[Node]:
        """Return those of them that end before `node` begins, the last ones last."""
        earlier = ancestors(self.upstream, node.task_id)
        found = [one for one in self.builders(table) if one.task_id in earlier]
        return sorted(found, key=lambda one: len(ancestors(self.upstream, one.task_id)))

    def judges_whole(self, gate: Node, table: str) -> bool:
        """Return whether a gate judges all rows of `table`."""
        return any(batch_table(suite) == table and not suite["batch"].get("where") for suite in self.suites(gate))

    def suites(self, gate: Node) -> list[Mapping[str, Any]]:
        """Return the suites that a gate is given."""
        names = self.registry[gate.uses].suites if gate.uses in self.registry else frozenset()
        return [gate.arguments[name] for name in sorted(names) if name in gate.arguments]


def _needs_steps(path: Any) -> bool:
    return isinstance(path, Template) and any(source.task_id for source in path.sources)


def _leaves(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    """Yield every value in `value` that is no mapping or list, and every key, with its path."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield (*path, KEYS), key
            yield from _leaves(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _leaves(item, (*path, index))
    else:
        yield path, value


def batch_table(suite: Mapping[str, Any]) -> object:
    """Return the table that a suite is about."""
    batch = suite.get("batch")
    return batch.get("table") if isinstance(batch, dict) else None


def with_guards(plan: Plan, registry: Registry) -> Plan:
    """Return `plan` with what comes before each build, gate and load, and before each step that reads files."""
    guards = Guards(plan, registry)
    befores = {node.task_id: _before(node, guards) for node in plan.nodes if node.uses}
    return replace(plan, before={task_id: before for task_id, before in befores.items() if before})


def _before(node: Node, guards: Guards) -> GuardsBefore | None:
    """Return what comes before a step, or None where that does not matter to it."""
    files = guards.files_before(node)
    if node.role not in ("gate", "load") and not guards.tables(node, "build") and not files:
        return None
    taken = guards.tables(node, "load") | guards.tables(node, "judge")
    builders = {table: guards.builders_before(table, node) for table in sorted(taken)}
    gates = guards.before(node, "gate") if node.role == "load" else []
    return GuardsBefore(
        builds={table: found[-1].task_id for table, found in builders.items() if found},
        gates=tuple(
            JudgedBefore(gate.task_id, str(batch_table(suite)), suite, tuple(gate.expand.values()))
            for gate in gates
            for suite in guards.suites(gate)
        ),
        watched=frozenset(guards.tables(node, "judge") & _external_tables(guards)),
        claims=_built_tables(guards) if guards.tables(node, "build") else (),
        loaded_once=frozenset(table for table in guards.tables(node, "load") if _loads(guards, table) == 1),
        files=files,
    )


def _built_tables(guards: Guards) -> tuple[BuiltIn, ...]:
    """Return the tables that the steps build, where the spec names both the table and its connection."""
    built = {
        BuiltIn(connection, table)
        for node in guards.plan.nodes
        if isinstance(connection := node.arguments.get("connection"), str)
        for table in guards.tables(node, "build")
    }
    return tuple(sorted(built))


def _loads(guards: Guards, table: str) -> int:
    return sum(table in guards.tables(node, "load") for node in guards.plan.nodes)


def _external_tables(guards: Guards) -> set[str]:
    loads = (node for node in guards.plan.nodes if node.arguments.get("external_source") is True)
    return {table for node in loads for table in guards.tables(node, "load")}
