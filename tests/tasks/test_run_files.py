"""The files of runs: each its own, and the names that people know are of the greatest date."""

from __future__ import annotations

import datetime as dt
import logging
import os
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from itertools import permutations
from pathlib import Path
from random import Random
from threading import Barrier, Condition
from typing import TYPE_CHECKING

import pytest

from tasks.contract import Before, MissingResource, PermanentError, Run, TransientError
from tasks.files.places import BucketPlace, Files, FolderPlace, InBucket, InFolder, Place, bucket_place
from tasks.files.run_files import RunFiles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

PATH, STEP = "churn/features.parquet", "feature_engineering"
BEFORE = Before(files={"churn/raw": "generate", PATH: STEP})


@pytest.fixture(params=["folder", "bucket"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    """An empty place of either kind, where three runs are kept."""
    if request.param == "folder":
        return InFolder(folder=str(tmp_path), keep_runs=3)
    request.getfixturevalue("object_store")
    prefix = f"run-files/{tmp_path.name}"
    return InBucket(connection="object_store", bucket="ge-artifacts", prefix=prefix, keep_runs=3)


@pytest.fixture
def folder(tmp_path: Path) -> InFolder:
    """An empty folder, where three runs are kept."""
    return InFolder(folder=str(tmp_path), keep_runs=3)


def of(files: Files, day: int, dag: str = "churn_training_dag", run: str = "", before: Before = BEFORE) -> RunFiles:
    """Return the files of a run of that day of January."""
    run_id, date = run or f"scheduled__{day}", dt.date(2026, 1, day)
    whose = Run(dag, run_id, STEP, date, deployment="here", before=before)
    return RunFiles(replace(opened(files), run=whose), whose, files.keep_runs)


@cache
def opened(files: Files) -> FolderPlace | BucketPlace:
    """Return the place, with one client for all runs."""
    run = Run("any", "any", "any", dt.date(2026, 1, 1))
    return bucket_place(files, run) if isinstance(files, InBucket) else FolderPlace(Path(files.folder), run)


def put(files: RunFiles, text: str, path: str = PATH) -> None:
    with files.write(path) as file:
        file.write_text(text)


def got(files: RunFiles, path: str = PATH, **options: str) -> str:
    with files.read(path, **options) as file:  # type: ignore[arg-type]  # words
        return file.read_text()


def published(files: RunFiles, path: str = PATH) -> str | None:
    return files.place.text(path)


def test_step_reads_its_own_run(files: Files) -> None:
    """A step that is cleared alone after another run wrote the same name takes what its own run wrote."""
    mine, others = of(files, 5), of(files, 12)
    put(mine, "mine")
    put(others, "others")

    assert (got(mine), got(others)) == ("mine", "others")


def test_runs_at_once_keep_their_own(files: Files) -> None:
    """Runs of a backfill that write at the same time read their own; the name has the greatest date."""
    runs = [of(files, day) for day in (12, 5, 19)]
    start = Barrier(len(runs))

    def work(run: RunFiles) -> str:
        start.wait()
        put(run, f"of {run.run.date}")
        start.wait()
        return got(run)

    with ThreadPoolExecutor(len(runs)) as threads:
        assert list(threads.map(work, runs)) == [f"of {run.run.date}" for run in runs]
    assert published(runs[0]) == "of 2026-01-19"


@pytest.mark.parametrize("days", list(permutations((5, 12, 19))))
def test_name_has_greatest_date(folder: InFolder, days: tuple[int, ...], caplog: pytest.LogCaptureFixture) -> None:
    """In whatever order the runs come, an older date does not replace the file of a greater one; the log says so."""
    for day in days:
        with caplog.at_level(logging.INFO):
            put(of(folder, day), f"{day}")

    assert published(of(folder, 5)) == "19"
    kept = [one.getMessage() for one in caplog.records if "stays: it is of" in one.getMessage()]
    greater = [day for place, day in enumerate(days) if any(before > day for before in days[:place])]
    assert len(kept) == len(greater)


def test_older_date_leaves_name(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    """A backfill of an older date leaves the name alone and says whose the file is."""
    put(of(files, 12), "later")
    with caplog.at_level(logging.INFO):
        put(of(files, 5), "earlier")

    assert published(of(files, 5)) == "later"
    assert re.search(
        rf"{PATH} stays: it is of churn_training_dag.{STEP} in run scheduled__12, for 2026-01-12, written at 20.* UTC",
        caplog.text,
    )


def test_same_date_is_replaced(files: Files) -> None:
    """Of one date, the name has what was written last; a run that writes again replaces its own."""
    put(of(files, 5), "first")
    put(of(files, 5, run="manual__1"), "second")
    assert published(of(files, 5)) == "second"
    put(of(files, 5), "third")

    assert published(of(files, 5)) == "third"
    assert got(of(files, 5, run="manual__1")) == "second"


def test_two_pipelines_share_a_name(files: Files) -> None:
    """Where two pipelines write one name, it is of the greatest date too, and each reads its own."""
    put(of(files, 12), "ours")
    put(of(files, 5, dag="other"), "theirs")

    assert published(of(files, 5)) == "ours"
    assert (got(of(files, 12)), got(of(files, 5, dag="other"))) == ("ours", "theirs")


def test_deployments_are_told_apart(files: Files) -> None:
    """Another Airflow may have a run of the same name: it does not take its files."""
    put(of(files, 5), "ours")
    other = of(files, 5)
    other = replace(other, run=replace(other.run, deployment="there"))

    with pytest.raises(PermanentError, match="has no file"):
        got(other)


def test_late_publisher_mends_the_name(folder: InFolder) -> None:
    """A run that is held up while it puts an older file under the name puts the greater one there afterwards."""
    older, greater = of(folder, 5), of(folder, 12)
    held = replace(older, place=Held(older.place, lambda: put(greater, "greater")))  # type: ignore[arg-type]  # a Place

    put(held, "older")

    assert published(older) == "greater"


@dataclass
class Held:
    """A place where somebody else acts just before the first file is put under its name."""

    inner: Place
    act: Callable[[], None]
    acted: bool = False

    def __getattr__(self, name: str) -> Callable[..., object]:
        return getattr(self.inner, name)  # type: ignore[no-any-return]  # what it does not change is the other's

    def link(self, source: str, path: str) -> None:
        if not self.acted:
            self.acted = True
            self.act()
        self.inner.link(source, path)


class Turns:
    """Lets threads act one at a time, in an order drawn from a seed."""

    def __init__(self, names: Iterable[str], chance: Random) -> None:
        self._changed, self._chance = Condition(), chance
        self._alive, self._waiting, self._turn = set(names), set[str](), ""

    def wait(self, name: str) -> None:
        """Return when it is the thread's turn, which lasts until it waits again or ends."""
        with self._changed:
            self._waiting.add(name)
            self._give()
            self._changed.wait_for(lambda: self._turn == name)
            self._turn = ""
            self._waiting.discard(name)

    def end(self, name: str) -> None:
        with self._changed:
            self._alive.discard(name)
            self._give()

    def _give(self) -> None:
        if self._waiting and self._waiting == self._alive:
            self._turn = self._chance.choice(sorted(self._waiting))
            self._changed.notify_all()


class Killed(Exception):
    """The end of an attempt."""


@dataclass
class InTurns:
    """A place where each act waits for its turn, and an attempt may be killed before it."""

    inner: Place
    name: str
    turns: Turns
    lives: Iterator[bool]

    def __getattr__(self, name: str) -> Callable[..., object]:
        act: Callable[..., object] = getattr(self.inner, name)

        def in_turn(*arguments: object) -> object:
            self._wait()
            return act(*arguments)

        return in_turn

    @contextmanager
    def write(self, path: str) -> Iterator[Path]:
        self._wait()
        with self.inner.write(path) as file:
            yield file
            self._wait()

    def _wait(self) -> None:
        self.turns.wait(self.name)
        if not next(self.lives):
            raise Killed


def interleaved(folder: InFolder, seed: int) -> dict[str, str]:
    """Let runs write one name in random steps, some attempts killed; return what each reads, and what the name has."""
    chance = Random(seed)
    runs = {f"{day}": of(folder, day) for day in chance.sample(range(1, 29), 3)}
    turns = Turns(runs, chance)
    lives = {name: iter([chance.random() > 0.02 for _ in range(40)] + [True] * 1000) for name in runs}

    def work(name: str) -> str:
        place = InTurns(runs[name].place, name, turns, lives[name])
        mine = replace(runs[name], place=place)  # type: ignore[arg-type]  # the rest of a Place is the inner one's
        try:
            while True:
                with suppress(Killed):  # and tried again
                    put(mine, f"of {name}")
                    return got(mine)
        finally:
            turns.end(name)

    with ThreadPoolExecutor(len(runs)) as threads:
        own = dict(zip(runs, threads.map(work, runs), strict=True))
    return own | {"name": str(published(of(folder, 1))), "greatest": f"of {max(map(int, runs))}"}


@pytest.mark.parametrize("seed", range(60))
def test_any_order_ends_well(folder: InFolder, seed: int) -> None:
    """However the steps of runs interleave, each reads its own, and the name ends with the greatest date."""
    found = interleaved(folder, seed)

    assert found.pop("name") == found.pop("greatest")
    assert found == {day: f"of {day}" for day in found}


def test_killed_publisher_is_mended(files: Files) -> None:
    """A run that was killed before it published does so when its step is tried again; the next run does it too."""
    put(of(files, 5), "old")
    killed = of(files, 12)
    with killed.place.write(killed.own(PATH)) as file:
        file.write_text("new")
    killed._record(PATH, taken=False)
    assert published(killed) == "old"

    put(of(files, 8), "other")

    assert published(killed) == "new"


def test_missing_file_names_step(files: Files) -> None:
    """A run whose step has not written says which step to clear, and whose the file of that name is."""
    put(of(files, 12), "later")
    shown = of(files, 5).place.address(PATH)

    with pytest.raises(PermanentError) as raised:
        got(of(files, 5))
    assert re.sub("at 20.* UTC", "at … UTC", str(raised.value)) == (
        f"this run (scheduled__5) has no file {PATH}; {shown} is of churn_training_dag.{STEP} in run scheduled__12, "
        f"for 2026-01-12, written at … UTC; clear '{STEP}' with its downstream"
    )
    with pytest.raises(PermanentError, match=r"has no file churn/raw/a\.csv; clear 'generate' with its downstream$"):
        got(of(files, 5), "churn/raw/a.csv")


def test_removed_run_names_step(files: Files) -> None:
    """The runs that wrote last are kept; an older one says that it was removed, and which step to clear."""
    for day in (1, 2, 3, 4):
        put(of(files, day), f"{day}")

    with pytest.raises(PermanentError, match=r": 3 runs are kept, and it was removed; .*; clear 'feature_engineering'"):
        got(of(files, 1))
    assert [got(of(files, day)) for day in (2, 3, 4)] == ["2", "3", "4"]
    put(of(files, 1), "again")
    assert got(of(files, 1)) == "again"


def test_backfilled_runs_are_kept(folder: InFolder) -> None:
    """Dates older than all that are kept are not removed while they are worked on; the published one never is."""
    for day in (28, 29, 30):
        put(of(folder, day), f"{day}")
    for day in (1, 2, 3):
        put(of(folder, day), f"{day}")

    assert [got(of(folder, day)) for day in (1, 2, 3)] == ["1", "2", "3"]
    assert got(of(folder, 30)) == published(of(folder, 30)) == "30"
    with pytest.raises(PermanentError, match="3 runs are kept, and it was removed"):
        got(of(folder, 29))


def test_running_runs_are_kept(files: Files) -> None:
    """More runs at once than are kept lose nothing while they run; what has ended goes with the next file."""
    running = {f"scheduled__{day}" for day in range(1, 7)}
    runs = [of(files, day) for day in range(1, 7)]
    for run in runs:
        asks = replace(run.run, is_running=lambda _dag_id, run_id: run_id in running)
        put(replace(run, run=asks), f"{run.run.date.day}")
    assert [got(run) for run in runs] == ["1", "2", "3", "4", "5", "6"]

    put(of(files, 7), "7")
    assert [got(of(files, day)) for day in (5, 6, 7)] == ["5", "6", "7"]
    with pytest.raises(PermanentError, match=r"3 runs are kept, and it was removed; .*; clear 'feature_engineering'"):
        got(runs[0])


def test_only_runs_that_would_lose_a_file_are_asked_for(folder: InFolder) -> None:
    """Files that are named by their date stay for ever, so nobody asks whether their runs still run."""
    asked: list[str] = []

    def is_running(_dag_id: str, run_id: str) -> bool:
        asked.append(run_id)
        return False

    for day in range(1, 10):
        run = of(folder, day)
        put(replace(run, run=replace(run.run, is_running=is_running)), f"{day}", f"sales_{day}.csv")
    assert asked == []


def test_runs_of_another_airflow_are_kept_for_a_day(folder: InFolder, tmp_path: Path) -> None:
    """Nobody can say whether they have ended, until they have written nothing for a day."""
    silent, *others = (of(folder, day) for day in range(1, 6))
    for one in (silent, *others):
        put(replace(one, run=replace(one.run, deployment=f"elsewhere, {one.run.run_id}")), "theirs")
    (record,) = (tmp_path / ".runs" / "records").glob(f"{PATH}/*/2026-01-01--*.json")
    os.utime(record, (record.stat().st_mtime - 90_000,) * 2)

    put(of(folder, 6), "6")

    names = sorted(path.name[:10] for path in record.parent.iterdir())
    assert names == [f"2026-01-0{day}" for day in (2, 3, 4, 5, 6)]


def test_dated_names_stay(files: Files) -> None:
    """A file whose name has a date stays with its run, however many came after."""
    for day in range(1, 7):
        put(of(files, day), f"{day}", f"pages/2026-01-0{day}.html")

    names = [entry.path for entry in of(files, 1).place.below("pages")]
    assert names == [f"pages/2026-01-0{day}.html" for day in range(1, 7)]
    assert got(of(files, 9, before=Before()), "pages/2026-01-01.html", written_by="churn_training_dag") == "1"


def test_nothing_else_is_left(folder: InFolder, tmp_path: Path) -> None:
    """Of runs that are not kept, neither files nor folders are left."""
    for day in (1, 2, 3, 4, 5):
        put(of(folder, day), f"{day}")

    below = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*2026-01-0[12]*")}
    assert below == set()
    assert not list((tmp_path / ".scratch").iterdir())


@pytest.mark.parametrize(
    ("day", "dated", "whose"), [(12, "up_to_run", "12"), (18, "up_to_run", "12"), (5, "any", "19")]
)
def test_other_pipeline_is_latest(
    files: Files, day: int, dated: str, whose: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A file of another pipeline is that of its latest run up to the own date, or of any; the log says whose."""
    for date in (19, 8, 12):
        put(of(files, date), f"{date}")
    reader = of(files, day, dag="churn_drift_monitor_w", before=Before())

    with caplog.at_level(logging.INFO):
        assert got(reader, written_by="churn_training_dag", dated=dated) == whose
    told = f"{PATH}: read that of churn_training_dag.{STEP} in run scheduled__{whose}, for 2026-01-{whose}"
    assert told in caplog.text


def test_too_early_reader_is_told(files: Files) -> None:
    """Where the other pipeline has only later dates, the error has them and the ways out."""
    for date in (19, 12):
        put(of(files, date), f"{date}")

    where = of(files, 5).place.address("").rstrip("/")
    with pytest.raises(PermanentError) as raised:
        got(of(files, 5, before=Before()), written_by="churn_training_dag")
    assert str(raised.value) == (
        f"no run of churn_training_dag dated up to 2026-01-05 has {PATH}, only of 2026-01-12, 2026-01-19 in {where}; "
        "run it for an earlier date, or set `dated: any`"
    )


def test_unrecorded_file_is_read(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    """A file that nobody recorded is read under its name; if it should be another pipeline's, the log warns."""
    reader = of(files, 5, before=Before())
    with reader.place.write(PATH) as file:
        file.write_text("somebody's")

    assert got(reader) == got(reader, written_by="churn_training_dag") == "somebody's"
    assert caplog.messages == [
        f"{reader.place.address(PATH)}: no run of churn_training_dag has recorded it; read as it is"
    ]
    with pytest.raises(MissingResource, match=r"^file 'no\.csv' does not exist in .*; run churn_training_dag first$"):
        got(reader, "no.csv", written_by="churn_training_dag")


def test_changed_file_is_told(folder: InFolder) -> None:
    """What somebody changes after a step wrote it is an error: for the run, and for another pipeline."""
    mine = of(folder, 5)
    put(mine, "mine")
    with mine.place.write(mine.own(PATH)) as file:
        file.write_text("other")

    with pytest.raises(
        PermanentError, match=rf"has changed since '{STEP}' wrote it; clear '{STEP}' with its downstream$"
    ):
        got(mine)
    with pytest.raises(TransientError, match=rf"has changed since {STEP} wrote it; if it is not being written again"):
        got(of(folder, 6, dag="other", before=Before()), written_by="churn_training_dag")


def test_copied_folder_serves(folder: InFolder, tmp_path: Path) -> None:
    """Files whose times changed, as after a restore, are known by their content."""
    put(of(folder, 5), "mine")
    for path in tmp_path.rglob("*.parquet"):
        os.utime(path, (1, 1))

    assert got(of(folder, 5)) == "mine"
    put(of(folder, 4), "older")
    assert published(of(folder, 5)) == "mine"


def test_no_bytes_are_copied(folder: InFolder, tmp_path: Path) -> None:
    """In a folder, the name and the run's own file are one file on disk."""
    put(of(folder, 5), "mine")

    assert (tmp_path / PATH).samefile(tmp_path / of(folder, 5).own(PATH))
