"""From a plan to a DAG of `@task` functions. Only this module uses Airflow's authoring API."""

from __future__ import annotations

import dataclasses
import datetime as dt
import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from airflow.sdk import (
    DAG,
    AssetAll,
    AssetAny,
    CronDataIntervalTimetable,
    CronTriggerTimetable,
    DeltaDataIntervalTimetable,
    DeltaTriggerTimetable,
    Param,
    TaskGroup,
    get_current_context,
    task,
)

from factory.bridge import runtime
from factory.bridge.asking import answer_of, ask
from factory.bridge.asset_rules import asset_of
from factory.bridge.deadlines import deadlines
from factory.bridge.failures import fail, fail_filling, interrupt, skip
from factory.bridge.links import with_links
from factory.bridge.notifying import pipeline_callbacks, reason_kept, step_callbacks
from factory.bridge.poking import wait_for
from factory.bridge.rendering import PROBLEMS, FilledLater, Item, label, run_of
from factory.bridge.retrying import ByError
from factory.bridge.waiting import deferrable, wait
from factory.language.arguments import AssetSpec, RetryRule
from factory.language.params import for_form
from factory.language.reader import Airflow
from factory.language.schedules import AssetSchedule, Schedule, TimetableSchedule
from factory.language.spec import ParamSpec
from factory.language.templates import Template
from factory.planning.plan import GuardsBefore, Node, Plan
from factory.planning.project import ENVIRONMENT, find_root, load_project
from factory.registry import load_registry
from tasks.contract import Asking, NothingToDo, NotYet, Occupied, PermanentError, Run, TaskKind, TransientError

_TIMETABLES = {
    "CronDataIntervalTimetable": CronDataIntervalTimetable,
    "CronTriggerTimetable": CronTriggerTimetable,
    "DeltaDataIntervalTimetable": DeltaDataIntervalTimetable,
    "DeltaTriggerTimetable": DeltaTriggerTimetable,
}
_MAPPED = "with_"
_LABEL = "taskflow_item"
_LABELLED = "{{ " + _LABEL + " | default('', true) }}"
"""The one template that Airflow renders: it names the label that a mapped step gives itself."""


def build(plan: Plan) -> DAG:
    """Return the DAG of `plan`, without registering it anywhere."""
    dag = DAG(
        dag_id=plan.dag_id,
        schedule=_schedule(plan.schedule, plan.timezone),
        params={param.name: _param(param) for param in plan.params},
        default_args=_airflow(plan.default_args, plan.timezone),
        auto_register=False,
        **pipeline_callbacks(plan),
        **_documented(_airflow(plan.airflow, plan.timezone)),
        **deadlines(plan),
    )
    groups = _groups(plan, dag)
    built = {node.task_id: _operator(node, plan, dag, groups) for node in plan.nodes}
    for node in plan.nodes:
        if node.upstream:
            built[node.task_id].set_upstream([built[one] for one in node.upstream])
    for node in plan.nodes:
        _wait_for_items(node, dag, built)
    return dag


# --- what a worker runs -----------------------------------------------------------------------------------------


def execute(step: Mapping[str, Any]) -> dict[str, Any] | None:
    """Run a registered task with its arguments; `before` is what the plan puts before it."""
    context: Mapping[str, Any] = get_current_context()
    with reason_kept(context):
        return _executed(step, context)


def _executed(step: Mapping[str, Any], context: Mapping[str, Any]) -> dict[str, Any] | None:
    _require_filled(step)
    run, functions = _run(context), _functions(context)
    try:
        return runtime.call(step["uses"], step["arguments"], run, step.get("before", {}), functions)
    except Occupied as occupied:
        wait(occupied, run, context)
    except NothingToDo as nothing:
        skip(str(nothing), run)
    except Asking as asking:
        ask(asking, run, context)
    except NotYet as not_yet:
        wait_for(not_yet, step, run, functions, context)
    except PermanentError as error:
        _keep_output(error, context)
        fail(error, context)
    except TransientError as error:
        interrupt(error, context)


def execute_mapped(step: Mapping[str, Any], **mapped: Any) -> dict[str, Any] | None:
    """Run a registered task for one item of `expand`."""
    items = {name.removeprefix(_MAPPED): value for name, value in mapped.items() if name.startswith(_MAPPED)}
    context: Any = get_current_context()
    context[_LABEL] = label(items)
    return execute({**step, "arguments": {**step["arguments"], **items}})


