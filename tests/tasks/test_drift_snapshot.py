"""drift.snapshot: the current rows, as they are or moved for a rehearsal."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.contract import DataRejected, MissingResource, PermanentError, Run
from tasks.drift.snapshot import Snapshot, snapshot
from tasks.files.places import InFolder
from tests.support.drifting import users


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the features of 1,500 users."""
    pq.write_table(users(), tmp_path / "features.parquet", row_group_size=400)
    return tmp_path


def taken(
    folder: Path, run: Run, noise: float = 0, shifts: dict[str, float] | None = None, unchanged: list[str] | None = None
) -> Snapshot:
    files = InFolder(folder=str(folder))
    return snapshot("features.parquet", "now.parquet", files, noise, shifts, unchanged, "churn_training_dag", run=run)


def column(folder: Path, name: str, file: str = "now") -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.asarray(pq.read_table(folder / f"{file}.parquet")[name].to_numpy(), float)


def test_zero_leaves_real_data(folder: Path, run: Run) -> None:
    """Without noise, and with shifts of zero, the snapshot is the file, byte for byte."""
    assert taken(folder, run, shifts={"spent": 0}) == Snapshot(file="now.parquet", rows=1500, moved=[])
    assert (folder / "now.parquet").read_bytes() == (folder / "features.parquet").read_bytes()


def test_date_seeds_the_noise(folder: Path, run: Run) -> None:
    """A rerun of a date writes the same bytes, another date writes others."""
    written = []
    for date in (run.date, run.date, run.date + dt.timedelta(weeks=1)):
        taken(folder, replace(run, date=date), noise=0.05)
        written.append((folder / "now.parquet").read_bytes())
    assert written[0] == written[1] != written[2]


def test_noise_is_relative(folder: Path, run: Run) -> None:
    """Each number is off by its share, whole ones stay whole; keys, texts and truths stay what they are."""
    done = taken(folder, run, noise=0.1, unchanged=["user_id"])

    assert done.moved == ["payments", "spent"]
    off = column(folder, "spent") / column(folder, "spent", "features") - 1
    assert abs(off.std() - 0.1) < 0.01
    before, after = (pq.read_table(folder / f"{name}.parquet") for name in ("features", "now"))
    assert after.schema == before.schema
    assert after.select(["user_id", "city", "active"]) == before.select(["user_id", "city", "active"])
    assert not after["payments"].equals(before["payments"])


def test_shift_moves_by_deviations(folder: Path, run: Run) -> None:
    """A shift of 2 moves every value by two standard deviations of its column, and no other column."""
    taken(folder, run, shifts={"spent": 2, "payments": -1})

    for name, shift in (("spent", 2), ("payments", -1)):
        before = column(folder, name, "features")
        moved = column(folder, name) - before
        assert moved == pytest.approx(shift * before.std(), abs=0.5 if name == "payments" else 1e-9)
    assert (column(folder, "user_id") == column(folder, "user_id", "features")).all()


def test_missing_values_stay_missing(tmp_path: Path, run: Run) -> None:
    """A null is no zero that could be moved, and a whole number does not leave the bounds of its type."""
    pq.write_table(pa.table({"n": pa.array([127, None, -128], pa.int8())}), tmp_path / "features.parquet")
    taken(tmp_path, run, shifts={"n": 1})
    assert pq.read_table(tmp_path / "now.parquet")["n"].to_pylist() == [127, None, 0]


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"shifts": {"spend": 1}}, "column 'spend' does not exist in .*; correct the name in the step; it has user_id"),
        ({"unchanged": ["id"]}, "column 'id' does not exist in "),
        ({"shifts": {"city": 1}}, "city of .* is string, which cannot be shifted; name only numbers"),
    ],
)
def test_wrong_column_is_named(folder: Path, run: Run, named: dict[str, object], message: str) -> None:
    """A column that is not there or no number is named, and the last snapshot stays."""
    (folder / "now.parquet").write_text("old")
    with pytest.raises(PermanentError, match=message):
        taken(folder, run, **named)  # type: ignore[arg-type]  # each case is a keyword of the task
    assert (folder / "now.parquet").read_text() == "old"


def test_missing_features_name_pipeline(tmp_path: Path, run: Run) -> None:
    """Without features, the error says which pipeline to run first."""
    with pytest.raises(MissingResource) as caught:
        taken(tmp_path, run)
    assert str(caught.value) == (f"file 'features.parquet' does not exist in {tmp_path}; run churn_training_dag first")


def test_empty_features_are_refused(folder: Path, run: Run) -> None:
    """Features without rows replace no snapshot."""
    pq.write_table(users(rows=0), folder / "features.parquet")
    (folder / "now.parquet").write_text("old")
    with pytest.raises(DataRejected, match=r"features.parquet has no rows; run churn_training_dag again"):
        taken(folder, run)
    assert (folder / "now.parquet").read_text() == "old"
