"""How a worker fills in a step's values: plain values of the run, and none of Airflow's objects.

Airflow renders whatever text it finds in a task's arguments with its own Jinja, so it is given none: one object holds
them all, and what that returns is not rendered again.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType

from factory.bridge.deployment import deployment, is_local
from factory.bridge.waiting import is_running
from factory.language.errors import Path as Where
from factory.language.errors import did_you_mean, shortened
from factory.language.evaluation import Absent, part_of
from factory.language.expressions import Path
from factory.language.functions import ComputationError, written
from factory.language.params import problems_unseen_by_form
from factory.language.spec import ParamSpec
from factory.language.templates import Source, Template, constant, filled
from factory.language.tokens import TemplateProblem
from factory.language.value_types import typed
from factory.language.variables import is_sensitive, variable_value
from tasks.contract import PermanentError, Run
from tasks.postgres.expressions import filled_expression, filled_query

PROBLEMS = "problems"
"""The key of what could not be filled in."""
MAX_TOLD = 10
"""How many of the names that are not params are told, and how many problems of one param."""


@dataclass(frozen=True, slots=True)
class FilledLater:
    """All values of a step; Airflow asks it for them when the task starts."""

    step: str
    values: Mapping[str, Any]
    params: tuple[ParamSpec, ...] = ()
    """The pipeline's params, whose values in the run are checked before the step does anything."""

    def resolve(self, context: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values in the run of `context`, with every template filled in.

        What cannot be filled in stays as it is written and is told below `problems`: so the UI shows all the rest, and
        the task fails when it begins, with every problem.
        """
        filling = _Filling(self.step, RunValues(context), list(_run_problems(self.params, context)))
        values = filling.value(self.values, ())
        return {**values, PROBLEMS: filling.problems} if filling.problems else values

    def serialize(self) -> Any:
        """Return what Airflow keeps in the serialized DAG."""
        return _as_written(self.values)

    def __str__(self) -> str:
        """Return the same as text: so Airflow keeps the arguments of a mapped step."""
        return json.dumps(self.serialize(), sort_keys=True, ensure_ascii=False)


def filled_in(template: Template, context: Mapping[str, Any]) -> str:
    """Return a text outside of a step's values, filled in; raise PermanentError for what cannot be."""
    try:
        return str(filled(template, RunValues(context).reader(template), _SQL))
    except TemplateProblem as problem:
        raise PermanentError(str(problem)) from None


@dataclass(frozen=True, slots=True)
class Item:
    """One item of `expand`, which Airflow takes as it is."""

    value: Any

    def resolve(self, _context: Mapping[str, Any]) -> Any:
        """Return the value."""
        return self.value

    def serialize(self) -> Any:
        """Return what Airflow keeps in the serialized DAG."""
        return self.value

    def __str__(self) -> str:
        return str(self.value)


def _as_written(value: Any) -> Any:
    if isinstance(value, Template):
        return value.text
    if isinstance(value, Mapping):
        return {key: _as_written(one) for key, one in value.items()}
    return [_as_written(one) for one in value] if isinstance(value, list) else value


@dataclass
class _Filling:
    """One walk over the values of a step."""

    step: str
    run: RunValues
    problems: list[str] = field(default_factory=list)

    def value(self, value: Any, where: Where) -> Any:
        if isinstance(value, Template):
            return self.template(value, where)
        if isinstance(value, Mapping):
            return {key: self.value(one, (*where, key)) for key, one in value.items()}
        return [self.value(one, (*where, nth)) for nth, one in enumerate(value)] if isinstance(value, list) else value

    def template(self, template: Template, where: Where) -> object:
        try:
            return filled(template, self.run.reader(template), _SQL)
        except TemplateProblem as problem:
            self.problems.append(_report(problem, template, self.step, where))
            return template.text


def _run_problems(params: tuple[ParamSpec, ...], context: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the params of a run that Airflow itself does not check: names, patterns, moments."""
    names = [param.name for param in params]
    strange = [name for name in context["dag_run"].conf or {} if name not in names]
    for name in strange[:MAX_TOLD]:
        hint = did_you_mean(name, names, "params") if names else "the pipeline has no params"
        yield f'the run was started with "{shortened(name)}", which is not a param; {hint}'
    if len(strange) > MAX_TOLD:
        yield f"the run was started with {len(strange) - MAX_TOLD:,} more names that are not params"
    for param in params:
        if param.name in context["params"]:
            found = problems_unseen_by_form(param.schema, context["params"][param.name])
            for path, message in islice(found, MAX_TOLD):
                yield f'param "{".".join(map(str, (param.name, *path)))}": {message}'


_SQL = {"sql": filled_expression, "query": filled_query}
"""How values enter SQL, by its form."""
_PLACES = {"arguments": "with", "before": "its gates"}
"""How a spec calls what a task's function is given."""


def _report(problem: TemplateProblem, template: Template, step: str, where: Where) -> str:
    first, *rest = where
    shown = ".".join(map(str, (_PLACES.get(str(first), first), *rest)))
    expression = template.text[slice(*problem.span)]
    part = "" if str(problem).startswith(expression) else f"{expression[:200]}: "
    return f'step "{step}", {shown}: {part}{problem}' + (f"; {problem.hint}" if problem.hint else "")


# --- the values of a run ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RunValues:
    """What templates may read in the run of `context`: params, fields of the run, outputs of steps, Variables."""

    context: Mapping[str, Any]
    outputs: dict[str, Any] = field(default_factory=dict)

    def reader(self, template: Template) -> Callable[[Path], object]:
        """Return what gives the value of each path in `template`."""

        def value(path: Path) -> object:
            source = next((one for one in template.sources if path.parts[: len(one.parts)] == one.parts), None)
            if source is None:
                raise ComputationError(f"{path} is not known to templates")
            found = self.value(source)
            for part in path.parts[len(source.parts) :]:
                found = part_of(found, part)
            return found

        return value

    def value(self, source: Source) -> object:
        """Return the value that a name stands for; raise ComputationError if it has none, or one of another type."""
        root, *names = source.parts
        try:
            return typed(self.read(root, tuple(names), source), source.types)
        except ValueError as error:
            raise ComputationError(f"{'.'.join(source.parts)}: {error}") from None

    def read(self, root: str, names: tuple[str, ...], source: Source) -> object:
        if root == "each":
            return constant(source)
        if root == "params":
            return _param(self.context["params"], names)
        if root == "run":
            return _run_field(names[0], self.context)
        if root == "variables":
            return _variable(names[0], source)
        return self.output(".".join(names[:-1]), names[-1], source)

    def output(self, step: str, name: str, source: Source) -> object:
        """Return a field of a step's output; of a mapped step, a list with the field of each of its runs."""
        if source.task_id not in self.outputs:
            self.outputs[source.task_id] = self.context["ti"].xcom_pull(task_ids=source.task_id)
        output = self.outputs[source.task_id]
        if not source.is_mapped:
            return _output_field(output, step, name)
        every = output if isinstance(output, list) else [] if output is None else [output]
        return [_output_field(one, step, name) for one in every]


def _output_field(output: Any, step: str, name: str) -> object:
    if not isinstance(output, dict) or name not in output:
        message = f'step "{step}" has no output "{name}" in this run: it was skipped or has not run'
        raise Absent(message, "write … | default(…) with the value to use then")
    return output[name]


def _param(params: Mapping[str, Any], names: tuple[str, ...]) -> object:
    if not names:
        return dict(params)
    if names[0] not in params:
        raise ComputationError(f'the run was started without the param "{names[0]}"')
    return params[names[0]]


def _run_field(name: str, context: Mapping[str, Any]) -> object:
    if name == "logical_date":
        return _utc(_moment(context["dag_run"]))
    run = run_of(context)
    value = getattr(run, name)
    if value is None:
        raise Absent(f"this run has no {name}: it has no data interval", "write … | default(run.logical_date)")
    return _utc(value) if isinstance(value, dt.datetime) else value


def _utc(moment: dt.datetime) -> dt.datetime:
    """Return one of Airflow's times as a plain Python datetime in UTC."""
    return dt.datetime.fromisoformat(moment.isoformat()).astimezone(dt.UTC)


def _variable(name: str, source: Source) -> object:
    """Return the value of a declared Variable; it is shown in the UI, so one that Airflow masks is refused."""
    from airflow.sdk import Variable
    from airflow.sdk.configuration import conf

    more = str(conf.get("core", "sensitive_var_conn_names", fallback="")).lower().split(",")
    if is_sensitive(name) or any(word.strip() and word.strip() in name.lower() for word in more):
        hint = "keep secrets in a connection, and name it in `with`"
        raise ComputationError(f'Airflow takes the Variable "{name}" for a secret', hint)
    try:
        text = Variable.get(name)
    except AirflowRuntimeError as error:
        if error.error.error != ErrorType.VARIABLE_NOT_FOUND:
            raise
        if source.default is not None:
            return source.default
        hint = "set it under Admin > Variables, or give it a default below `variables:` in configs/defaults.yaml"
        raise Absent(f'the Variable "{name}" is not set in Airflow', hint) from None
    try:
        return variable_value(str(text), source.types[0])
    except ValueError as error:
        raise ComputationError(f'the Variable "{name}": {error}', "correct it under Admin > Variables") from None


def label(items: Mapping[str, Any]) -> str:
    """Return how the UI calls one run of a mapped step: by the values it is mapped over."""
    text = ", ".join(map(written, items.values()))
    return text if len(text) <= 100 else f"{text[:99]}…"


# --- the run ----------------------------------------------------------------------------------------------------------


def run_of(context: Mapping[str, Any]) -> Run:
    """Return the run of `context`. Its date is the logical date, or `run_after` if the run has no logical date."""
    dag, dag_run, ti = context["dag"], context["dag_run"], context["ti"]
    return Run(
        dag_id=ti.dag_id,
        run_id=ti.run_id,
        task_id=ti.task_id,
        date=_moment(dag_run).astimezone(dag.timezone).date(),
        try_number=ti.try_number,
        deployment=deployment(),
        is_local=is_local(),
        is_running=is_running,
        attempt=str(getattr(ti, "id", "")),
        map_index=-1 if ti.map_index is None else ti.map_index,
        interval_start=dag_run.data_interval_start,
        interval_end=dag_run.data_interval_end,
    )


def _moment(dag_run: Any) -> dt.datetime:
    moment: dt.datetime = dag_run.logical_date or dag_run.run_after
    return moment
