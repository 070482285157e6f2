"""postgres.export: the rows of a table or a query as a file.

The server writes every value as its own text, by COPY; Parquet is made from that. Knows which types Parquet keeps
exactly; the others are refused before a row is read.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import IO, TYPE_CHECKING, Any, Literal, cast

from tasks.contract import (
    Conflict,
    ConnectionId,
    DataRejected,
    Link,
    LockTimeout,
    Output,
    PermanentError,
    Query,
    Run,
    Table,
    WrittenFile,
    reusable,
)
from tasks.files.places import Files
from tasks.files.run_files import files_of
from tasks.postgres.blame import blamed_text, blamed_whole
from tasks.postgres.expressions import PLACEHOLDER, check_query
from tasks.postgres.loading.csv_rows import CsvForm
from tasks.postgres.relations import columns_alone
from tasks.postgres.sql import table_identifier
from tasks.postgres.statements import EXACT_TEXTS, joined, name, statement, value
from tasks.services.postgres import postgres

if TYPE_CHECKING:
    import pyarrow as pa
    from psycopg2.extensions import cursor as Cursor  # noqa: N812  psycopg2 spells its class in lower case
    from psycopg2.sql import Composable

_BLOCK = 1 << 20
_GROUP_ROWS = 131_072


class Exported(Output):
    """The file that was written."""

    file: str
    rows: int
    address: Link
    """Where people find the run's own file."""


def _conflicts(given: Mapping[str, Any]) -> Iterator[Conflict]:
    named = [argument for argument in ("table", "sql") if given.get(argument) is not None]
    if len(named) != 1:
        problem = "a step exports one `table`, or the rows of one query (`sql`)"
        yield (named[-1] if named else "output",), f"{problem}; {'remove one' if named else 'name it'}"
    if isinstance(given.get("sql"), str) and PLACEHOLDER in given["sql"]:
        yield ("sql",), f"{PLACEHOLDER} stands for the rows under test of a suite, and there are none; name a table"
    if given.get("csv") is not None and given.get("format") in ("json_lines", "parquet"):
        yield ("csv",), f"csv says how a CSV file is written, and `format` is {given['format']}"
    if isinstance(given.get("csv"), dict) and given["csv"].get("encoding") == "utf-16":
        yield ("csv", "encoding"), "the server does not write UTF-16; leave it at UTF-8"
    if given.get("compressed") is True and given.get("format") == "parquet":
        yield ("compressed",), "parquet is compressed by itself; remove `compressed`"


@reusable("postgres.export", role="transform", conflicts=_conflicts)
def export(
    connection: ConnectionId,
    output: WrittenFile,
    files: Files,
    format: Literal["csv", "json_lines", "parquet"],  # noqa: A002  a field of `with`
    table: Table | None = None,
    sql: Query | None = None,
    csv: CsvForm | None = None,
    compressed: bool = False,  # noqa: FBT001, FBT002  # a field of `with`
    allow_empty: bool = False,  # noqa: FBT001, FBT002  # a field of `with`
    lock_timeout: LockTimeout = 60,
    *,
    run: Run,
) -> Exported:
    """Write the rows of a `table` (or view), or of one SELECT (`sql`), as a file that has its name only when complete.

    `output` is the run's own file, and gets the name that people know as every file of a step does; `files` is the
    place. All rows are of one moment, in the order of the query. Moments are in UTC. With `compressed`, CSV and JSON
    lines are gzip files.

    In CSV a null is an empty field and an empty text `""`, so postgres.load_file reads back the same rows. In JSON
    lines numbers have all their digits; NaN, infinity and what JSON does not have are texts. Parquet has a type for
    each column: integers, `numeric(p, s)` up to 76 digits, doubles, booleans, dates, times, timestamps with and without
    a zone, bytea, and texts (also for uuid, enums and JSON). Types that it would not keep exactly, such as intervals,
    arrays or a numeric without digits, are refused with the cast to write; so are values that it does not have, such
    as NaN in a numeric or an infinite date.

    Raises DataRejected for those and, unless `allow_empty`, for no rows at all. The step waits up to `lock_timeout`
    seconds for a lock that no task holds.
    """
    started = monotonic()
    of_run = files_of(files, run)
    query = _query(table, sql)
    with postgres(connection, run=run, lock_timeout=lock_timeout) as session, of_run.write(output) as file:
        session.set_session(isolation_level="REPEATABLE READ", readonly=True)  # columns and rows of one moment
        with session.cursor() as cursor:
            cursor.execute(EXACT_TEXTS)
            with blamed_whole(("sql",)) if sql else blamed_text(cursor, lambda: columns_alone(cursor, str(table))):
                rows = _WRITERS[format](cursor, query, file, csv or CsvForm(), compressed)
        if not rows and not allow_empty:
            raise DataRejected(f"{table or 'the query'} has no rows; say `allow_empty: true` where that is right")
    run.log.info("%s: %s rows in %.1f s", of_run.address(output), f"{rows:,}", monotonic() - started)
    return Exported(file=output, rows=rows, address=of_run.address(output))


