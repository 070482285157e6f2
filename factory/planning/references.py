"""What a text with `{{ … }}` refers to: params, fields of the run, outputs of other steps.

Each text is read by itself and its meaning is returned; nothing is reported or collected here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain as chained
from typing import Any

from factory.language.errors import did_you_mean
from factory.language.report import Problem
from factory.language.spec import ParamSpec
from factory.language.templates import (
    AIRFLOW_NAMES,
    CLOSED_NAMES,
    RUN_FIELDS,
    Chain,
    QuotedTemplate,
    Template,
    TemplateProblem,
    mentions,
    sql_skeleton,
    unknown_names,
    whole_expression,
)
from factory.planning.inference import Sample, Samples, param_samples, samples_of, schema_samples
from factory.planning.scopes import Place
from factory.registry import Registry
from tasks.postgres.sql import check_expression


@dataclass(frozen=True, slots=True)
class Reading:
    """The result of reading a text."""

    template: Template
    samples: Samples = None
    """Values that it may have."""
    waits: frozenset[str] = frozenset()
    """The task_ids of the steps whose output it names."""
    params: frozenset[str] = frozenset()
    """The params that it names."""
    problems: tuple[Problem, ...] = ()


def waits_of(readings: Iterable[Reading]) -> frozenset[str]:
    """Return the task_ids of all steps that the texts name."""
    return frozenset(chained.from_iterable(reading.waits for reading in readings))


def params_of(readings: Iterable[Reading]) -> frozenset[str]:
    """Return all params that the texts name."""
    return frozenset(chained.from_iterable(reading.params for reading in readings))


@dataclass(frozen=True, slots=True)
class _Meaning:
    """What a dotted name means: samples of its value, and the step or the params that it names."""

    samples: Samples = None
    step: tuple[Chain, str] | None = None
    params: frozenset[str] = frozenset()
    problem: Problem | None = None


@dataclass(frozen=True)
class References:
    """The names that the texts of one pipeline may use."""

    params: Mapping[str, ParamSpec]
    registry: Registry

    def read(self, text: str, place: Place, *, sql: bool = False) -> Reading:
        """Return what `text` refers to from `place`; with `sql`, values are inserted as literals."""
        try:
            meanings = {chain: self._meaning(chain, place) for chain in mentions(text).chains}
        except TemplateProblem as problem:
            return Reading(Template(text, sql), problems=(_unreadable(text, problem),))
        samples, failure = _inferred(text, meanings, sql=sql)
        named = meanings.values()
        steps = dict.fromkeys(meaning.step for meaning in named if meaning.step)
        return Reading(
            Template(text, sql, tuple(steps)),
            samples,
            waits=frozenset(task_id for _, task_id in steps),
            params=frozenset().union(*(meaning.params for meaning in named)),
            problems=(*_name_problems(text), *(one.problem for one in named if one.problem), *failure),
        )

    def _meaning(self, chain: Chain, place: Place) -> _Meaning:
        root, *rest = chain
        if root == "params":
            return self._param(tuple(rest))
        if root == "run":
            return _run_field(tuple(rest))
        return self._output(tuple(rest), place)

    def _param(self, names: Chain) -> _Meaning:
        if not names:
            return _Meaning(params=frozenset(self.params))
        param = self.params.get(names[0])
        if param is None:
            hint = did_you_mean(names[0], self.params, "params")
            return _unknown("unknown-param", f"params.{names[0]}", f'there is no param "{names[0]}"', hint)
        return _Meaning(param_samples(param) if len(names) == 1 else None, params=frozenset((param.name,)))

    def _output(self, names: Chain, place: Place) -> _Meaning:
        producer, fields = _producer(names, place)
        needle = ".".join(("steps", *names))
        if producer is None or producer.step is place.step:
            hint = did_you_mean(names[0] if names else "", place.scope.known() - {place.step.id}, "steps")
            return _unknown("unknown-step", needle, f'"{needle}" does not name another step of this pipeline', hint)
        named = names[: len(names) - len(fields)]
        samples, problem = self._field(producer, fields, needle)
        return _Meaning(samples, step=(named, producer.task_id), problem=problem)

    def _field(self, producer: Place, fields: Chain, needle: str) -> tuple[Samples, Problem | None]:
        """Return samples of a field of the producer's output; nothing is known about an unregistered task."""
        definition = self.registry.tasks.get(producer.step.uses or "")
        if definition is None:
            message = f'step "{producer.step.id}" is a branch and has no output'
            is_branch = producer.step.branch is not None
            return None, Problem("unknown-field", message, needle=needle) if is_branch else None
        known, name = definition.output_schema.get("properties", {}), fields[0] if fields else ""
        if name not in known:
            message = f'"{definition.name}" does not return "{name}"'
            if not fields:
                message = f'"{needle}" does not say which field of the output of "{definition.name}"'
            hint = did_you_mean(name, known, f"fields of steps.{producer.step.id}")
            return None, Problem("unknown-field", message, hint, needle=needle)
        if len(fields) > 1:
            return None, None
        samples = schema_samples(known[name], definition.output_schema.get("$defs", {}))
        return (_of_all_items(samples) if producer.step.expand else samples), None


