"""Spark's tables as single Parquet files, in the place where steps hand files to each other.

Knows how Spark writes a table, as a folder of parts, and makes one file of them; knows nothing of what the rows mean.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.contract import PermanentError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

    from tasks.files.places import Place

_GROUP_ROWS = 131_072
"""Rows of a row group: what is in memory at once. Always the same, so that the same rows make the same bytes."""


def read_frame(session: SparkSession, place: Place, path: str, stack: ExitStack) -> DataFrame:
    """Return the table of a Parquet file of `place`; it can be read until `stack` is closed.

    Raises MissingResource where there is no such file.
    """
    return session.read.parquet(stack.enter_context(place.read(path)).as_uri())


def write_parts(frame: DataFrame, folder: Path) -> int:
    """Write a table as the Parquet files of a new folder, in parallel; return its rows.

    Raises PermanentError where the executors wrote what is not to be seen from here.
    """
    from pyspark.sql import Observation
    from pyspark.sql import functions as sql

    written = Observation("written")
    frame.observe(written, sql.count(sql.lit(1)).alias("rows")).write.parquet(folder.as_uri(), compression="snappy")
    check_parts(folder, int(written.get["rows"]))
    return int(written.get["rows"])


def check_parts(folder: Path, written: int) -> None:
    """Raise PermanentError unless the parts that are to be seen in `folder` hold as many rows as were written."""
    parts = _parts(folder)
    seen = sum(_rows(part) for part in parts)
    if seen != written or not parts:
        problem = f"Spark's executors wrote {written:,} rows to {folder}, where the driver sees {seen:,}"
        remedy = "let the driver and the executors share that disk, or use a Spark on one machine"
        raise PermanentError(f"{problem}; {remedy}")


def join_parts(folder: Path, file: Path) -> None:
    """Make one Parquet file of the parts in `folder`, in their order, holding one row group in memory at a time."""
    import pyarrow.parquet as pq

    parts = _parts(folder)
    with pq.ParquetWriter(file, pq.read_schema(parts[0]), compression="zstd") as writer:
        for group in _groups(parts):
            writer.write_table(group, row_group_size=_GROUP_ROWS)


def _parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.parquet"))


def _rows(part: Path) -> int:
    import pyarrow.parquet as pq

    return int(pq.read_metadata(part).num_rows)


def _groups(parts: list[Path]) -> Iterator[pa.Table]:
    """Yield the rows of the parts in groups of equal size, however long the parts are."""
    import pyarrow as pa

    held: list[pa.RecordBatch] = []
    missing = _GROUP_ROWS
    for batch in _batches(parts):
        rest = batch
        while rest.num_rows >= missing:
            yield _one(pa.Table.from_batches([*held, rest.slice(0, missing)]))
            held, rest, missing = [], rest.slice(missing), _GROUP_ROWS
        if rest.num_rows:
            held.append(rest)
            missing -= rest.num_rows
    if held:
        yield _one(pa.Table.from_batches(held))


def _batches(parts: list[Path]) -> Iterator[pa.RecordBatch]:
    import pyarrow.parquet as pq

    for part in parts:
        with pq.ParquetFile(part) as opened:
            yield from opened.iter_batches(batch_size=_GROUP_ROWS)


def _one(group: pa.Table) -> pa.Table:
    """Return the group with each column in one piece: where the pieces end would show in the file's pages."""
    return group.combine_chunks()
