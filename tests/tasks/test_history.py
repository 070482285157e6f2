"""files.keep_snapshot: a rolling history of dated copies."""

from __future__ import annotations

import datetime as dt
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.contract import Before, MissingResource, PermanentError, Run
from tasks.files.history import Kept, keep_snapshot, snapshots
from tasks.files.places import Files, InBucket, InFolder, Place, place_of
from tasks.files.run_files import files_of
from tests.support.memory import peak_memory

HISTORY = "churn/history.parquet"


@pytest.fixture(params=["folder", "bucket"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    """An empty place of either kind."""
    if request.param == "folder":
        return InFolder(folder=str(tmp_path))
    request.getfixturevalue("object_store")
    return InBucket(connection="object_store", bucket="ge-artifacts", prefix=f"history/{tmp_path.name}")


@pytest.fixture
def folder(tmp_path: Path) -> InFolder:
    """An empty folder."""
    return InFolder(folder=str(tmp_path))


def day(text: str) -> dt.date:
    return dt.date.fromisoformat(f"2026-{text}")


def put(place: Place, path: str, table: pa.Table) -> None:
    with place.write(path) as file:
        pq.write_table(table, file)


def got(place: Place, path: str) -> dict[str, list[object]]:
    with place.read(path) as file:
        found: dict[str, list[object]] = pq.ParquetFile(file).read().to_pydict()
    return found


def kept(files: Files, run: Run, date: str, *values: int, keep: int = 3) -> Kept:
    """Keep a snapshot of a table with `values`."""
    put(place_of(files, run), "t.parquet", pa.table({"v": pa.array(values, pa.int32()), "w": ["x"] * len(values)}))
    return keep_snapshot("t.parquet", HISTORY, keep, files, run=replace(run, date=day(date)))


def test_snapshot_is_dated_copy(files: Files, run: Run) -> None:
    """A snapshot has the source's rows, with the run's date in a column more."""
    assert kept(files, run, "01-05", 1, 2) == Kept(dates=["2026-01-05"], rows=2)

    place = place_of(files, run)
    assert place.names(HISTORY) == ["snapshot_date=2026-01-05.parquet"]
    assert got(place, f"{HISTORY}/snapshot_date=2026-01-05.parquet") == {
        "v": [1, 2],
        "w": ["x", "x"],
        "snapshot_date": [day("01-05")] * 2,
    }
    with place.read(f"{HISTORY}/snapshot_date=2026-01-05.parquet") as file:
        assert pq.read_schema(file).field("snapshot_date").type == pa.date32()


def test_newest_by_date_stay(files: Files, run: Run) -> None:
    """The oldest date makes room, in whatever order the snapshots came; one older than all finds none."""
    for date in ("01-26", "01-12", "01-19"):
        kept(files, run, date, 1)

    assert kept(files, run, "02-02", 1).dates == ["2026-01-19", "2026-01-26", "2026-02-02"]
    assert kept(files, run, "01-21", 1).dates == ["2026-01-21", "2026-01-26", "2026-02-02"]
    assert kept(files, run, "01-05", 1) == Kept(dates=["2026-01-21", "2026-01-26", "2026-02-02"], rows=0)
    names = [f"snapshot_date=2026-{date}.parquet" for date in ("01-21", "01-26", "02-02")]
    assert place_of(files, run).names(HISTORY) == names
    assert kept(files, run, "02-09", 1, keep=2).dates == ["2026-02-02", "2026-02-09"]


def test_rerun_replaces_its_own(files: Files, run: Run) -> None:
    """A second run of a date replaces that date's snapshot and no other."""
    for date, value in (("01-05", 1), ("01-12", 2), ("01-05", 3)):
        kept(files, run, date, value)

    place = place_of(files, run)
    values = [got(place, path)["v"] for path in snapshots(place, HISTORY, day("12-31"), 8)]
    assert values == [[3], [2]]


@pytest.mark.parametrize(
    ("before", "count", "dates"),
    [
        ("01-26", 2, ["01-19", "01-26"]),
        ("01-25", 2, ["01-12", "01-19"]),
        ("01-25", 9, ["01-12", "01-19"]),
        ("01-11", 2, []),
        ("12-31", 1, ["01-26"]),
    ],
)
def test_readers_look_back(files: Files, run: Run, before: str, count: int, dates: list[str]) -> None:
    """A reader gets the last snapshots up to a date, the oldest first."""
    for date in ("01-26", "01-12", "01-19"):
        kept(files, run, date, 1)

    found = snapshots(place_of(files, run), HISTORY, day(before), count)
    assert found == [f"{HISTORY}/snapshot_date=2026-{date}.parquet" for date in dates]


def test_own_run_is_kept(files: Files, run: Run) -> None:
    """A step that is cleared alone after another run keeps its own run's table, under its own date."""
    before = Before(files={"t.parquet": "build"})
    runs = [replace(run, run_id=name, date=day(name), before=before) for name in ("01-12", "01-05")]
    for value, one in enumerate(runs):
        with files_of(files, one).write("t.parquet") as file:
            pq.write_table(pa.table({"v": [value]}), file)
    for one in runs:
        keep_snapshot("t.parquet", HISTORY, 3, files, run=one)

    place = place_of(files, run)
    assert [got(place, path)["v"] for path in snapshots(place, HISTORY, day("12-31"), 8)] == [[1], [0]]


def test_writers_at_once_lose_nothing(files: Files, run: Run) -> None:
    """Of runs that keep a snapshot at the same time, the newest dates stay, and no more than are to be kept."""
    with place_of(files, run).write("t.parquet") as file:
        pq.write_table(pa.table({"v": [1]}), file)
    dates = [day(f"01-{number:02}") for number in range(1, 9)]
    start = Barrier(4)

    def work(mine: list[dt.date]) -> None:
        start.wait()
        for date in mine:
            keep_snapshot("t.parquet", HISTORY, 3, files, run=replace(run, date=date, run_id=f"of {date}"))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, (dates[::4], dates[1::4], dates[2::4], dates[3::4])))

    names = place_of(files, run).names(HISTORY)
    assert names == [f"snapshot_date={date}.parquet" for date in dates[-3:]]


