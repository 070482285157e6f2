"""A spec to a plan: every name is found, every value checked, every reference typed.

Knows the registry and `configs/`; it judges steps one by one and leaves the whole to `rules`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter

from factory.language.document import Value, value_at
from factory.language.errors import Path, did_you_mean
from factory.language.report import Report
from factory.language.spec import Airflow, Arm, ExpectationSpec, PipelineSpec, StepSpec, SuiteSpec
from factory.language.templates import (
    AIRFLOW_NAMES,
    CLOSED_NAMES,
    RUN_FIELDS,
    Chain,
    Sample,
    Samples,
    Template,
    TemplateProblem,
    is_template,
    mentions,
    samples_of,
    sql_skeleton,
    unknown_names,
    whole_expression,
)
from factory.planning.inference import param_samples, schema_samples
from factory.planning.plan import Exit, Node, Plan
from factory.planning.project import EVERY_TASK, Project
from factory.planning.scopes import Place, Scope, places, scope_of
from factory.planning.values import ValueProblem, check_values, replaced, templated, texts
from factory.planning.wiring import linked
from factory.registry import Registry, TaskDefinition, kind_in
from tasks.contract import TextKind
from tasks.postgres.sql import check_expression
from tasks.quality.suites import Suite


def resolve(spec: PipelineSpec, report: Report, registry: Registry, project: Project) -> Plan:
    """Return the plan of `spec`; what cannot be resolved is reported and left out."""
    return _Resolver(spec, report, registry, project).plan()


@dataclass
class _Resolver:
    spec: PipelineSpec
    report: Report
    registry: Registry
    project: Project
    used_params: set[str] = field(default_factory=set)
    used_suites: set[str] = field(default_factory=set)
    group_needs: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def plan(self) -> Plan:
        scope = scope_of(self.spec.steps)
        default_args = self.merged("default_args", self.spec.default_args)
        nodes = tuple(self.nodes(scope))
        self.check_queues(scope)
        self.report.extend(self.project.diagnostics)
        return Plan(
            dag_id=self.spec.dag_id,
            file=self.report.document.file,
            root=self.project.root,
            airflow=self.merged("dag", self.spec.airflow),
            default_args=default_args,
            timezone=self.spec.timezone,
            schedule=self.spec.schedule,
            params=self.spec.params,
            nodes=linked(nodes, self.group_needs),
            groups={place.task_id: place.step.airflow for place in places(scope) if place.step.steps is not None},
            used_params=frozenset(self.used_params),
            used_suites=frozenset(self.used_suites),
        )

    def check_queues(self, scope: Scope) -> None:
        """Report a queue that no worker takes tasks from: such a step would wait until Airflow gives it up."""
        queues = self.project.queues
        if queues is None:
            return
        named: list[tuple[Path, Airflow]] = [(("default_args",), self.spec.default_args)]
        named += [(place.step.path, place.step.airflow) for place in places(scope)]
        for path, airflow in named:
            queue = airflow.get("queue")
            if queue is not None and queue not in queues:
                message = f'"{queue}" is not among the `queues` of configs/, from which workers take tasks'
                self.report.add("unknown-queue", (*path, "queue"), message, did_you_mean(str(queue), queues, "queues"))

    def merged(self, what: str, own: Airflow) -> Airflow:
        merged: dict[str, Any] = {}
        for layer in self.project.layers:
            merged |= getattr(layer, what)
        return merged | dict(own)

    def nodes(self, scope: Scope) -> Iterator[Node]:
        for place in scope.places.values():
            if place.step.steps is not None:
                self.group_needs[place.task_id] = tuple(self.waits(place))
                yield from self.nodes(scope.inner[place.step.id])
            elif place.step.branch is not None:
                yield self.branch(place)
            else:
                yield self.task(place)

    def task(self, place: Place) -> Node:
        step = place.step
        definition = self.definition(step)
        upstream = set(self.waits(place))
        if definition is None:
            self.unchecked(place, upstream)
            airflow, groups = step.airflow, place.scope.groups
            return Node(place.task_id, step.path, upstream=tuple(sorted(upstream)), airflow=airflow, groups=groups)
        values, expand = self.values(place, definition, upstream)
        return Node(
            task_id=place.task_id,
            path=step.path,
            uses=definition.name,
            role=definition.role,
            summary=definition.summary,
            suites=tuple(sorted(str(step.arguments[name]) for name in definition.suites & set(step.arguments))),
            arguments=values,
            expand=expand,
            upstream=tuple(sorted(upstream)),
            airflow=step.airflow,
            groups=place.scope.groups,
            links=definition.links,
        )

    def unchecked(self, place: Place, upstream: set[str]) -> None:
        """Read the references of a step whose task is not known, so that one mistake is not told as several."""
        for path, text in templated(dict(place.step.arguments)):
            self.template(place, (*place.step.path, "with", *path), text, None, upstream)

    def definition(self, step: StepSpec) -> TaskDefinition | None:
        if step.uses is None:
            return None
        if step.uses in self.registry:
            return self.registry[step.uses]
        hint = did_you_mean(step.uses, self.registry.tasks, "tasks")
        self.report.add("unknown-task", (*step.path, "uses"), f'there is no task "{step.uses}"', hint)
        return None

    def waits(self, place: Place) -> list[str]:
        """Return the names that `needs` resolves to, reporting those that mean nothing."""
        found: list[str] = []
        for index, name in enumerate(place.step.needs):
            target = self.target(
                place, name, self.needs_path(place.step, index), f'step "{place.step.id}" needs "{name}"'
            )
            if target:
                found.append(target.task_id)
        return found

    def needs_path(self, step: StepSpec, index: int) -> Path:
        written = value_at(self.report.document.value, (*step.path, "needs"))
        return (*step.path, "needs", index) if isinstance(written, list) else (*step.path, "needs")

    def target(self, place: Place, name: str, path: Path, what: str) -> Place | None:
        target = place.scope.find(tuple(name.split(".")))
        if target is None:
            hint = did_you_mean(name, place.scope.known() - {place.step.id}, "steps")
            self.report.add("unknown-step", path, f"{what}, which is not a step of this pipeline", hint)
        elif target.step is place.step:
            self.report.add("cycle", path, f"{what}: a step cannot wait for itself", "remove it")
            return None
        return target

    def branch(self, place: Place) -> Node:
        upstream = set(self.waits(place))
        exits = tuple(self.exit(place, arm, upstream) for arm in place.step.branch or ())
        return Node(
            task_id=place.task_id,
            path=place.step.path,
            exits=exits,
            upstream=tuple(sorted(upstream)),
            airflow=place.step.airflow,
            groups=place.scope.groups,
        )

    def exit(self, place: Place, arm: Arm, upstream: set[str]) -> Exit:
        key = "else" if arm.condition is None else "then"
        targets = []
        for name in arm.targets:
            target = self.target(place, name, (*arm.path, key), f'the branch "{place.step.id}" leads to "{name}"')
            if target:
                targets.append(target.task_id)
        when = None if arm.condition is None else self.condition(place, arm, upstream)
        return Exit(when, tuple(targets))

    def condition(self, place: Place, arm: Arm, upstream: set[str]) -> Template:
        path, text = (*arm.path, "if"), arm.condition or ""
        whole = self.safely(path, text, lambda: whole_expression(text) is not None)
        if whole is False:
            hint = (
                f'write "{{{{ {text} }}}}"' if not is_template(text) else "write the whole condition inside one {{ … }}"
            )
            self.report.add("condition-form", path, f"the condition {text!r} is not one whole {{{{ … }}}}", hint)
            return Template(text)
        template, samples = self.template(place, path, text, None, upstream)
        wrong = [one for one in samples or () if not isinstance(one.value, bool)]
        if wrong:
            self.report.add(
                "template-type",
                path,
                "the condition may be something other than true or false",
                "compare it: {{ … > 0 }}, or name a boolean",
            )
        return template

    def safely(self, path: Path, text: str, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except TemplateProblem as problem:
            span = self.report.document.span_of(path, problem.needle or text)
            self.report.add_at(span, "bad-template", str(problem), problem.hint)
            return None

    # --- values -----------------------------------------------------------------------------------------------

    def values(
        self, place: Place, definition: TaskDefinition, upstream: set[str]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        step = place.step
        written = dict(step.arguments)
        defaults = self.default_arguments(definition)
        arguments: dict[str, Any] = {name: one for name, one in defaults.items() if name not in step.expand} | written
        expand = self.expand(place, definition, upstream)
        suites = {
            name: self.suite(place, name, arguments[name], upstream) for name in definition.suites & set(arguments)
        }
        plain = {name: one for name, one in arguments.items() if name not in definition.suites}
        templates, samples = self.templates(place, definition, plain, upstream)
        self.check_arguments(place, definition, plain, samples, skip=set(suites) | set(step.expand))
        self.check_kinds(place, definition, plain)
        return {**replaced(plain, templates), **{name: one for name, one in suites.items() if one}}, expand

    def default_arguments(self, definition: TaskDefinition) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for layer in self.project.layers:
            for task in (EVERY_TASK, definition.name):
                merged |= layer.arguments.get(task, {})
        return {name: one for name, one in merged.items() if name in definition.parameters}

    def with_path(self, step: StepSpec, path: Path) -> Path:
        return (*step.path, "with", *path) if path and path[0] in step.arguments else (*step.path, "uses")

    def templates(
        self, place: Place, definition: TaskDefinition, arguments: Value, upstream: set[str]
    ) -> tuple[dict[Path, Template], dict[Path, Samples]]:
        templates: dict[Path, Template] = {}
        samples: dict[Path, Samples] = {}
        for path, text in templated(arguments):
            where = self.with_path(place.step, path)
            templates[path], samples[path] = self.template(place, where, text, definition.kind_at(path), upstream)
        return templates, samples

    def template(
        self, place: Place, path: Path, text: str, kind: TextKind | None, upstream: set[str]
    ) -> tuple[Template, Samples]:
        """Return the template at `path` with samples of its value; the steps it names are waited for."""
        sql = kind is not None and kind.name == "sql"
        bound: list[tuple[Chain, str]] = []

        def look_up(chain: Chain) -> Samples:
            return self.look_up(place, path, chain, bound, upstream)

        def read() -> Samples:
            self.check_names(path, text)
            for chain in mentions(text).chains:
                look_up(chain)
            self.check_sql(path, text, sql=sql)
            return (Sample("text"),) if sql else samples_of(text, look_up)

        samples = self.safely(path, text, read)
        return Template(text, sql, tuple(dict.fromkeys(bound))), samples

    def check_names(self, path: Path, text: str) -> None:
        for name in unknown_names(text):
            span = self.report.document.span_of(path, name)
            if name == "conn":
                self.report.add_at(
                    span,
                    "secret-template",
                    "a template cannot read a connection: its secrets would be shown in the UI",
                    CLOSED_NAMES[name],
                )
            else:
                self.report.add_at(
                    span, "unknown-name", f'"{name}" is not known to templates', _template_name_hint(name)
                )

    def look_up(
        self, place: Place, path: Path, chain: Chain, bound: list[tuple[Chain, str]], upstream: set[str]
    ) -> Samples:
        root, *rest = chain
        if root == "params":
            return self.param(path, rest)
        if root == "run":
            return self.run_field(path, rest)
        return self.output(place, path, tuple(rest), bound, upstream)

    def param(self, path: Path, rest: list[str]) -> Samples:
        if not rest:
            self.used_params.update(param.name for param in self.spec.params)
            return None
        found = next((param for param in self.spec.params if param.name == rest[0]), None)
        if found is None:
            hint = did_you_mean(rest[0], (param.name for param in self.spec.params), "params")
            self.once(path, f"params.{rest[0]}", "unknown-param", f'there is no param "{rest[0]}"', hint)
            return None
        self.used_params.add(found.name)
        return param_samples(found) if len(rest) == 1 else None

    def run_field(self, path: Path, rest: list[str]) -> Samples:
        if rest and rest[0] in RUN_FIELDS:
            return (Sample(RUN_FIELDS[rest[0]]),) if len(rest) == 1 else None
        name = ".".join(("run", *rest))
        self.once(
            path,
            name,
            "unknown-field",
            f'a run has no "{rest[0] if rest else ""}"',
            did_you_mean(rest[0] if rest else "", RUN_FIELDS, "fields of run"),
        )
        return None

    def output(
        self, place: Place, path: Path, names: Chain, bound: list[tuple[Chain, str]], upstream: set[str]
    ) -> Samples:
        producer, fields = self.producer(place, names)
        if producer is None or producer.step is place.step:
            shown = ".".join(("steps", *names))
            hint = did_you_mean(names[0] if names else "", place.scope.known() - {place.step.id}, "steps")
            self.once(path, shown, "unknown-step", f'"{shown}" names no other step of this pipeline', hint)
            return None
        bound.append((names[: len(names) - len(fields)], producer.task_id))
        upstream.add(producer.task_id)
        return self.field_samples(path, producer, fields, names)

    def producer(self, place: Place, names: Chain) -> tuple[Place | None, Chain]:
        """Return the step that the beginning of a dotted name means, and the rest: fields of its output."""
        for length in range(1, len(names) + 1):
            found = place.scope.find(names[:length])
            if found is None:
                return None, ()
            if found.step.steps is None:
                return found, names[length:]
        return None, ()

    def field_samples(self, path: Path, producer: Place, fields: Chain, names: Chain) -> Samples:
        definition = self.registry.tasks.get(producer.step.uses or "")
        if definition is None:
            if producer.step.branch is not None:
                self.once(
                    path,
                    ".".join(("steps", *names)),
                    "unknown-field",
                    f'step "{producer.step.id}" is a branch and has no output',
                )
            return None
        known = definition.output_schema.get("properties", {})
        name = fields[0] if fields else ""
        if name not in known:
            what = (
                f'"{definition.name}" returns no "{name}"'
                if fields
                else f'name a field of what "{definition.name}" returns'
            )
            self.once(
                path,
                ".".join(("steps", *names)),
                "unknown-field",
                what,
                did_you_mean(name, known, f"fields of steps.{producer.step.id}"),
            )
            return None
        if len(fields) > 1:
            return None
        samples = schema_samples(known[name], definition.output_schema.get("$defs", {}))
        return (Sample([one.value for one in samples[:1]]),) if producer.step.expand and samples else samples

    def once(self, path: Path, needle: str, code: str, message: str, hint: str | None = None) -> None:
        span = self.report.document.span_of(path, needle)
        diagnostic = self.report.document.diagnostic_at(span, code, message, hint)
        if diagnostic not in self.report.diagnostics:
            self.report.extend([diagnostic])

    def check_arguments(
        self,
        place: Place,
        definition: TaskDefinition,
        arguments: dict[str, Any],
        samples: Mapping[Path, Samples],
        skip: set[str],
    ) -> None:
        what = f'"{definition.name}"'
        for problem in check_values(definition.arguments.model_validate_json, arguments, samples, what):
            if problem.code == "missing-argument" and not problem.path and problem.message.split('"')[1] in skip:
                continue
            self.add_problem(place.step, definition, problem)

    def add_problem(self, step: StepSpec, definition: TaskDefinition, problem: ValueProblem) -> None:
        message, hint = f'step "{step.id}": {problem.message}', problem.hint
        if problem.code == "unknown-argument" and len(problem.path) == 1:
            hint = did_you_mean(str(problem.path[-1]), definition.parameters, f'arguments of "{definition.name}"')
        elif problem.code == "unknown-argument" and (known := definition.fields_at(problem.path[:-1])):
            hint = did_you_mean(str(problem.path[-1]), known, "keys there")
        path = (
            (*step.path, "with", *problem.path)
            if not problem.path or problem.path[0] in step.arguments
            else (*step.path, "uses")
        )
        if not problem.path and not step.arguments:
            path = (*step.path, "uses")
        if problem.path and problem.path[0] not in step.arguments:
            message += f" (from {self.origin_of_default(definition, str(problem.path[0]))})"
        self.report.add(problem.code, path, message, hint, key=problem.key)

    def origin_of_default(self, definition: TaskDefinition, name: str) -> str:
        for layer in reversed(self.project.layers):
            for task in (definition.name, EVERY_TASK):
                if name in layer.arguments.get(task, {}):
                    span = layer.document.span(("with", task, name))
                    return f"{span.file}:{span.line}"
        return "the defaults"

    def check_kinds(self, place: Place, definition: TaskDefinition, arguments: dict[str, Any]) -> None:
        for path, text in texts(arguments):
            kind = definition.kind_at(path)
            where = self.with_path(place.step, path)
            if kind and kind.name == "sql" and not is_template(text):
                self.check_sql(where, text, sql=True)
            elif kind and kind.name == "sql_file" and not is_template(text):
                self.check_sql_file(where, text)

    def check_sql(self, path: Path, text: str, *, sql: bool) -> None:
        if sql:
            check_sql_text(self.report, path, text)

    def check_sql_file(self, path: Path, name: str) -> None:
        if ".." not in name and not (self.project.configs / "sql" / name).is_file():
            hint = did_you_mean(name, self.project.sql_files(), "files of configs/sql")
            self.report.add("unknown-sql-file", path, f"there is no file configs/sql/{name}", hint)

    # --- mapping ----------------------------------------------------------------------------------------------

    def expand(self, place: Place, definition: TaskDefinition, upstream: set[str]) -> dict[str, Any]:
        expanded: dict[str, Any] = {}
        for name, value in place.step.expand.items():
            path = (*place.step.path, "expand", name)
            if name not in definition.parameters:
                hint = did_you_mean(name, definition.parameters, f'arguments of "{definition.name}"')
                self.report.add(
                    "unknown-argument", path, f'"{name}" is not an argument of "{definition.name}"', hint, key=True
                )
            elif name in place.step.arguments:
                self.report.add(
                    "wrong-value", path, f'"{name}" stands in with and in expand', "keep one of them", key=True
                )
            else:
                expanded[name] = self.expanded(place, definition, name, value, path, upstream)
        return expanded

    def expanded(
        self, place: Place, definition: TaskDefinition, name: str, value: Value, path: Path, upstream: set[str]
    ) -> Any:
        validate = definition.adapter(name).validate_json
        if isinstance(value, str) and self.safely(path, value, lambda: whole_expression(value)) is not None:
            template, samples = self.template(place, path, value, None, upstream)
            self.check_expanded(place, path, samples)
            return template
        if not isinstance(value, list) or not value or any(is_template(one) for _, one in texts(value)):
            self.report.add(
                "wrong-type",
                path,
                f"expand.{name} is a list of values, or one {{{{ steps.… }}}} that names a list",
                "write [a, b]",
            )
            return []
        for index, one in enumerate(value):
            for problem in check_values(validate, one, {}, f'"{definition.name}"'):
                self.report.add(
                    problem.code,
                    (*path, index, *problem.path),
                    f'step "{place.step.id}": {name} {problem.message}',
                    problem.hint,
                )
        return value

    def check_expanded(self, place: Place, path: Path, samples: Samples) -> None:
        if any(not isinstance(one.value, list) for one in samples or ()):
            self.report.add(
                "template-type",
                path,
                f'step "{place.step.id}" is mapped over something that is not a list',
                "name a field that is a list",
            )

    # --- suites -----------------------------------------------------------------------------------------------

    def suite(self, place: Place, argument: str, name: Value, upstream: set[str]) -> dict[str, Any] | None:
        path = self.with_path(place.step, (argument,))
        if not isinstance(name, str):
            self.report.add(
                "wrong-type",
                path,
                f"{argument} is the name of a suite",
                "write the name of a suite of this file or of configs/suites/",
            )
            return None
        self.used_suites.add(name)
        own = next((suite for suite in self.spec.suites if suite.name == name), None)
        if own is not None:
            return _SuiteResolver(self, self.report, place, upstream).suite(own)
        shared = self.project.suite(name)
        if shared is None:
            known = {suite.name for suite in self.spec.suites} | set(self.project.suite_names())
            self.report.add("unknown-suite", path, f'there is no suite "{name}"', did_you_mean(name, known, "suites"))
            return None
        spec, found = shared
        report = Report(found.document, list(found.diagnostics))
        resolved = _SuiteResolver(
            _Resolver(self.spec, report, self.registry, self.project, self.used_params), report, place, upstream
        ).suite(spec)
        self.report.extend(report.diagnostics)
        return resolved


@dataclass
class _SuiteResolver:
    """A suite with its own report: it may stand in another file than the step that uses it."""

    resolver: _Resolver
    report: Report
    place: Place
    upstream: set[str]

    def suite(self, spec: SuiteSpec) -> dict[str, Any] | None:
        from tasks.quality.expectations import problems

        written = {
            **spec.settings,
            "name": spec.name,
            "expectations": [_expectation_json(one) for one in spec.expectations],
        }
        for one in spec.expectations:
            self.expectation(spec, one, list(problems(_expectation(one))))
        templates, samples = self.templates(spec, written)
        self.check(spec, written, samples)
        return dict(replaced(written, templates))

    def expectation(self, suite: SuiteSpec, one: ExpectationSpec, found: list[Any]) -> None:
        from tasks.quality.on_postgres.quarantine import can_quarantine

        for problem in found:
            path = (*one.path, one.type, *problem.path)
            message = f'suite "{suite.name}": {problem.message}'
            self.report.add(problem.code, path, message, problem.hint, key=not problem.path)
        if one.reason and not found and not can_quarantine(_expectation(one)):
            message = f'suite "{suite.name}": no row breaks {one.type} by itself, so its reason can quarantine nothing'
            self.report.add(
                "reason-without-row",
                (*one.path, "reason"),
                message,
                "remove the reason: the expectation still gates",
                key=True,
            )

    def templates(self, spec: SuiteSpec, written: dict[str, Any]) -> tuple[dict[Path, Template], dict[Path, Samples]]:
        templates: dict[Path, Template] = {}
        samples: dict[Path, Samples] = {}
        for path, text in templated(written):
            kind = kind_in(Suite, path)
            templates[path], samples[path] = self.resolver.template(
                self.place, self.where(spec, path), text, kind, self.upstream
            )
        for path, text in texts(written):
            kind = kind_in(Suite, path)
            if kind and kind.name == "sql" and not is_template(text):
                check_sql_text(self.report, self.where(spec, path), text)
        return templates, samples

    def where(self, spec: SuiteSpec, path: Path) -> Path:
        """Return where a value of the suite's model stands in its file."""
        if len(path) > 2 and path[0] == "expectations":
            one = spec.expectations[int(path[1])]
            return (*one.path, *((one.type, *path[3:]) if path[2] == "arguments" else path[2:]))
        return (*spec.path, *path)

    def check(self, spec: SuiteSpec, written: dict[str, Any], samples: Mapping[Path, Samples]) -> None:
        if any(required not in written for required in ("connection", "batch")) or not spec.expectations:
            return
        for problem in check_values(_SUITE.validate_json, written, samples, "a suite"):
            self.report.add(
                problem.code,
                self.where(spec, problem.path),
                f'suite "{spec.name}": {problem.message}',
                problem.hint,
                key=problem.key,
            )


_SUITE: TypeAdapter[Suite] = TypeAdapter(Suite)


def check_sql_text(report: Report, path: Path, text: str) -> None:
    """Report where `text` is not one SQL expression once its templates are values."""
    try:
        skeleton = sql_skeleton(text)
        if skeleton is not None:
            check_expression(skeleton)
    except TemplateProblem as problem:
        report.add("quoted-template", path, str(problem), problem.hint)
    except ValueError as error:
        report.add("bad-sql", path, f"{path[-1]} {error}", "write one expression over the columns of the row")


def _template_name_hint(name: str) -> str:
    if name in CLOSED_NAMES:
        return f"a template reads plain values, not objects of Airflow: {CLOSED_NAMES[name]}"
    return did_you_mean(name, AIRFLOW_NAMES | {"params", "steps", "run"}, "names")


def _expectation(one: ExpectationSpec) -> Any:
    from tasks.quality.suites import Expectation

    return Expectation.model_construct(type=one.type, arguments=dict(one.arguments), reason=one.reason)


def _expectation_json(one: ExpectationSpec) -> dict[str, Any]:
    return {"type": one.type, "arguments": dict(one.arguments)} | ({"reason": one.reason} if one.reason else {})
