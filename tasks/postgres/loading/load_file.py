"""postgres.load_file: files into a table that a gate then judges.

Knows which files a step means and what becomes of the table; how a format is read is elsewhere (`csv_rows`,
`json_rows`, `parquet_rows`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import Field as Bounds

from tasks.contract import (
    ArrivingTable,
    BuiltIn,
    ClaimTimeout,
    Column,
    Conflict,
    ConnectionId,
    DataFile,
    DataRejected,
    FilePattern,
    LockTimeout,
    Output,
    Run,
    SqlType,
    Table,
    TransientError,
    reusable,
)
from tasks.files.matching import file_conflicts, found_in
from tasks.files.places import Files, sha256_of
from tasks.files.run_files import RunFiles, files_of
from tasks.postgres.claims import claim
from tasks.postgres.expressions import check_expression
from tasks.postgres.loading.copying import ConstraintBroken, copy_whole
from tasks.postgres.loading.csv_rows import CsvFile, CsvForm, require_columns
from tasks.postgres.loading.json_rows import JsonLines
from tasks.postgres.loading.parquet_rows import ParquetFile
from tasks.postgres.loading.rows import STOPPED, Field, Source
from tasks.postgres.loading.setting_aside import SettingAside, Taken
from tasks.postgres.loading.targets import target_fields
from tasks.postgres.sql import table_identifier
from tasks.postgres.statements import EXACT_TEXTS, statement
from tasks.postgres.versions import record_build
from tasks.services.postgres import postgres

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor  # noqa: N812  psycopg2 spells its class in lower case

Format = Literal["csv", "json_lines", "parquet"]


class Loaded(Output):
    """What became of the files."""

    files: int
    read: int
    """Rows in the files: those of the table and those that were set aside."""
    rows: int
    """Rows in the table now."""
    set_aside: int


def _conflicts(given: Mapping[str, Any]) -> Iterator[Conflict]:
    yield from file_conflicts(given, "loads", "target")
    if (disposition := given.get("write_disposition", "replace")) in ("append", "merge"):
        remedy = "replace a staging table, let a gate judge it, and bring its rows on with postgres.merge"
        yield ("write_disposition",), f"{disposition} would add rows that no gate has judged; {remedy}"
    sets_aside = given.get("on_bad_row", "stop") == "set_aside"
    if sets_aside and given.get("quarantine") is None:
        yield ("on_bad_row",), "set_aside needs `quarantine`, the table for the rows that do not fit"
    if not sets_aside and given.get("on_bad_row") in (None, "stop"):
        for argument in ("quarantine", "max_set_aside_share"):
            if given.get(argument) is not None:
                yield (argument,), f"{argument} has no effect without `on_bad_row: set_aside`"
    if given.get("quarantine") is not None and given.get("quarantine") == given.get("target"):
        yield ("quarantine",), "rows cannot be set aside in the table that is loaded"
    if given.get("csv") is not None and given.get("format") in ("json_lines", "parquet"):
        yield ("csv",), f"csv says how a CSV file is written, and `format` is {given['format']}"
    yield from _of_types(given.get("columns"))


def _of_types(columns: object) -> Iterator[Conflict]:
    for column, kind in columns.items() if isinstance(columns, dict) else ():
        try:
            check_expression((f"CAST(NULL AS {kind})",), None)
        except ValueError:
            yield ("columns", column), f"{kind!r} is not a type of Postgres"


@reusable("postgres.load_file", role="transform", kind="deferrable", conflicts=_conflicts)
def load_file(
    connection: ConnectionId,
    target: ArrivingTable,
    files: Files,
    format: Format,  # noqa: A002  a field of `with`
    file: DataFile | None = None,
    folder: DataFile | None = None,
    pattern: FilePattern | None = None,
    columns: Annotated[dict[Column, SqlType], Bounds(min_length=1)] | None = None,
    csv: CsvForm | None = None,
    write_disposition: Literal["replace", "append", "merge"] = "replace",
    on_bad_row: Literal["stop", "set_aside"] = "stop",
    quarantine: Table | None = None,
    max_set_aside_share: Annotated[float, Bounds(gt=0, le=1)] | None = None,
    allow_empty: bool = False,  # noqa: FBT001, FBT002  a field of `with`
    lock_timeout: LockTimeout = 60,
    claim_timeout: ClaimTimeout = 7200,
    *,
    run: Run,
) -> Loaded:
    """Empty `target` and fill it from files by COPY, in one transaction: all rows are there, or nothing has changed.

    One `file`, or those directly in a `folder` whose names match `pattern` (all but hidden ones), in the order of their
    names; `files` is the place, a folder or a bucket. What a step before it writes is read as its own run wrote it.
    `csv` says how a CSV file is written, by default in UTF-8, with commas and a header; CSV and JSON lines may be
    packed with gzip, bzip2 or xz, or alone in a zip. A file must have the columns of the table, in any order; those
    with a default may be absent. In CSV an empty field is null and `""` an empty text; in JSON lines a key that a line
    lacks is null, and a column with a default is filled if the first line has it.

    `columns` declares names and types: the table must have exactly these, and is made with them if it does not exist.
    Postgres reads each text as a literal of its column's type, as an INSERT does: `1.555` becomes 1.56 in a
    `numeric(10, 2)`. A type of parquet that would lose something so is refused. Dates are year, month, day:
    `31/12/2026` does not fit; load it as text and convert it in postgres.rebuild_table.

    A row that does not fit stops the step, and the error names file, line, column and value. With
    `on_bad_row: set_aside` it goes to the table `quarantine`, which is made where it is missing, with file, line,
    reason and its own text; where more than `max_set_aside_share` (0.1) of all rows would, the step fails and nothing
    is written. A value of the wrong type, a null in a NOT NULL column and a wrong number of fields are set aside; a
    broken CHECK or unique constraint stops the step. The files are then read a second time, row by row, which takes
    more than ten times as long as COPY. A file that is empty or ends in the middle of a row always stops the step, and
    so do files without any rows unless `allow_empty`.

    A gate after the step must judge the whole table, and postgres.merge brings the rows on from there: so only
    `replace` is possible as `write_disposition`. Raises DataRejected for files that do not fit and MissingResource for
    those that do not exist. While another run has claimed `target`, the step waits up to `claim_timeout` seconds,
    without a worker's slot. It waits up to `lock_timeout` seconds for a lock that no task holds.
    """
    assert write_disposition == "replace"  # the others are refused as conflicts
    claim([BuiltIn(connection, target)], run, claim_timeout)
    started = monotonic()
    there = files_of(files, run)
    paths = [there.find(file)] if file else found_in(there, str(folder), pattern or "*")
    aside = (str(quarantine), max_set_aside_share or 0.1) if on_bad_row == "set_aside" else None
    form = _Form(format, csv or CsvForm())
    job = _Job(connection, target, columns, form, there, paths, aside, allow_empty, lock_timeout)
    try:
        done = job.done(row_by_row=False)
    except DataRejected as problem:
        if aside is None or isinstance(problem, ConstraintBroken):
            raise
        run.log.info("%s; the files are read again, row by row", str(problem).removesuffix(f"; {STOPPED}"))
        done = job.done(row_by_row=True)
    shown = f"{done.read:,} rows read = {done.rows:,} loaded + {done.set_aside:,} set aside"
    run.log.info("%s: %s, from %s files in %.1f s", target, shown, f"{done.files:,}", monotonic() - started)
    return done


# --- the rows ---------------------------------------------------------------------------------------------------------


class _Form(NamedTuple):
    """How the files are written."""

    format: Format
    csv: CsvForm


@dataclass(frozen=True, slots=True)
class _Job:
    """What a step fills, from which files, and what becomes of rows that do not fit."""

    connection: str
    target: str
    columns: Mapping[str, str] | None
    form: _Form
    there: RunFiles
    paths: list[str]
    aside: tuple[str, float] | None
    """The quarantine, and the share of rows that may go there."""
    allow_empty: bool
    lock_timeout: float

    def done(self, *, row_by_row: bool) -> Loaded:
        """Fill the table in one transaction; raise DataRejected for a row that does not fit, unless `row_by_row`."""
        run = self.there.run
        with postgres(self.connection, run=run, lock_timeout=self.lock_timeout) as session, session.cursor() as cursor:
            cursor.execute(EXACT_TEXTS)
            fields = target_fields(cursor, self.target, self.columns)
            cursor.execute(statement("TRUNCATE {target}", target=table_identifier(self.target)))
            aside = SettingAside(cursor, self.target, self.aside[0], fields, run) if self.aside else None
            if aside:
                aside.prepare()
            taken = [self._take(cursor, path, fields, aside if row_by_row else None) for path in self.paths]
            self._require_rows(taken)
            self._require_share(taken)
            rows = record_build(cursor, self.target, run)
            cursor.execute(statement("ANALYZE {target}", target=table_identifier(self.target)))  # for later plans
        read, set_aside = sum(one.read for one in taken), sum(one.set_aside for one in taken)
        return Loaded(files=len(self.paths), read=read, rows=rows, set_aside=set_aside)

    def _take(self, cursor: Cursor, path: str, fields: list[Field], aside: SettingAside | None) -> Taken:
        with self._opened(path, fields) as (source, digest):
            if aside:
                taken = aside.take(source, digest)
            else:
                taken = Taken(copy_whole(cursor, source, table_identifier(self.target)), 0)
        log = self.there.run.log
        log.info("%s (SHA-256 %s): %s rows", source.address, digest, f"{taken.read:,}")
        if taken.set_aside:
            log.warning("%s: %s rows set aside, first %s", source.address, f"{taken.set_aside:,}", taken.first)
        return taken

    @contextmanager
    def _opened(self, path: str, fields: list[Field]) -> Iterator[tuple[Source, str]]:
        """Open a file, with its SHA-256, and compare its columns with the table's.

        Raises TransientError if it changes meanwhile.
        """
        place, address = self.there.place, self.there.place.address(path)
        stamp = place.stamp(path)
        with place.read(path) as local:
            yield self._source(local, address, fields), sha256_of(local)
        if place.stamp(path) != stamp:
            raise TransientError("files", f"{address} was changed while it was read")

    def _source(self, local: Path, address: str, fields: list[Field]) -> Source:
        if self.form.format == "json_lines":
            return JsonLines.opened(local, address, fields)
        if self.form.format == "parquet":
            return ParquetFile.opened(local, address, fields, self.target)
        in_order = [*self.columns] if self.columns else [one.name for one in fields]
        source = CsvFile.opened(local, address, self.form.csv, in_order)
        require_columns(address, source.columns, fields, self.target)
        return source

    def _require_rows(self, taken: list[Taken]) -> None:
        if not self.allow_empty and not sum(one.read for one in taken):
            shown, have = ", ".join(self.paths[:5]), "has" if len(self.paths) == 1 else "have"
            problem = f"{shown} {have} no rows, so {self.target} would be empty"
            raise DataRejected(f"{problem}; say `allow_empty: true` where that is right")

    def _require_share(self, taken: list[Taken]) -> None:
        aside, read = sum(one.set_aside for one in taken), sum(one.read for one in taken)
        if self.aside and aside > read * self.aside[1]:
            first = next(one.first for one in taken if one.first)
            problem = f"{aside:,} of {read:,} rows do not fit, above max_set_aside_share {self.aside[1]:g}"
            raise DataRejected(f"{problem}; the first: {first}. Nothing was written to {self.target}")
