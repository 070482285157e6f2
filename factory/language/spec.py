"""From a document to a spec: what people may write, and nothing else.

Knows the form of a pipeline; it refuses to know which tasks, suites or steps exist.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from factory.language.arguments import (
    DAG_ARGUMENTS,
    GROUP_ARGUMENTS,
    STEP_DEADLINE,
    TASK_ARGUMENTS,
    Argument,
    Deadline,
)
from factory.language.document import Value
from factory.language.errors import Hint, Path
from factory.language.notices import EVENTS, Notice, Notices, read_notice
from factory.language.params import param_problems
from factory.language.reader import Airflow, Reader, shown
from factory.language.report import Report
from factory.language.schedules import Schedule, read_schedule

MAX_STEPS = 5_000
"""The maximum number of tasks of a pipeline."""


@dataclass(frozen=True, slots=True)
class ParamSpec:
    """A field of the trigger form: a default, and the JSON Schema that Airflow checks and builds the form from."""

    name: str
    path: Path
    schema: Mapping[str, Value]
    default: Value = None
    has_default: bool = True


@dataclass(frozen=True, slots=True)
class ExpectationSpec:
    """One rule of a suite, as it is written."""

    type: str
    path: Path
    arguments: Mapping[str, Value]
    reason: str | None


@dataclass(frozen=True, slots=True)
class SuiteSpec:
    """A suite as it is written; `settings` are its keys other than `expectations`."""

    name: str
    path: Path
    settings: Mapping[str, Value]
    expectations: tuple[ExpectationSpec, ...]


@dataclass(frozen=True, slots=True)
class Arm:
    """One arm of a branch: `condition` is None for the `else`."""

    path: Path
    condition: str | None
    targets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StepSpec:
    """One step: a task (`uses`), a branch, or a group of steps."""

    id: str
    path: Path
    uses: str | None = None
    arguments: Mapping[str, Value] = field(default_factory=dict)
    expand: Mapping[str, Value] = field(default_factory=dict)
    branch: tuple[Arm, ...] | None = None
    steps: tuple[StepSpec, ...] | None = None
    needs: tuple[str, ...] = ()
    airflow: Airflow = field(default_factory=dict)
    notify: Notices = field(default_factory=dict)
    deadline: Deadline | None = None
    each: Mapping[str, Value] = field(default_factory=dict)
    """The fields of the item of `for_each` that it is written for, whose name is one of them."""


@dataclass(frozen=True, slots=True)
class PipelineSpec:
    """A pipeline as a person wrote it."""

    dag_id: str
    airflow: Airflow
    default_args: Airflow
    timezone: str | None
    schedule: Schedule
    params: tuple[ParamSpec, ...]
    suites: tuple[SuiteSpec, ...]
    steps: tuple[StepSpec, ...]
    notify: Notices = field(default_factory=dict)


_DAG_ID = re.compile(r"[A-Za-z0-9_.\-]{1,250}\Z")
STEP_ID = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}\Z")
_SPEC_KEYS = ("timezone", "notify", "suites", "steps")
_SUITE_KEYS = ("connection", "batch", "quarantine", "expectations")
_ARM_KEYS = ("if", "then", "else")


def parse(report: Report) -> PipelineSpec:
    """Return the pipeline that the report's document declares; mistakes are reported and left out."""
    reader = SpecReader(report)
    root = reader.mapping(report.document.value, ())
    spec = reader.pipeline(root)
    reader.stray_dates()
    return spec


def parse_suite(report: Report, name: str) -> SuiteSpec:
    """Return the suite that a file of `configs/suites/` declares."""
    reader = SpecReader(report)
    suite = reader.suite(name, report.document.value, ())
    reader.stray_dates()
    return suite


