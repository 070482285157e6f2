"""What must hold of a plan as a whole. Each rule is a function; `RULES` is the list of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from factory.language.errors import did_you_mean, errors_of, quoted_list
from factory.language.report import Report
from factory.planning.graph import Edges, cycle, stopped
from factory.planning.plan import Node, Plan
from factory.planning.sql_columns import columns_of
from factory.planning.values import texts
from factory.registry import Registry
from tasks.contract import Role

Rule = Callable[[Plan, Report, Registry], None]


def check(plan: Plan, report: Report, registry: Registry) -> None:
    """Judge `plan` by every rule: those on order where it has one, those on tidiness where nothing else is wrong."""
    if has_cycle(plan, report):
        return
    for rule in RULES:
        rule(plan, report, registry)
    if not errors_of(report.diagnostics):
        for rule in TIDY_RULES:
            rule(plan, report, registry)


def has_cycle(plan: Plan, report: Report) -> bool:
    """Report steps that wait for one another."""
    ring = cycle(_upstream(plan))
    if ring is None:
        return False
    shown = " -> ".join([*ring, ring[0]])
    report.add(
        "cycle",
        plan.node(ring[0]).path,
        f"these steps wait for one another: {shown}",
        "remove one of their needs or references",
        key=True,
    )
    return True


@dataclass(frozen=True, slots=True)
class Guard:
    """A role whose steps may only run when a step of another role has passed."""

    guarded: Role
    guard: Role
    code: str
    does: str
    example: str


GUARDS = (
    Guard("load", "gate", "ungated-load", "loads data that no gate has passed", "quality.validate"),
    Guard("promote", "evaluate", "unevaluated-promotion", "promotes what nothing has evaluated", "models.evaluate"),
)


def unguarded_steps(plan: Plan, report: Report, _registry: Registry) -> None:
    """Report a load that may run although no gate has passed, and a promotion that nothing has evaluated."""
    upstream, rules = _upstream(plan), _trigger_rules(plan)
    for rule in GUARDS:
        guards = [node.task_id for node in plan.nodes if node.role == rule.guard]
        for node in (node for node in plan.nodes if node.role == rule.guarded):
            if not any(_guards(guard, node.task_id, upstream, rules) for guard in guards):
                message = f'step "{node.task_id}" ({node.uses}) {rule.does}'
                report.add(rule.code, node.path, message, _guard_hint(rule, guards, node), key=True)


def _guards(guard: str, guarded: str, upstream: Edges, rules: Mapping[str, str]) -> bool:
    return all(guarded in stopped(upstream, rules, [guard], skipped=skipped) for skipped in (False, True))


def _guard_hint(rule: Guard, guards: list[str], node: Node) -> str:
    if not guards:
        return f'add a step that uses {rule.example}, and let "{node.task_id}" need it'
    which = quoted_list(guards) if len(guards) == 1 else f"one of {quoted_list(guards)}"
    return f"let it need {which}, with no trigger_rule between that lets it run after a failure or a skip"


def skipped_joins(plan: Plan, report: Report, _registry: Registry) -> None:
    """Report a step that joins the ways of a branch and asks for the success of all of them."""
    upstream, rules = _upstream(plan), _trigger_rules(plan)
    for branch in (node for node in plan.nodes if node.is_branch):
        never = _never_run(branch, upstream, rules)
        for node in (
            node for node in plan.nodes if node.task_id in never and not never.intersection(upstream[node.task_id])
        ):
            ways = f'ways of the branch "{branch.task_id}" that exclude one another'
            message = f'step "{node.task_id}" is always skipped: it waits for {ways}'
            report.add(
                "skipped-join", node.path, message, "set trigger_rule: none_failed_min_one_success on it", key=True
            )


def _never_run(branch: Node, upstream: Edges, rules: Mapping[str, str]) -> set[str]:
    targets = {target for way in branch.exits for target in way.then}
    outcomes = [stopped(upstream, rules, targets - set(way.then), skipped=True) for way in branch.exits]
    return set.intersection(*outcomes) if outcomes else set()


def unknown_columns(plan: Plan, report: Report, registry: Registry) -> None:
    """Report a column that a file does not have, where a step of this pipeline makes the file of a query."""
    known = dict(_made_files(plan, registry))
    for node in (node for node in plan.nodes if node.uses in registry):
        for path, text in texts(node.arguments):
            kind = registry[node.uses].kind_at(path)
            made = known.get(str(node.arguments.get(kind.of))) if kind and kind.name == "column" else None
            if made and made.columns and text not in made.columns:
                message = f'step "{node.task_id}": configs/sql/{made.sql} gives no column "{text}"'
                hint = did_you_mean(text, made.columns, f"columns of {made.sql}")
                report.add("unknown-column", (*node.path, "with", *path), message, hint)


@dataclass(frozen=True, slots=True)
class MadeFile:
    """A file of the pipeline, with the SQL that it is the result of."""

    sql: str
    columns: frozenset[str]


def _made_files(plan: Plan, registry: Registry) -> Iterator[tuple[str, MadeFile]]:
    for node in (node for node in plan.nodes if node.uses in registry):
        for path, text in texts(node.arguments):
            kind = registry[node.uses].kind_at(path)
            sql = node.arguments.get(kind.of) if kind and kind.name == "file" and kind.of else None
            if isinstance(sql, str):
                yield text, MadeFile(sql, columns_of(plan.root / "configs" / "sql" / sql))


def unused_params(plan: Plan, report: Report, _registry: Registry) -> None:
    """Report a param that nothing refers to."""
    used = {name for node in plan.nodes for name in node.params}
    for param in plan.params:
        if param.name not in used:
            report.add(
                "unused-param",
                param.path,
                f'nothing uses the param "{param.name}"',
                f'refer to it as "{{{{ params.{param.name} }}}}", or remove it',
                key=True,
            )


def unused_suites(plan: Plan, report: Report, _registry: Registry) -> None:
    """Report a suite that no step names."""
    used = {name for node in plan.nodes for name in node.suites}
    for name, path in plan.suites.items():
        if name not in used:
            hint = f"name it in a gate: with: {{suite: {name}}}"
            report.add("unused-suite", path, f'no step uses the suite "{name}"', hint, key=True)


def suites_used_twice(plan: Plan, report: Report, _registry: Registry) -> None:
    """Report a suite that two steps of a run would record: the second would replace what the first set aside."""
    users: dict[str, Node] = {}
    for node in plan.nodes:
        for suite in node.suites:
            first = users.setdefault(suite, node)
            if first is not node or node.expand:
                who = "a mapped step" if first is node else f'step "{first.task_id}" too'
                message = f'the suite "{suite}" is used by {who}: its record and rejects are kept once for each run'
                report.add(
                    "suite-used-twice", (*node.path, "with"), message, "give each use a suite of its own", key=True
                )


def unset_params(plan: Plan, report: Report, _registry: Registry) -> None:
    """Report a param without default: a scheduled run has nobody to fill in its form."""
    for param in plan.params:
        if not param.has_default and plan.schedule is not None:
            report.add(
                "param-without-default",
                param.path,
                f'param "{param.name}" has no default, so a scheduled run cannot start',
                "give it a default, or schedule: null",
                key=True,
            )


def unstarted_schedules(plan: Plan, report: Report, _registry: Registry) -> None:
    """Report a schedule that has no date to count from."""
    if isinstance(plan.schedule, str) and "start_date" not in plan.airflow and plan.airflow.get("catchup"):
        report.add(
            "no-start-date", ("catchup",), "catchup has no start_date to begin with", "add start_date: 2026-01-01"
        )


RULES: tuple[Rule, ...] = (
    unguarded_steps,
    unknown_columns,
    skipped_joins,
    suites_used_twice,
    unset_params,
    unstarted_schedules,
)
TIDY_RULES: tuple[Rule, ...] = (unused_params, unused_suites)


def same_dag_id(plans: Iterable[tuple[Plan, Report]]) -> None:
    """Report every spec whose dag_id another spec has taken."""
    first: dict[str, str] = {}
    for plan, report in plans:
        other = first.setdefault(plan.dag_id, plan.file)
        if other != plan.file:
            report.add(
                "duplicate-dag-id",
                ("dag_id",),
                f'the dag_id "{plan.dag_id}" is taken by {other}',
                "give each pipeline a dag_id of its own",
            )


def _upstream(plan: Plan) -> dict[str, tuple[str, ...]]:
    known = {node.task_id for node in plan.nodes}
    return {node.task_id: tuple(one for one in node.upstream if one in known) for node in plan.nodes}


def _trigger_rules(plan: Plan) -> dict[str, str]:
    default = str(plan.default_args.get("trigger_rule", "all_success"))
    return {node.task_id: str(node.airflow.get("trigger_rule", default)) for node in plan.nodes}
