"""Which run may build a table now: a run claims all tables that its plan builds, and keeps them until it has ended.

Runs that wait stand in line, and who came first is served first. A claim only makes runs that overlap wait for each
other. That no run loads the rows of another is proven by `versions` and `passes`, whatever became of a claim.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.contract import BuiltIn, Occupied, Run
from tasks.postgres.statements import only_row, statement
from tasks.postgres.versions import make_records
from tasks.services.postgres import held_open, postgres, require_held

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from psycopg2.extensions import cursor as Cursor  # noqa: N812  psycopg2 spells its class in lower case
    from psycopg2.sql import Composable


@dataclass(frozen=True, slots=True)
class Other:
    """A run that has claimed tables, or waits for them."""

    deployment: str
    dag_id: str
    run_id: str
    date: dt.date
    is_local: bool
    since: dt.datetime

    def __str__(self) -> str:
        whose = f"{self.dag_id}, run {self.run_id} of {self.deployment or 'this Airflow'}, for {self.date}"
        return f"{whose}, since {self.since:%Y-%m-%d %H:%M:%S %Z}"

    def is_of(self, run: Run) -> bool:
        """Return whether it is `run`."""
        return _identity(self) == _identity(run)


@dataclass(frozen=True, slots=True)
class Claim(Other):
    """A run that has claimed a table."""

    table: str
    is_loaded: bool
    """Whether the run has loaded the table since."""


@dataclass(frozen=True, slots=True)
class Waiter(Other):
    """A run that waits for tables."""

    was_seen: bool
    """Whether it has looked lately: only that tells of a run of another Airflow that it still waits."""


def _identity(of: Run | Other) -> dict[str, object]:
    return {"deployment": of.deployment, "dag_id": of.dag_id, "run_id": of.run_id}


def _of_run(text: str) -> Composable:
    """Return a statement in which `{is_of}` is the condition that a record is of the run of `_identity`."""
    return statement(text, is_of=statement("(deployment, dag_id, run_id) = (%(deployment)s, %(dag_id)s, %(run_id)s)"))


@dataclass(frozen=True, slots=True)
class _Wish:
    """What a run wants to claim in one database."""

    tables: list[str]
    built: list[str]
    """Those of them that the step itself builds."""
    planned: frozenset[str]
    """Those of them that the spec names: the run claims all of these at its first build."""
    timeout: float
    is_split: bool
    """Whether it wants tables in other databases too."""


def claim(built: Iterable[BuiltIn], run: Run, timeout: float) -> None:
    """Claim tables for `run`, all or none, together with all others that its plan builds.

    Raises Occupied, naming whom it waits for, if a run that may still be running has one of them, or has waited for one
    for longer. What `run` has claimed before stays its own.
    """
    tables: dict[str, set[str]] = {}
    own = set(built)
    for connection, table in own.union(run.before.claims):
        tables.setdefault(connection, set()).add(table)
    done: dict[str, list[str]] = {}
    for connection in sorted(tables):
        if run.is_local:
            held_open(connection, run.deployment)
        planned = frozenset(one.table for one in run.before.claims if one.connection == connection)
        wanted, built_now = sorted(tables[connection]), [one.table for one in own]
        wish = _Wish(wanted, built_now, planned, timeout, is_split=len(tables) > 1)
        with postgres(connection, run=run) as session, session.cursor() as cursor:
            occupied, done[connection] = _claim(cursor, wish, run)
        if occupied:
            for other, taken in done.items():
                with postgres(other, run=run) as session, session.cursor() as cursor:
                    cursor.execute(_LOCK, {"tables": taken})
                    _give_back(cursor, taken, run)
            raise occupied


_ADD = """
    INSERT INTO taskflow.claims (table_name) SELECT unnest(%(tables)s::text[]) ON CONFLICT (table_name) DO NOTHING
"""
_CLAIMS = """
    SELECT deployment, dag_id, run_id, run_date, is_local, claimed_at, table_name, is_loaded
    FROM taskflow.claims WHERE table_name = ANY (%(tables)s) OR {is_of} ORDER BY table_name FOR UPDATE
"""
_TAKE = """
    UPDATE taskflow.claims
    SET deployment = %(deployment)s, dag_id = %(dag_id)s, run_id = %(run_id)s, run_date = %(date)s,
        task_id = %(task_id)s, is_local = %(is_local)s, is_loaded = false, claimed_at = clock_timestamp()
    WHERE table_name = ANY (%(tables)s) AND (is_loaded AND table_name = ANY (%(built)s) OR ({is_of}) IS NOT TRUE)
