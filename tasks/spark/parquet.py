"""Spark's tables as single Parquet files, in the place where steps pass files to each other.

Knows that Spark writes a table as a folder of parts, and joins them into one file; knows nothing about the rows.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.contract import PermanentError, TransientError
from tasks.spark.session import SHARE_DISK

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray
    from pyarrow.parquet import ParquetFile
    from pyspark.sql import DataFrame, SparkSession

    from tasks.spark.reach import Parts, Source

_GROUP_ROWS = 131_072
"""Rows of a row group, which are in memory at once. Fixed, so the same rows make the same bytes."""


def read_frame(session: SparkSession, source: Source) -> DataFrame:
    """Return the table of a Parquet file."""
    return session.read.parquet(source.address)


def write_parts(frame: DataFrame, parts: Parts) -> int:
    """Write a table as Parquet files into a new folder, in parallel; return how many rows it has.

    Raises PermanentError if the driver cannot see what the executors wrote.
    """
    from pyspark.sql import Observation
    from pyspark.sql import functions as sql

    written = Observation("written")
    frame.observe(written, sql.count(sql.lit(1)).alias("rows")).write.parquet(parts.address, compression="snappy")
    rows = int(written.get["rows"])
    if parts.shared:  # from a bucket they are fetched once, when they are joined
        with parts.seen() as folder:
            check_parts(parts, folder, rows)
    return rows


def check_parts(parts: Parts, folder: Path, written: int) -> None:
    """Raise PermanentError unless the driver sees as many rows in `folder` as were written.

    For parts in a bucket it is a TransientError: an attempt that seemed dead may have written there.
    """
    files = _parts(folder)
    seen = sum(_rows(file) for file in files)
    if seen != written or not files:
        problem = f"Spark's executors wrote {written:,} rows to {parts.address}, but the driver sees {seen:,}"
        raise PermanentError(f"{problem}; {SHARE_DISK}") if parts.shared else TransientError("object store", problem)


def join_written(parts: Parts, file: Path, rows: int, keys: Sequence[str] = ()) -> None:
    """Join parts with so many rows into one file, as `join_parts` does."""
    with parts.seen() as folder:
        check_parts(parts, folder, rows)
        join_parts(folder, file, keys)


def join_parts(folder: Path, file: Path, keys: Sequence[str] = ()) -> None:
    """Join the parts in `folder` into one Parquet file, with one row group in memory at a time.

    The rows are in the order of the parts or, if there are `keys`, sorted by them; each part must be sorted already.
    Spark itself would compute the table twice to sort it, once to find the limits of the parts.
    """
    import pyarrow.parquet as pq

    parts = _parts(folder)
    with ExitStack() as opened, pq.ParquetWriter(file, pq.read_schema(parts[0]), compression="zstd") as writer:
        files = [opened.enter_context(pq.ParquetFile(part)) for part in parts]
        for group in _groups(_merged(files, keys) if keys else _batches(files)):
            writer.write_table(group, row_group_size=_GROUP_ROWS)


def _parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.parquet"))


def _rows(part: Path) -> int:
    import pyarrow.parquet as pq

    return int(pq.read_metadata(part).num_rows)


def _batches(files: list[ParquetFile]) -> Iterator[pa.RecordBatch]:
    for file in files:
        yield from file.iter_batches(batch_size=_GROUP_ROWS)


def _merged(files: list[ParquetFile], keys: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yield the rows in the order of `keys`; only the keys of all rows are in memory at once."""
    import numpy as np
    import pyarrow as pa

    owners = _owners(files, keys)
    rest = [_Rows(file, _GROUP_ROWS // len(files) + 1) for file in files]
    for start in range(0, len(owners), _GROUP_ROWS):
        wanted = owners[start : start + _GROUP_ROWS]
        counts = np.bincount(wanted, minlength=len(files))
        batches = [batch for file, count in zip(rest, counts, strict=True) for batch in file.take(int(count))]
        places = np.empty(len(wanted), dtype=np.int64)
        places[wanted.argsort(kind="stable")] = np.arange(len(wanted))
        yield from pa.Table.from_batches(batches).combine_chunks().take(places).to_batches()


def _owners(files: list[ParquetFile], keys: Sequence[str]) -> NDArray[np.int64]:
    """Return, for each row in the order of `keys`, the number of its file; raise ValueError for an unsorted file."""
    import numpy as np
    import pyarrow as pa
    from pyarrow import compute

    tables = [file.read(columns=list(keys)) for file in files]
    owner = np.repeat(np.arange(len(files)), [table.num_rows for table in tables])
    as_spark = [(key, "ascending", "at_start") for key in keys]
    order = compute.sort_indices(pa.concat_tables(tables), sort_keys=as_spark).to_numpy()
    owners: NDArray[np.int64] = owner[order]
    if (order[owners.argsort(kind="stable")] != np.arange(len(order))).any():
        raise ValueError(f"the parts are not sorted by {', '.join(keys)}")
    return owners


class _Rows:
    """The rows of one file, taken a few at a time."""

    def __init__(self, file: ParquetFile, size: int) -> None:
        self._batches = file.iter_batches(batch_size=size)
        self._held: pa.RecordBatch | None = None

    def take(self, count: int) -> Iterator[pa.RecordBatch]:
        """Yield the next `count` rows, which must exist."""
        while count:
            held = next(self._batches) if self._held is None else self._held
            first, rest = held.slice(0, count), held.slice(count)
            self._held = rest if rest.num_rows else None
            count -= first.num_rows
            yield first


def _groups(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Yield the rows in groups of equal size, however long the batches are."""
    import pyarrow as pa

    held: list[pa.RecordBatch] = []
    missing = _GROUP_ROWS
    for batch in batches:
        rest = batch
        while rest.num_rows >= missing:
            yield _one(pa.Table.from_batches([*held, rest.slice(0, missing)]))
            held, rest, missing = [], rest.slice(missing), _GROUP_ROWS
        if rest.num_rows:
            held.append(rest)
            missing -= rest.num_rows
    if held:
        yield _one(pa.Table.from_batches(held))


def _one(group: pa.Table) -> pa.Table:
    """Return the group with each column in one piece: otherwise the pieces would affect the file's pages."""
    return group.combine_chunks()
