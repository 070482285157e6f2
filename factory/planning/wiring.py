"""Edges between tasks: an edge to a group leads to its first tasks, one from a group starts at its last tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from factory.planning.plan import Node


def linked(nodes: tuple[Node, ...], group_needs: Mapping[str, tuple[str, ...]]) -> tuple[Node, ...]:
    """Return `nodes` with edges between tasks only: groups are replaced by their first or last tasks."""
    return _Links(nodes, group_needs).linked()


@dataclass(frozen=True)
class _Links:
    nodes: tuple[Node, ...]
    group_needs: Mapping[str, tuple[str, ...]]

    def linked(self) -> tuple[Node, ...]:
        exits = {
            node.task_id: tuple(replace(one, then=self.heads(one.then)) for one in node.exits) for node in self.nodes
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

    def upstream(self, node: Node) -> set[str]:
        names = set(node.upstream)
        for depth in range(1, len(node.groups) + 1):
            group = ".".join(node.groups[:depth])
            if node.task_id in self.heads((group,)):
                names.update(self.group_needs.get(group, ()))
        return {task for name in names for task in self.tails(name)}

    def members(self, name: str) -> list[Node]:
        return [node for node in self.nodes if node.task_id == name or node.task_id.startswith(f"{name}.")]

    def heads(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Return the tasks that begin each of `names`."""
        return tuple(task for name in names for task in self.heads_of(name))

    def heads_of(self, name: str) -> list[str]:
        if name not in self.group_needs:
            return [name]
        return [node.task_id for node in self.members(name) if not self.waits_inside(node, name)]

    def tails(self, name: str) -> set[str]:
        """Return the tasks that end `name`."""
        if name not in self.group_needs:
            return {name}
        inside = self.members(name)
        return {node.task_id for node in inside if not any(self.waits_for(other, node) for other in inside)}

    def waits_inside(self, node: Node, group: str) -> bool:
        return any(self.waits_for(node, other) for other in self.members(group))

    def waits_for(self, node: Node, other: Node) -> bool:
        groups = (".".join(node.groups[:depth]) for depth in range(1, len(node.groups) + 1))
        needed = [*node.upstream, *(name for group in groups for name in self.group_needs.get(group, ()))]
        named = [*needed] + [
            node.task_id for way in other.exits if any(_covers(name, node.task_id) for name in way.then)
        ]
        return any(_covers(name, other.task_id) for name in needed) or node.task_id in named


def _covers(name: str, task_id: str) -> bool:
    return task_id == name or task_id.startswith(f"{name}.")
