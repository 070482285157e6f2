"""Spark's tables as single Parquet files."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pyspark.sql import DataFrame, SparkSession

from stack.objects import ObjectStore
from tasks.contract import MissingResource, PermanentError, Run, TransientError
from tasks.files.places import InBucket, InFolder
from tasks.files.run_files import RunFiles, files_of
from tasks.spark.parquet import check_parts, join_parts, join_written, read_frame, write_parts
from tasks.spark.reach import ByDisk, Parts, shared_parts
from tasks.spark.session import spark_session

ROWS = 300_000
"""More than two row groups."""
DAY = "date_add(DATE'2026-01-01', CAST(id % 300 AS INT)) AS d"


@pytest.fixture(scope="module")
def session(spark_connection: str) -> Iterator[SparkSession]:
    with spark_session(spark_connection, Run("d", "r", "t", dt.date(2026, 1, 5))) as opened:
        yield opened


@pytest.fixture
def folder(run: Run, tmp_path: Path) -> RunFiles:
    return files_of(InFolder(folder=str(tmp_path / "data")), run)


def digest(file: str) -> str:
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


def write_frame(frame: DataFrame, files: RunFiles, path: str) -> int:
    """Write a table as the tasks do: in parts, then as one file that takes its place; return its rows."""
    with ByDisk(files).write(path) as draft:
        parts = draft.parts("parts")
        rows = write_parts(frame, parts)
        join_written(parts, draft.file, rows)
        return rows


def test_parts_become_one_file(session: SparkSession, folder: RunFiles) -> None:
    """However Spark spreads the rows, the file has them all, in order, with their types; the same rows, same bytes."""
    rows = session.range(ROWS).selectExpr(
        "id", "id * 1.5D AS x", "concat('t', id % 7) AS t", DAY, "timestamp_seconds(id) AS at"
    )
    assert write_frame(rows.repartition(5).sort("id"), folder, "a/b.parquet") == ROWS
    first = digest(folder.address("a/b.parquet"))
    assert write_frame(rows.coalesce(1), folder, "a/b.parquet") == ROWS
    assert digest(folder.address("a/b.parquet")) == first
    with pq.ParquetFile(folder.address("a/b.parquet")) as file:
        assert file.read(columns=["id"])["id"].to_pylist() == list(range(ROWS))
        assert [file.metadata.row_group(group).num_rows for group in range(3)] == [131_072, 131_072, 37_856]
        types = [str(field.type) for field in file.schema_arrow]
    assert types == ["int64", "double", "string", "date32[day]", "timestamp[us, tz=UTC]"]
    assert folder.place.names("a") == ["b.parquet"]


def test_empty_table_keeps_columns(session: SparkSession, folder: RunFiles) -> None:
    """A table without rows is a file with its columns."""
    assert write_frame(session.range(5).where("id < 0"), folder, "none.parquet") == 0
    assert pq.read_table(folder.address("none.parquet")).column_names == ["id"]


def test_failure_leaves_old_file(session: SparkSession, folder: RunFiles) -> None:
    """A table that cannot be made changes nothing, and leaves nothing behind."""
    write_frame(session.range(3), folder, "a.parquet")
    old = digest(folder.address("a.parquet"))
    with pytest.raises(Exception, match="DIVIDE_BY_ZERO"):
        write_frame(session.range(3).selectExpr("1 / id AS id"), folder, "a.parquet")
    assert digest(folder.address("a.parquet")) == old
    assert list(Path(folder.place.address(".scratch")).iterdir()) == []


def test_bucket_holds_tables(session: SparkSession, object_store: ObjectStore, run: Run) -> None:
    """A table goes to a bucket and comes back, for as long as its local copy lives."""
    files = InBucket(connection="object_store", bucket="ge-artifacts", prefix="tables")
    of_run = files_of(files, replace(run, task_id="other"))
    assert write_frame(session.range(10), of_run, "a.parquet") == 10
    with ByDisk(of_run).read("a.parquet") as source:
        assert read_frame(session, source).agg({"id": "sum"}).first()[0] == 45
    no_file = pytest.raises(MissingResource, match=r"file 'b.parquet' does not exist in s3://ge-")
    with no_file, ByDisk(of_run).read("b.parquet"):
        pytest.fail("it was read")


def test_unseen_parts_are_refused(session: SparkSession, tmp_path: Path) -> None:
    """Rows that executors wrote to a disk of their own are missed, not forgotten."""
    write_parts(session.range(10), shared_parts(tmp_path / "parts"))
    next((tmp_path / "parts").glob("part-*")).unlink()
    with pytest.raises(PermanentError, match=r"executors wrote 10 rows to .*/parts, but the driver sees 5; let the"):
        check_parts(shared_parts(tmp_path / "parts"), tmp_path / "parts", 10)


def test_uncounted_parts_are_transient(session: SparkSession, tmp_path: Path) -> None:
    """Rows in a bucket that nobody counted are another attempt's: the next one begins with an empty scratch."""
    write_parts(session.range(10), shared_parts(tmp_path / "parts"))
    stray = Parts("s3a://bucket/parts", lambda: nullcontext(tmp_path / "parts"), lambda _: None, shared=False)
    with pytest.raises(TransientError, match=r"^object store: .* wrote 8 rows to s3a://bucket/parts, .* sees 10$"):
        join_written(stray, tmp_path / "one.parquet", 8)


def test_sorted_parts_are_merged(session: SparkSession, tmp_path: Path) -> None:
    """However the rows are spread, a file has them in the order of its keys, and the same rows make the same bytes."""
    rows = session.range(ROWS).selectExpr("CAST(id % 1000 AS STRING) AS name", "id DIV 1000 AS n", "id * 1.5D AS x")
    digests = set[str]()
    for spread in (rows.repartition(7, "n"), rows.repartition(3, "name"), rows.coalesce(1)):
        folder = tmp_path / f"parts-{len(list(tmp_path.iterdir()))}"
        write_parts(spread.sortWithinPartitions("name", "n"), shared_parts(folder))
        join_parts(folder, tmp_path / "one.parquet", ["name", "n"])
        digests.add(digest(str(tmp_path / "one.parquet")))
    table = pq.read_table(tmp_path / "one.parquet", columns=["name", "n"])
    found = list(zip(table["name"].to_pylist(), table["n"].to_pylist(), strict=True))
    assert found == sorted((str(name), n) for name in range(1000) for n in range(ROWS // 1000))
    assert len(digests) == 1


def test_unsorted_parts_are_refused(session: SparkSession, tmp_path: Path) -> None:
    """Parts that are in no order are not taken for sorted ones."""
    write_parts(session.range(10).selectExpr("-id AS id"), shared_parts(tmp_path / "parts"))
    with pytest.raises(ValueError, match="the parts are not sorted by id"):
        join_parts(tmp_path / "parts", tmp_path / "one.parquet", ["id"])


def test_parts_join_in_order(session: SparkSession, tmp_path: Path) -> None:
    """Parts are joined as Spark numbered them."""
    write_parts(session.range(20, numPartitions=12), shared_parts(tmp_path / "parts"))
    join_parts(tmp_path / "parts", tmp_path / "one.parquet")
    assert pq.read_table(tmp_path / "one.parquet")["id"].to_pylist() == list(range(20))
