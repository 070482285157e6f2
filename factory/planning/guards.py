"""Which gates, builds and written files come before a step, whatever happens to them: what it may take for its run's.

Pure functions on the nodes of a plan; they judge nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from factory.language.errors import Path
from factory.language.templates import Template
from factory.planning.graph import ancestor_bits, bits_of, halted_in
from factory.planning.plan import GuardsBefore, JudgedBefore, Node, Plan, WrittenBefore
from factory.planning.values import texts
from factory.registry import KEYS, Registry, TaskDefinition
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

    @cached_property
    def positions(self) -> Mapping[str, int]:
        """The position of each step in the plan, which is its bit in what is computed for all steps at once."""
        return {node.task_id: index for index, node in enumerate(self.plan.nodes)}

    @cached_property
    def _guarding(self) -> Mapping[str, int]:
        """The steps without whose success each step does not run, as bits: it halts if they fail or are skipped."""
        starts = {name: 1 << index for name, index in self.positions.items()}
        failed, skipped = (
            halted_in(self.upstream, self.trigger_rules, starts, skipped=skipped) for skipped in (False, True)
        )
        return {name: failed[name] & skipped[name] for name in failed}

    @cached_property
    def _earlier(self) -> Mapping[str, int]:
        return ancestor_bits(self.upstream)

    def guards(self, guard: Node, guarded: Node) -> bool:
        """Return whether `guarded` certainly does not run when `guard` fails or is skipped."""
        return bool(self._guarding[guarded.task_id] >> self.positions[guard.task_id] & 1)

    def is_earlier(self, node: Node, later: Node) -> bool:
        """Return whether `node` ends before `later` begins."""
        return bool(self._earlier[later.task_id] >> self.positions[node.task_id] & 1)

    def bits(self, names: Iterable[str]) -> int:
        """Return the steps of these names as bits; a name that the plan does not have is left out."""
        return sum(1 << self.positions[name] for name in {*names} & self.positions.keys())

    def names(self, bits: int) -> list[str]:
        """Return the names of steps that are given as bits."""
        return [self.plan.nodes[index].task_id for index in bits_of(bits)]

    @cached_property
    def _roles(self) -> Mapping[str, int]:
        bits: dict[str, int] = {}
        for index, node in enumerate(self.plan.nodes):
            bits[node.role or ""] = bits.get(node.role or "", 0) | 1 << index
        return bits

    def count_before(self, node: Node, role: str) -> int:
        """Return how many steps of `role` there are without whose success `node` does not run."""
        return (self._guarding[node.task_id] & self._roles.get(role, 0)).bit_count()

    def before(self, node: Node, role: str) -> list[Node]:
        """Return the steps of `role` without whose success `node` does not run."""
        return [self.plan.nodes[index] for index in bits_of(self._guarding[node.task_id] & self._roles.get(role, 0))]

    def tables(self, node: Node, of: str) -> frozenset[str]:
        """Return the tables that a step builds ("build"), judges ("judge") or loads ("load")."""
        return self._by_step[of].get(node.task_id, frozenset())

    @cached_property
    def _by_step(self) -> Mapping[str, Mapping[str, frozenset[str]]]:
        found: dict[str, dict[str, frozenset[str]]] = {"build": {}, "judge": {}, "load": {}}
        for node in self.plan.nodes:
            for of, table in self._tables(node):
                found[of][node.task_id] = found[of].get(node.task_id, frozenset()) | {table}
        return found

    @cached_property
    def _by_table(self) -> Mapping[str, Mapping[str, list[Node]]]:
        found: dict[str, dict[str, list[Node]]] = {of: {} for of in self._by_step}
        for node in self.plan.nodes:
            for of, steps in self._by_step.items():
                for table in steps.get(node.task_id, ()):
                    found[of].setdefault(table, []).append(node)
        return found

    def _tables(self, node: Node) -> Iterator[tuple[str, str]]:
        if node.uses in self.registry:
            definition = self.registry[node.uses]
            for path, text in texts(node.arguments):
                kind = definition.kind_at(path)
                if kind and kind.name == "table" and kind.of:
                    yield kind.of, text
            for tables in self.expanded_tables(node).values():
                yield from (("build", table) for table in tables or ())

    def expanded_tables(self, node: Node) -> dict[str, list[str] | None]:
        """Return the tables that the items of a mapped step build, by argument; None where only a run knows them."""
        if node.uses not in self.registry:
            return {}
        definition = self.registry[node.uses]
        return {
            name: _named_in(values, name, definition)
            for name, values in node.expand.items()
            if any(definition.kind_at(path) == _BUILT for path in ((name,), (name, 0)))
        }

    def builds(self, node: Node) -> bool:
        """Return whether a step builds a table, named in the spec or known only to the run."""
        if node.uses not in self.registry:
            return False
        definition, given = self.registry[node.uses], {**node.arguments, **node.expand}
        return any(definition.kind_at(path) == _BUILT for name in given for path in ((name,), (name, 0)))

    def unnamed(self, node: Node, of: str) -> list[str]:
        """Return the arguments that name such a table only when the step runs: by a template, or an item of a list."""
        if node.uses not in self.registry:
            return []
        definition, given = self.registry[node.uses], {**node.arguments, **node.expand}
        named = [name for name in definition.parameters if definition.kind_at((name,)) == TextKind("table", of)]
        return [name for name in named if name in given and not isinstance(given[name], str)]

    def arguments_for_arrivals(self, node: Node) -> list[str]:
        """Return the arguments that name a table which the step fills with rows from outside the database."""
        definition, given = self.registry[node.uses], {**node.arguments, **node.expand}
        kinds = ((name, definition.kind_at((name,))) for name in definition.parameters if name in given)
        return [name for name, kind in kinds if kind and kind.arrives]

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
        read = self.files(node, written=False)
        steps = (
            [self.plan.nodes[index] for index in bits_of(self._earlier[node.task_id] & self._writers)] if read else []
        )
        steps.sort(key=lambda one: self._earlier[one.task_id].bit_count())
        paths = [(path, one.task_id) for one in steps for path in self.files(one, written=True)]
        return tuple(WrittenBefore(*one) for one in paths if one[0] in read or not _needs_steps(one[0]))

    @cached_property
    def _writers(self) -> int:
        writing = (index for index, node in enumerate(self.plan.nodes) if self.files(node, written=True))
        return sum(1 << index for index in writing)

    def builders(self, table: str) -> list[Node]:
        """Return the steps that build `table`."""
        return self._by_table["build"].get(table, [])

    def loads(self, table: str) -> list[Node]:
        """Return the steps that load `table`."""
        return self._by_table["load"].get(table, [])

    def builders_before(self, table: str, node: Node) -> list[Node]:
        """Return those of them that end before `node` begins, the last ones last."""
        return self.in_order(one for one in self.builders(table) if self.is_earlier(one, node))

    def in_order(self, nodes: Iterable[Node]) -> list[Node]:
        """Return steps in an order in which none waits for a later one."""
        return sorted(nodes, key=lambda one: self.earlier(one).bit_count())

    def earlier(self, node: Node) -> int:
        """Return the steps that end before `node` begins, as bits."""
        return self._earlier[node.task_id]

    @cached_property
    def gates(self) -> Mapping[str | None, list[Node]]:
        """The gates that judge each table."""
        found: dict[str | None, list[Node]] = {}
        for node in self.plan.nodes:
            if node.role == "gate":
                for table in {batch_table(suite) for suite in self.suites(node)}:
                    found.setdefault(table, []).append(node)
        return found

    @cached_property
    def built(self) -> tuple[BuiltIn, ...]:
        """The tables that the steps build, where the spec names both the table and its connection."""
        built = {
            BuiltIn(connection, table)
            for node in self.plan.nodes
            if isinstance(connection := node.arguments.get("connection"), str)
            for table in self.tables(node, "build")
        }
        return tuple(sorted(built))

    @cached_property
    def external(self) -> frozenset[str]:
        """The tables that a load takes although no step builds them."""
        loads = (node for node in self.plan.nodes if node.arguments.get("external_source") is True)
        return frozenset(table for node in loads for table in self.tables(node, "load"))

    def judges_whole(self, gate: Node, table: str) -> bool:
        """Return whether a gate judges all rows of `table`."""
        return any(batch_table(suite) == table and not suite["batch"].get("where") for suite in self.suites(gate))

    def suites(self, gate: Node) -> list[Mapping[str, Any]]:
        """Return the suites that a gate is given."""
        names = self.registry[gate.uses].suites if gate.uses in self.registry else frozenset()
        return [gate.arguments[name] for name in sorted(names) if name in gate.arguments]


_BUILT = TextKind("table", "build")


def _named_in(values: Any, name: str, definition: TaskDefinition) -> list[str] | None:
    """Return the tables that the items of a list name, or None where one of them is a template."""
    leaves = [] if isinstance(values, Template) else [leaf for one in values for leaf in _leaves(one, (name,))]
    named = [text for path, text in leaves if definition.kind_at(path) == _BUILT]
    return named if named and all(isinstance(text, str) for text in named) else None


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


def batch_table(suite: Mapping[str, Any]) -> str | None:
    """Return the table that a suite is about."""
    batch = suite.get("batch")
    table = batch.get("table") if isinstance(batch, dict) else None
    return table if isinstance(table, str) else None


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
        watched=guards.tables(node, "judge") & guards.external,
        claims=guards.built if guards.tables(node, "build") else (),
        loaded_once=frozenset(table for table in guards.tables(node, "load") if len(guards.loads(table)) == 1),
        files=files,
    )
