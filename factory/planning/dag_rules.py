"""What Airflow refuses in a DAG as a whole: it would raise where the DAG is built, and name no line.

Knows Airflow's rules, not Airflow.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

from factory.language.arguments import AssetSpec
from factory.language.errors import Path
from factory.language.report import Report
from factory.language.schedules import AssetSchedule
from factory.planning.plan import Plan
from factory.registry import Registry

MAX_TAG = 100
MAX_ASSET = 1500
_AIRFLOWS_OWN = "airflow:"


def refused_dags(plan: Plan, report: Report, _registry: Registry) -> None:
    """Report arguments of the DAG that do not go with each other, and names that are too long for Airflow."""
    refusals = (_long_tags, _run_types, _continuous, _ended, _fail_fast)
    for path, message, hint in (refusal for refuse in refusals for refusal in refuse(plan)):
        report.add("wrong-value", path, message, hint)
    for path, asset in _assets(plan):
        if problem := _asset_problem(asset):
            report.add("wrong-value", path, problem, "use another name or URI")


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


def _assets(plan: Plan) -> Iterator[tuple[Path, AssetSpec]]:
    if isinstance(plan.schedule, AssetSchedule):
        for asset in _scheduled(plan.schedule):
            yield ("schedule",), asset
    named = [(("default_args",), plan.default_args), *((node.path, node.airflow) for node in plan.nodes)]
    for path, airflow in named:
        for name in ("inlets", "outlets"):
            assets = airflow.get(name)
            for one in assets if isinstance(assets, list) else ():
                if isinstance(one, AssetSpec):
                    yield (*path, name), one


def _scheduled(schedule: AssetSchedule) -> Iterator[AssetSpec]:
    for asset in schedule.assets:
        if isinstance(asset, AssetSchedule):
            yield from _scheduled(asset)
        else:
            yield asset


def _asset_problem(asset: AssetSpec) -> str | None:
    """Return why Airflow refuses an asset; without a URI, its name is its URI."""
    uri = asset.uri or asset.name
    longest = max(len(asset.name), len(uri))
    if longest > MAX_ASSET:
        return f"an asset has a name or URI of {longest} characters; Airflow allows {MAX_ASSET}"
    if uri.lower().startswith(_AIRFLOWS_OWN):
        return f"the asset {uri} has a URI of Airflow's own"
    return None
