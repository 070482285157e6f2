"""The plan of a pipeline: every step as a node with its task, its values and what it waits for.

It knows neither YAML nor Airflow. The rules check it, `taskflow plan` shows it, and it becomes a DAG.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path as FilePath
from typing import Any

from factory.language.arguments import ArgumentValue, Deadline
from factory.language.errors import Path
from factory.language.reader import Airflow
from factory.language.schedules import Schedule
from factory.language.spec import ParamSpec
from factory.language.templates import Template
from factory.planning.defaults import Origin
from tasks.contract import BuiltIn, Role, TaskKind


@dataclass(frozen=True, slots=True)
class Exit:
    """One arm of a branch: `when` is None for the else; `then` holds task_ids."""

    when: Template | None
    then: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Announcement:
    """A message to the services that a connection lists: the facts, after a text if there is one."""

    connection: str
    message: Template | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """One task of the DAG. `arguments` is JSON, with a Template for each text that has to be rendered."""

    task_id: str
    path: Path
    uses: str = ""
    kind: TaskKind = "plain"
    role: Role | None = None
    summary: str = ""
    suites: tuple[str, ...] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)
    expand: Mapping[str, Any] = field(default_factory=dict)
    exits: tuple[Exit, ...] = ()
    upstream: tuple[str, ...] = ()
    airflow: Airflow = field(default_factory=dict)
    groups: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    """The output fields that Airflow's UI shows as buttons."""
    params: frozenset[str] = frozenset()
    """The params that its values name."""
    origins: Mapping[str, Origin] = field(default_factory=dict)
    """Where each of its arguments is written."""
    notify: Mapping[str, Announcement] = field(default_factory=dict)
    """Whom it tells, by event."""
    deadline: Deadline | None = None

    @property
    def is_branch(self) -> bool:
        """Whether this node chooses among its exits."""
        return bool(self.exits)

    @property
    def trigger_rule(self) -> str:
        """Airflow's rule for when this node runs."""
        return str(self.airflow.get("trigger_rule", "all_success"))


@dataclass(frozen=True, slots=True)
class JudgedBefore:
    """A gate that must pass before a load: its task_id, the table it judges, and its suite as the plan has it."""

    task_id: str
    table: str
    suite: Mapping[str, Any]
    expand: tuple[Any, ...] = ()
    """The lists that it is mapped over."""


@dataclass(frozen=True, slots=True)
class WrittenBefore:
    """A file, or a folder of files, that an earlier step writes."""

    path: Any
    """A text, or a Template; for a mapped step, that of a list."""
    task_id: str


@dataclass(frozen=True, slots=True)
class GuardsBefore:
    """What comes before a build, a gate or a load, or before a step that reads files."""

    builds: Mapping[str, str]
    """The tables that it takes or judges and that earlier steps build, each with the last of these steps."""
    gates: tuple[JudgedBefore, ...]
    watched: frozenset[str]
    """The tables that it judges and that a load takes although no step builds them."""
    claims: tuple[BuiltIn, ...] = ()
    """All tables that the pipeline builds, for a step that builds one."""
    loaded_once: frozenset[str] = frozenset()
    """The tables that it loads and no other step does."""
    files: tuple[WrittenBefore, ...] = ()
    """The files that earlier steps write, those of later steps last."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole pipeline."""

    dag_id: str
    file: str
    root: FilePath
    airflow: Airflow
    default_args: Airflow
    timezone: str | None
    schedule: Schedule
    params: tuple[ParamSpec, ...]
    nodes: tuple[Node, ...]
    groups: Mapping[str, Airflow]
    suites: Mapping[str, Path] = field(default_factory=dict)
    """The spec's own suites, and where each is written."""
    before: Mapping[str, GuardsBefore] = field(default_factory=dict)
    """What comes before each build, gate and load, and before each step that reads files, by task_id."""
    dag_origins: Mapping[str, Origin] = field(default_factory=dict)
    default_args_origins: Mapping[str, Origin] = field(default_factory=dict)
    notify: Mapping[str, Announcement] = field(default_factory=dict)
    """Whom the pipeline tells of the end of a run, by event."""

    def node(self, task_id: str) -> Node:
        """Return the node of `task_id`."""
        return next(node for node in self.nodes if node.task_id == task_id)


_NOT_SHOWN = ("path", "kind", "params", "origins")


def as_json(plan: Plan) -> dict[str, Any]:
    """Return `plan` as JSON that depends only on the files' contents, not on where they are."""
    shown = ("dag_id", "file", "airflow", "default_args", "timezone", "schedule", "params", "nodes", "groups", "notify")
    return {name: in_json(getattr(plan, name)) for name in shown}


def in_json(value: object) -> Any:
    """Return a value of a plan as JSON: a template as its text, a duration in seconds, what is empty left out."""
    if isinstance(value, Template):
        return value.text
    if is_dataclass(value) and not isinstance(value, type):
        return {
            one.name: shown
            for one in fields(value)
            if one.name not in _NOT_SHOWN and (shown := in_json(getattr(value, one.name))) not in ({}, [], "", None)
        }
    if isinstance(value, Mapping):
        return {str(key): in_json(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [in_json(one) for one in value]
    return _scalar(value)


def _scalar(value: object) -> ArgumentValue | str:
    if isinstance(value, dt.timedelta):
        return f"{value.total_seconds():g}s"
    if isinstance(value, dt.datetime):
        return value.isoformat()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a plan cannot contain a {type(value).__name__}")
