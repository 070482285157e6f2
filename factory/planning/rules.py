"""The rules for a plan as a whole. Each is a function; `RULES` lists them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial, reduce
from operator import or_

from factory.language.errors import did_you_mean, quoted_list
from factory.language.report import Report
from factory.planning.build_rules import contested_builds, deadlocked_builds
from factory.planning.carried_columns import uncarried_columns
from factory.planning.dag_rules import refused_dags
from factory.planning.graph import cycle
from factory.planning.guards import Guards
from factory.planning.load_rules import too_many_pairs, unjudged_arrivals, unproven_loads, unseen_failures
from factory.planning.plan import Node, Plan
from factory.planning.skips import Skips
from factory.planning.sql_files import columns_of
from factory.planning.values import texts
from factory.registry import Registry
from tasks.contract import Role

Rule = Callable[[Plan, Report, Registry], None]


def check(plan: Plan, report: Report, registry: Registry) -> None:
    """Check `plan` by every rule: without a cycle, those on order; without any error, those on builds and tidiness."""
    if has_cycle(plan, report, registry):
        return
    for rule in RULES:
        rule(plan, report, registry)
    if not report.has_errors:
        for rule in LATER_RULES:
            rule(plan, report, registry)


def has_cycle(plan: Plan, report: Report, registry: Registry) -> bool:
    """Report steps that wait for each other."""
    ring = cycle(Guards(plan, registry).upstream)
    if ring is None:
        return False
    shown = " -> ".join([*ring, ring[0]])
    report.add(
        "cycle",
        plan.node(ring[0]).path,
        f"these steps wait for each other: {shown}",
        "remove one of their needs or references",
        key=True,
    )
    return True


@dataclass(frozen=True, slots=True)
class Guard:
    """A role whose steps may run only after a step of another role has passed."""

    guarded: Role
    guard: Role
    code: str
    does: str
    example: str


GUARDS = (
    Guard("load", "gate", "ungated-load", "could load data although no gate has passed", "quality.validate"),
    Guard(
        "promote",
        "evaluate",
        "unevaluated-promotion",
        "could promote a model that nothing has evaluated",
        "models.evaluate",
    ),
)


def unguarded_steps(plan: Plan, report: Report, registry: Registry) -> None:
    """Report a load that could run although no gate has passed, and a promotion that nothing has evaluated."""
    guards = Guards(plan, registry)
    for rule in GUARDS:
        names = [node.task_id for node in plan.nodes if node.role == rule.guard]
        for node in (node for node in plan.nodes if node.role == rule.guarded):
            if not guards.count_before(node, rule.guard):
                message = f'step "{node.task_id}" ({node.uses}) {rule.does}'
                report.add(rule.code, node.path, message, partial(_guard_hint, rule, names, node), key=True)


def _guard_hint(rule: Guard, guards: list[str], node: Node) -> str:
    if not guards:
        return f'add a step that uses {rule.example}, and make "{node.task_id}" need it'
    which = quoted_list(guards) if len(guards) == 1 else f"one of {quoted_list(guards)}"
    return f"make it need {which}, with no trigger_rule in between that lets it run after a failure or a skip"


def skipped_joins(plan: Plan, report: Report, registry: Registry) -> None:
    """Report a step that every arm of a branch skips: it waits for several of them, or for the branch but on no arm.

    A branch skips every step that waits for it and that the chosen arm does not lead to, whatever its trigger_rule.
    """
    if not any(node.is_branch for node in plan.nodes):
        return
    guards = Guards(plan, registry)
    skips = Skips(guards)
    never = {name: skips.all_cases_of(cases) for name, cases in skips.cases.items()}
    for node in plan.nodes:
        waits = reduce(or_, (never[name] for name in guards.upstream[node.task_id]), 0)
        for branch in skips.makers(never[node.task_id] & ~waits):
            if branch.task_id in node.upstream and not any(node.task_id in way.then for way in branch.exits):
                why = f'it needs the branch "{branch.task_id}", of which no arm leads to it'
                hint = "name it in an arm, or let it need the steps that the branch leads to"
            else:
                why = f'it waits for several arms of the branch "{branch.task_id}", but only one of them runs'
                hint = "set trigger_rule: none_failed_min_one_success on it"
            message = f'step "{node.task_id}" is always skipped: {why}'
            report.add("skipped-join", node.path, message, hint, key=True)


def unknown_columns(plan: Plan, report: Report, registry: Registry) -> None:
    """Report a column that a file or a query does not have, if its SQL says which it has."""
    known = dict(_made_files(plan, registry))
    for node in (node for node in plan.nodes if node.uses in registry):
        for path, text in texts(node.arguments):
            kind = registry[node.uses].kind_at(path)
            for name in kind.of.split() if kind and kind.name == "column" else ():
                made = _made(node, name, known, plan, registry)
                if made and made.columns and text not in made.columns:
                    message = f'step "{node.task_id}": configs/sql/{made.sql} does not return a column "{text}"'
                    hint = partial(did_you_mean, text, made.columns, f"columns of {made.sql}")
                    report.add("unknown-column", (*node.path, "with", *path), message, hint)


@dataclass(frozen=True, slots=True)
class Made:
    """Rows that a query makes, with its file."""

    sql: str
    columns: frozenset[str]


def _made(node: Node, argument: str, known: Mapping[str, Made], plan: Plan, registry: Registry) -> Made | None:
    """Return what an argument names: a file that a step of the pipeline makes from a query, or a query itself."""
    given = node.arguments.get(argument)
    if not isinstance(given, Mapping):
        return known.get(str(given))
    for name, text in given.items():
        kind = registry[node.uses].kind_at((argument, name))
        if kind and kind.name == "sql_file" and isinstance(text, str):
            return Made(text, columns_of(plan.root / "configs" / "sql", text, kind))
    return known.get(str(given.get("file")))


def _made_files(plan: Plan, registry: Registry) -> Iterator[tuple[str, Made]]:
    for node in (node for node in plan.nodes if node.uses in registry):
        definition = registry[node.uses]
        for path, text in texts(node.arguments):
            kind = definition.kind_at(path)
            sql = node.arguments.get(kind.of) if kind and kind.name == "file" and kind.of else None
            if isinstance(sql, str) and kind and (source := definition.kind_at((kind.of,))):
                yield text, Made(sql, columns_of(plan.root / "configs" / "sql", sql, source))


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


def unset_params(plan: Plan, report: Report, _registry: Registry) -> None:
    """Report a param without a default: nobody fills in the form of a scheduled run."""
    for param in plan.params:
        if not param.has_default and plan.schedule is not None:
            report.add(
                "param-without-default",
                param.path,
                f'param "{param.name}" has no default, so a scheduled run cannot start',
                "give it a default, or set schedule: null",
                key=True,
            )


def unstarted_schedules(plan: Plan, report: Report, _registry: Registry) -> None:
    """Report what Airflow takes from a start_date, where there is none: dates to catch up from, and the time zone."""
    if "start_date" in plan.airflow or "start_date" in plan.default_args:
        return
    if plan.schedule is not None and plan.airflow.get("catchup"):
        message = "catchup needs a start_date to start from"
        report.add("no-start-date", ("catchup",), message, "add start_date: 2026-01-01")
    if plan.timezone is not None:
        message = "the timezone has no effect without a start_date: Airflow takes it from there"
        report.add("no-start-date", ("timezone",), message, "add start_date: 2026-01-01")


RULES: tuple[Rule, ...] = (
    unguarded_steps,
    unproven_loads,
    unjudged_arrivals,
    too_many_pairs,
    unseen_failures,
    unknown_columns,
    uncarried_columns,
    skipped_joins,
    unset_params,
    unstarted_schedules,
    refused_dags,
)
LATER_RULES: tuple[Rule, ...] = (contested_builds, deadlocked_builds, unused_params, unused_suites)


def same_dag_id(plans: Iterable[tuple[Plan, Report]]) -> None:
    """Report every spec whose dag_id is used by an earlier spec."""
    first: dict[str, str] = {}
    for plan, report in plans:
        other = first.setdefault(plan.dag_id, plan.file)
        if other != plan.file:
            report_taken(plan, report, other)


def report_taken(plan: Plan, report: Report, other: str) -> None:
    """Report that another spec has the dag_id of `plan`."""
    message = f'the dag_id "{plan.dag_id}" is taken by {other}'
    report.add("duplicate-dag-id", ("dag_id",), message, "give each pipeline its own dag_id")