def _query(table: str | None, sql: str | None) -> Composable:
    if table:
        return statement("SELECT * FROM {table}", table=table_identifier(table))
    from psycopg2.sql import SQL

    check_query((str(sql),), None)
    return SQL(f"{str(sql).rstrip().rstrip(';')}\n")


@contextmanager
def _opened(file: Path, *, compressed: bool) -> Iterator[IO[bytes]]:
    with file.open("wb") as raw:
        if not compressed:
            yield raw
            return
        with gzip.GzipFile(fileobj=raw, filename="", mode="wb", mtime=0) as packed:  # the same rows, the same bytes
            yield cast("IO[bytes]", io.BufferedWriter(cast("Any", packed), _BLOCK))


def _copied(cursor: Cursor, query: Composable, options: Composable, file: Path, *, compressed: bool = False) -> int:
    copying = statement("COPY ({query}) TO STDOUT WITH ({options})", query=query, options=options)
    with _opened(file, compressed=compressed) as out:
        cursor.copy_expert(copying, out, _BLOCK)
        out.flush()
    return int(cursor.rowcount)


# --- texts ------------------------------------------------------------------------------------------------------------

_ENCODINGS = {
    "utf-8": "UTF8",
    "latin-1": "LATIN1",
    "iso-8859-15": "LATIN9",
    "windows-1250": "WIN1250",
    "windows-1251": "WIN1251",
    "windows-1252": "WIN1252",
}


def _csv(cursor: Cursor, query: Composable, file: Path, form: CsvForm, compressed: bool) -> int:  # noqa: FBT001
    text = "FORMAT csv, ENCODING {encoding}, HEADER {header}, DELIMITER {separator}, QUOTE {quote}, NULL {null_text}"
    named = {one: value(getattr(form, one)) for one in ("header", "separator", "quote", "null_text")}
    options = statement(text, encoding=value(_ENCODINGS[form.encoding]), **named)
    return _copied(cursor, query, options, file, compressed=compressed)


def _json_lines(cursor: Cursor, query: Composable, file: Path, _form: CsvForm, compressed: bool) -> int:  # noqa: FBT001
    """Write JSON lines: as CSV whose quote and separator are characters that JSON always escapes.

    A line break is kept only within a value of type json, where it is white space.
    """
    text = r"SELECT translate(row_to_json(exported)::text, E'\n\r', '  ') FROM ({query}) AS exported"
    options = statement(r"FORMAT csv, ENCODING 'UTF8', QUOTE E'\x01', DELIMITER E'\x02'")
    _described(cursor, query)  # refuses two columns of one name
    return _copied(cursor, statement(text, query=query), options, file, compressed=compressed)


# --- parquet ----------------------------------------------------------------------------------------------------------


