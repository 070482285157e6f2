"""Rows into a table, a block at a time: those that do not fit are set aside with file, line, reason and their text.

Which values fit is asked of the server, by the input function of each column's type, before a row is written: an error
in the middle would end the transaction, and rows behind a savepoint would not count as the build's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from tasks.blocks import blocks
from tasks.contract import PermanentError, Run
from tasks.postgres.loading.copying import copy_stream
from tasks.postgres.loading.rows import Field, Row, Source, Stream, copy_blocks, kept_text
from tasks.postgres.relations import columns_of, require_columns
from tasks.postgres.sql import table_identifier
from tasks.postgres.statements import joined, name, names, only_row, statement, value

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor  # noqa: N812  psycopg2 spells its class in lower case
    from psycopg2.sql import Composable

_BLOCK_ROWS = 5_000
_BLOCK_CHARACTERS = 1 << 22
_OWN = ("deployment", "dag_id", "run_id", "task_id", "map_index")
"""The columns that say which task instance set a row aside."""
_MAKE = """
    CREATE TABLE IF NOT EXISTS {table} (
        target      text NOT NULL,
        file        text NOT NULL,
        digest      text NOT NULL,
        line        bigint NOT NULL,
        reason      text NOT NULL,
        raw         text NOT NULL,
        run_date    date NOT NULL,
        deployment  text NOT NULL,
        dag_id      text NOT NULL,
        run_id      text NOT NULL,
        task_id     text NOT NULL,
        map_index   integer NOT NULL,
        attempt     text NOT NULL,
        set_aside_at timestamptz NOT NULL DEFAULT clock_timestamp()
    )