def _of_all_items(samples: Samples) -> Samples:
    """Return samples of a mapped step's field: a list, with a value for each item."""
    return (Sample([one.value for one in samples[:1]]),) if samples else samples


def _producer(names: Chain, place: Place) -> tuple[Place | None, Chain]:
    """Return the step that a dotted name begins with, and the rest of the name: fields of its output."""
    for length in range(1, len(names) + 1):
        step = place.scope.find(names[:length])
        if step is None:
            return None, ()
        if step.step.steps is None:
            return step, names[length:]
    return None, ()


def _run_field(names: Chain) -> _Meaning:
    name = names[0] if names else ""
    if name in RUN_FIELDS:
        return _Meaning((Sample(RUN_FIELDS[name]),) if len(names) == 1 else None)
    hint = did_you_mean(name, RUN_FIELDS, "fields of run")
    return _unknown("unknown-field", ".".join(("run", *names)), f'a run has no field "{name}"', hint)


def _unknown(code: str, needle: str, message: str, hint: str) -> _Meaning:
    return _Meaning(problem=Problem(code, message, hint, needle=needle))


def _inferred(text: str, meanings: Mapping[Chain, _Meaning], *, sql: bool) -> tuple[Samples, tuple[Problem, ...]]:
    if sql:
        return (Sample("text"),), ()
    try:
        return samples_of(text, lambda chain: meanings[chain].samples), ()
    except TemplateProblem as problem:
        return None, (_unreadable(text, problem),)


def is_whole(text: str) -> bool:
    """Return whether `text` is a single `{{ … }}`, or unreadable, which is reported when it is read."""
    try:
        return whole_expression(text) is not None
    except TemplateProblem:
        return True


def _unreadable(text: str, problem: TemplateProblem) -> Problem:
    """Return the problem with a template that cannot be read or computed."""
    return Problem("bad-template", str(problem), problem.hint, needle=problem.needle or text)


def _name_problems(text: str) -> Iterable[Problem]:
    for name in unknown_names(text):
        if name == "conn":
            message = "a template cannot read a connection: its secrets would be shown in the UI"
            yield Problem("secret-template", message, CLOSED_NAMES[name], needle=name)
        else:
            yield Problem("unknown-name", f'"{name}" is not known to templates', _name_hint(name), needle=name)


def _name_hint(name: str) -> str:
    if name in CLOSED_NAMES:
        return f"a template reads plain values, not Airflow's objects: {CLOSED_NAMES[name]}"
    return did_you_mean(name, AIRFLOW_NAMES | {"params", "steps", "run"}, "names")


def sql_problem(text: str, field: Any) -> Problem | None:
    """Return why `text`, with values in place of its templates, is not a single SQL expression, or None if it is."""
    try:
        skeleton = sql_skeleton(text)
        if skeleton is not None:
            check_expression(skeleton)
    except QuotedTemplate as problem:
        return Problem("quoted-template", str(problem), problem.hint)
    except TemplateProblem:
        return None  # an unreadable template is reported separately
    except ValueError as error:
        return Problem("bad-sql", f"{field} {error}", "write one expression over the row's columns")
    return None