"""


def _claim(cursor: Cursor, wish: _Wish, run: Run) -> tuple[Occupied | None, list[str]]:
    """Return whom the run has to wait for, if anybody, and else the tables that it did not have before.

    The rows of `claims` stay locked until the transaction ends, so of the runs that want one table, each sees what the
    one before it has done. All that the transaction may write are locked at once, in the order of their names, and
    before the line: else a run that gives back a table, with the line locked, and one that has locked this table, and
    waits for the line, would wait for each other.
    """
    make_records(cursor)
    cursor.execute(_ADD, {"tables": wish.tables})
    cursor.execute(_of_run(_CLAIMS), {**_identity(run), "tables": wish.tables})
    claims = [Claim(*row) for row in cursor.fetchall() if row[0] is not None]
    own = frozenset(one.table for one in claims if one.is_of(run))
    others = [one for one in claims if not one.is_of(run)]
    if occupied := _occupied(cursor, others, own, wish, run):
        return occupied, []
    what = {"tables": wish.tables, "built": wish.built, "date": run.date, "is_local": run.is_local}
    cursor.execute(_of_run(_TAKE), {**_identity(run), **_task(run), **what})
    cursor.execute(_of_run(_LEAVE), {**_identity(run), **_task(run)})
    for one in others:
        run.log.info("%s: taken over from %s, which no longer needs it", one.table, one)
    return None, sorted({*wish.tables} - own)


def _task(run: Run) -> dict[str, object]:
    return {"task_id": run.task_id, "map_index": run.map_index}


def _occupied(cursor: Cursor, others: Sequence[Claim], own: frozenset[str], wish: _Wish, run: Run) -> Occupied | None:
    """Return whom the run has to wait for, after it has taken its place in the line.

    A run that still has all tables of its plan goes on, and need not stand in line for more: those in it may be waiting
    for these. While it waits for a holder it keeps what other steps have built, unless that is what it waits for in the
    end. A run that was cleared and has lost a table of its plan has no such right: it waits for its turn with nothing.
    """
    goes_on = bool(own) and wish.planned <= own
    other: Other
    if holder := next((one for one in others if _is_held(cursor, one, run, wish.timeout)), None):
        problem, other = f"{holder.table} is claimed by {holder}", holder
    elif not goes_on and (ahead := _ahead(cursor, wish, run)):
        problem, other = f"{', '.join(wish.tables)}: before this run comes {ahead}, which waits too", ahead
    else:
        return None
    _stand_in_line(cursor, wish, run)
    if own and (holder is None or _waits_for_us(cursor, other, run)):
        _give_back(cursor, own, run)
        why = f"{problem}, which waits for them" if holder else problem
        run.log.warning("this run gives back all tables that it has claimed: %s", why)
    elif own:
        _give_back(cursor, own.intersection(wish.built), run)
    # A run that gives something back does not end, so whoever waits for it has to look again.
    can_ask = other.deployment == run.deployment and not own and not wish.is_split
    return Occupied(problem, other.dag_id, other.run_id, can_ask, wish.timeout)


_IS_ALIVE = "SELECT NOT pg_try_advisory_xact_lock(hashtextextended(%s, 0))"
_LAST_SIGN = """
    SELECT greatest(
        %(since)s,
        (SELECT max(built_at) FROM taskflow.builds WHERE {is_of}),
        (SELECT max(judged_at) FROM taskflow.passes WHERE {is_of})
    ) > now() - make_interval(secs => %(timeout)s)
"""


def _is_held(cursor: Cursor, one: Claim, run: Run, timeout: float) -> bool:
    """Return whether the run that made a claim may still need it.

    A run of this Airflow needs it while it is running; one of `taskflow run`, while its process lives. Another Airflow
    cannot be asked: its run needs the table until it has loaded it, or has shown no sign of life for `timeout`.
    """
    if (is_running := _is_running(cursor, one, run)) is not None:
        return is_running
    if one.is_loaded:
        return False
    cursor.execute(_of_run(_LAST_SIGN), {**_identity(one), "since": one.since, "timeout": timeout})
    return bool(only_row(cursor)[0])


def _is_running(cursor: Cursor, one: Other, run: Run) -> bool | None:
    """Return whether another run is running; None for one of another Airflow, which cannot be asked."""
    if one.is_local:
        cursor.execute(_IS_ALIVE, [one.deployment])
        return bool(only_row(cursor)[0])
    return run.is_running(one.dag_id, one.run_id) if one.deployment == run.deployment else None


# --- the line ---------------------------------------------------------------------------------------------------------

_IN_LINE = """
    SELECT deployment, dag_id, run_id, run_date, is_local, since, seen_at > now() - make_interval(secs => %(timeout)s)
    FROM taskflow.waits
    WHERE table_names && %(tables)s AND until > clock_timestamp() AND NOT {is_of}
        AND since < coalesce(
            (SELECT min(since) FROM taskflow.waits WHERE {is_of} AND until > clock_timestamp()), 'infinity')
    ORDER BY since DESC