"""
_COLUMNS = ("target", "file", "digest", "line", "reason", "raw", "run_date", *_OWN, "attempt")


class Taken(NamedTuple):
    """What became of the rows of a file."""

    loaded: int
    set_aside: int
    first: str = ""
    """The first that was set aside, and why."""

    @property
    def read(self) -> int:
        """How many rows the file has."""
        return self.loaded + self.set_aside


@dataclass(frozen=True, slots=True)
class SettingAside:
    """Where the rows of a step go, and in whose name."""

    cursor: Cursor
    target: str
    quarantine: str
    fields: Sequence[Field]
    run: Run

    def prepare(self) -> None:
        """Make the quarantine table where it is missing; raise if it lacks a column or the server is too old."""
        if self.cursor.connection.server_version < 160_000:
            remedy = "set `on_bad_row: stop`"
            raise PermanentError(f"`on_bad_row: set_aside` needs Postgres 16, which judges values by itself; {remedy}")
        self.cursor.execute(statement(_MAKE, table=table_identifier(self.quarantine)))
        require_columns(self.quarantine, columns_of(self.cursor, self.quarantine), _COLUMNS)

    def take(self, source: Source, digest: str) -> Taken:
        """Write the rows of a file; those of an earlier try on the same content are replaced in the quarantine."""
        by_name = {one.name: one for one in self.fields}
        fields = [by_name[column] for column in source.columns]
        self.cursor.execute(self._forget(source, digest))
        self.cursor.execute(_MAKE_BLOCK.format(columns=", ".join(f"f{place} text" for place in range(len(fields)))))
        loaded, aside, first = 0, 0, ""
        for block in blocks(source.rows(), lambda row: row.raw, most=_BLOCK_ROWS, characters=_BLOCK_CHARACTERS):
            bad = self._judge(block, fields, source)
            first = first or bad.first
            self.cursor.execute(self._set_aside(source, digest))
            aside += self.cursor.rowcount
            self.cursor.execute(self._insert(fields))
            loaded += self.cursor.rowcount
            self._require_all(len(block), bad.set_aside)
        self.cursor.execute("DROP TABLE pg_temp.arriving")
        return Taken(loaded, aside, first)

    def _judge(self, block: Sequence[Row], fields: Sequence[Field], source: Source) -> Taken:
        """Bring a block into the temporary table, and give each row that does not fit its reason."""
        self.cursor.execute("TRUNCATE pg_temp.arriving")
        width = len(fields)
        rows = (_with_place(row, width) for row in block)
        columns = ("line", "raw", "problem", *(f"f{place}" for place in range(width)))
        table = statement("pg_temp.arriving")
        copy_stream(self.cursor, Stream(copy_blocks(rows)), table, columns, "FORMAT text, ENCODING 'UTF8'", source)
        self.cursor.execute(_name_problems(fields))
        self.cursor.execute(_COUNT_BAD)
        count, line, problem = only_row(self.cursor)
        first = f"{source.address}, {source.unit} {line:,}: {problem}" if count else ""
        return Taken(len(block) - count, count, first)

    def _require_all(self, read: int, aside: int) -> None:
        if self.cursor.rowcount != read - aside:
            problem = f"{self.target} took {self.cursor.rowcount:,} of {read - aside:,} rows"
            raise PermanentError(f"{problem}: one of its triggers or rules holds rows back")

    def _identity(self) -> dict[str, object]:
        run = self.run
        return dict(zip(_OWN, (run.deployment, run.dag_id, run.run_id, run.task_id, run.map_index), strict=True))

    def _forget(self, source: Source, digest: str) -> Composable:
        same = {**self._identity(), "target": self.target, "file": source.address, "digest": digest}
        conditions = (statement("{c} = {v}", c=name(column), v=value(one)) for column, one in same.items())
        return statement(
            "DELETE FROM {table} WHERE {same}",
            table=table_identifier(self.quarantine),
            same=joined(" AND ", conditions),
        )

    def _set_aside(self, source: Source, digest: str) -> Composable:
        known = {
            "target": self.target,
            "file": source.address,
            "digest": digest,
            "run_date": self.run.date,
            **self._identity(),
            "attempt": self.run.attempt,
        }
        return statement(
            "INSERT INTO {table} ({known}, line, reason, raw)"
            " SELECT {values}, line, problem, raw FROM pg_temp.arriving WHERE problem IS NOT NULL",
            table=table_identifier(self.quarantine),
            known=names(known),
            values=joined(", ", map(value, known.values())),
        )

    def _insert(self, fields: Sequence[Field]) -> Composable:
        casts = (statement(f"f{place}::{{kind}}", kind=_kind(one)) for place, one in enumerate(fields))
        return statement(
            "INSERT INTO {target} ({columns}) SELECT {values} FROM pg_temp.arriving WHERE problem IS NULL",
            target=table_identifier(self.target),
            columns=names(one.name for one in fields),
            values=joined(", ", casts),
        )


_MAKE_BLOCK = "CREATE TEMPORARY TABLE arriving (line bigint, raw text, problem text, {columns}) ON COMMIT DROP"
_COUNT_BAD = """
    SELECT count(*), min(line), (array_agg(problem ORDER BY line))[1] FROM pg_temp.arriving WHERE problem IS NOT NULL
"""


def _with_place(row: Row, width: int) -> list[str | None]:
    fields = [None] * width if row.problem else row.fields
    return [str(row.line), kept_text(row.raw), row.problem or None, *fields]


def _kind(one: Field) -> Composable:
    """Return a column's type as SQL: its text comes from the server's catalogue."""
    from psycopg2.sql import SQL

    return SQL(one.type)


def _name_problems(fields: Sequence[Field]) -> Composable:
    """Return the statement that gives each row that does not fit its first reason, in the order of the columns."""
    tests = [test for place, one in enumerate(fields) for test in _tests(place, one)]
    return statement(
        "UPDATE pg_temp.arriving SET problem = CASE {cases} END WHERE problem IS NULL AND ({any})",
        cases=joined(" ", (statement("WHEN {bad} THEN {reason}", bad=bad, reason=reason) for bad, reason in tests)),
        any=joined(" OR ", (bad for bad, _ in tests)),
    )


def _tests(place: int, one: Field) -> Iterator[tuple[Composable, Composable]]:
    field, kind, column = name(f"f{place}"), value(one.type), value(f"column {one.name}: ")
    if one.not_null:
        yield statement("{f} IS NULL", f=field), statement("{column} || 'is null'", column=column)
    yield (
        statement("NOT pg_input_is_valid({f}, {kind})", f=field, kind=kind),
        statement("{column} || (pg_input_error_info({f}, {kind})).message", column=column, f=field, kind=kind),
    )
