"""What gates have passed: recorded by a gate in the transaction that judged, required by a load before it writes.

Knows the records of gates; knows nothing of how a suite is judged.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, NamedTuple

from tasks.contract import GateBefore, PermanentError, Run
from tasks.postgres.relations import form_of, kind_of
from tasks.postgres.sql import quoted_table, table_identifier
from tasks.postgres.statements import only_row, statement
from tasks.postgres.versions import Build, make_records
from tasks.services.postgres import postgres

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg2.extensions import cursor as Cursor  # noqa: N812  psycopg2 spells its class in lower case
    from psycopg2.sql import Composable

_RECORD = """
    INSERT INTO taskflow.passes (table_oid, table_name, build, fingerprint, suite, digest, passed, deployment, dag_id,
                                 run_id, task_id, map_index, attempt)
    VALUES (%(table)s::regclass, %(name)s, %(build)s, %(fingerprint)s, %(suite)s, %(digest)s, %(passed)s,
            %(deployment)s, %(dag_id)s, %(run_id)s, %(task_id)s, %(map_index)s, %(attempt)s)
"""


class Judged(NamedTuple):
    """What a gate judged: a table, and how to tell later that it is still the same."""

    table: str
    build: Build | None = None
    fingerprint: str | None = None

    @property
    def version(self) -> str | None:
        """The version of the rows, in the words of a validation's record."""
        if self.build:
            return f"build {self.build.id}"
        return f"rows {self.fingerprint}" if self.fingerprint else None

    @property
    def rows(self) -> int | None:
        """How many rows the version has."""
        if self.build:
            return self.build.rows
        return int(self.fingerprint.partition(":")[0]) if self.fingerprint else None


def record_pass(cursor: Cursor, judged: Judged, suite: str, run: Run, *, passed: bool) -> None:
    """Record how a gate ended, in the transaction in which it judged."""
    make_records(cursor)
    quoted = quoted_table(judged.table)
    what = {"table": quoted, "name": judged.table, "build": judged.build and judged.build.id}
    how = {"fingerprint": judged.fingerprint, "suite": suite, "digest": run.before.digest, "passed": passed}
    identity = {"deployment": run.deployment, "dag_id": run.dag_id, "run_id": run.run_id}
    who = {"task_id": run.task_id, "map_index": run.map_index, "attempt": run.attempt}
    cursor.execute(_RECORD, {**what, **how, **identity, **who})


_SAME = """
    SELECT attempt FROM taskflow.passes
    WHERE (deployment, dag_id, run_id, task_id, map_index) =
          (%(deployment)s, %(dag_id)s, %(run_id)s, %(task_id)s, %(map_index)s)
      AND (suite, digest, table_oid) = (%(suite)s, %(digest)s, %(table)s::regclass)
      AND (build, fingerprint) IS NOT DISTINCT FROM (%(build)s, %(fingerprint)s)
"""


def same_judgements(cursor: Cursor, judged: Judged, suite: str, run: Run) -> list[str]:
    """Return the earlier tries of a gate that judged the same version of a table by the same suite.

    The records have been made.
    """
    what = {"table": quoted_table(judged.table), "build": judged.build and judged.build.id}
    how = {"fingerprint": judged.fingerprint, "suite": suite, "digest": run.before.digest}
    identity = {"deployment": run.deployment, "dag_id": run.dag_id, "run_id": run.run_id}
    who = {"task_id": run.task_id, "map_index": run.map_index}
    cursor.execute(_SAME, {**what, **how, **identity, **who})
    return [attempt for (attempt,) in cursor.fetchall()]


_NEWEST = """
    SELECT DISTINCT ON (map_index) passed, build, fingerprint, digest, table_oid = %(table)s::regclass
    FROM taskflow.passes
    WHERE (deployment, dag_id, run_id, task_id) = (%(deployment)s, %(dag_id)s, %(run_id)s, %(task_id)s)
        AND map_index = ANY (%(map_indexes)s)
    ORDER BY map_index, id DESC
"""


def require_passes(cursor: Cursor, connection: str, run: Run, taken: Judged) -> None:
    """Raise PermanentError unless every gate before a load has passed in this run; those of `taken`, in its version.

    `cursor` is that of the load, in the database of `connection`, where the records have been made. Where a gate has
    judged is told by its database, whatever the connection's name: in another one, a table of the same name is another.
    """
    places: dict[str, list[GateBefore]] = {connection: []}
    for gate in run.before.gates:
        places.setdefault(gate.connection or connection, []).append(gate)
    here = places.pop(connection)
    for other, gates in places.items():
        with postgres(other, run=run) as session, session.cursor() as theirs:
            if _is_same_database(cursor, theirs):
                here += gates
                continue
            make_records(theirs)
            for gate in gates:
                _require_pass(theirs, gate, run, None)
    for gate in here:
        _require_pass(cursor, gate, run, taken)
    _require_whole(here, connection, run, taken)