@dataclass
class SpecReader(Reader):
    """Reads a pipeline, or a suite."""

    each: Mapping[str, Value] = field(default_factory=dict)
    """The fields of the item of `for_each` whose steps are read."""

    def pipeline(self, root: Mapping[str, Value]) -> PipelineSpec:
        self.unknown_keys(root, (), _PIPELINE_KEYS, DAG_ARGUMENTS, "a pipeline")
        for required in ("dag_id", "steps"):
            if required not in root:
                self.report.add(
                    "missing-key", (), f'the pipeline has no "{required}"', f"add {required}: at the top of the file"
                )
        return PipelineSpec(
            dag_id=self.dag_id(root.get("dag_id", "unnamed")),
            airflow=self.airflow(root, (), DAG_ARGUMENTS),
            default_args=self.default_args(root.get("default_args", {}), ("default_args",)),
            timezone=self.timezone(root.get("timezone"), ("timezone",)),
            schedule=self.schedule(root.get("schedule")),
            params=self.params(root.get("params", {})),
            suites=tuple(
                self.suite(name, value, ("suites", name))
                for name, value in self.mapping(root.get("suites", {}), ("suites",)).items()
            ),
            steps=self.all_steps(root["steps"]) if "steps" in root else (),
            notify=self.notices(root.get("notify", {}), ("notify",)),
        )

    def dag_id(self, value: Value) -> str:
        if not isinstance(value, str) or not _DAG_ID.match(value):
            hint = "use letters, digits, _ - and . (at most 250)"
            self.report.add(
                "wrong-value", ("dag_id",), f"dag_id is {shown(value)}, which Airflow does not accept", hint
            )
            return "unnamed"
        return value

    def timezone(self, value: Value, path: Path) -> str | None:
        if value is None:
            return None
        if isinstance(value, str) and _is_timezone(value):
            return value
        self.report.add(
            "wrong-value",
            path,
            f"{shown(value)} is not a time zone",
            "write a name such as UTC or America/Buenos_Aires",
        )
        return None

    def schedule(self, value: Value) -> Schedule:
        def report(path: Path, message: str, hint: Hint = None) -> None:
            self.report.add("bad-schedule", ("schedule", *path), message, hint)

        return read_schedule(value, report)

    def default_args(self, value: Value, path: Path) -> Airflow:
        values = self.mapping(value, path)
        self.unknown_keys(values, path, _DEFAULT_ARGS_KEYS, TASK_ARGUMENTS, "default_args")
        return self.airflow(values, path, TASK_ARGUMENTS)

    def params(self, value: Value) -> tuple[ParamSpec, ...]:
        return tuple(self.param(name, one, ("params", name)) for name, one in self.mapping(value, ("params",)).items())

    def param(self, name: str, value: Value, path: Path) -> ParamSpec:
        if not STEP_ID.match(name):
            self.report.add(
                "wrong-value", path, f'"{name}" cannot be the name of a param', "use letters, digits and _", key=True
            )
        if not isinstance(value, dict):
            hint = f"write {name}: {{type: …, default: {shown(value)}}}"
            self.report.add("wrong-type", path, f'param "{name}" is {shown(value)}; it should be a mapping', hint)
            return ParamSpec(name, path, {}, None)
        schema = {key: one for key, one in value.items() if key != "default"}
        problems = param_problems(
            json.dumps(schema, sort_keys=True), json.dumps(value.get("default")), has_default="default" in value
        )
        for where, message, remedy in problems:
            self.report.add("bad-param", (*path, *where), f'param "{name}": {message}', remedy)
        is_sound = all(where[:1] == ("default",) for where, _, _ in problems)
        return ParamSpec(name, path, schema if is_sound else {}, value.get("default"), "default" in value)

    def suite(self, name: str, value: Value, path: Path) -> SuiteSpec:
        values = self.mapping(value, path)
        self.unknown_keys(values, path, _SUITE_KEYS, {}, "a suite")
        for required in ("connection", "batch", "expectations"):
            if required not in values:
                self.report.add(
                    "missing-key", path, f'suite "{name}" has no "{required}"', f"add {required}: to it", key=True
                )
        settings = {key: one for key, one in values.items() if key in _SUITE_KEYS and key != "expectations"}
        rules = self.sequence(values.get("expectations", []), (*path, "expectations"))
        expectations = (self.expectation(one, (*path, "expectations", index)) for index, one in enumerate(rules))
        return SuiteSpec(name, path, settings, tuple(one for one in expectations if one))

    def expectation(self, value: Value, path: Path) -> ExpectationSpec | None:
        hint = "write - expect_…: {column: …}, and reason: <code> below it to quarantine the rows that break it"
        if isinstance(value, str):
            return ExpectationSpec(value, path, {}, None)
        names = [key for key in value if key != "reason"] if isinstance(value, dict) else []
        if not isinstance(value, dict) or len(names) != 1:
            actual = f"it names {len(names)}" if isinstance(value, dict) else f"it is {shown(value)}"
            message = f"an item of expectations must name exactly one expectation; {actual}"
            self.report.add("expectation-form", path, message, hint)
            return None
        reason = value.get("reason")
        if reason is not None and not (isinstance(reason, str) and re.fullmatch(r"[a-z][a-z0-9_]*", reason)):
            self.report.add(
                "wrong-value",
                (*path, "reason"),
                f"reason is {shown(reason)}; it should be a code such as invalid_site_id",
            )
            reason = None
        arguments = self.mapping(value[names[0]] if value[names[0]] is not None else {}, (*path, names[0]))
        return ExpectationSpec(names[0], path, arguments, reason if isinstance(reason, str) else None)

    def all_steps(self, value: Value) -> tuple[StepSpec, ...]:
        """Read the steps of a pipeline; none of them if there are more than Airflow can show."""
        count = _tasks_made(value)
        if count > MAX_STEPS:
            message = f"the pipeline has {count:,} steps; the maximum is {MAX_STEPS:,}"
            hint = "split it into pipelines that trigger each other"
            self.report.add("too-large", ("steps",), message, hint, key=True)
            return ()
        return self.steps(value, ("steps",))

    def steps(self, value: Value, path: Path) -> tuple[StepSpec, ...]:
        values = self.mapping(value, path)
        if not values and isinstance(value, dict):
            self.report.add(
                "wrong-value", path, "steps is empty: there is nothing to run", "add a step below it", key=True
            )
        return tuple(self.step(name, one, (*path, name)) for name, one in values.items())

    def step(self, name: str, value: Value, path: Path) -> StepSpec:
        if not STEP_ID.match(name):
            hint = "use letters, digits and _, and start with a letter"
            self.report.add("wrong-value", path, f'"{name}" cannot be the name of a step', hint, key=True)
        values = self.mapping(value, path)
        forms = [form for form in ("uses", "branch", "steps") if form in values]
        if len(forms) != 1 and isinstance(value, dict):
            actual = f"; it has {' and '.join(forms)}" if forms else ""
            message = f'step "{name}" needs exactly one of uses, branch or steps{actual}'
            self.report.add("step-form", path, message, key=True)
        form = forms[0] if forms else "uses"
        allowed, table = _STEP_FORMS[form]
        self.unknown_keys(values, path, allowed, table, f'step "{name}"')
        return StepSpec(
            id=name,
            path=path,
            uses=self.text(values["uses"], (*path, "uses")) if form == "uses" and "uses" in values else None,
            arguments=self.mapping(values.get("with", {}), (*path, "with")) if form == "uses" else {},
            expand=self.mapping(values.get("expand", {}), (*path, "expand")) if form == "uses" else {},
            branch=self.branch(name, values["branch"], (*path, "branch")) if form == "branch" else None,
            steps=self.group(values, path) if form == "steps" else None,
            needs=self.names(values.get("needs", []), (*path, "needs")),
            airflow=self.airflow(values, path, table),
            notify=self.notices(values.get("notify", {}), (*path, "notify")) if form != "steps" else {},
            deadline=self.deadline(values, path),
            each=self.each,
        )

    def group(self, values: Mapping[str, Value], path: Path) -> tuple[StepSpec, ...]:
        """Read the steps of a group; with `for_each`, a group of them for each item."""
        where = (*path, "steps")
        if "for_each" not in values:
            return self.steps(values["steps"], where)
        return tuple(
            StepSpec(name, path, steps=replace(self, each={**self.each, **item}).steps(values["steps"], where))
            for name, item in self.items(values["for_each"], (*path, "for_each"))
        )

    def items(self, value: Value, path: Path) -> Iterator[tuple[str, dict[str, Value]]]:
        """Yield the items of `for_each` by their names: a list of names, or a mapping from names to fields."""
        names = self.names(value, path, "an item") if isinstance(value, list) else ()
        given = dict.fromkeys(names) if isinstance(value, list) else self.mapping(value, path)
        for name in [name for name, count in Counter(names).items() if count > 1]:
            hint = "remove it; where two items differ in a field, give each a name of its own"
            self.report.add("wrong-value", path, f'for_each names the item "{name}" more than once', hint)
        if not given and isinstance(value, list | dict):
            self.report.add("wrong-value", path, "for_each is empty: there is nothing to run", "name an item", key=True)
        for name, fields in given.items():
            where = (*path, name) if isinstance(value, dict) else path
            if not STEP_ID.match(name):
                message = f'"{name}" cannot be the name of an item: it is that of a group'
                hint = "use letters, digits and _, start with a letter, and give the item a field"
                self.report.add("wrong-value", where, message, hint, key=isinstance(value, dict))
            elif "name" in (item := {} if fields is None else self.mapping(fields, where)):
                message, hint = "each.name is the name of the item", "give the field another name"
                self.report.add("wrong-value", (*where, "name"), message, hint, key=True)
            else:
                yield name, {**item, "name": name}

    def deadline(self, values: Mapping[str, Value], path: Path) -> Deadline | None:
        read = self.airflow(values, path, {"deadline": STEP_DEADLINE}).get("deadline")
        return read if isinstance(read, Deadline) else None

    def notices(self, value: Value, path: Path) -> Notices:
        values = self.mapping(value, path)
        self.unknown_keys(values, path, EVENTS, {}, "notify")
        return {event: self.notice(values[event], (*path, event)) for event in EVENTS if event in values}

    def notice(self, value: Value, path: Path) -> Notice | None:
        def report(where: Path, message: str, hint: Hint) -> None:
            told = f"{'.'.join(map(str, path))} is {shown(value)}: {message}"
            self.report.add("wrong-value", (*path, *where), told, hint)

        return read_notice(value, report)

    def branch(self, step: str, value: Value, path: Path) -> tuple[Arm, ...]:
        values = self.sequence(value, path)
        written = [arm for index, one in enumerate(values) if (arm := self.arm(one, (*path, index)))]
        ends = [index for index, arm in enumerate(written) if arm.condition is None]
        if not ends:
            self.report.add(
                "branch-without-else",
                path,
                f'the branch of step "{step}" has no else',
                "end it with - else: <step>, or - else: null to go nowhere",
                key=True,
            )
        elif ends[0] != len(written) - 1:
            self.report.add(
                "branch-without-else",
                written[ends[0]].path,
                "an arm after the else is never reached",
                "move the else to the end",
            )
        elif all(isinstance(one, dict) and None in (one.get("then", ""), one.get("else", "")) for one in values):
            message = f'no arm of the branch "{step}" leads to a step'
            self.report.add("branch-form", path, message, "name a step in one of its arms", key=True)
        return tuple(written)

    def arm(self, value: Value, path: Path) -> Arm | None:
        values = self.mapping(value, path)
        self.unknown_keys(values, path, _ARM_KEYS, {}, "an arm of a branch")
        form = set(values) & set(_ARM_KEYS)
        if form not in ({"if", "then"}, {"else"}):
            self.report.add(
                "branch-form",
                path,
                "an arm of a branch is either {if: …, then: …} or {else: …}",
                'write - if: "{{ … }}" and then: <step> below it',
            )
            return None
        if form == {"else"}:
            return Arm(path, None, self.led_to(values["else"], (*path, "else")))
        condition = self.text(values["if"], (*path, "if"))
        return Arm(path, condition or "", self.led_to(values["then"], (*path, "then")))

    def led_to(self, value: Value, path: Path) -> tuple[str, ...]:
        """Read where an arm leads: null is nowhere."""
        return () if value is None else self.names(value, path)


