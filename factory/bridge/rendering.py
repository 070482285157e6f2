"""How a worker renders a template: in a sandbox with plain values and none of Airflow's objects."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from jinja2 import Environment, StrictUndefined, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from factory.bridge.deployment import deployment, is_local
from factory.bridge.waiting import is_running
from factory.language.templates import AIRFLOW_NAMES, RUN_FIELDS, Template, whole_expression
from tasks.contract import PermanentError, Run
from tasks.postgres.sql import literal


@dataclass(frozen=True, slots=True)
class RenderedLater:
    """A template in a task's arguments; Airflow asks it for its value when the task starts."""

    template: Template

    def resolve(self, context: Mapping[str, Any]) -> object:
        """Return the value in the run of `context`."""
        filters = context["task"].get_template_env().filters
        return render(self.template, _sandbox(filters), template_names(self.template, context))

    def serialize(self) -> str:
        """Return what Airflow keeps in the serialized DAG."""
        return self.template.text


def rendered_later(value: Any) -> Any:
    """Return a copy of `value` in which Airflow renders every template."""
    if isinstance(value, Template):
        return RenderedLater(value)
    if isinstance(value, dict):
        return {key: rendered_later(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rendered_later(item) for item in value]
    return value


def render(template: Template, environment: Environment, names: Mapping[str, Any]) -> object:
    """Return the value of `template`; a text that is a single `{{ … }}` keeps the type of what it names."""
    text = template.text
    if not template.sql and whole_expression(text) is not None:
        value: object = environment.compile_expression(text[2:-2].strip(" -\n"), undefined_to_none=False)(**names)
        return str(value) if isinstance(value, Undefined) else value  # str() of an undefined value raises its error
    if template.sql:
        environment = environment.overlay(finalize=literal)
    return environment.from_string(text).render(**names)


def _sandbox(filters: Mapping[str, Callable[..., Any]]) -> Environment:
    """Return an environment without Jinja's own functions, where attributes that begin with _ cannot be read."""
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined)
    environment.filters.update(filters)
    environment.globals.clear()
    return environment


def template_names(template: Template, context: Mapping[str, Any]) -> dict[str, Any]:
    """Return the names that `template` may use in the run of `context`: plain values that lead to nothing else."""
    texts = {name: str(context[name]) for name in AIRFLOW_NAMES if name in context}
    run = run_of(context)
    fields = {name: _plain(getattr(run, name)) for name in RUN_FIELDS}
    steps = _step_outputs(template, context["ti"])
    return texts | {"params": dict(context["params"]), "run": SimpleNamespace(**fields), "steps": steps}


def _plain(value: object) -> object:
    """Return one of Airflow's times as a Python datetime whose zone is a plain offset."""
    return dt.datetime.fromisoformat(value.isoformat()) if isinstance(value, dt.datetime) else value


def run_of(context: Mapping[str, Any]) -> Run:
    """Return the run of `context`. Its date is the logical date, or `run_after` if the run has no logical date."""
    dag, dag_run, ti = context["dag"], context["dag_run"], context["ti"]
    moment: dt.datetime = dag_run.logical_date or dag_run.run_after
    return Run(
        dag_id=ti.dag_id,
        run_id=ti.run_id,
        task_id=ti.task_id,
        date=moment.astimezone(dag.timezone).date(),
        try_number=ti.try_number,
        deployment=deployment(),
        is_local=is_local(),
        is_running=is_running,
        attempt=str(getattr(ti, "id", "")),
        map_index=-1 if ti.map_index is None else ti.map_index,
        interval_start=dag_run.data_interval_start,
        interval_end=dag_run.data_interval_end,
    )


class StepOutput:
    """The output of a step, read from XCom when one of its fields is used."""

    def __init__(self, name: str, task_id: str, ti: Any) -> None:
        self._step = name, task_id, ti

    def __getattr__(self, field: str) -> object:
        name, task_id, ti = self._step
        output = ti.xcom_pull(task_ids=task_id)
        if isinstance(output, list):
            return [one[field] for one in output]
        if not isinstance(output, dict) or field not in output:
            raise PermanentError(f'step "{name}" has no output "{field}" in this run: it was skipped or has not run')
        return output[field]


def _step_outputs(template: Template, ti: Any) -> SimpleNamespace:
    root = SimpleNamespace()
    for chain, task_id in template.tasks:
        place = root
        for name in chain[:-1]:
            place.__dict__.setdefault(name, SimpleNamespace())
            place = getattr(place, name)
        setattr(place, chain[-1], StepOutput(".".join(chain), task_id, ti))
    return root
