"""The result of a query in Postgres, a batch at a time: the server keeps the rest.

Knows which Postgres types are numbers, texts and dates, not what the rows mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tasks.postgres.file_text import query_problems
from tasks.postgres.reached import require_known_calls_of
from tasks.postgres.tables import Bound, check_values
from tasks.services.postgres import postgres
from tasks.sql_files import refuse, sql_text

if TYPE_CHECKING:
    import pyarrow as pa
    from psycopg2.extensions import cursor as Cursor  # noqa: N812  psycopg2 spells its class in lower case

    from tasks.contract import Run

_BATCH = 20_000
"""Rows held in memory at a time, as Python objects."""
_TYPES = {
    16: "bool",
    **dict.fromkeys((20, 21, 23, 700, 701, 1700), "double"),
    **dict.fromkeys((18, 19, 25, 1042, 1043, 2950), "string"),
    1082: "date32",
    **dict.fromkeys((1114, 1184), "timestamp[us]"),
}
"""Arrow types by the OIDs of Postgres types."""


@contextmanager
def selected(
    connection: str, sql: str, values: Mapping[str, Bound], run: Run
) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
    """Provide the columns and rows of a file of `configs/sql/`, one SELECT, in a read-only transaction."""
    from psycopg2.sql import SQL

    text = sql_text(sql, run)
    refuse(sql, text, query_problems(text, values, run.functions))
    check_values(sql, text, values)
    with postgres(connection, run=run) as session:
        with session.cursor() as cursor:
            asked = cursor.mogrify(text, dict(values) or None).decode().strip().rstrip(";")
            require_known_calls_of(cursor, SQL(asked), f"configs/sql/{sql}", run)
        session.rollback()
        session.set_session(readonly=True)
        with session.cursor(name="taskflow") as cursor:
            cursor.execute(text, dict(values) or None)
            first = cursor.fetchmany(_BATCH)  # the columns are known from here on
            schema = _schema(cursor)
            yield schema, _batches(first, cursor, schema)


def _schema(cursor: Cursor) -> pa.Schema:
    import pyarrow as pa

    types = {name: pa.type_for_alias(name) for name in _TYPES.values()}
    described = cursor.description or ()
    return pa.schema([(column.name, types.get(_TYPES.get(column.type_code, ""), pa.binary())) for column in described])


def _batches(rows: list[tuple[Any, ...]], cursor: Cursor, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    while rows:
        yield _batch(rows, schema)
        rows = cursor.fetchmany(_BATCH)


def _batch(rows: list[tuple[Any, ...]], schema: pa.Schema) -> pa.RecordBatch:
    import pyarrow as pa

    columns = zip(*rows, strict=True)
    arrays = [_array(values, field.type) for values, field in zip(columns, schema, strict=True)]
    return pa.record_batch(arrays, schema=schema)


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    import pyarrow as pa

    if pa.types.is_binary(kind):  # a type that is not compared
        return pa.nulls(len(values), kind)
    if pa.types.is_floating(kind):  # Postgres' exact numbers come as Decimal
        return pa.array([None if value is None else float(value) for value in values], kind)
    return pa.array(values, kind)
