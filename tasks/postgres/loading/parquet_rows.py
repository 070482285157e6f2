"""Parquet files as rows of text, a batch at a time.

Knows which types of Parquet a column of Postgres takes without losing anything: the others are refused before a row is
read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.contract import DataRejected
from tasks.postgres.loading.csv_rows import require_columns
from tasks.postgres.loading.rows import Field, Row, sound

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH = 32_768
_TEXTS = ("text", "character varying", "character", '"char"', "name", "citext")
_INTEGERS = ("smallint", "integer", "bigint")
_ZONED, _LOCAL = "timestamp with time zone", "timestamp without time zone"


@contextmanager
def readable(address: str) -> Iterator[None]:
    """Raise DataRejected where the block cannot read a file as Parquet, or would lose something of a value."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        problem = str(error).splitlines()[0]
        raise DataRejected(f"{address} cannot be read as parquet: {problem}; export or copy it again") from error


@dataclass
class ParquetFile:
    """A Parquet file whose columns fit those of the table."""

    path: Path
    address: str
    columns: Sequence[str]
    unit: str = "row"
    options: str = "FORMAT text, ENCODING 'UTF8'"
    _count: int = 0

    @classmethod
    def opened(cls, path: Path, address: str, fields: Sequence[Field], table: str) -> ParquetFile:
        """Compare the file's columns with those of the table; raise DataRejected for all that does not fit."""
        import pyarrow.parquet as pq

        with readable(address):
            schema = pq.read_schema(path)
        require_columns(address, schema.names, fields, table)
        by_name = {one.name: one for one in fields}
        wrong = [text for column in schema if (text := misfit(column.name, column.type, by_name[column.name].type))]
        if wrong:
            raise DataRejected(f"{address}: {'; '.join(wrong)}; {_REMEDY}")
        return cls(path, address, schema.names)

    def count(self) -> int:
        """Return how many rows `blocks` has yielded."""
        return self._count

    def blocks(self) -> Iterator[bytes]:
        """Yield the rows as COPY reads them, a line each."""
        for columns in self._batches():
            self._count += len(columns[0]) if columns else 0
            yield copy_text(columns)

    def rows(self) -> Iterator[Row]:
        """Yield the rows, with a JSON object of texts as the text of each."""
        number = 0
        for columns in self._batches():
            for fields in zip(*(column.to_pylist() for column in columns), strict=True):
                number += 1
                raw = json.dumps(dict(zip(self.columns, fields, strict=True)), ensure_ascii=False)
                yield sound(Row(number, raw, fields))

    def _batches(self) -> Iterator[list[pa.Array]]:
        import pyarrow.parquet as pq

        with readable(self.address), pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(_BATCH):
                yield [as_text(column) for column in batch.columns]


_REMEDY = "declare such a column with the type that the file has, and convert it in postgres.rebuild_table"


def misfit(name: str, kind: pa.DataType, column: str) -> str | None:
    """Return why a column of Postgres of the type `column` does not take every value of a type of Parquet exactly."""
    from pyarrow import types

    if types.is_dictionary(kind):
        return misfit(name, kind.value_type, column)
    base = column.partition("(")[0].strip()
    allowed = next((allowed for is_one, allowed in _FITS(types).items() if is_one(kind)), ())
    if types.is_null(kind) or column in allowed or (base in allowed and base in _TEXTS):
        return None
    if types.is_decimal(kind) and base == "numeric" and _scale(column) >= kind.scale:
        return None
    if types.is_string(kind) or types.is_large_string(kind):
        return None  # the server reads the text as a literal of the column's type, or refuses it
    return f"{name} is {kind}, which {column} does not take exactly"


def _FITS(types: Any) -> Mapping[Callable[[pa.DataType], bool], Sequence[str]]:  # noqa: N802  a table that needs a module
    return {
        types.is_boolean: ("boolean",),
        lambda kind: types.is_integer(kind) and kind.bit_width <= 32: (
            *_INTEGERS,
            "numeric",
            "double precision",
            *_TEXTS,
        ),
        types.is_integer: (*_INTEGERS, "numeric", *_TEXTS),
        types.is_float64: ("double precision", "numeric"),
        types.is_floating: ("real", "double precision", "numeric"),
        types.is_decimal: ("numeric",),
        types.is_date: ("date",),
        types.is_time: ("time without time zone",),
        lambda kind: types.is_timestamp(kind) and kind.tz is not None: (_ZONED,),
        types.is_timestamp: (_LOCAL,),
        lambda kind: types.is_binary(kind) or types.is_large_binary(kind): ("bytea",),
    }


def _scale(column: str) -> float:
    """Return how many digits after the point a numeric column keeps."""
    _, _, digits = column.rstrip(")").partition("(")
    return int(digits.rpartition(",")[2]) if "," in digits else 0 if digits else float("inf")


def as_text(column: pa.Array) -> pa.Array:
    """Return the values as texts that Postgres reads as the same values; raise ArrowInvalid if one would be cut."""
    import pyarrow as pa
    from pyarrow import types

    kind = column.type
    if types.is_dictionary(kind):
        return as_text(column.dictionary_decode())
    if types.is_binary(kind) or types.is_large_binary(kind):
        shown = [None if value is None else "\\x" + value.hex() for value in column.to_pylist()]
        return pa.array(shown, pa.large_string())
    if types.is_timestamp(kind):
        column = column.cast(pa.timestamp("us", "UTC" if kind.tz else None))
    elif types.is_time64(kind):
        column = column.cast(pa.time64("us"))
    elif types.is_float16(kind):
        column = column.cast(pa.float32())
    return column.cast(pa.large_string())


def copy_text(columns: Sequence[pa.Array]) -> bytes:
    """Return rows as COPY reads them in its text format, made by Arrow at once."""
    import pyarrow as pa
    from pyarrow import compute

    if not columns:
        return b""
    escaped = [compute.fill_null(_escaped(column), r"\N") for column in columns]
    end = pa.scalar("", pa.large_string())
    lines = compute.binary_join_element_wise(*escaped, pa.scalar("\t", pa.large_string()))
    ended = compute.binary_join_element_wise(lines, end, pa.scalar("\n", pa.large_string()))
    size = compute.sum(compute.binary_length(ended)).as_py() or 0
    return bytes(memoryview(ended.buffers()[2])[:size])


def _escaped(column: pa.Array) -> pa.Array:
    from pyarrow import compute

    for raw, shown in (("\\", r"\\"), ("\n", r"\n"), ("\r", r"\r"), ("\t", r"\t")):
        column = compute.replace_substring(column, raw, shown)
    return column
