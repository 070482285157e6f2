"""A suite: the rules that a batch of rows must keep, and where the rows that break them go.

Knows the form of a suite, not how it is run (`tasks.quality.gate`) nor how rows are set aside
(`tasks.quality.on_postgres.quarantine`).
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, JsonValue

from tasks.contract import ConnectionId, Model, Sql, Table, TableColumn, TextKind


class Batch(Model):
    """The rows under test: a table, or the rows of it that meet `where`."""

    table: Annotated[Table, TextKind("table", of="judge")]
    where: Sql | None = None


class Quarantine(Model):
    """Where failing rows go: `columns` maps each column of `table` to an expression over the failing row.

    The columns `suite`, `dag_id`, `run_id`, `validation_id` and `reason` are filled by the task.
    """

    table: Table
    columns: dict[TableColumn, Sql] = Field(min_length=1)


class Expectation(Model):
    """One expectation of Great Expectations, by its own name and arguments.

    `reason` is the code under which rows that break it are quarantined.
    """

    type: str
    arguments: dict[str, JsonValue] = Field(default_factory=dict)
    reason: str | None = Field(default=None, pattern=r"^[a-z][a-z0-9_]*$")


class Suite(Model):
    """A named list of expectations on one batch."""

    name: str
    connection: ConnectionId
    batch: Batch
    quarantine: Quarantine | None = None
    expectations: list[Expectation] = Field(min_length=1)
