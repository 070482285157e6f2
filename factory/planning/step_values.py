"""The values that a step gives its task: defaults merged, texts read, the whole checked against the task's types."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from factory.language.document import Value
from factory.language.errors import Hint, Path, did_you_mean
from factory.language.report import Problem
from factory.language.templates import SqlForm, is_template
from factory.planning.defaults import Layered, Origin, Source, argument_sources, layered, origins, values
from factory.planning.inference import Samples
from factory.planning.items import of_item
from factory.planning.pipeline import Pipeline
from factory.planning.project import Project
from factory.planning.references import Reading, is_whole, params_of, sql_from_template, sql_problems, waits_of
from factory.planning.scopes import Place
from factory.planning.sql_files import Given, file_diagnostics, unused_values
from factory.planning.suites import SuiteValues, suite_values
from factory.planning.values import check_values, replaced, sql_form, templated, texts
from factory.registry import TaskDefinition
from tasks.contract import TextKind


@dataclass(frozen=True, slots=True)
class StepValues:
    """The values that a step gives its task, and what they refer to."""

    arguments: Mapping[str, Any] = field(default_factory=dict)
    expand: Mapping[str, Any] = field(default_factory=dict)
    origins: Mapping[str, Origin] = field(default_factory=dict)
    waits: frozenset[str] = frozenset()
    params: frozenset[str] = frozenset()
    suites: tuple[str, ...] = ()


def step_values(place: Place, definition: TaskDefinition, pipeline: Pipeline) -> StepValues:
    """Return the values that the step at `place` gives its task; report mistakes in them."""
    return _StepReader(of_item(place, definition, pipeline.references), definition, pipeline).read()


def unchecked_values(place: Place, pipeline: Pipeline) -> StepValues:
    """Return what a step with an unknown task refers to, so that one mistake is not reported as several."""
    readings = []
    for path, text in templated(dict(place.step.arguments)):
        reading = pipeline.references.read(text, place)
        readings.append(reading)
        for problem in reading.problems:
            pipeline.report.add_problem(problem, (*place.step.path, "with", *path))
    return StepValues(waits=waits_of(readings), params=params_of(readings))


_SOME_PLACE = {"folder": "unknown"}
"""Stands for a place that is reported, so that nothing else is said of it."""


@dataclass(frozen=True)
class _StepReader:
    place: Place
    definition: TaskDefinition
    pipeline: Pipeline

    def read(self) -> StepValues:
        given = self.given()
        expand = self.expand()
        names = {name: one.value for name, one in given.items() if name in self.definition.suites}
        suites = {name: suite for name, value in names.items() if (suite := self.suite(name, value))}
        plain = {name: one for name, one in values(given).items() if name not in self.definition.suites}
        readings = self.readings(plain)
        self.check_arguments(plain, given, {path: one.samples for path, one in readings.items()}, set(names))
        self.check_sql(plain)
        templates = {path: reading.template for path, reading in readings.items()}
        every = [*readings.values(), *(one for one in expand.values() if isinstance(one, Reading))]
        return StepValues(
            arguments={**replaced(plain, templates), **{name: suite.value for name, suite in suites.items()}},
            expand={name: one.template if isinstance(one, Reading) else one for name, one in expand.items()},
            origins=origins(given),
            waits=waits_of(every).union(*(suite.waits for suite in suites.values())),
            params=params_of(every).union(*(suite.params for suite in suites.values())),
            suites=tuple(sorted(str(name) for name in names.values())),
        )

    def given(self) -> dict[str, Layered]:
        step, project = self.place.step, self.pipeline.project
        own = Source(self.pipeline.report.document, (*step.path, "with"), step.arguments)
        given = layered(*argument_sources(project, self.definition), own)
        taken = {name: one for name, one in given.items() if name in step.arguments or name not in step.expand}
        return {
            name: self.located(name, one) if name in self.definition.locations else one for name, one in taken.items()
        }

    def located(self, name: str, given: Layered) -> Layered:
        """Return the place that an argument names; only `configs/` say which folder or bucket that is."""
        places, named, report = self.pipeline.project.places, given.value, self.pipeline.report
        if isinstance(named, str) and named in places:
            return given._replace(value=dict(places[named]))
        if isinstance(named, dict) and name not in self.place.step.arguments:
            return given
        if isinstance(named, str) and not is_template(named):
            hint = (
                partial(did_you_mean, named, places, "places") if places else "declare it below `places:` in configs/"
            )
            report.add("unknown-place", self.where((name,)), f'there is no place "{named}" in configs/', hint)
        else:
            message = f"{name} is chosen here, but only configs/ choose folders and buckets"
            hint = "declare it below `places:` in configs/defaults.yaml, and write its name"
            report.add("unnamed-place", self.where((name,)), message, hint)
        return given._replace(value=_SOME_PLACE)

    def where(self, path: Path) -> Path:
        """Return where the argument at `path` is written; for a default, the step's `uses`."""
        step = self.place.step
        return (*step.path, "with", *path) if path and path[0] in step.arguments else (*step.path, "uses")

    def readings(self, arguments: dict[str, Value]) -> dict[Path, Reading]:
        readings = {}
        for path, text in templated(arguments):
            kind = self.definition.kind_at(path)
            readings[path] = self.text(text, self.where(path), sql=sql_form(kind))
        return readings

    def text(self, text: str, where: Path, *, sql: SqlForm = "") -> Reading:
        reading = self.pipeline.references.read(text, self.place, sql=sql)
        for problem in reading.problems:
            self.pipeline.report.add_problem(problem, where)
        return reading

    # --- the check against the task's types -----------------------------------------------------------------------

    def check_arguments(
        self,
        arguments: dict[str, Value],
        given: Mapping[str, Layered],
        samples: Mapping[Path, Samples],
        suites: set[str],
    ) -> None:
        elsewhere = suites | set(self.place.step.expand)
        what = f'"{self.definition.name}"'
        problems = [
            problem
            for problem in check_values(self.definition.arguments.model_validate_json, arguments, samples, what)
            if not (problem.code == "missing-argument" and not problem.path and problem.name in elsewhere)
        ]
        for problem in problems or self.conflicts(arguments):
            self.report_argument(problem, given)

    def conflicts(self, arguments: Mapping[str, Value]) -> Iterator[Problem]:
        """Yield the arguments that do not go together, which are each right by themselves.

        Each value that the step is mapped over is tried, beside one of every other list.
        """
        if self.definition.conflicts is None:
            return
        mapped = {
            name: value if isinstance(value, list) and value else [value]
            for name, value in self.place.step.expand.items()
            if name in self.definition.parameters and name not in arguments
        }
        found: dict[tuple[Path, str], None] = {}
        for turn in range(max(map(len, mapped.values()), default=1)):
            places = {name: turn % len(items) for name, items in mapped.items()}
            chosen = {name: mapped[name][place] for name, place in places.items()}
            for (first, *rest), message in self.definition.conflicts({**arguments, **chosen}):
                is_item = isinstance(self.place.step.expand.get(str(first)), list) and first in places
                found[(first, *([places[str(first)]] if is_item else []), *rest), message] = None
        for path, message in found:
            yield Problem("bad-argument", message, path=path)

    def report_argument(self, problem: Problem, given: Mapping[str, Layered]) -> None:
        step, path = self.place.step, problem.path
        message, where = f'step "{step.id}": {problem.message}', self.where(path)
        if not path and step.arguments:
            where = (*step.path, "with")
        if path and path[0] not in step.arguments and path[0] in step.expand:
            where = (*step.path, "expand", *path)
        elif path and path[0] not in step.arguments:
            message += f" (from {given[str(path[0])].origin})"
        self.pipeline.report.add(problem.code, where, message, self.hint(problem), key=problem.key)

    def hint(self, problem: Problem) -> Hint:
        if problem.code != "unknown-argument":
            return problem.hint
        *parent, name = problem.path
        if not parent:
            what = f'arguments of "{self.definition.name}"'
            return lambda: did_you_mean(str(name), self.definition.parameters, what)
        known = self.definition.fields_at(tuple(parent))
        if str(name) in known:
            return "it does not go with the other keys here"
        return (lambda: did_you_mean(str(name), known, "keys")) if known else problem.hint

    def check_sql(self, arguments: dict[str, Value]) -> None:
        for path, text in texts(arguments):
            kind, where = self.definition.kind_at(path), self.where(path)
            if form := sql_form(kind):
                self.check_written(form, text, path[-1], where)
            elif kind is None and is_template(text) and self.definition.holds_sql(path):
                self.pipeline.report.add_problem(sql_from_template(where[-1]), where)
            elif kind and kind.name == "sql_file" and not is_template(text):
                self.check_sql_file(text, kind, path, arguments)

    def check_written(self, form: SqlForm, text: str, name: str | int, where: Path) -> None:
        references = self.pipeline.references
        judge = references.queries if form == "query" else references.expressions
        for problem in sql_problems(text, str(name), judge):
            self.pipeline.report.add_problem(problem, where)

    def check_sql_file(self, name: str, kind: TextKind, path: Path, arguments: Mapping[str, Value]) -> None:
        project, report, where = self.pipeline.project, self.pipeline.report, self.where(path)
        file = project.configs / "sql" / name
        if problem := project.sql_problem(name):
            report.add("unknown-sql-file", where, problem, partial(_nearest_sql_file, name, project))
            return
        values = self.beside(path, arguments)
        given = arguments.get(kind.views)
        views = given if isinstance(given, dict) else None
        functions = self.pipeline.references.functions
        report.extend(file_diagnostics(file, f"configs/sql/{name}", kind, Given.of(values, views, functions)))
        for value in unused_values(file, kind, values or {}):
            sign = f":{value}" if kind.of == "spark" else f"%({value})s"
            message = f"configs/sql/{name} has no {sign}"
            report.add(
                "unbound-value",
                self.where((*path[:-1], "values", value)),
                message,
                "use it there, or remove it",
                key=True,
            )

    def beside(self, path: Path, arguments: Mapping[str, Value]) -> Mapping[str, Value] | None:
        """Return the `values` next to a SQL file; None if they are not known before the run."""
        around: Any = arguments
        for part in path[:-1]:
            around = around[part]
        given = around.get("values") or {}
        return given if isinstance(given, dict) and "values" not in self.place.step.expand else None

    # --- suites ---------------------------------------------------------------------------------------------------

    def suite(self, argument: str, name: Value) -> SuiteValues | None:
        report, where = self.pipeline.report, self.where((argument,))
        if not isinstance(name, str):
            hint = "name a suite of this file or of configs/suites/"
            report.add("wrong-type", where, f"{argument} should be the name of a suite", hint)
            return None
        declared = self.pipeline.suite(name)
        if declared is None:
            report.add(
                "unknown-suite",
                where,
                f'there is no suite "{name}"',
                lambda: did_you_mean(name, self.pipeline.suite_names(), "suites"),
            )
            return None
        spec, of_file = declared
        suite = suite_values(spec, of_file, self.place, self.pipeline.references)
        if of_file is not report:
            report.extend(of_file.diagnostics)
        return suite

    # --- mapping --------------------------------------------------------------------------------------------------

    def expand(self) -> dict[str, Any]:
        """Return the lists that the step is mapped over: values, or the reading of a text that names a list."""
        step, report, parameters = self.place.step, self.pipeline.report, self.definition.parameters
        expanded: dict[str, Any] = {}
        for name, value in step.expand.items():
            where = (*step.path, "expand", name)
            if name not in parameters:
                self.unknown_argument(name, where)
            elif name in self.definition.locations:
                report.add(
                    "wrong-value", where, f'"{name}" cannot be mapped over', "name one place below `with`", key=True
                )
            elif name in self.definition.suites:
                message, hint = f'"{name}" cannot be mapped over', "give each suite a step of its own"
                report.add("wrong-value", where, message, hint, key=True)
            elif name in step.arguments:
                message = f'"{name}" is set in both `with` and `expand`'
                report.add("wrong-value", where, message, "keep one of them", key=True)
            else:
                expanded[name] = self.expanded(name, value, where)
        return expanded

    def unknown_argument(self, name: str, where: Path) -> None:
        task, known = f'"{self.definition.name}"', self.definition.parameters
        self.pipeline.report.add(
            "unknown-argument",
            where,
            f'"{name}" is not an argument of {task}',
            lambda: did_you_mean(name, known, f"arguments of {task}"),
            key=True,
        )

    def expanded(self, name: str, value: Value, where: Path) -> Any:
        if isinstance(value, str) and is_whole(value):
            if self.definition.holds_sql((name,)):
                self.pipeline.report.add_problem(sql_from_template(where[-1]), where)
            return self.list_named(value, where)
        if not isinstance(value, list) or not value or any(is_template(one) for _, one in texts(value)):
            message = f"expand.{name} should be a list of values, or a single {{{{ steps.… }}}} that names a list"
            self.pipeline.report.add("wrong-type", where, message, "write [a, b]")
            return []
        validate = self.definition.adapter(name).validate_json
        for index, one in enumerate(value):
            for problem in check_values(validate, one, {}, f'"{self.definition.name}"'):
                message = f'step "{self.place.step.id}": {name} {problem.message}'
                self.pipeline.report.add(problem.code, (*where, index, *problem.path), message, problem.hint)
            for path, text in texts(one):
                if form := sql_form(self.definition.kind_at((name, *path))):
                    self.check_written(form, text, name, (*where, index, *path))
        return value

    def list_named(self, text: str, where: Path) -> Reading:
        reading = self.text(text, where)
        if not reading.problems and any(one.name not in ("list", "anything") for one in reading.types):
            message = f'step "{self.place.step.id}" is mapped over something that is not a list'
            self.pipeline.report.add("template-type", where, message, "name a field that is a list")
        return reading


def _nearest_sql_file(name: str, project: Project) -> str:
    return did_you_mean(name, project.sql_files(), "files in configs/sql")
