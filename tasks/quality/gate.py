"""The gate: a batch keeps the rules of its suite, or the run stops here.

Knows the order of things: the record of a try is begun before it judges; the verdict, the rejected rows and the end of
the record are one transaction; the pages for people come after it. Does not know how a rule is judged
(`tasks.quality.verdicts`), how rows are set aside (`tasks.quality.on_postgres.quarantine`) or how pages are made
(`tasks.quality.data_docs`).
"""

from __future__ import annotations

import hashlib
import json
import uuid
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
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
from tasks.postgres.blame import blamed_text
from tasks.postgres.expressions import tables_read
from tasks.postgres.passes import Judged, fingerprint, is_table, record_pass, same_judgements
from tasks.postgres.reached import require_known_calls
from tasks.postgres.relations import kind_of
from tasks.postgres.sql import fragment, table_identifier
from tasks.postgres.statements import joined, name, statement
from tasks.postgres.versions import make_records, standing_build
from tasks.quality.data_docs import Links, publish
from tasks.quality.expectations import QUERIES
from tasks.quality.on_postgres.quarantine import batch_rows, condition_alone, quarantine, require_validation_id
from tasks.quality.on_postgres.row_queries import SUBSELECT
from tasks.quality.record import Record
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
    `reason` go to the suite's quarantine. Each try keeps a record in `record_in`, begun before it judges, and its
    results and Data Docs in `artifacts`; a try that judges the same rows by the same suite as an earlier one replaces
    the rows which that set aside. Raises DataRejected, which is not retried, if a rule is broken, and MissingResource
    for a table, column or bucket that does not exist. The step waits up to `lock_timeout` seconds for a lock that no
    task holds.
    """
    run = _as_try(run, suite)
    record = Record(record_in, suite, run)
    opened = postgres(suite.connection, run=run, autocommit=True, lock_timeout=lock_timeout)
    with record.kept(lock_timeout), opened as session:
        record.begin(session)
        check_arguments(suite)
        load_library()
        with _one_snapshot(session, suite, run) as cursor:
            verdict, rejected = _judge(session, cursor, record)
        links, problem = _published(artifacts, verdict, suite, run)  # before the next try may begin to judge
    validation = _validation(verdict, suite, rejected, links)
    if verdict.failed:
        raise DataRejected(rejection(verdict, suite, run, rejected, links, problem), validation)
    run.log.info(report(verdict, suite))
    if problem:
        raise problem
    return validation


def _as_try(run: Run, suite: Suite) -> Run:
    """Return `run` with what identifies this try and its suite, where Airflow or the plan do not say it."""
    digest = run.before.digest or hashlib.sha256(suite.model_dump_json().encode()).hexdigest()
    return replace(run, attempt=run.attempt or str(uuid.uuid4()), before=replace(run.before, digest=digest))


def _judge(session: PostgresSession, cursor: Cursor, record: Record) -> tuple[Verdict, dict[str, int]]:
    """Judge, and write all that follows from the verdict; return it, and how many rows were set aside by reason."""
    suite, run = record.suite, record.run
    _require_known_calls(cursor, suite, run)
    if suite.quarantine:
        require_validation_id(cursor, suite.quarantine)
    make_records(cursor)
    with blamed_text(cursor, partial(condition_alone, suite.batch)):
        judged = _judged(cursor, suite, run)
    verdict = judge(session, suite, run, rows=_rows_known(judged, suite, run))
    if verdict.failed and suite.quarantine and not judged.version:
        judged = judged._replace(fingerprint=_of_batch(cursor, suite))
    failed = [outcome.expectation for outcome in verdict.failed]
    earlier = same_judgements(cursor, judged, suite.name, run) if failed else ()
    rejected = quarantine(cursor, suite, failed, run, instead_of=earlier)
    record_pass(cursor, judged, suite.name, run, passed=not failed)
    record.end(cursor, verdict, judged, rejected)
    return verdict, rejected


def _require_known_calls(cursor: Cursor, suite: Suite, run: Run) -> None:
    """Raise PermanentError if an expression of the suite calls a function that the project does not allow."""
    if suite.batch.where:
        require_known_calls(cursor, table_identifier(suite.batch.table), {"batch.where": suite.batch.where}, run)
    if suite.quarantine:
        rows = statement("({batch}) AS {name}", batch=batch_rows(suite.batch), name=name(SUBSELECT))
        asked = {f"quarantine.columns.{column}": text for column, text in suite.quarantine.columns.items()}
        require_known_calls(cursor, rows, asked, run)


@contextmanager
def _one_snapshot(session: PostgresSession, suite: Suite, run: Run) -> Iterator[Cursor]:
    """Begin a transaction that sees one state of the database, and commit it at the end of the block.

    The lock makes a retry wait for the attempt before it, if that is still alive; it is taken first, as the snapshot
    must see what that attempt wrote. Without a commit, the server rolls back when the session is closed.
    """
    task_instance = json.dumps([run.deployment, run.dag_id, run.run_id, run.task_id, run.map_index])
    with session.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", [task_instance])
        lockable = [table for table in _read_tables(suite) if kind_of(cursor, table) in ("r", "p", "v")]
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        if lockable:  # before the snapshot: TRUNCATE shows older snapshots an empty table
            tables = joined(", ", map(table_identifier, lockable))
            cursor.execute(statement("LOCK TABLE {tables} IN ACCESS SHARE MODE", tables=tables))
        yield cursor
        cursor.execute("COMMIT")


def _read_tables(suite: Suite) -> list[str]:
    """Return the batch's table or view, and those that the queries of its rules read, sorted."""
    schema = suite.batch.table.partition(".")[0]
    found = {suite.batch.table}
    for expectation in suite.expectations:
        for argument in QUERIES:
            if isinstance(query := expectation.arguments.get(argument), str):
                found.update(tables_read((query,), schema))
    return sorted(found)


def _judged(cursor: Cursor, suite: Suite, run: Run) -> Judged:
    """Return what identifies the rows under test; raise PermanentError where they should be this run's and are not.

    What a load takes is identified whole, and other tables by the batch. The fingerprint of a view costs more than a
    rule, so it is taken later, and only if rows are set aside.
    """
    table = suite.batch.table
    if table in run.before.builds:
        return Judged(table, standing_build(cursor, table, run))
    if table in run.before.watched:
        return Judged(table, fingerprint=fingerprint(cursor, table))
    return Judged(table, fingerprint=_of_batch(cursor, suite) if is_table(cursor, table) else None)


def _rows_known(judged: Judged, suite: Suite, run: Run) -> int | None:
    """Return how many rows the batch has, where its version tells."""
    is_whole = suite.batch.where is None
    is_of_batch = judged.table not in {*run.before.builds, *run.before.watched}
    return judged.rows if is_whole or is_of_batch else None


def _of_batch(cursor: Cursor, suite: Suite) -> str:
    where = fragment(suite.batch.where) if suite.batch.where else None
    return fingerprint(cursor, suite.batch.table, where)


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
