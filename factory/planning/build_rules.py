"""What must hold of the steps that build tables: no two fill one table, and no two runs wait for each other."""

from __future__ import annotations

from collections.abc import Iterator

from factory.language.errors import quoted_list
from factory.language.report import Report
from factory.language.templates import Template
from factory.planning.graph import bits_of
from factory.planning.guards import Guards
from factory.planning.plan import Node, Plan
from factory.planning.skips import Skips
from factory.registry import Registry


def contested_builds(plan: Plan, report: Report, registry: Registry) -> None:
    """Report a table that two items of a mapped step, or two steps at once, may build: each empties it first."""
    guards = Guards(plan, registry)
    builders = [node for node in plan.nodes if guards.builds(node)]
    for node in builders:
        if problem := _contest_of_items(node, guards):
            hint = "map over the tables, each once, with nothing else; or build the table in one step"
            report.add("contested-build", (*node.path, "expand"), problem, hint)
    skips = Skips(guards)
    for table in sorted({table for node in builders for table in guards.tables(node, "build")}):
        for one, other in _unordered(guards.builders(table), guards, skips):
            message = f'steps "{one.task_id}" and "{other.task_id}" may build {table} at the same time'
            report.add("contested-build", other.path, message, "let one of them need the other", key=True)


def _contest_of_items(node: Node, guards: Guards) -> str | None:
    """Return how two items of a mapped step may build the same table."""
    naming = guards.expanded_tables(node)
    several = [name for name, values in node.expand.items() if isinstance(values, Template) or len(values) > 1]
    for name in several:
        if name not in naming:
            built = quoted_list(sorted(guards.tables(node, "build"))) or "the same table"
            return f'step "{node.task_id}" would build {built} again for each item of {name}'
    for name, tables in naming.items():
        if tables is not None and (twice := sorted({table for table in tables if tables.count(table) > 1})):
            return f'step "{node.task_id}" builds {quoted_list(twice)} for more than one item of {name}'
    return None


def _unordered(builders: list[Node], guards: Guards, skips: Skips) -> Iterator[tuple[Node, Node]]:
    """Yield for each step another one that may run at the same time, in the same database."""
    before = 0
    for node in guards.in_order(builders):
        others = (guards.plan.nodes[place] for place in bits_of(before & ~guards.earlier(node)))
        if other := next((one for one in others if _same_database(one, node) and not skips.exclude(one, node)), None):
            yield other, node
        before |= 1 << guards.positions[node.task_id]


def _same_database(one: Node, other: Node) -> bool:
    """Return whether two steps may name the same database: the ids of their connections are equal, or not known yet."""
    ids = {one.arguments.get("connection"), other.arguments.get("connection")} - {None}
    return len(ids) < 2 or any(isinstance(connection, Template) for connection in ids)


def deadlocked_builds(plan: Plan, report: Report, registry: Registry) -> None:
    """Report steps that wait for an earlier run while their own run keeps tables that the earlier one has to wait for.

    A run claims its tables at its first build. A step that waits for the past must come before every build that does
    not need it, unless the step of the earlier run needs no build.
    """
    guards = Guards(plan, registry)
    waiting = [node for node in plan.nodes if _waits_for_the_past(node, plan)]
    if not waiting:
        return
    skips, builders = Skips(guards), [node for node in plan.nodes if guards.builds(node)]
    stuck = [node for node in waiting if _is_stuck(node, builders, guards, skips)]
    if stuck:
        names = quoted_list([node.task_id for node in stuck])
        setting = "depends_on_past or wait_for_downstream makes their run wait for an earlier one"
        message = f"{names}: {setting} when a build may have claimed its tables; if that is cleared, it waits for these"
        hint = "remove it there, or neither goes on; for runs in order, set it only on a step that every build needs"
        report.add("deadlocked-build", stuck[0].path, message, hint, key=True)


def _waits_for_the_past(node: Node, plan: Plan) -> bool:
    return any(_setting(node, plan, name) for name in ("depends_on_past", "wait_for_downstream"))


def _setting(node: Node, plan: Plan, name: str) -> bool:
    return bool(node.airflow.get(name, plan.default_args.get(name, False)))


def _is_stuck(node: Node, builders: list[Node], guards: Guards, skips: Skips) -> bool:
    waits_for = [node]
    if _setting(node, guards.plan, "wait_for_downstream"):
        waits_for += [one for one in guards.plan.nodes if node.task_id in guards.upstream[one.task_id]]
    needs_a_build = any(one is build or guards.is_earlier(build, one) for one in waits_for for build in builders)
    return needs_a_build and any(
        build is not node and not guards.is_earlier(node, build) and not skips.exclude(node, build)
        for build in builders
    )
