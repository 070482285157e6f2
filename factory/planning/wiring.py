"""Edges between tasks: an edge to a group leads to its first tasks, one from a group starts at its last tasks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from factory.planning.plan import Node

MAX_EDGES = 100_000
"""The maximum number of edges; a group of 300 first tasks that needs one of 300 last tasks has 90,000."""

_WITHIN = 1_000
"""A depth below every group: of a name that leads from a task to a group around it."""


class TooManyEdges(Exception):
    """The tasks of a plan would have more edges than Airflow can show; `count` is their number."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.count = count


def linked(nodes: tuple[Node, ...], group_needs: Mapping[str, tuple[str, ...]]) -> tuple[Node, ...]:
    """Return `nodes` with edges between tasks only: groups are replaced by their first or last tasks.

    Raise TooManyEdges if every first task of a group would wait for too many last tasks of another.
    """
    links = _Links(nodes, group_needs)
    if len(nodes) ** 2 > MAX_EDGES and (count := links.edges()) > MAX_EDGES:
        raise TooManyEdges(count)
    return links.linked()


@dataclass(frozen=True)
class _Links:
    """Names are those of tasks and groups. A task, or a group around it, waits for names: its `needs` and branches."""

    nodes: tuple[Node, ...]
    group_needs: Mapping[str, tuple[str, ...]]

    def linked(self) -> tuple[Node, ...]:
        exits = {
            node.task_id: tuple(replace(one, then=self.first_tasks(one.then)) for one in node.exits)
            for node in self.nodes
        }
        led_to: dict[str, set[str]] = {}
        for branch, ways in exits.items():
            for target in {target for way in ways for target in way.then}:
                led_to.setdefault(target, set()).add(branch)
        return tuple(
            replace(
                node,
                exits=exits[node.task_id],
                upstream=tuple(sorted(self.upstream(node) | led_to.get(node.task_id, set()))),
            )
            for node in self.nodes
        )

    def edges(self) -> int:
        """Return how many edges there are at most."""
        needed = sum(len(self.last_tasks(name)) for node in self.nodes for name in self.needed(node))
        led = sum(len(self.heads.get(name, ())) or 1 for node in self.nodes for way in node.exits for name in way.then)
        return needed + led

    def upstream(self, node: Node) -> set[str]:
        return {task for name in self.needed(node) for task in self.last_tasks(name)}

    def needed(self, node: Node) -> set[str]:
        """Return the names that a task waits for, with those of the groups that it begins."""
        begun = (group for depth, group in enumerate(self.around(node), 1) if depth > self.waits_at[node.task_id])
        return set(node.upstream).union(*(self.group_needs.get(group, ()) for group in begun))

    def first_tasks(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Return the tasks that begin each of `names`."""
        return tuple(
            task for name in names for task in (self.heads.get(name, ()) if name in self.group_needs else (name,))
        )

    def last_tasks(self, name: str) -> list[str]:
        """Return the tasks that end `name`."""
        return self.tails.get(name, []) if name in self.group_needs else [name]

    @cached_property
    def heads(self) -> Mapping[str, list[str]]:
        """The tasks that begin each group: they wait for nothing inside it."""
        return self.by_group(self.waits_at)

    @cached_property
    def tails(self) -> Mapping[str, list[str]]:
        """The tasks that end each group: nothing inside it waits for them."""
        return self.by_group(self.waited_for_at)

    def by_group(self, depths: Mapping[str, int]) -> Mapping[str, list[str]]:
        found: dict[str, list[str]] = {}
        for node in self.nodes:
            for depth, group in enumerate(self.around(node), 1):
                if depth > depths[node.task_id]:
                    found.setdefault(group, []).append(node.task_id)
        return found

    @cached_property
    def waits_at(self) -> Mapping[str, int]:
        """The depth of the innermost group in which each task waits for another; 0 if it does so in none."""
        return {
            node.task_id: max(
                (_shared(node.task_id, name) for one in self.whole(node) for name in self.waits.get(one, ())), default=0
            )
            for node in self.nodes
        }

    @cached_property
    def waited_for_at(self) -> Mapping[str, int]:
        """The depth of the innermost group in which another task waits for each task; 0 if none does."""
        depths: dict[str, int] = {}
        for node in self.nodes:
            for one in self.whole(node):
                for name in self.waits.get(one, ()):
                    depths[name] = max(depths.get(name, 0), _shared(node.task_id, name))
        return {node.task_id: max((depths.get(name, 0) for name in self.whole(node)), default=0) for node in self.nodes}

    @cached_property
    def waits(self) -> Mapping[str, set[str]]:
        """The names that each name waits for: its needs, and the branches that lead to it."""
        found = {name: set(needs) for name, needs in self.group_needs.items()}
        for node in self.nodes:
            found.setdefault(node.task_id, set()).update(node.upstream)
            for name in (name for way in node.exits for name in way.then):
                found.setdefault(name, set()).add(node.task_id)
        return found

    def around(self, node: Node) -> Iterator[str]:
        """Yield the groups around a task, the outermost first."""
        return (".".join(node.groups[:depth]) for depth in range(1, len(node.groups) + 1))

    def whole(self, node: Node) -> Iterator[str]:
        """Yield the groups around a task, and the task."""
        yield from self.around(node)
        yield node.task_id


def _shared(task_id: str, name: str) -> int:
    """Return how many groups a task and a name have in common; all, if the name is the task or a group around it."""
    if task_id == name or task_id.startswith(f"{name}."):
        return _WITHIN
    depth = 0
    for one, other in zip(task_id.split(".")[:-1], name.split(".")[:-1], strict=False):
        if one != other:
            break
        depth += 1
    return depth
