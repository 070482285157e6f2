"""The record of a validation: a row for each try, begun before it judges and ended with its verdict.

Knows the columns of a record and the forms that such a table had before. Does not know how a verdict is reached.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tasks.contract import PermanentError, Run, TransientError
from tasks.postgres.relations import columns_of, require_columns
from tasks.postgres.sql import table_identifier
from tasks.postgres.statements import joined, name, names, statement, value
from tasks.quality.details import account, asked
from tasks.services.postgres import postgres

if TYPE_CHECKING:
    from psycopg2.extensions import connection as PostgresSession  # noqa: N812  psycopg2 spells its class in lower case
    from psycopg2.extensions import cursor as Cursor  # noqa: N812  psycopg2 spells its class in lower case
    from psycopg2.sql import Composable

    from tasks.postgres.passes import Judged
    from tasks.quality.suites import Suite
    from tasks.quality.verdicts import Verdict

_ENDED = ("ended_at", "version", "row_count", "passed", "failed", "rejected", "error")
"""The columns that are set at the end of a try."""


@dataclass(slots=True)
class Record:
    """The row of one try in `table`; without a table, nothing is recorded."""

    table: str | None
    suite: Suite
    run: Run
    is_begun: bool = field(default=False, init=False)

    @contextmanager
    def kept(self, lock_timeout: float) -> Iterator[None]:
        """Write the error that ends the block, if any, into the record: without an end, it is that of a killed try."""
        try:
            yield
        except Exception as error:
            if self.table and self.is_begun:
                self._fail(self.table, str(error), lock_timeout)
            raise

    def begin(self, session: PostgresSession) -> None:
        """Write the row, outside of a transaction; raise PermanentError if the table lacks columns of a record."""
        if self.table is None:
            return
        row = self._begun()
        with session.cursor() as cursor:
            _require_form(cursor, self.table, [*row, "started_at", *_ENDED])
            cursor.execute(
                statement(
                    "INSERT INTO {table} ({columns}, started_at) VALUES ({values}, clock_timestamp())",
                    table=table_identifier(self.table),
                    columns=names(row),
                    values=joined(", ", map(value, row.values())),
                )
            )
        self.is_begun = True

    def end(self, cursor: Cursor, verdict: Verdict, judged: Judged, rejected: Mapping[str, int]) -> None:
        """Write the verdict, in the transaction that judged."""
        if self.table is None:
            return
        ended = {
            "version": judged.version,
            "row_count": verdict.rows,
            "passed": not verdict.failed,
            "failed": len(verdict.failed),
            "rejected": sum(rejected.values()),
            "details": _json(account(verdict, self.suite, rejected)),
        }
        cursor.execute(self._update(self.table, ended))
        if cursor.rowcount != 1:
            raise TransientError(self.table, f"somebody deleted the record of this try, {self.run.attempt}")

    def _fail(self, table: str, error: str, lock_timeout: float) -> None:
        opened = postgres(self.suite.connection, run=self.run, lock_timeout=lock_timeout)
        try:
            with opened as session, session.cursor() as cursor:
                cursor.execute(self._update(table, {"error": error.replace("\0", "")}))
        except (PermanentError, TransientError) as problem:
            self.run.log.warning("the record of this try in %s stays without an end: %s", table, problem)

    def _begun(self) -> dict[str, object]:
        run, suite = self.run, self.suite
        return {
            "validation_id": run.attempt,
            "deployment": run.deployment,
            "dag_id": run.dag_id,
            "run_id": run.run_id,
            "task_id": run.task_id,
            "map_index": run.map_index,
            "try_number": run.try_number,
            "run_date": run.date,
            "suite": suite.name,
            "table_name": suite.batch.table,
            "batch_where": suite.batch.where,
            "expectations": len(suite.expectations),
            "details": _json(asked(suite)),
        }

    def _update(self, table: str, ended: Mapping[str, object]) -> Composable:
        """Return the statement that ends the row, unless it has ended."""
        changes = (statement("{column} = {to}", column=name(column), to=value(to)) for column, to in ended.items())
        return statement(
            "UPDATE {table} SET ended_at = clock_timestamp(), {changes}"
            " WHERE validation_id = {this} AND ended_at IS NULL",
            table=table_identifier(table),
            changes=joined(", ", changes),
            this=value(self.run.attempt),
        )


def _require_form(cursor: Cursor, table: str, wanted: list[str]) -> None:
    there = columns_of(cursor, table)
    if "validation_id" not in there and "created_at" in there:
        raise PermanentError(
            f"{table} has one row for each suite of a run, as in earlier versions; now each try has its own. Migrate it"
            " with the statements by which configs/sql/crypto/tables.sql migrates dqm.dq_runs: they keep its rows"
        )
    require_columns(table, there, wanted)


def _json(details: dict[str, Any]) -> str:
    return json.dumps(details, ensure_ascii=False, allow_nan=False)
