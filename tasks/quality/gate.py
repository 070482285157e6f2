"""The gate: a batch keeps the rules of its suite, or the run stops here.

Knows the order of things: the verdict, the rejected rows and the record of the validation are one transaction; the
pages for people come after it. Does not know how a rule is judged (`tasks.quality.verdicts`), how rows are set aside
(`tasks.quality.on_postgres.quarantine`) or how pages are made (`tasks.quality.data_docs`).
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tasks.contract import (
    Bucket,
    ConnectionId,
    DataRejected,
    Link,
    LockTimeout,
    Model,
    Output,
    PermanentError,
    Run,
    Table,
    TransientError,
    reusable,
)
from tasks.postgres.passes import Judged, fingerprint, record_pass
from tasks.postgres.sql import quoted_table, table_identifier
from tasks.postgres.statements import joined, names, statement, value
from tasks.postgres.versions import standing_build
from tasks.quality.data_docs import Links, publish
from tasks.quality.on_postgres.quarantine import quarantine
from tasks.quality.record import account
from tasks.quality.suites import Suite
from tasks.quality.validation_text import rejection, report
from tasks.quality.verdicts import Verdict, check_arguments, judge, load_library
from tasks.services.postgres import postgres

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from psycopg2.extensions import connection as PostgresSession  # noqa: N812  psycopg2 spells its class in lower case
    from psycopg2.extensions import cursor as Cursor  # noqa: N812


class Artifacts(Model):
    """Where results and Data Docs go: a bucket of an object store."""

    connection: ConnectionId
    bucket: Bucket


class Validation(Output):
    """What a validation found, and where to see it."""

    suite: str
    passed: bool
    expectations: int
    failed: int
    rows: int
    """Rows in the batch."""
    rejected: int
    """Rows set aside, counted once per reason."""
    data_docs: Link | None
    result: Link | None


@reusable("quality.validate", role="gate")
def validate(
    suite: Suite,
    record_in: Table | None = None,
    artifacts: Artifacts | None = None,
    lock_timeout: LockTimeout = 60,
    *,
    run: Run,
) -> Validation:
    """Judge a batch by a suite; if a rule is broken, set the rows aside and stop the run.

    The rules run as SQL in Postgres, on one consistent view of the batch. Rows that break an expectation with a
    `reason` go to the suite's quarantine; `record_in` gets one row per validation, and `artifacts` the results and
    Data Docs. A retry replaces what it wrote before. Raises DataRejected, which is not retried, if a rule is broken,
    and MissingResource for a table, column or bucket that does not exist. The step waits up to `lock_timeout` seconds
    for a lock that no task holds.
    """
    check_arguments(suite)
    load_library()
    opened = postgres(suite.connection, run=run, autocommit=True, lock_timeout=lock_timeout)
    with opened as session, _one_snapshot(session, suite, run) as cursor:
        judged = _judged(cursor, suite, run)
        verdict = judge(session, suite, run)
        record_pass(cursor, judged, suite.name, run, passed=not verdict.failed)
        rejected = quarantine(cursor, suite, [outcome.expectation for outcome in verdict.failed], run)
        if record_in is not None:
            _record(cursor, record_in, suite, run, verdict, rejected)
    links, problem = _published(artifacts, verdict, suite, run)
    run.log.info(report(verdict, suite, rejected))
    validation = _validation(verdict, suite, rejected, links)
    if verdict.failed:
        raise DataRejected(rejection(verdict, suite, run, rejected, links, problem), validation)
    if problem:
        raise problem
    return validation


@contextmanager
def _one_snapshot(session: PostgresSession, suite: Suite, run: Run) -> Iterator[Cursor]:
    """Begin a transaction that sees one state of the database, and commit it at the end of the block.

    The lock makes a retry wait for the attempt before it, if that is still alive; it is taken first, as the snapshot
    must see what that attempt wrote. Without a commit, the server rolls back when the session is closed.
    """
    with session.cursor() as cursor:
        cursor.execute(
            "SELECT pg_advisory_lock(hashtextextended(%s, 0))", [json.dumps([suite.name, run.dag_id, run.run_id])]
        )
        lockable = _is_lockable(cursor, suite.batch.table)
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        if lockable:  # before the snapshot: TRUNCATE shows older snapshots an empty table
            table = table_identifier(suite.batch.table)
            cursor.execute(statement("LOCK TABLE {table} IN ACCESS SHARE MODE", table=table))
        yield cursor
        cursor.execute("COMMIT")


def _is_lockable(cursor: Cursor, table: str) -> bool:
    cursor.execute("SELECT relkind IN ('r', 'p') FROM pg_class WHERE oid = to_regclass(%s)", [quoted_table(table)])
    found = cursor.fetchone()
    return bool(found and found[0])


def _judged(cursor: Cursor, suite: Suite, run: Run) -> Judged:
    """Return what identifies the rows under test; raise PermanentError where they should be this run's and are not."""
    table = suite.batch.table
    if table in run.before.builds:
        return Judged(table, standing_build(cursor, table, run))
    return Judged(table, fingerprint=fingerprint(cursor, table) if table in run.before.watched else None)


def _record(cursor: Cursor, table: str, suite: Suite, run: Run, verdict: Verdict, rejected: Mapping[str, int]) -> None:
    """Write the one row of this validation, replacing that of an earlier attempt."""
    row = {
        "suite": suite.name,
        "dag_id": run.dag_id,
        "run_id": run.run_id,
        "task_id": run.task_id,
        "run_date": run.date,
        "passed": not verdict.failed,
        "expectations": len(verdict.outcomes),
        "failed": len(verdict.failed),
        "rejected": sum(rejected.values()),
        "details": json.dumps(account(verdict, suite, rejected), ensure_ascii=False, allow_nan=False),
    }
    cursor.execute(
        statement(
            "INSERT INTO {table} ({columns}) VALUES ({values})"
            " ON CONFLICT (dag_id, run_id, suite) DO UPDATE SET ({columns}) = ROW ({written})",
            table=table_identifier(table),
            columns=names(row),
            values=joined(", ", map(value, row.values())),
            written=names(row, of="excluded"),
        )
    )


def _published(
    artifacts: Artifacts | None, verdict: Verdict, suite: Suite, run: Run
) -> tuple[Links | None, PermanentError | TransientError | None]:
    """Upload the pages for people, or return why not: the verdict is recorded, and is reported first."""
    if artifacts is None:
        return None, None
    try:
        return publish(verdict, suite, run, connection=artifacts.connection, bucket=artifacts.bucket), None
    except (PermanentError, TransientError) as problem:
        return None, problem


def _validation(verdict: Verdict, suite: Suite, rejected: Mapping[str, int], links: Links | None) -> Validation:
    return Validation(
        suite=suite.name,
        passed=not verdict.failed,
        expectations=len(verdict.outcomes),
        failed=len(verdict.failed),
        rows=verdict.rows,
        rejected=sum(rejected.values()),
        data_docs=links.data_docs if links else None,
        result=links.result if links else None,
    )
