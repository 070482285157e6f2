"""What a reusable task is: its declaration, the run it works for, its output and its errors.

Knows nothing of YAML, of Airflow or of any library that a task uses.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field

Role = Literal[
    "source",
    "transform",
    "gate",
    "load",
    "maintenance",
    "report",
    "notify",
    "train",
    "evaluate",
    "promote",
    "wait",
    "stop",
]
"""What a task does to the world; the factory's rules rely on it. One that stops may skip what needs its success."""

TaskKind = Literal["plain", "deferrable"]
"""How Airflow runs a task: `plain` is a function that a worker's process calls once.

A `deferrable` one may raise `Occupied`, `NotYet` or `Asking`: it is called again when what it waits for may be there,
without a worker's slot in between.
"""

TextKindName = Literal["connection", "table", "column", "sql", "query", "sql_file", "file", "bucket", "link"]


@dataclass(frozen=True, slots=True)
class TextKind:
    """What a text is used for: decides how it is checked and how values are inserted."""

    name: TextKindName
    of: str = ""
    """For a column, the arguments that name its file or query. For a file, the argument with the SQL it is built from.

    For a table, "build" if the step fills it, "load" if the step takes its rows, "judge" if the step is its gate.
    For a SQL file, what it holds: "statements" or a "query" for Postgres, or a query for "spark".
    """
    written: bool = False
    """For a file, whether the step writes it."""
    arrives: bool = False
    """For a table that the step builds, whether its rows come from outside the database: a gate must judge them."""
    views: str = ""
    """For a query for Spark, the argument whose keys are the views that it reads."""


_IDENTIFIER = r"[A-Za-z_][A-Za-z0-9_$]{0,62}"
_PART = r"""[^".\x00-\x1f\x7f]{1,63}"""
"""The name of a schema or table: whatever Postgres takes in quotes, but quotes and dots themselves."""

ConnectionId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.\-]+$"), TextKind("connection")]
"""The id of an Airflow connection, which holds host and secrets."""
Table = Annotated[str, Field(pattern=rf"^{_PART}\.{_PART}$"), TextKind("table")]
"""`schema.table`, spelt exactly as in the database, without SQL's quotes."""
BuiltTable = Annotated[Table, TextKind("table", of="build")]
"""A table that the step empties and fills: its rows belong to the run."""
ArrivingTable = Annotated[Table, TextKind("table", of="build", arrives=True)]
"""A table that the step empties and fills with rows from outside the database: a gate after it must judge them all."""
LoadedTable = Annotated[Table, TextKind("table", of="load")]
"""A table whose rows the step loads: they must be the run's own, and judged."""
Column = Annotated[str, Field(pattern=rf"^{_IDENTIFIER}$"), TextKind("column")]
"""A column's name in a file."""
TableColumn = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{1,63}$"), TextKind("column")]
"""The name of a table's column, spelt exactly as in the database, without SQL's quotes: any name it may have there."""
Sql = Annotated[str, Field(min_length=1), TextKind("sql")]
"""One SQL expression; a `{{ … }}` in it becomes a quoted literal (`tasks.postgres.sql`)."""
SqlFile = Annotated[str, Field(pattern=r"^[A-Za-z0-9_\-]+(/[A-Za-z0-9_\-]+)*\.sql$"), TextKind("sql_file")]
"""A file below `configs/sql/`."""
Query = Annotated[str, Field(min_length=1), TextKind("query")]
"""One SELECT for Postgres; a `{{ … }}` in it becomes a quoted literal (`tasks.postgres.expressions`)."""
StatementsFile = Annotated[SqlFile, TextKind("sql_file", of="statements")]
"""A file of statements for Postgres; `values` beside it is bound in it."""
QueryFile = Annotated[SqlFile, TextKind("sql_file", of="query")]
"""A file with one SELECT for Postgres; `values` beside it is bound in it."""
_FILE_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.=\-]*"