def _parquet(cursor: Cursor, query: Composable, file: Path, _form: CsvForm, _compressed: bool) -> int:  # noqa: FBT001
    """Write a parquet file, by way of a CSV beside it: what COPY gives goes through memory a block at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema(cursor, query)
    scratch = file.with_name(f"{file.name}.csv")
    options = statement("FORMAT csv, ENCODING 'UTF8', HEADER false, FORCE_QUOTE *")
    rows = _copied(cursor, _as_exact_text(query, schema), options, scratch)
    try:
        with pq.ParquetWriter(file, schema, compression="zstd") as writer:
            for batch in _batches(scratch, schema) if rows else ():
                writer.write_batch(batch, row_group_size=_GROUP_ROWS)
    except pa.ArrowInvalid as error:
        problem = str(error).splitlines()[0]
        remedy = "convert it in the query, for example to text"
        raise DataRejected(f"a value that parquet does not have: {problem}; {remedy}") from error
    scratch.unlink()
    return rows


def _as_exact_text(query: Composable, schema: pa.Schema) -> Composable:
    """Return the query with bytea as hexadecimal digits."""
    import pyarrow as pa

    columns = (
        statement("encode({c}, 'hex')" if pa.types.is_binary(one.type) else "{c}", c=name(one.name)) for one in schema
    )
    return statement("SELECT {columns} FROM ({query}) AS exported", columns=joined(", ", columns), query=query)


def _batches(file: Path, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa
    from pyarrow import csv

    read = {one.name: pa.string() if pa.types.is_binary(one.type) else one.type for one in schema}
    converted = csv.ConvertOptions(
        column_types=read,
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
        true_values=["t"],
        false_values=["f"],
    )
    parsed = csv.ParseOptions(newlines_in_values=True)
    reading = csv.ReadOptions(column_names=schema.names, block_size=_BLOCK * 16)
    with csv.open_csv(file, read_options=reading, parse_options=parsed, convert_options=converted) as batches:
        for batch in batches:
            columns = [_bytes(column, one.type) for column, one in zip(batch.columns, schema, strict=True)]
            yield pa.record_batch(columns, schema=schema)


def _bytes(column: pa.Array, kind: pa.DataType) -> pa.Array:
    import pyarrow as pa

    if not pa.types.is_binary(kind):
        return column
    return pa.array([None if one is None else bytes.fromhex(one) for one in column.to_pylist()], kind)


_NUMERIC = 1700
_TYPES: Mapping[str, str] = {
    "boolean": "bool",
    "smallint": "int16",
    "integer": "int32",
    "bigint": "int64",
    "oid": "uint32",
    "real": "float",
    "double precision": "double",
    "date": "date32",
    "time without time zone": "time64[us]",
    "timestamp without time zone": "timestamp[us]",
    "bytea": "binary",
    "text": "string",
    "character varying": "string",
    "character": "string",
    "name": "string",
    '"char"': "string",
    "uuid": "string",
    "json": "string",
    "jsonb": "string",
    "xml": "string",
    "citext": "string",
}
"""Arrow's types by those of Postgres, without what is in parentheses."""
_DESCRIBE = """
    SELECT format_type(oid, modifier), typtype
    FROM unnest(%s::oid[], %s::integer[]) WITH ORDINALITY AS one (kind, modifier, nth)
    JOIN pg_type ON oid = kind
    ORDER BY nth
"""


def _described(cursor: Cursor, query: Composable) -> list[tuple[str, str, str]]:
    """Return the columns of a query: the name, the type as SQL spells it, and its kind; raise if two have one name."""
    cursor.execute(statement("SELECT * FROM ({query}) AS exported LIMIT 0", query=query))
    found = cursor.description or ()
    names = [one.name for one in found]
    if repeated := sorted({one for one in names if names.count(one) > 1}):
        raise PermanentError(f"the query returns two columns {', '.join(repeated)}; name them with AS")
    cursor.execute(_DESCRIBE, [[one.type_code for one in found], [_modifier(one) for one in found]])
    return [(column, *facts) for column, facts in zip(names, cursor.fetchall(), strict=True)]


def _modifier(column: Any) -> int:
    """Return the type's modifier, as the server has it: only that of a numeric matters here."""
    if column.type_code != _NUMERIC or column.precision is None or column.precision >= 65535:
        return -1
    return ((int(column.precision) << 16) | (int(column.scale) & 2047)) + 4


def _schema(cursor: Cursor, query: Composable) -> pa.Schema:
    import pyarrow as pa

    fields, refused = [], []
    for column, kind, category in _described(cursor, query):
        arrow = _arrow_type(kind, category)
        fields.append((column, arrow))
        if arrow is None:
            refused.append(f"{column} is {kind}; write {column}::{_instead(kind)}")
    if refused:
        raise DataRejected(f"parquet does not keep every value exactly: {'; '.join(refused)} in the query (`sql`)")
    return pa.schema(fields)


def _instead(kind: str) -> str:
    return "numeric(38, 9), with the digits that you need," if kind == "numeric" else "text"


def _arrow_type(kind: str, category: str) -> pa.DataType | None:
    import pyarrow as pa

    base, _, rest = kind.partition("(")
    if category == "e":
        return pa.string()
    if base == "numeric" and rest:
        precision, _, scale = rest.rstrip(")").partition(",")
        return _decimal(int(precision), int(scale or 0))
    if kind.endswith("with time zone") and base.startswith("timestamp"):
        return pa.timestamp("us", "UTC")
    plain = f"{base.strip()} {rest.partition(')')[2].strip()}".strip()
    return pa.type_for_alias(_TYPES[plain]) if plain in _TYPES else None


def _decimal(precision: int, scale: int) -> pa.DataType | None:
    import pyarrow as pa

    if scale < 0 or max(precision, scale) > 76:
        return None
    precision = max(precision, scale)
    return pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(precision, scale)


_WRITERS = {"csv": _csv, "json_lines": _json_lines, "parquet": _parquet}
