"""From a suite to the value that a gate gets: its expectations checked, its texts read.

Problems go to the report of the suite's file, which may differ from the step's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic import TypeAdapter

from factory.language.document import Value
from factory.language.errors import Path
from factory.language.report import Problem, Report
from factory.language.spec import ExpectationSpec, SuiteSpec
from factory.language.templates import Template, is_template
from factory.planning.items import plain
from factory.planning.references import (
    Reading,
    References,
    SqlCheck,
    params_of,
    sql_from_template,
    sql_problems,
    syntax_problems,
    waits_of,
)
from factory.planning.scopes import Place
from factory.planning.values import check_values, kind_in_suite, replaced, sql_form, templated, texts
from factory.registry import holds_sql_in
from tasks.postgres.expressions import clocks_in_query
from tasks.quality.lint import QUERY_HINT, Suite, can_quarantine, check_argument, expectation_problems

_SUITE: TypeAdapter[Suite] = TypeAdapter(Suite)
_REQUIRED = ("connection", "batch")


@dataclass(frozen=True, slots=True)
class SuiteValues:
    """A suite as a gate gets it, with what its texts refer to."""

    value: dict[str, Any]
    waits: frozenset[str]
    params: frozenset[str]


def suite_values(spec: SuiteSpec, report: Report, place: Place, references: References) -> SuiteValues:
    """Return the suite as the step at `place` uses it; report mistakes in it."""
    written = plain(_values(spec), place, kind_in_suite, references)
    for expectation in spec.expectations:
        _check_expectation(spec, expectation, report)
    readings = _readings(written, place, references)
    for path, reading in readings.items():
        for problem in (*reading.problems, *_unstable(reading)):
            report.add_problem(problem, _place_of(spec, path))
    _check_sql(spec, written, references, report)
    _check_form(spec, written, readings, report)
    templates = {path: reading.template for path, reading in readings.items()}
    read = readings.values()
    return SuiteValues(dict(replaced(written, templates)), waits_of(read), params_of(read))


def check_suite(spec: SuiteSpec, report: Report, references: References) -> None:
    """Report what is wrong with a suite whatever step uses it; the names in its templates are not looked up."""
    written = _values(spec)
    for expectation in spec.expectations:
        _check_expectation(spec, expectation, report)
    readings = {path: Reading(Template(text)) for path, text in templated(written)}
    for path, reading in readings.items():
        for problem in syntax_problems(reading.template.text):
            report.add_problem(problem, _place_of(spec, path))
    _check_sql(spec, written, references, report)
    _check_form(spec, written, readings, report)


def _values(spec: SuiteSpec) -> dict[str, Value]:
    expectations: list[Value] = [_written(expectation) for expectation in spec.expectations]
    return {**spec.settings, "name": spec.name, "expectations": expectations}


_OF_A_STEP = ("task_id", "try_number")


def _unstable(reading: Reading) -> Iterable[Problem]:
    """Yield the names of a suite that mean something else in the load, which asks for a pass of the same suite."""
    for source in reading.template.sources:
        if source.parts[0] == "run" and source.parts[1] in _OF_A_STEP:
            name = ".".join(source.parts[:2])
            message = f"{name} is another one in the load, which takes only what this very suite has passed"
            yield Problem("bad-template", message, "use run.run_id, run.date or a param")


def _check_expectation(suite: SuiteSpec, expectation: ExpectationSpec, report: Report) -> None:
    wrong = expectation_problems(expectation.type, expectation.arguments)
    for problem in wrong:
        path = (*expectation.path, expectation.type, *problem.path)
        message = f'suite "{suite.name}": {problem.message}'
        report.add(problem.code, path, message, problem.hint, key=not problem.path)
    if expectation.reason and not wrong and not can_quarantine(expectation.type, expectation.arguments):
        message = (
            f'suite "{suite.name}": no single row breaks {expectation.type}, so its reason cannot quarantine anything'
        )
        hint = "remove the reason; the expectation can still fail the gate"
        report.add("reason-without-row", (*expectation.path, "reason"), message, hint, key=True)


def _readings(written: dict[str, Value], place: Place, references: References) -> Mapping[Path, Reading]:
    return {path: references.read(text, place, sql=sql_form(kind_in_suite(path))) for path, text in templated(written)}


def _check_sql(spec: SuiteSpec, written: dict[str, Value], references: References, report: Report) -> None:
    for path, text in texts(written):
        for problem in _sql_problems(spec, path, text, references):
            report.add_problem(problem, _place_of(spec, path))


def _sql_problems(spec: SuiteSpec, path: Path, text: str, references: References) -> Iterable[Problem]:
    form = sql_form(kind_in_suite(path))
    if form == "sql":
        return sql_problems(text, str(_place_of(spec, path)[-1]), references.expressions)
    if form == "query":
        check = partial(check_argument, str(path[-1]), functions=references.functions)
        named = f'suite "{spec.name}": {path[-1]}'
        return sql_problems(text, named, SqlCheck(check, "bad-expectation", QUERY_HINT, clocks_in_query))
    return [sql_from_template(path[-1])] if is_template(text) and holds_sql_in(Suite, path) else []


def _check_form(spec: SuiteSpec, written: dict[str, Value], readings: Mapping[Path, Reading], report: Report) -> None:
    if any(required not in written for required in _REQUIRED) or not spec.expectations:
        return  # the missing key has been reported
    samples = {path: reading.samples for path, reading in readings.items()}
    for problem in check_values(_SUITE.validate_json, written, samples, "a suite"):
        message = f'suite "{spec.name}": {problem.message}'
        report.add(problem.code, _place_of(spec, problem.path), message, problem.hint, key=problem.key)


def _place_of(spec: SuiteSpec, path: Path) -> Path:
    """Return where a value of the suite's model is written in its file."""
    if len(path) > 2 and path[0] == "expectations":
        expectation = spec.expectations[int(path[1])]
        return (*expectation.path, *((expectation.type, *path[3:]) if path[2] == "arguments" else path[2:]))
    return (*spec.path, *path)


def _written(expectation: ExpectationSpec) -> dict[str, Value]:
    written: dict[str, Value] = {"type": expectation.type, "arguments": dict(expectation.arguments)}
    return written | {"reason": expectation.reason} if expectation.reason else written
