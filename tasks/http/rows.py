"""How the rows of a server are written to a file: JSON lines as they are, or Parquet of declared types."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from tasks.contract import DataRejected
from tasks.declared import ValueType
from tasks.http.values import declared

if TYPE_CHECKING:
    import pyarrow as pa

Format = Literal["json_lines", "parquet"]
Row = dict[str, Any]
_GROUP_ROWS = 131_072


class Rows(NamedTuple):
    """Some rows, and how an error calls them."""

    where: str
    rows: list[Row]


def written(pages: Iterable[Rows], file: Path, form: Format, columns: Mapping[str, ValueType] | None) -> int:
    """Write the rows to `file` and return how many there are; raise DataRejected for one that is not as declared."""
    rows = _kept(pages, columns)
    if form == "json_lines":
        return _json_lines(rows, file)
    assert columns is not None  # a conflict otherwise
    return _parquet(rows, file, columns)


def _kept(pages: Iterable[Rows], columns: Mapping[str, ValueType] | None) -> Iterator[Row]:
    for where, rows in pages:
        for number, row in enumerate(rows, start=1):
            yield row if columns is None else dict(declared(row, columns, f"row {number:,} on {where}"))


def _json_lines(rows: Iterable[Row], file: Path) -> int:
    count = 0
    with file.open("w", encoding="utf-8", newline="\n") as out:
        for count, row in enumerate(rows, start=1):
            try:
                out.write(f"{json.dumps(row, ensure_ascii=False)}\n")
            except UnicodeEncodeError as error:
                raise DataRejected(f"row {count:,} has a text with half a character: {ascii(row)[:200]}") from error
    return count


def _parquet(rows: Iterable[Row], file: Path, columns: Mapping[str, ValueType]) -> int:
    import pyarrow as pa
    from pyarrow import parquet

    schema = pa.schema([(name, _arrow_type(kind)) for name, kind in columns.items()])
    count, held = 0, list[Row]()
    with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        for row in rows:
            held.append(row)
            if len(held) == _GROUP_ROWS:
                count += _written_group(writer, held, schema, columns)
        return count + _written_group(writer, held, schema, columns)


def _written_group(writer: Any, held: list[Row], schema: pa.Schema, columns: Mapping[str, ValueType]) -> int:
    """Write rows as a group, forget them, and return how many they were."""
    import pyarrow as pa

    arrays = []
    for name, kind in columns.items():
        made = _MADE.get(kind)
        try:
            values = [row[name] if made is None or row[name] is None else made(row[name]) for row in held]
            arrays.append(pa.array(values, schema.field(name).type))
        except (pa.ArrowException, UnicodeEncodeError, OverflowError) as error:
            raise DataRejected(f"{name} has a value that parquet does not have: {error}") from error
    count = len(held)
    if count:
        writer.write_batch(pa.record_batch(arrays, schema=schema))
    held.clear()
    return count


def _double(number: float) -> float:
    if float(number) != number:
        raise OverflowError(f"{number} is not a number that 64 bits keep")
    return float(number)


_MADE: Mapping[str, Callable[[Any], Any]] = {
    "number": _double,
    "date": dt.date.fromisoformat,
    "datetime": dt.datetime.fromisoformat,
}
"""What a value that JSON has as something else is made into."""


def _arrow_type(kind: ValueType) -> pa.DataType:
    import pyarrow as pa

    return {
        "boolean": pa.bool_(),
        "integer": pa.int64(),
        "number": pa.float64(),
        "text": pa.string(),
        "date": pa.date32(),
        "datetime": pa.timestamp("us", "UTC"),
    }[kind]
