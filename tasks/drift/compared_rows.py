"""Where the rows to be compared come from: a file, the history of a file, or a query in Postgres.

Yields them as parts, one at a time, each with the families of its columns and its rows in batches; knows nothing about
what is compared.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from tasks.contract import (
    ConnectionId,
    DataFile,
    MissingResource,
    Model,
    PermanentError,
    QueryFile,
    Run,
    TransientError,
)
from tasks.drift.query_rows import selected
from tasks.files.history import snapshots
from tasks.files.places import Files, Place
from tasks.files.run_files import Dated, files_of
from tasks.postgres.tables import Bound

if TYPE_CHECKING:
    import pyarrow as pa

BATCH = 65_536
"""Rows held in memory at a time."""
_BUFFER = 1 << 20
"""Bytes of a column read at a time: a row group may be as large as its file."""

Family = Literal["number", "boolean", "text", "date", "null", "other"]
"""The kind of a column's values, whatever their width: 32 bits today and 64 tomorrow are the same numbers."""

PipelineId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.\-]+$")]


class FromFile(Model):
    """A parquet file."""

    file: DataFile
    written_by: PipelineId | None = None
    """The pipeline that writes it: its latest run dated up to the run's date counts."""
    dated: Dated = "up_to_run"
    """With `any`, the latest run of `written_by` counts, whatever its date."""


class FromHistory(Model):
    """The last snapshots of a history that `files.keep_snapshot` keeps."""

    history: DataFile
    last: Annotated[int, Field(ge=1, le=1000)] = 8
    dated: Literal["before_run", "up_to_run", "any"] = "before_run"
    """Which snapshots count: those dated before the run's date, those up to and including it, or all."""
    written_by: PipelineId | None = None
    """The pipeline that writes it: a missing history says to run that first."""


class FromQuery(Model):
    """The result of a file of `configs/sql/` in Postgres; each of `values` is bound to `%(name)s` in it."""

    connection: ConnectionId
    sql: QueryFile
    values: dict[str, Bound] | None = None


def _source_name(written: object) -> str | None:
    keys = written if isinstance(written, Mapping) else type(written).model_fields if isinstance(written, Model) else ()
    return next((tag for key, tag in _SOURCES.items() if key in keys), None)


_SOURCES = {"file": "a file", "history": "a history", "sql": "a query"}
"""Tags, by the key that identifies each source; a tag is not a key."""

Source = Annotated[
    Annotated[FromFile, Tag("a file")]
    | Annotated[FromHistory, Tag("a history")]
    | Annotated[FromQuery, Tag("a query")],
    Discriminator(
        _source_name,
        custom_error_type="source",
        custom_error_message=f"should be a mapping with one of {', '.join(_SOURCES)}",
    ),
]
"""Where rows come from."""


@dataclass(frozen=True, slots=True)
class Part:
    """A table, or one snapshot of several."""

    address: str
    families: Mapping[str, Family]
    batches: Iterator[pa.RecordBatch]


def parts(source: Source, names: list[str], files: Files, run: Run) -> Iterator[Part]:
    """Yield the parts of a source; each can be read until the next one is requested.

    The batches have those columns of `names` that exist. Raises MissingResource and PermanentError.
    """
    if isinstance(source, FromQuery):
        yield from _queried(source, names, run)
        return
    of_run = files_of(files, run)
    if isinstance(source, FromFile):
        yield from _stored(of_run.find(source.file, source.written_by, source.dated), of_run.place, names)
        return
    for path in _snapshots(source, of_run.place, run):
        if not of_run.place.exists(path):
            raise TransientError("files", f"{of_run.place.address(path)} made room for a newer snapshot meanwhile")
        yield from _stored(path, of_run.place, names)


def _queried(source: FromQuery, names: list[str], run: Run) -> Iterator[Part]:
    with selected(source.connection, source.sql, source.values or {}, names, run) as (schema, batches):
        address = f"configs/sql/{source.sql} in {source.connection}"
        yield Part(address, families(schema), batches)


def _snapshots(source: FromHistory, place: Place, run: Run) -> list[str]:
    until = {"before_run": run.date - dt.timedelta(days=1), "up_to_run": run.date, "any": dt.date.max}[source.dated]
    if paths := snapshots(place, source.history, until, source.last):
        return paths
    there = [Path(path).stem for path in snapshots(place, source.history, dt.date.max, source.last)]
    first = source.written_by or "the pipeline that writes it"
    if not there:
        where = place.address("").rstrip("/")
        raise MissingResource("reference history", source.history, where, f"run {first} first")
    wanted = {"before_run": "before", "up_to_run": "up to"}[source.dated]
    problem = f"{place.address(source.history)} has no snapshot dated {wanted} {run.date}, only {', '.join(there)}"
    remedy = f"run {first} for an earlier date first, or set `dated` of the step's source to up_to_run or any"
    raise PermanentError(f"{problem}; {remedy}")


def _stored(path: str, place: Place, names: list[str]) -> Iterator[Part]:
    with place.read(path) as file, opened_parquet(file, place.address(path)) as table:
        kinds = families(table.schema_arrow)
        wanted = [name for name in names if name in kinds]
        yield Part(place.address(path), kinds, table.iter_batches(BATCH, columns=wanted))


@contextmanager
def opened_parquet(file: Path, address: str) -> Iterator[Any]:
    """Provide an open parquet file, read a buffer at a time; raise PermanentError if it is incomplete."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False) as table:
            yield table
    except pa.ArrowInvalid as error:
        problem = f"{address} is not a complete parquet file ({error})"
        raise PermanentError(f"{problem}; run the step that writes it again") from error


def families(schema: pa.Schema) -> dict[str, Family]:
    """Return the family of each column."""
    return {field.name: family_of(field.type) for field in schema}


def family_of(kind: pa.DataType) -> Family:
    """Return the family of a type."""
    from pyarrow import types

    if types.is_dictionary(kind):
        return family_of(kind.value_type)
    if types.is_boolean(kind) or types.is_null(kind):
        return "boolean" if types.is_boolean(kind) else "null"
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return "number"
    if types.is_string(kind) or types.is_large_string(kind):
        return "text"
    return "date" if types.is_date(kind) or types.is_timestamp(kind) else "other"