def items(step: Mapping[str, Any]) -> list[Any]:
    """Return the list that a step is mapped over."""
    with reason_kept(get_current_context()):
        _require_filled(step)
        ((name, values),) = step["expand"].items()
        try:
            return runtime.items(step["uses"], name, values)
        except PermanentError as error:
            fail(error, get_current_context())


def choose(step: Mapping[str, Any]) -> list[str]:
    """Return the steps behind the first true condition."""
    with reason_kept(get_current_context()):
        _require_filled(step)
        try:
            return runtime.choose(step["exits"])
        except PermanentError as error:
            fail(error, get_current_context())


def _require_filled(step: Mapping[str, Any]) -> None:
    """Fail the task, without a retry, if a template in its values could not be filled in."""
    if problems := step.get(PROBLEMS):
        fail_filling(problems)


def _keep_output(error: PermanentError, context: Mapping[str, Any]) -> None:
    """Push what a gate found before it failed, to keep its links and counts visible."""
    output = runtime.as_json(getattr(error, "output", None))
    if output is not None:
        context["ti"].xcom_push("return_value", output)


def _functions(context: Mapping[str, Any]) -> frozenset[str]:
    """Return the SQL functions that the project allows; its files have been read with the spec."""
    root = find_root(Path(context["dag"].fileloc))
    return load_project(root, load_registry(), os.environ.get(ENVIRONMENT)).functions


def _run(context: Mapping[str, Any]) -> Run:
    fileloc = Path(context["dag"].fileloc)
    return dataclasses.replace(run_of(context), configs=find_root(fileloc) / "configs", answer=answer_of(context))


# Airflow reads signatures and type hints several times per task: caching them saves a third of the time to build a DAG.
for _function in (execute, choose, items):
    setattr(_function, "__signature__", inspect.signature(_function))  # noqa: B010  # mypy does not know the attribute
    _function.__annotations__ = {}


# --- how it is wired --------------------------------------------------------------------------------------------


def _operator(node: Node, plan: Plan, dag: DAG, groups: Mapping[str, TaskGroup]) -> Any:
    settings = _settings(node, plan, dag, groups)
    if node.is_branch:
        exits = {"exits": [_exit(way) for way in node.exits]}
        return task.branch(**settings)(choose)(step=FilledLater(node.task_id, exits, plan.params)).operator
    if node.expand:
        return _mapped(node, plan, settings)
    make = _KINDS[node.kind](node, settings, execute)
    return make(step=_given(node, plan)).operator


def _plain(node: Node, settings: dict[str, Any], function: Callable[..., Any]) -> Any:
    decorated: Any = task(**settings)(function)
    if node.links:
        decorated.operator_class = with_links(decorated.operator_class, node.links)
    return decorated


def _deferrable(node: Node, settings: dict[str, Any], function: Callable[..., Any]) -> Any:
    decorated = _plain(node, settings, function)
    decorated.operator_class = deferrable(decorated.operator_class)
    return decorated


_KINDS: Mapping[TaskKind, Callable[[Node, dict[str, Any], Callable[..., Any]], Any]] = {
    "plain": _plain,
    "deferrable": _deferrable,
}
"""How the `@task` function of a step is made, by the kind of its task."""


def _given(node: Node, plan: Plan) -> FilledLater:
    given = {"uses": node.uses, "arguments": node.arguments}
    before = plan.before.get(node.task_id)
    values = given if before is None else given | {"before": _as_values(before)}
    return FilledLater(node.task_id, values, plan.params)


def _as_values(before: GuardsBefore) -> dict[str, Any]:
    """Return what comes before a step, without what is empty."""
    gates = [
        {"task_id": gate.task_id, "table": gate.table, "suite": gate.suite}
        | ({"expand": list(gate.expand)} if gate.expand else {})
        for gate in before.gates
    ]
    values: dict[str, Any] = {
        "builds": dict(before.builds),
        "gates": gates,
        "claims": [list(one) for one in before.claims],
        "watched": sorted(before.watched),
        "loaded_once": sorted(before.loaded_once),
        "files": [{"path": written.path, "task_id": written.task_id} for written in before.files],
    }
    return {name: value for name, value in values.items() if value}


def _mapped(node: Node, plan: Plan, settings: dict[str, Any]) -> Any:
    """Map a step: Airflow maps over what a task returns, so a template that names a list gets a task of its own."""
    values = {_MAPPED + name: _items(name, value, node, plan, settings) for name, value in node.expand.items()}
    decorated = _KINDS[node.kind](node, {"map_index_template": _LABELLED, **settings}, execute_mapped)
    return decorated.partial(step=_given(node, plan)).expand(**values).operator