DataFile = Annotated[str, Field(pattern=rf"^{_FILE_NAME}(/{_FILE_NAME})*$"), TextKind("file")]
"""A file, or a folder of files, passed between steps: its path below the place that `files` names."""
NamedFile = Annotated[str, Field(pattern=rf"^{_FILE_NAME}(/{_FILE_NAME})*$")]
"""A file, or a folder, under the name that people know: below a place, and no run's own."""
WrittenFile = Annotated[DataFile, TextKind("file", written=True)]
"""A file, or a folder of files, that the step writes: steps after it read those of their own run."""
BuiltFile = Annotated[DataFile, TextKind("file", of="sql", written=True)]
"""A file that the step builds from the query in its argument `sql`, so lint knows its columns."""
FilePattern = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.=\-*?]+$", max_length=200)]
"""Names of files in one folder, with `*` for any characters and `?` for one."""
SqlType = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_ ]*(\([0-9, ]+\))?[a-z ]*(\[\])?$", max_length=80)]
"""A type of Postgres as SQL spells it: `bigint`, `numeric(10, 2)`, `timestamp with time zone`, `text[]`."""
DataColumn = Annotated[Column, TextKind("column", of="data")]
"""A column of the file in the step's argument `data`; lint checks it if it knows the file's columns."""
Bucket = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.\-]{1,61}[a-z0-9]$"), TextKind("bucket")]
"""A bucket of the object store."""
LockTimeout = Annotated[float, Field(gt=0, le=86_400)]
"""Seconds to wait for a lock that another session than a task's holds, before the task fails and is retried."""
ClaimTimeout = Annotated[float, Field(gt=0, le=604_800)]
"""Seconds to wait for another run that has claimed the same table, before the task fails."""
Link = Annotated[str, TextKind("link")]
"""Where to see what a task made: `s3://bucket/key`, an http address, or an absolute path on the workers' disk.

Airflow's UI shows a button for it, unless it is a path.
"""


class Model(BaseModel):
    """A structure written under `with`: closed, strict and frozen."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Location(Model):
    """A folder or a bucket: `configs/` declares it, and a spec only uses its name."""


class Output(Model):
    """What a task returns: a few small JSON values that other steps can refer to."""


@dataclass(frozen=True, slots=True)
class GateBefore:
    """A gate that must have passed before a load."""

    task_id: str
    table: str
    """What it judges."""
    digest: str
    """Of its suite, as the suite is written and its values are now."""
    connection: str = ""
    """Of the database in which it judges."""
    items: int | None = None
    """How many items it is mapped over; None for a gate that is not mapped."""
    is_whole: bool = True
    """Whether it judges all rows of the table."""

    @property
    def map_indexes(self) -> list[int]:
        """The map indexes of its task instances, as Airflow numbers them."""
        return [-1] if self.items is None else list(range(self.items))


class BuiltIn(NamedTuple):
    """A table that a step of the pipeline builds, and the connection through which it does."""

    connection: str
    table: str


@dataclass(frozen=True, slots=True)
class Before:
    """What the plan puts before a task: which data the task may take for its run's own."""

    builds: Mapping[str, str] = field(default_factory=dict)
    """The tables that steps before it build, each with the task_id to clear from."""
    files: Mapping[str, str] = field(default_factory=dict)
    """The files, and folders of files, that steps before it write, each with the task_id to clear from."""
    gates: tuple[GateBefore, ...] = ()
    """The gates that must have passed before a load."""
    digest: str = ""
    """Of a gate's own suite."""
    watched: frozenset[str] = frozenset()
    """Tables filled from outside that a load takes: their gate notes what it saw of each row."""
    claims: tuple[BuiltIn, ...] = ()
    """All tables that the pipeline builds: a build claims them for its run."""
    loaded_once: frozenset[str] = frozenset()
    """The tables that a load takes and no other step loads."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What people chose."""

    chosen: str
    by: str | None
    """The name of who chose it; None if nobody did in time."""
    at: dt.datetime


def _nobody_runs(_dag_id: str, _run_id: str) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Run:
    """The run a task works for. Every window is computed from `date`, never from today's date."""

    dag_id: str
    run_id: str
    task_id: str
    date: dt.date
    try_number: int = 1
    map_index: int = -1
    interval_start: dt.datetime | None = None
    interval_end: dt.datetime | None = None
    configs: Path = Path("configs")
    deployment: str = ""
    """The Airflow that runs it: another one may have a run of the same name in the same database."""
    attempt: str = ""
    """The UUID of the task instance: another one for each try."""
    is_local: bool = False
    """Whether the run ends with this process: then no Airflow can be asked for its state later."""
    is_running: Callable[[str, str], bool] = _nobody_runs
    """Whether a run of this deployment, by dag_id and run_id, is running now."""
    answer: Answer | None = None
    """What people chose, of a task that has asked them."""
    before: Before = field(default_factory=Before)
    functions: frozenset[str] = frozenset()
    """The SQL functions that `configs/` allow besides Postgres' and Spark's harmless ones."""
    log: logging.Logger = field(default_factory=lambda: logging.getLogger("tasks"))