def test_other_files_are_left(folder: InFolder, run: Run, tmp_path: Path) -> None:
    """What is no snapshot in the folder is neither counted nor removed."""
    others = ["README.md", "snapshot_date=2026-02-31.parquet", "snapshot_date=2026-01-05.parquet.bak"]
    (tmp_path / HISTORY).mkdir(parents=True)
    for name in others:
        (tmp_path / HISTORY / name).write_text("x")

    assert kept(folder, run, "01-12", 1, keep=1).dates == ["2026-01-12"]
    assert kept(folder, run, "01-19", 1, keep=1).dates == ["2026-01-19"]
    names = place_of(folder, run).names(HISTORY)
    assert names == sorted([*others, "snapshot_date=2026-01-19.parquet"])


def test_missing_source_is_told(folder: InFolder, run: Run) -> None:
    """A source that no step has written says so."""
    with pytest.raises(MissingResource, match=r"^file 't.parquet' does not exist in "):
        keep_snapshot("t.parquet", HISTORY, 3, folder, run=run)


def test_unusable_source_changes_nothing(folder: InFolder, run: Run, tmp_path: Path) -> None:
    """A source that is cut off, or dated already, says what to do; the history stays as it was."""
    kept(folder, run, "01-05", 1)
    before = (tmp_path / HISTORY / "snapshot_date=2026-01-05.parquet").read_bytes()
    whole = (tmp_path / "t.parquet").read_bytes()
    for spoil, problem in (
        (
            lambda file: file.write_bytes(whole[:-9]),
            rf"^{tmp_path}/t.parquet is not a complete parquet file \(.*; run the",
        ),
        (
            lambda file: pq.write_table(pa.table({"snapshot_date": [1]}), file),
            rf"^{tmp_path}/t.parquet already has a column snapshot_date; rename that column",
        ),
    ):
        spoil(tmp_path / "t.parquet")
        for date in ("01-05", "01-12"):
            with pytest.raises(PermanentError, match=problem):
                keep_snapshot("t.parquet", HISTORY, 1, folder, run=replace(run, date=day(date)))
    assert place_of(folder, run).names(HISTORY) == ["snapshot_date=2026-01-05.parquet"]
    assert (tmp_path / HISTORY / "snapshot_date=2026-01-05.parquet").read_bytes() == before


def test_memory_stays_flat(folder: InFolder, run: Run, tmp_path: Path) -> None:
    """A source five times as long needs no more memory."""
    peaks = []
    for rows in (300_000, 1_500_000):
        pq.write_table(pa.table({"v": pa.array(range(rows))}), tmp_path / "t.parquet", row_group_size=100_000)
        with peak_memory() as peak:
            keep_snapshot("t.parquet", HISTORY, 1, folder, run=run)
        peaks.append(peak())

    assert peaks[1] < 1.2 * peaks[0]
