"""Which steps can be skipped: by a branch, an empty list, a wait that gives up, a step that stops the run, or a rule.

A case is one outcome of one such choice: a way of a branch, whether a list that a step is mapped over is empty, whether
what is waited for comes, whether a step stops the run, whether one that runs after a failure has nothing to do. For
every step, the bits of a number are the cases in which it is skipped, by itself or because of what it waits for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from factory.language.templates import Template
from factory.planning.graph import bits_of, halted_in
from factory.planning.guards import Guards
from factory.planning.plan import Node

_EAGER = frozenset({"one_success", "one_failed", "one_done"})
"""The trigger rules by which a step begins although it waits for others still."""


@dataclass(frozen=True)
class Skips:
    """The choices of a plan, and the steps that they skip."""

    guards: Guards

    @cached_property
    def _choices(self) -> list[tuple[Node, list[frozenset[str]]]]:
        """Each choice: the step that makes it, and for each of its cases the steps that it skips at once."""
        return [*self._branches(), *self._lists(), *self._stops(), *self._exceptions()]

    def _branches(self) -> Iterator[tuple[Node, list[frozenset[str]]]]:
        for node, waiting in self.branches:
            every = frozenset(one.task_id for one in waiting)
            yield node, [every - kept for kept in self._kept(node, waiting)]

    def _kept(self, branch: Node, waiting: list[Node]) -> list[set[str]]:
        """Return for each way of a branch the steps that Airflow keeps: those that begin it, and those later on it."""
        kept = [set(way.then) for way in branch.exits]
        ways: dict[str, list[int]] = {}
        for index, way in enumerate(branch.exits):
            for name in way.then:
                ways.setdefault(name, []).append(index)
        begins = self.guards.bits(ways)
        for one in waiting:
            if len(self.guards.upstream[one.task_id]) > 1:
                for name in self.guards.names(begins & self.guards.earlier(one)):
                    for index in ways[name]:
                        kept[index].add(one.task_id)
        return kept

    @cached_property
    def branches(self) -> list[tuple[Node, list[Node]]]:
        """Each branch, with the steps that wait for it: those that it leads to, and any other that needs it."""
        nodes, upstream = self.guards.plan.nodes, self.guards.upstream
        waiting: dict[str, list[Node]] = {node.task_id: [] for node in nodes if node.is_branch}
        for node in nodes:
            for name in upstream[node.task_id]:
                if name in waiting:
                    waiting[name].append(node)
        return [(node, waiting[node.task_id]) for node in nodes if node.is_branch]

    def _lists(self) -> Iterator[tuple[Node, list[frozenset[str]]]]:
        for node in self.guards.plan.nodes:
            if any(isinstance(values, Template) or not values for values in node.expand.values()):
                yield node, [frozenset((node.task_id,)), frozenset()]

    def _stops(self) -> Iterator[tuple[Node, list[frozenset[str]]]]:
        for node in self.guards.plan.nodes:
            gives_up = node.role == "wait" and node.arguments.get("soft_fail", False) is not False
            if gives_up or node.role == "stop":
                yield node, [frozenset((node.task_id,)), frozenset()]

    def _exceptions(self) -> Iterator[tuple[Node, list[frozenset[str]]]]:
        """Yield each step that runs only where others fail, or are skipped: it is skipped where all goes well."""
        for node in self.guards.plan.nodes:
            if self.guards.trigger_rules[node.task_id] in ("one_failed", "all_failed", "all_skipped"):
                yield node, [frozenset((node.task_id,)), frozenset()]

    @cached_property
    def owners(self) -> list[Node]:
        """The step that makes the choice of each bit; above the cases of each choice, one bit is free."""
        return [node for node, cases in self._choices for _ in range(len(cases) + 1)]

    @cached_property
    def _bounds(self) -> tuple[int, int]:
        """The lowest case of each choice, and the free bit above its cases: 1 added to all cases carries into it."""
        lowest = free = place = 0
        for _, cases in self._choices:
            lowest |= 1 << place
            place += len(cases) + 1
            free |= 1 << (place - 1)
        return lowest, free

    @cached_property
    def starts(self) -> Mapping[str, int]:
        """The cases in which each step is skipped whatever becomes of those that it waits for."""
        starts: dict[str, int] = {}
        place = 0
        for _, cases in self._choices:
            for index, skipped in enumerate(cases, place):
                for name in skipped:
                    starts[name] = starts.get(name, 0) | 1 << index
            place += len(cases) + 1
        return starts

    @cached_property
    def cases(self) -> Mapping[str, int]:
        """The cases in which each step is skipped for certain.

        One that waits for a single step may have begun when a branch that it waits for too would skip it.
        """
        rules, own = self.guards.trigger_rules, self.cases_by_owner
        starts = {
            name: cases & own.get(name, 0) if rules[name] in _EAGER else cases for name, cases in self.starts.items()
        }
        return halted_in(self.guards.upstream, rules, starts, skipped=True)

    @cached_property
    def cases_by_owner(self) -> Mapping[str, int]:
        """The cases of the choices that each step makes."""
        found: dict[str, int] = {}
        for place, node in enumerate(self.owners):
            found[node.task_id] = found.get(node.task_id, 0) | 1 << place
        return found

    def all_cases_of(self, cases: int) -> int:
        """Return the choices, as their free bits, of which `cases` has every case."""
        lowest, free = self._bounds
        return (cases + lowest) & free

    def exclude(self, one: Node, other: Node) -> bool:
        """Return whether some choice always skips one of two steps."""
        return bool(self.all_cases_of(self.cases[one.task_id] | self.cases[other.task_id]))

    def makers(self, cases: int) -> list[Node]:
        """Return the steps that make the choices of `cases`, each once."""
        return list({self.owners[place].task_id: self.owners[place] for place in bits_of(cases)}.values())
