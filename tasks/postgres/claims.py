"""Which run may build a table now: a run claims all tables that its plan builds, and keeps them until it has ended.

A claim only makes runs that overlap wait for each other. That no run loads the rows of another is proven by `versions`
and `passes`, whatever became of a claim.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.contract import BuiltIn, Occupied, Run
from tasks.postgres.versions import make_records
from tasks.services.postgres import held_open, postgres

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from psycopg2.extensions import cursor as Cursor  # noqa: N812  psycopg2 spells its class in lower case


@dataclass(frozen=True, slots=True)
class Claim:
    """Who has claimed a table."""

    table: str
    deployment: str
    dag_id: str
    run_id: str
    date: dt.date
    task_id: str
    claimed_at: dt.datetime
    is_local: bool
    is_loaded: bool
    """Whether the run has loaded the table since."""

    def is_of(self, run: Run) -> bool:
        """Return whether `run` made it."""
        return (self.deployment, self.dag_id, self.run_id) == (run.deployment, run.dag_id, run.run_id)


def claim(built: Iterable[BuiltIn], run: Run, timeout: float) -> None:
    """Claim tables for `run`, all or none, together with all others that its plan builds.

    Raises Occupied, naming the holder, if a run that may still be running has one of them: then `run` holds none, so
    that no two runs wait for each other.
    """
    tables: dict[str, set[str]] = {}
    own = set(built)
    for connection, table in own.union(run.before.claims):
        tables.setdefault(connection, set()).add(table)
    done: list[str] = []
    for connection in sorted(tables):
        if run.is_local:
            held_open(connection, run.deployment)
        try:
            with postgres(connection, run=run) as session, session.cursor() as cursor:
                _claim(cursor, sorted(tables[connection]), [one.table for one in own], run, timeout)
        except Occupied:
            for other in (*done, connection):
                _release(other, run)
            raise
        done.append(connection)


_ADD = """
    INSERT INTO taskflow.claims (table_name) SELECT unnest(%s::text[]) ON CONFLICT (table_name) DO NOTHING
"""
_HOLDERS = """
    SELECT table_name, deployment, dag_id, run_id, run_date, task_id, claimed_at, is_local, is_loaded
    FROM taskflow.claims WHERE table_name = ANY (%s) ORDER BY table_name FOR UPDATE
"""
_TAKE = """
    UPDATE taskflow.claims
    SET deployment = %(deployment)s, dag_id = %(dag_id)s, run_id = %(run_id)s, run_date = %(date)s,
        task_id = %(task_id)s, is_local = %(is_local)s, is_loaded = false, claimed_at = clock_timestamp()
    WHERE table_name = ANY (%(tables)s)
        AND (is_loaded AND table_name = ANY (%(built)s)
             OR (deployment, dag_id, run_id) IS DISTINCT FROM (%(deployment)s, %(dag_id)s, %(run_id)s))
"""


def _claim(cursor: Cursor, tables: Sequence[str], built: Sequence[str], run: Run, timeout: float) -> None:
    make_records(cursor)
    cursor.execute(_ADD, [list(tables)])
    cursor.execute(_HOLDERS, [list(tables)])
    claims = [Claim(*row) for row in cursor.fetchall() if row[1] is not None]
    for one in claims:
        if not one.is_of(run) and _is_held(cursor, one, run, timeout):
            problem, can_ask = f"{one.table} is claimed by {_holder(one)}", one.deployment == run.deployment
            raise Occupied(problem, one.dag_id, one.run_id, can_ask, timeout)
    identity = {"deployment": run.deployment, "dag_id": run.dag_id, "run_id": run.run_id, "date": run.date}
    what = {"tables": list(tables), "built": list(built)}
    cursor.execute(_TAKE, {**identity, **what, "task_id": run.task_id, "is_local": run.is_local})
    for one in claims:
        if not one.is_of(run):
            run.log.info("%s: taken over from %s, which no longer needs it", one.table, _holder(one))


_IS_ALIVE = "SELECT NOT pg_try_advisory_xact_lock(hashtextextended(%s, 0))"
_LAST_SIGN = """
    SELECT greatest(
        %(claimed_at)s,
        (SELECT max(built_at) FROM taskflow.builds
         WHERE (deployment, dag_id, run_id) = (%(deployment)s, %(dag_id)s, %(run_id)s)),
        (SELECT max(judged_at) FROM taskflow.passes
         WHERE (deployment, dag_id, run_id) = (%(deployment)s, %(dag_id)s, %(run_id)s))
    ) > now() - make_interval(secs => %(timeout)s)
"""


def _is_held(cursor: Cursor, one: Claim, run: Run, timeout: float) -> bool:
    """Return whether the run that made a claim may still need it.

    A run of this Airflow needs it while it is running; one of `taskflow run`, while its process lives. Another Airflow
    cannot be asked: its run needs the table until it has loaded it, or has shown no sign of life for `timeout`.
    """
    if one.is_local:
        cursor.execute(_IS_ALIVE, [one.deployment])
    elif one.deployment == run.deployment:
        return run.is_running(one.dag_id, one.run_id)
    elif one.is_loaded:
        return False
    else:
        identity = {"deployment": one.deployment, "dag_id": one.dag_id, "run_id": one.run_id}
        cursor.execute(_LAST_SIGN, {**identity, "claimed_at": one.claimed_at, "timeout": timeout})
    return bool(cursor.fetchall()[0][0])


def _holder(one: Claim) -> str:
    when = f"{one.claimed_at:%Y-%m-%d %H:%M:%S %Z}"
    return f"{one.dag_id}, run {one.run_id} of {one.deployment or 'this Airflow'}, for {one.date}, since {when}"


def _release(connection: str, run: Run) -> None:
    with postgres(connection, run=run) as session, session.cursor() as cursor:
        make_records(cursor)
        cursor.execute(
            "UPDATE taskflow.claims SET deployment = NULL WHERE (deployment, dag_id, run_id) = (%s, %s, %s)",
            [run.deployment, run.dag_id, run.run_id],
        )


def note_loaded(cursor: Cursor, table: str, run: Run) -> None:
    """Note that `run` has loaded a table, in the load's transaction: a run of another Airflow may build it from now on.

    Where several steps of the run load the table, none of them is known to be the last, and nothing is noted.
    """
    if table not in run.before.loaded_once:
        return
    cursor.execute(
        "UPDATE taskflow.claims SET is_loaded = true"
        " WHERE table_name = %s AND (deployment, dag_id, run_id) = (%s, %s, %s) AND NOT is_loaded",
        [table, run.deployment, run.dag_id, run.run_id],
    )
