"""What Airflow refuses in a DAG as a whole: it would raise where the DAG is built, and name no line.

Knows Airflow's rules, not Airflow.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

from factory.language.arguments import AssetSpec, RetryRule
from factory.language.assets import asset_problems
from factory.language.document import Value, value_at
from factory.language.errors import Path
from factory.language.notices import ON_DEADLINE
from factory.language.reader import Airflow
from factory.language.report import Report
from factory.language.schedules import AssetSchedule
from factory.language.templates import Template
from factory.planning.plan import Plan
from factory.registry import Registry

MAX_TAG = 100


def refused_dags(plan: Plan, report: Report, _registry: Registry) -> None:
    """Report arguments of the DAG that do not go with each other, and names that are too long for Airflow."""
    refusals = (_long_tags, _run_types, _continuous, _ended, _fail_fast, _mapped_always, _retries)
    for path, message, hint in (refusal for refuse in refusals for refusal in refuse(plan)):
        report.add("wrong-value", path, message, hint)
    for path, message, hint in _untold_deadlines(plan, report.document.value):
        report.add("wrong-value", path, message, hint)
    for path, asset in assets_of(plan, report.document.value):
        for problem in asset_problems(asset):
            report.add("wrong-value", path, *problem)


Refusal = tuple[Path, str, str]


def _long_tags(plan: Plan) -> Iterator[Refusal]:
    tags = plan.airflow.get("tags")
    longest = max((tag for tag in tags if isinstance(tag, str)), key=len, default="") if isinstance(tags, list) else ""
    if len(longest) > MAX_TAG:
        yield ("tags",), f"a tag has {len(longest)} characters", f"Airflow allows {MAX_TAG}: use a shorter tag"


def _run_types(plan: Plan) -> Iterator[Refusal]:
    allowed = plan.airflow.get("allowed_run_types")
    needed = "scheduled"
    if plan.schedule is None:
        needed = "manual"
    elif isinstance(plan.schedule, AssetSchedule):
        needed = "asset_triggered"
    if isinstance(allowed, list) and allowed and needed not in allowed:
        yield (
            ("allowed_run_types",),
            f'allowed_run_types does not have "{needed}"',
            "the schedule makes such runs: add it",
        )


def _continuous(plan: Plan) -> Iterator[Refusal]:
    if plan.schedule == "@continuous" and plan.airflow.get("max_active_runs") != 1:
        yield ("schedule",), "@continuous starts a run when the one before has ended", "add max_active_runs: 1"


def _ended(plan: Plan) -> Iterator[Refusal]:
    start, end = plan.airflow.get("start_date"), plan.airflow.get("end_date")
    if isinstance(start, dt.datetime) and isinstance(end, dt.datetime) and end.date() < start.date():
        message = f"end_date {end.date()} is before start_date {start.date()}, so the pipeline would never run"
        yield ("end_date",), message, "correct one of them"


def _fail_fast(plan: Plan) -> Iterator[Refusal]:
    if plan.airflow.get("fail_fast") is not True:
        return
    default = str(plan.default_args.get("trigger_rule", "all_success"))
    for node in plan.nodes:
        rule = str(node.airflow.get("trigger_rule", default))
        if rule != "all_success":
            path = (*node.path, "trigger_rule") if "trigger_rule" in node.airflow else ("fail_fast",)
            message = f'step "{node.task_id}" has trigger_rule {rule}, which fail_fast forbids'
            yield path, message, "remove one of the two"


def _mapped_always(plan: Plan) -> Iterator[Refusal]:
    default = str(plan.default_args.get("trigger_rule", "all_success"))
    for node in plan.nodes:
        rule = str(node.airflow.get("trigger_rule", default))
        if rule == "always" and any(isinstance(value, Template) for value in node.expand.values()):
            path = (*node.path, "trigger_rule" if "trigger_rule" in node.airflow else "expand")
            message = f'step "{node.task_id}" has trigger_rule always, but waits for the list that it is mapped over'
            yield path, message, "use all_done"


def _retries(plan: Plan) -> Iterator[Refusal]:
    """Yield each kind of error after which a step should be retried more often than Airflow retries it at all."""
    default = plan.default_args.get("retries", 0)
    for path, airflow in _task_arguments(plan):
        most, rules = airflow.get("retries", default), airflow.get("retry_policy")
        for rule in rules if isinstance(rules, list) else ():
            if isinstance(rule, RetryRule) and rule.retries and isinstance(most, int) and rule.retries > most:
                message = f"after the error {rule.error} a step is retried {most} times at most, not {rule.retries}"
                place = (*path, "retry_policy", rule.error, "retries")
                yield place, message, f"set retries: {rule.retries} beside it"


def _untold_deadlines(plan: Plan, document: Value) -> Iterator[Refusal]:
    """Yield what should be told of a deadline that neither the pipeline nor the step has."""
    notify = document.get("notify") if isinstance(document, dict) else None
    deadlines = [plan.airflow.get("deadline"), *(node.deadline for node in plan.nodes)]
    if isinstance(notify, dict) and ON_DEADLINE in notify and not any(deadlines):
        yield ("notify", ON_DEADLINE), "neither the pipeline nor a step has a deadline to tell of", "add deadline: 2h"
    for node in plan.nodes:
        if ON_DEADLINE in node.notify and node.deadline is None:
            message = f'step "{node.task_id}" has no deadline to tell of'
            yield (*node.path, "notify", ON_DEADLINE), message, "add deadline: 1h to it"


def assets_of(plan: Plan, document: Value) -> Iterator[tuple[Path, AssetSpec]]:
    """Yield the assets of a plan, each with its path in `document`."""
    if isinstance(plan.schedule, AssetSchedule):
        path: Path = ("schedule", "assets")
        yield from _scheduled(plan.schedule, value_at(document, path), path)
    for path, airflow in _task_arguments(plan):
        for name in ("inlets", "outlets"):
            assets = airflow.get(name)
            for index, one in enumerate(assets if isinstance(assets, list) else ()):
                if isinstance(one, AssetSpec):
                    yield (*path, name, index), one


def _task_arguments(plan: Plan) -> Iterator[tuple[Path, Airflow]]:
    """Yield where a spec gives arguments of tasks, with those."""
    yield ("default_args",), plan.default_args
    yield from ((node.path, node.airflow) for node in plan.nodes)


def _scheduled(schedule: AssetSchedule, written: Value, path: Path) -> Iterator[tuple[Path, AssetSpec]]:
    """Yield the assets of a schedule, written as a list, one asset, or `{any: …}` or `{all: …}` around them."""
    if isinstance(written, dict) and schedule.combine in written:
        written, path = written[schedule.combine], (*path, schedule.combine)
    for index, asset in enumerate(schedule.assets):
        if isinstance(asset, AssetSchedule):
            yield from _scheduled(asset, written[index] if isinstance(written, list) else None, (*path, index))
        else:
            yield (*path, index), asset
