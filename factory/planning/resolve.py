"""From a spec to a plan: every step becomes a node with its task, its values and what it waits for.

Steps are checked one by one here; the pipeline as a whole is checked by `rules`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial

from factory.language.document import value_at
from factory.language.errors import Path, closest, did_you_mean
from factory.language.reader import Airflow
from factory.language.report import Report
from factory.language.spec import Arm, PipelineSpec, StepSpec
from factory.language.templates import Template, is_template
from factory.planning import announcements
from factory.planning.defaults import Source, dag_sources, default_args_sources, layered, origins, values
from factory.planning.pipeline import Pipeline
from factory.planning.plan import Announcement, Exit, Node, Plan
from factory.planning.project import Project
from factory.planning.references import Reading, is_whole, params_of, waits_of
from factory.planning.scopes import Place, Scope, places, scope_of
from factory.planning.step_values import step_values, unchecked_values
from factory.planning.wiring import MAX_EDGES, TooManyEdges, linked
from factory.registry import Registry, TaskDefinition

MAX_TASK_ID = 250
"""The maximum length of a task_id in Airflow."""


def resolve(spec: PipelineSpec, report: Report, registry: Registry, project: Project) -> Plan:
    """Return the plan of `spec`; anything that cannot be resolved is reported and left out."""
    return _Resolver(Pipeline(spec, report, registry, project)).plan()


@dataclass(frozen=True)
class _Resolver:
    pipeline: Pipeline

    @cached_property
    def notices(self) -> dict[str, Announcement]:
        """Whom the pipeline tells, of every event."""
        return announcements.of_pipeline(self.pipeline)

    def plan(self) -> Plan:
        spec, report, project = self.pipeline.spec, self.pipeline.report, self.pipeline.project
        scope = scope_of(spec.steps)
        groups = [place for place in places(scope) if place.step.steps is not None]
        airflow = layered(*dag_sources(project), Source(report.document, (), spec.airflow))
        dag_arguments = values(airflow)
        own_default_args = Source(report.document, ("default_args",), spec.default_args)
        default_args = layered(*default_args_sources(project), own_default_args)
        nodes = tuple(self.nodes(scope))
        group_needs = {place.task_id: tuple(self.waits(place)) for place in groups}
        self.check_lengths(scope)
        self.check_names(scope)
        report.extend(project.diagnostics)
        return Plan(
            dag_id=spec.dag_id,
            file=report.document.file,
            root=project.root,
            airflow=dag_arguments,
            default_args=values(default_args),
            timezone=spec.timezone,
            schedule=spec.schedule,
            params=spec.params,
            nodes=self.linked(nodes, group_needs),
            groups={place.task_id: place.step.airflow for place in groups},
            suites={suite.name: suite.path for suite in spec.suites},
            dag_origins=origins(airflow),
            default_args_origins=origins(default_args),
            notify=announcements.of_runs(self.notices, has_deadline=bool(dag_arguments.get("deadline"))),
        )

    def linked(self, nodes: tuple[Node, ...], group_needs: Mapping[str, tuple[str, ...]]) -> tuple[Node, ...]:
        """Return `nodes` with edges between tasks only; report a pipeline that is too large for Airflow."""
        report = self.pipeline.report
        try:
            return linked(nodes, group_needs)
        except TooManyEdges as error:
            message = f"the steps wait for each other in {error.count:,} pairs; the maximum is {MAX_EDGES:,}"
            hint = "put a step between the groups: one needs it, and it needs the other"
            report.add("too-large", ("steps",), message, hint, key=True)
            return ()

    def check_lengths(self, scope: Scope) -> None:
        """Report a task_id that is too long for Airflow: it begins with the names of the groups around the step."""
        for place in places(scope):
            suffix = max((len(name) + 1 for name in place.step.expand), default=0)
            if len(place.task_id) + suffix > MAX_TASK_ID:
                message = f"the task_id {place.task_id} has {len(place.task_id) + suffix} characters with its groups"
                hint = f"Airflow allows {MAX_TASK_ID}: use shorter names"
                self.pipeline.report.add("wrong-value", place.step.path, message, hint, key=True)

    def check_names(self, scope: Scope) -> None:
        """Report a queue that no worker takes tasks from, and a pool that Airflow lacks: the step would never run."""
        named: list[tuple[Path, Airflow]] = [(("default_args",), self.pipeline.spec.default_args)]
        named += [(place.step.path, place.step.airflow) for place in places(scope)]
        project = self.pipeline.project
        for path, airflow in named:
            self.check_name("queue", project.queues, path, airflow, "no worker takes tasks from it")
            self.check_name("pool", project.pools, path, airflow, "Airflow would not start the task")

    def check_name(
        self, kind: str, known: tuple[str, ...] | None, path: Path, airflow: Airflow, consequence: str
    ) -> None:
        name = airflow.get(kind)
        if is_template(name):
            message = f"{kind} is {name!r}, but Airflow's arguments are not filled in: it would be that very name"
            self.pipeline.report.add("bad-template", (*path, kind), message, f"write the name of a {kind}")
        elif known is not None and name is not None and name not in known:
            message = f'"{name}" is not in the `{kind}s` of configs/, so {consequence}'
            hint = partial(did_you_mean, str(name), known, f"{kind}s")
            self.pipeline.report.add(f"unknown-{kind}", (*path, kind), message, hint)

    def nodes(self, scope: Scope) -> Iterator[Node]:
        for place in scope.places.values():
            if place.step.steps is not None:
                yield from self.nodes(scope.inner[place.step.id])
            elif place.step.branch is not None:
                yield self.branch(place)
            else:
                yield self.task(place)

    def task(self, place: Place) -> Node:
        step, definition = place.step, self.definition(place.step)
        if definition is None:
            given = unchecked_values(place, self.pipeline)
        else:
            given = step_values(place, definition, self.pipeline)
        return Node(
            task_id=place.task_id,
            path=step.path,
            uses=definition.name if definition else "",
            kind=definition.kind if definition else "plain",
            role=definition.role if definition else None,
            summary=definition.summary if definition else "",
            suites=given.suites,
            arguments=given.arguments,
            expand=given.expand,
            upstream=tuple(sorted(given.waits.union(self.waits(place)))),
            airflow=step.airflow,
            groups=place.scope.groups,
            links=definition.links if definition else (),
            params=given.params,
            origins=given.origins,
            notify=announcements.of_step(step, self.notices, self.pipeline),
            deadline=step.deadline,
        )

    def definition(self, step: StepSpec) -> TaskDefinition | None:
        registry = self.pipeline.registry
        if step.uses is None:
            return None
        if step.uses in registry:
            return registry[step.uses]
        hint = partial(_nearest_task, step.uses, registry)
        self.pipeline.report.add("unknown-task", (*step.path, "uses"), f'there is no task "{step.uses}"', hint)
        return None

    # --- edges ----------------------------------------------------------------------------------------------------

    def waits(self, place: Place) -> list[str]:
        """Return the task_ids that `needs` resolves to; report unknown names."""
        step = place.step
        targets = [
            self.target(place, name, self.needs_path(step, index), f'step "{step.id}" needs "{name}"')
            for index, name in enumerate(step.needs)
        ]
        return [target.task_id for target in targets if target]

    def needs_path(self, step: StepSpec, index: int) -> Path:
        path = (*step.path, "needs")
        is_list = isinstance(value_at(self.pipeline.report.document.value, path), list)
        return (*path, index) if is_list else path

    def target(self, place: Place, name: str, path: Path, what: str) -> Place | None:
        target = place.scope.find(tuple(name.split(".")))
        if target is None:
            self.pipeline.report.add(
                "unknown-step",
                path,
                f"{what}, which is not a step of this pipeline",
                lambda: did_you_mean(name, place.scope.known() - {place.step.id}, "steps"),
            )
        elif problem := _own_cycle(place, target):
            self.pipeline.report.add("cycle", path, f"{what}: {problem}", "remove it")
            return None
        return target

    # --- branches -------------------------------------------------------------------------------------------------

    def branch(self, place: Place) -> Node:
        arms = place.step.branch or ()
        conditions = {arm.path: self.condition(place, arm) for arm in arms if arm.condition is not None}
        whens = [conditions[arm.path].template if arm.path in conditions else None for arm in arms]
        exits = tuple(Exit(when, self.targets(place, arm)) for when, arm in zip(whens, arms, strict=True))
        return Node(
            task_id=place.task_id,
            path=place.step.path,
            exits=exits,
            upstream=tuple(sorted(waits_of(conditions.values()).union(self.waits(place)))),
            airflow=place.step.airflow,
            groups=place.scope.groups,
            params=params_of(conditions.values()),
            notify=announcements.of_step(place.step, self.notices, self.pipeline),
            deadline=place.step.deadline,
        )

    def targets(self, place: Place, arm: Arm) -> tuple[str, ...]:
        path = (*arm.path, "else" if arm.condition is None else "then")
        named = [
            self.target(place, name, path, f'the branch "{place.step.id}" leads to "{name}"') for name in arm.targets
        ]
        return tuple(target.task_id for target in named if target)

    def condition(self, place: Place, arm: Arm) -> Reading:
        path, text, report = (*arm.path, "if"), arm.condition or "", self.pipeline.report
        if not is_whole(text):
            hint = "write the whole condition inside one {{ … }}" if is_template(text) else f'write "{{{{ {text} }}}}"'
            report.add("condition-form", path, f"the condition {text!r} is not a single {{{{ … }}}}", hint)
            return Reading(Template(text))
        reading = self.pipeline.references.read(text, place)
        for problem in reading.problems:
            report.add_problem(problem, path)
        if not reading.problems and any(one.name not in ("boolean", "anything") for one in reading.types):
            message = "the condition may be something other than true or false"
            report.add("template-type", path, message, "compare it: {{ … > 0 }}, or name a boolean")
        return reading


def _nearest_task(uses: str, registry: Registry) -> str:
    """Return a hint: the task that is meant; all of an area if it is right and no action of it is near."""
    area, _, action = uses.partition(".")
    actions = [name.partition(".")[2] for name in registry.tasks if name.startswith(f"{area}.")]
    if not actions:
        return did_you_mean(uses, registry.tasks, "tasks")
    meant = closest(action, actions)
    return f'did you mean "{area}.{meant}"?' if meant else f"{area} has the tasks {', '.join(sorted(actions))}"


def _own_cycle(place: Place, target: Place) -> str | None:
    if target.step is place.step:
        return "a step cannot wait for itself"
    if place.task_id.startswith(f"{target.task_id}."):
        return "a step cannot wait for a group that it is in, or lead to it"
    return "a group cannot wait for a step inside it" if target.task_id.startswith(f"{place.task_id}.") else None