def _tasks_made(steps: Value) -> int:
    """Return how many tasks the steps make, before any is read: a `for_each` inside another multiplies them."""
    count = 0
    for step in steps.values() if isinstance(steps, dict) else ():
        if isinstance(step, dict) and "steps" in step:
            items = step.get("for_each")
            count += (len(items) if isinstance(items, list | dict) else 1) * max(_tasks_made(step["steps"]), 1)
        else:
            count += 1
    return count


def _step_form(keys: tuple[str, ...], table: Mapping[str, Argument]) -> tuple[frozenset[str], Mapping[str, Argument]]:
    return frozenset((*keys, *(name for name, argument in table.items() if argument.kind != "code"))), table


_STEP_FORMS = {
    "uses": _step_form(("uses", "with", "needs", "expand", "notify", "deadline"), TASK_ARGUMENTS),
    "branch": _step_form(("branch", "needs", "notify", "deadline"), TASK_ARGUMENTS),
    "steps": _step_form(("steps", "for_each", "needs"), GROUP_ARGUMENTS),
}
"""The keys of each form of a step, and the table that reads Airflow's among them."""
_PIPELINE_KEYS = frozenset(
    (*_SPEC_KEYS, *(name for name, argument in DAG_ARGUMENTS.items() if argument.kind != "code"))
)
_DEFAULT_ARGS_KEYS = _STEP_FORMS["uses"][0] - {"uses", "with", "needs", "expand", "notify", "deadline"}


def _is_timezone(name: str) -> bool:
    try:
        return bool(ZoneInfo(name).key)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
