"""The result of a query in Postgres, a batch at a time: the server keeps the rest.

Knows which Postgres types are numbers, texts and dates, not what the rows mean.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from tasks.contract import DataRejected
from tasks.drift.values import is_rounded
from tasks.postgres.file_text import query_problems
from tasks.postgres.reached import require_known_calls_in
from tasks.postgres.tables import Bound, check_values
from tasks.services.postgres import postgres
from tasks.sql_files import refuse, sql_text

if TYPE_CHECKING:
    import pyarrow as pa
    from psycopg2.extensions import cursor as Cursor  # noqa: N812  psycopg2 spells its class in lower case

    from tasks.contract import Run

_BATCH = 20_000
"""Rows held in memory at a time, as Python objects."""
_NUMERIC = 1700
_TYPES = {
    16: "bool",
    **dict.fromkeys((20, 21, 23), "int64"),
    **dict.fromkeys((700, 701, _NUMERIC), "double"),
    **dict.fromkeys((18, 19, 25, 1042, 1043, 2950), "string"),
    1082: "date32",
    **dict.fromkeys((1114, 1184), "timestamp[us]"),
}
"""Arrow types by the OIDs of Postgres types."""


@contextmanager
def selected(
    connection: str, sql: str, values: Mapping[str, Bound], names: Collection[str], run: Run
) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
    """Provide the columns of a file of `configs/sql/`, one SELECT, and its rows with those of `names`; read-only.

    The rows raise DataRejected for a numeric that a 64-bit number would round.
    """
    text = sql_text(sql, run)
    refuse(sql, text, query_problems(text, values, run.functions))
    check_values(sql, text, values)
    with postgres(connection, run=run) as session:
        require_known_calls_in(session, text, values, f"configs/sql/{sql}", run)
        session.set_session(readonly=True)
        with session.cursor(name="taskflow") as cursor:
            cursor.execute(text, dict(values) or None)
            first = cursor.fetchmany(_BATCH)  # the columns are known from here on
            schema = _schema(cursor)
            if twice := [name for name in names if schema.names.count(name) > 1]:
                raise DataRejected(f"configs/sql/{sql} gives more than one column {twice[0]}; name each in the query")
            yield schema, _batches(first, cursor, schema, sql, names)


def _schema(cursor: Cursor) -> pa.Schema:
    import pyarrow as pa

    types = {name: pa.type_for_alias(name) for name in _TYPES.values()}
    described = cursor.description or ()
    return pa.schema([(column.name, types.get(_TYPES.get(column.type_code, ""), pa.binary())) for column in described])


def _batches(
    rows: list[tuple[Any, ...]], cursor: Cursor, schema: pa.Schema, sql: str, names: Collection[str]
) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    places = [place for place, name in enumerate(schema.names) if name in names]
    wanted = pa.schema([schema.field(place) for place in places])
    while rows:
        columns = list(zip(*rows, strict=True))
        arrays = [_array(columns[place], schema.field(place), sql) for place in places]
        yield pa.record_batch(arrays, schema=wanted)
        rows = cursor.fetchmany(_BATCH)


def _array(values: Sequence[Any], field: pa.Field, sql: str) -> pa.Array:
    import pyarrow as pa

    if pa.types.is_binary(field.type):  # a type that is not compared
        return pa.nulls(len(values), field.type)
    if pa.types.is_floating(field.type):  # Postgres' exact numbers come as Decimal
        _check_exact([value for value in values if isinstance(value, Decimal)], field.name, sql)
        return pa.array([None if value is None else float(value) for value in values], field.type)
    return pa.array(values, field.type)


def _check_exact(values: list[Decimal], name: str, sql: str) -> None:
    if rounded := [value for value in values if is_rounded(value)]:
        counted = f"{len(rounded):,} numbers have more digits than a 64-bit number keeps ({rounded[0]})"
        remedy = "cast it to float8 in the query if that is exact enough, or to text to compare it as categorical"
        raise DataRejected(f"{name} of configs/sql/{sql} cannot be compared: {counted}; {remedy}")