"""
_STAND = """
    DELETE FROM taskflow.waits WHERE until <= clock_timestamp();
    INSERT INTO taskflow.waits AS wait
    SELECT %(deployment)s, %(dag_id)s, %(run_id)s, %(task_id)s, %(map_index)s, %(date)s, %(is_local)s, %(tables)s,
           since, clock_timestamp(), since + make_interval(secs => %(timeout)s)
    FROM (SELECT coalesce(min(since), clock_timestamp()) AS since FROM taskflow.waits WHERE {is_of}) AS first
    ON CONFLICT (deployment, dag_id, run_id, task_id, map_index)
    DO UPDATE SET table_names = EXCLUDED.table_names, seen_at = EXCLUDED.seen_at, until = EXCLUDED.until
"""
_LEAVE = "DELETE FROM taskflow.waits WHERE {is_of} AND (task_id, map_index) = (%(task_id)s, %(map_index)s)"


def _ahead(cursor: Cursor, wish: _Wish, run: Run) -> Waiter | None:
    """Return the run right ahead of this one in the line for one of its tables: who came first is served first.

    A run that no longer waits is passed over: one that is not running, or whose time to wait is over.
    """
    cursor.execute(_of_run(_IN_LINE), {**_identity(run), "tables": wish.tables, "timeout": wish.timeout})
    for one in [Waiter(*row) for row in cursor.fetchall()]:
        is_running = _is_running(cursor, one, run)
        if one.was_seen if is_running is None else is_running:
            return one
    return None


def _stand_in_line(cursor: Cursor, wish: _Wish, run: Run) -> None:
    """Note what the run waits for, since when, and until when it will; its place stays its own when it looks again."""
    cursor.execute("SELECT pg_advisory_xact_lock(hashtext('taskflow.waits'))")  # of two, one sees that it closes a ring
    what = {"tables": wish.tables, "date": run.date, "is_local": run.is_local, "timeout": wish.timeout}
    cursor.execute(_of_run(_STAND), {**_identity(run), **_task(run), **what})


_RING = """
    WITH RECURSIVE met (deployment, dag_id, run_id) AS (
        SELECT %(other_deployment)s, %(other_dag_id)s, %(other_run_id)s
        UNION
        SELECT claims.deployment, claims.dag_id, claims.run_id
        FROM met JOIN taskflow.waits AS wait USING (deployment, dag_id, run_id)
        JOIN taskflow.claims AS claims ON table_name = ANY (table_names) AND claims.deployment IS NOT NULL
        WHERE until > clock_timestamp()
    )
    SELECT EXISTS (SELECT FROM met WHERE {is_of})
"""


def _waits_for_us(cursor: Cursor, other: Other, run: Run) -> bool:
    """Return whether another run, or one that it waits for, waits for a table that this run has."""
    cursor.execute(
        _of_run(_RING), {**_identity(run), **{f"other_{name}": value for name, value in _identity(other).items()}}
    )
    return bool(only_row(cursor)[0])


# --- the end of a claim -----------------------------------------------------------------------------------------------


_LOCK = "SELECT FROM taskflow.claims WHERE table_name = ANY (%(tables)s) ORDER BY table_name FOR UPDATE"
_GIVE_BACK = "UPDATE taskflow.claims SET deployment = NULL WHERE table_name = ANY (%(tables)s) AND {is_of}"


def _give_back(cursor: Cursor, tables: Iterable[str], run: Run) -> None:
    """Give tables back whose rows in `claims` the transaction has locked."""
    cursor.execute(_of_run(_GIVE_BACK), {**_identity(run), "tables": sorted(tables)})


def require_claims(run: Run) -> None:
    """Raise PermanentError if the claims of a run of `taskflow run` have lapsed: ask before something is committed."""
    if run.is_local:
        require_held(run.deployment)


def note_loaded(cursor: Cursor, table: str, run: Run) -> None:
    """Note that `run` has loaded a table, in the load's transaction: a run of another Airflow may build it from now on.

    Where several steps of the run load the table, none of them is known to be the last, and nothing is noted.
    """
    if table not in run.before.loaded_once:
        return
    text = "UPDATE taskflow.claims SET is_loaded = true WHERE table_name = %(table)s AND {is_of} AND NOT is_loaded"
    cursor.execute(_of_run(text), {**_identity(run), "table": table})