class PermanentError(Exception):
    """Retrying cannot help: the runtime fails the task at once, whatever its `retries`."""


@dataclass
class ArgumentRefused(PermanentError):
    """An argument of the step cannot be used; the runtime adds where it is written."""

    path: tuple[str | int, ...]
    """Its place below `with`."""
    problem: str

    def __str__(self) -> str:
        return f"{'.'.join(map(str, self.path))}: {self.problem}"


class DataRejected(PermanentError):
    """The data broke its rules. The task still returns `output`, which says where to see the findings."""

    def __init__(self, message: str, output: Output | None = None) -> None:
        super().__init__(message)
        self.output = output


@dataclass
class MissingResource(PermanentError):
    """Something that the step names does not exist."""

    kind: str
    name: str
    where: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r} does not exist in {self.where}; {self.remedy}"


@dataclass
class TransientError(Exception):
    """A service did not answer, dropped the connection, or gave up in favour of someone else: a retry may succeed."""

    service: str
    problem: str

    def __str__(self) -> str:
        return f"{self.service}: {self.problem}"


class Locked(TransientError):
    """Another session holds a lock for longer than the task may wait for it: a retry may succeed."""


@dataclass
class Occupied(Exception):
    """Another run has what a deferrable task needs: the task is called again when that run may have ended."""

    problem: str
    dag_id: str
    run_id: str
    can_ask: bool
    """Whether the Airflow that runs the task knows that run."""
    timeout: float
    """How many seconds the task waits at most."""

    def __str__(self) -> str:
        return self.problem


@dataclass
class NotYet(Exception):
    """What a deferrable task waits for is not there: the task is called again and again until it is."""

    problem: str
    poke_interval: float
    """Seconds between two calls."""
    timeout: float
    """How many seconds the task waits at most."""
    soft_fail: bool = False
    """Whether the task is skipped after that, rather than failed."""

    def __str__(self) -> str:
        return self.problem


@dataclass
class Asking(Exception):
    """A deferrable task goes on when people have chosen: it is called again with their answer."""

    subject: str
    body: str
    """The details, in Markdown."""
    options: tuple[str, ...]
    default: str | None
    """What is taken for chosen if nobody has in time; None to fail."""
    people: tuple[str, ...]
    """The ids of Airflow's users who may choose; none is everybody who may edit the run."""
    timeout: float
    """How many seconds people have."""

    def __str__(self) -> str:
        return self.subject


class NothingToDo(Exception):
    """The run need not go on from here: the task is skipped, and with it every step that needs its success."""


Conflict = tuple[tuple[str | int, ...], str]
"""A mistake in arguments that are each right by themselves: the path of one, and what is wrong with it."""
Conflicts = Callable[[Mapping[str, Any]], Iterable[Conflict]]
Outputs = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""From the arguments of a step to the JSON Schemas of those fields of its output whose types follow from them."""


@dataclass(frozen=True, slots=True)
class Declaration:
    """What `@reusable` says about a function."""

    name: str
    role: Role
    kind: TaskKind = "plain"
    conflicts: Conflicts | None = None
    outputs: Outputs | None = None


F = TypeVar("F", bound=Callable[..., object])

DECLARATION = "__reusable__"


def reusable(
    name: str,
    *,
    role: Role,
    kind: TaskKind = "plain",
    conflicts: Conflicts | None = None,
    outputs: Outputs | None = None,
) -> Callable[[F], F]:
    """Declare a function as a task for steps with `uses: <name>`.

    The signature is the schema of `with`, the return type (an `Output`, or None) the schema of what other steps can
    refer to, the docstring the catalogue entry. A keyword-only `run: Run` receives the run. `conflicts` says which
    arguments do not go together: lint asks it, and the worker before the task runs. `outputs` gives the types of those
    fields that depend on arguments. The function is returned unchanged, so tests call it without Airflow.
    """

    def declare(function: F) -> F:
        setattr(function, DECLARATION, Declaration(name, role, kind, conflicts, outputs))
        return function

    return declare