def _is_same_database(cursor: Cursor, other: Cursor) -> bool:
    """Return whether two sessions are in one database of one server: a lock that one has, the other cannot get."""
    key = secrets.randbits(63)
    cursor.execute("SELECT pg_advisory_xact_lock(%s)", [key])
    other.execute("SELECT NOT pg_try_advisory_xact_lock(%s)", [key])
    return bool(only_row(other)[0])


def _require_whole(here: Sequence[GateBefore], connection: str, run: Run, taken: Judged) -> None:
    """Raise PermanentError if only tables of that name in other databases were judged whole: lint compares names."""
    named = [gate for gate in run.before.gates if gate.table == taken.table]
    if named and not any(gate.is_whole for gate in here if gate.table == taken.table):
        others = ", ".join(
            f"{gate.task_id!r} judges the one of {gate.connection}" for gate in named if gate not in here
        )
        problem = f"no gate before this load judges all rows of {taken.table} in the database of {connection}"
        remedy = f"add one whose suite has the connection {connection}"
        raise PermanentError(f"{problem}{f' ({others})' if others else ''}; {remedy}")


def _require_pass(cursor: Cursor, gate: GateBefore, run: Run, taken: Judged | None) -> None:
    """Raise PermanentError unless a gate has passed; where it is about the table of `taken`, in that version."""
    identity = {"deployment": run.deployment, "dag_id": run.dag_id, "run_id": run.run_id, "task_id": gate.task_id}
    indexes = gate.map_indexes
    if not indexes:
        raise PermanentError(f"gate {gate.task_id!r} was mapped over an empty list, so it has judged nothing")
    cursor.execute(_NEWEST, {**identity, "table": quoted_table(gate.table), "map_indexes": indexes})
    records = cursor.fetchall()
    clear = f"clear {gate.task_id!r} with its downstream"
    if len(records) < len(indexes):
        missing = "no verdict" if not records else f"{len(records)} of {len(indexes)} verdicts"
        raise PermanentError(f"gate {gate.task_id!r} has recorded {missing} in this run, whatever its state; {clear}")
    for passed, build, fingerprint, digest, is_same_table in records:
        if not passed:
            raise PermanentError(f"gate {gate.task_id!r} did not pass in this run, whatever its state; {clear}")
        if digest != gate.digest:
            raise PermanentError(f"the suite of gate {gate.task_id!r} was changed after it passed; {clear}")
        if not is_same_table:
            raise PermanentError(f"{gate.table} was dropped and made again after gate {gate.task_id!r}; {clear}")
        if (
            taken
            and gate.table == taken.table
            and (build, fingerprint) != (taken.build and taken.build.id, taken.fingerprint)
        ):
            raise PermanentError(f"{gate.table} was built or changed after gate {gate.task_id!r} judged it; {clear}")


def fingerprint(cursor: Cursor, table: str, where: Composable | None = None) -> str:
    """Return a text that changes with the rows, and the columns, of a table that no step of ours builds, or of a view.

    Of a table, how many rows each transaction wrote; of a view, which knows no transactions, the values of its rows.
    `where` limits the rows. Before the first colon is how many they are.
    """
    text = _OF_TRANSACTIONS if is_table(cursor, table) else _OF_VALUES
    cursor.execute(statement(text, table=table_identifier(table), where=where or statement("TRUE")))
    return f"{only_row(cursor)[0]}:{form_of(cursor, table)}"


_OF_TRANSACTIONS = """
    SELECT coalesce(sum(rows), 0) || ':' || coalesce(sum(hashtextextended(writer || ' ' || rows, 0)::numeric), 0)
    FROM (SELECT xmin::text AS writer, count(*) AS rows FROM {table} WHERE {where} GROUP BY xmin) AS writers
"""
_OF_VALUES = """
    SELECT count(*) || ':' || coalesce(sum(hashtextextended(judged::text, 0)::numeric), 0)
    FROM (SELECT * FROM {table} WHERE {where}) AS judged
"""


def is_table(cursor: Cursor, table: str) -> bool:
    """Return whether `table` is one, not a view: each of its rows knows the transaction that wrote it."""
    return kind_of(cursor, table) in ("r", "p")