def _items(name: str, value: Any, node: Node, plan: Plan, settings: Mapping[str, Any]) -> Any:
    if not isinstance(value, Template):
        return [Item(one) for one in value]
    step = FilledLater(node.task_id, {"uses": node.uses, "expand": {name: value}}, plan.params)
    return task(**_items_settings(name, settings))(items)(step=step)


def _items_settings(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    place = {key: settings[key] for key in ("dag", "task_group") if key in settings}
    documentation = f"The values of {name} that {settings['task_id']} is mapped over."
    return {"task_id": f"{settings['task_id']}_{name}", "doc_md": documentation, **place}


def _wait_for_items(node: Node, dag: DAG, built: Mapping[str, Any]) -> None:
    for name, value in node.expand.items():
        if isinstance(value, Template):
            dag.get_task(f"{node.task_id}_{name}").set_upstream([built[one] for one in node.upstream])


def _exit(way: Any) -> dict[str, Any]:
    return {"then": list(way.then)} if way.when is None else {"if": way.when, "then": list(way.then)}


def _settings(node: Node, plan: Plan, dag: DAG, groups: Mapping[str, TaskGroup]) -> dict[str, Any]:
    group = groups[".".join(node.groups)] if node.groups else None
    own = {**_airflow(node.airflow, plan.timezone), **step_callbacks(node)}
    settings = {"task_id": node.task_id.rpartition(".")[2], "dag": dag, **own}
    if group is not None:
        settings["task_group"] = group
    if not any(name.startswith("doc") for name in settings):
        settings["doc_md"] = _documentation(node)
    return settings


def _documentation(node: Node) -> str:
    if node.is_branch:
        return "Follows the first condition that is true."
    return f"`{node.uses}`: {node.summary}"


def _documented(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return a DAG's arguments with documentation that Airflow does not take for the name of a file to open."""
    text = arguments.get("doc_md")
    return {**arguments, "doc_md": f"{text}\n"} if isinstance(text, str) and text.endswith(".md") else arguments


def _groups(plan: Plan, dag: DAG) -> dict[str, TaskGroup]:
    groups: dict[str, TaskGroup] = {}
    for group_id in plan.groups:
        parent, _, name = group_id.rpartition(".")
        groups[group_id] = TaskGroup(
            name, dag=dag, parent_group=groups.get(parent, dag.task_group), **_airflow(plan.groups[group_id], None)
        )
    return groups


def _airflow(arguments: Airflow, timezone: str | None) -> dict[str, Any]:
    given = ((name, value) for name, value in arguments.items() if name != "deadline")
    return {name: _value(value, timezone) for name, value in given}


def _value(value: Any, timezone: str | None) -> Any:
    if isinstance(value, dt.datetime):
        return value if value.tzinfo else value.replace(tzinfo=ZoneInfo(timezone or "UTC"))
    if isinstance(value, list):
        if rules := {one.error: one for one in value if isinstance(one, RetryRule)}:
            return ByError(rules)
        return [asset_of(one) if isinstance(one, AssetSpec) else one for one in value]
    return value


def _param(param: ParamSpec) -> Param:
    schema = for_form(param.schema)
    description = schema.pop("description", None)
    default: dict[str, Any] = {"default": param.default} if param.has_default else {}
    return Param(**default, description=description, **schema)


def _schedule(schedule: Schedule, timezone: str | None) -> Any:
    if isinstance(schedule, AssetSchedule):
        return _asset_expression(schedule)
    if isinstance(schedule, TimetableSchedule):
        return _timetable(schedule, timezone)
    return schedule


def _asset_expression(schedule: AssetSchedule) -> AssetAll | AssetAny:
    combine = AssetAll if schedule.combine == "all" else AssetAny
    return combine(
        *(_asset_expression(one) if isinstance(one, AssetSchedule) else asset_of(one) for one in schedule.assets)
    )


def _timetable(schedule: TimetableSchedule, timezone: str | None) -> Any:
    make: Callable[..., Any] = _TIMETABLES[schedule.name]
    arguments = dict(schedule.arguments)
    if schedule.name.startswith("Cron"):
        arguments.setdefault("timezone", timezone or "UTC")
    return make(**arguments)
