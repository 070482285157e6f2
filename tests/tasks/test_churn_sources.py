"""synthetic.churn_sources: the invented exports, their dirt, and how somebody's own are kept."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from pyarrow import csv

from stack.paths import REPOSITORY
from tasks.contract import Before, PermanentError, Run
from tasks.files.places import InBucket, InFolder, Place, place_of
from tasks.files.run_files import RunFiles, files_of
from tasks.synthetic.churn_people import active_user, demographics, funds, marketplace, payments, people
from tasks.synthetic.churn_sources import (
    BAD_DATES,
    FLAWS,
    REPEATED_EVERY,
    Arguments,
    Exports,
    Flaw,
    Sources,
    churn_sources,
    generate,
)
from tests.support.memory import peak_memory
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stack.objects import ObjectStore

UNTIL, HORIZON, CUTOFF = dt.date(2026, 1, 31), 30, dt.date(2026, 1, 1)
HEADERS = {
    "PAYMENTS": "FECHA,CUS_CUST_ID_SEL,CUS_CUST_ID_BUY,SPENT,TPV_SEGMENT_DETAIL,DESCUENTO",
    "ACTIVE_USER": "CUS_CUST_ID_BUY,MAU_MP_1,MAU_ML_1,MAU_ML_2,last_login_mp_date_1",
    "DEMOGRAFICOS": "CUS_CUST_ID_BUY,AGE,GENDER,CARD_TYPE,CITY",
    "DINERO_CUENTA": "CUS_CUST_ID_BUY,PLATA_CUENTA_1,PLATA_CUENTA_2,INVERSION",
    "MARKETPLACE_DATA": "CUS_CUST_ID_BUY,SPENT_ML,RECENCY_ML,FREQUENCY_ML",
}


def made(run: Run, folder: Path, **change: int | dt.date) -> Sources:
    asked = {"users": 300, "until": UNTIL, "horizon_days": HORIZON} | change
    return churn_sources(**asked, folder="raw", files=InFolder(folder=str(folder)), run=run)  # type: ignore[arg-type]  # mixed


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "raw").iterdir())}


def cells(path: Path) -> dict[str, list[str]]:
    """Return the columns of a CSV file, every cell as it is written."""
    names = HEADERS[path.stem].split(",")
    as_text = csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False)
    read: dict[str, list[str]] = csv.read_csv(path, convert_options=as_text).to_pydict()
    return read


def test_five_exports_are_written(run: Run, tmp_path: Path) -> None:
    """Each export has its header, and the rows that the step tells of."""
    done = made(run, tmp_path)

    for name, header in HEADERS.items():
        lines = (tmp_path / "raw" / f"{name}.csv").read_text().splitlines()
        assert lines[0] == header
        assert len(lines) - 1 == getattr(done, name.lower()) > 200
    assert done.generated


def test_same_arguments_same_bytes(run: Run, tmp_path: Path) -> None:
    """The bytes depend on the arguments alone, not on the run or on how many users are made at a time."""
    made(run, tmp_path / "one", users=3000)
    made(replace(run, run_id="other", date=dt.date(2030, 1, 1)), tmp_path / "two", users=3000)
    exports = Exports(files_of(InFolder(folder=str(tmp_path / "three")), run), "raw")
    generate(exports, Arguments(users=3000, until=UNTIL, horizon_days=HORIZON, days=180, seed=0), block=37)

    assert content(tmp_path / "one") == content(tmp_path / "two") == content(tmp_path / "three")


@pytest.mark.parametrize("change", [{"seed": 1}, {"until": dt.date(2026, 2, 1)}, {"horizon_days": 29}, {"users": 301}])
def test_other_arguments_other_bytes(run: Run, tmp_path: Path, change: dict[str, int | dt.date]) -> None:
    """Each argument matters, and files made with other arguments are made again."""
    made(run, tmp_path)
    before = content(tmp_path)
    made(run, tmp_path, **change)

    assert content(tmp_path)["PAYMENTS.csv"] != before["PAYMENTS.csv"]
    made(run, tmp_path)
    assert content(tmp_path) == before


def test_fewer_users_are_a_part(run: Run, tmp_path: Path) -> None:
    """More users are the same users and some more."""
    made(run, tmp_path / "few")
    made(run, tmp_path / "many", users=400)

    many = content(tmp_path / "many")
    assert all(
        many[name].startswith(text) for name, text in content(tmp_path / "few").items() if name != "_generated.json"
    )


def test_next_week_goes_on() -> None:
    """A week later the same payments are there, and those of one week more."""
    who, week = people(0, 0, 500), dt.timedelta(days=7)
    now, later = (
        pa.table(payments(who, CUTOFF + shift, UNTIL + shift)).to_pylist() for shift in (dt.timedelta(), week)
    )

    assert [one for one in later if one["FECHA"] <= UNTIL] == [one for one in now if one["FECHA"] >= CUTOFF + week]


def expected(flaw: Flaw, first: int, rows: int) -> Counter[str]:
    """Return how often each bad value stands in an export of `rows` rows, repeated ones not counted."""
    return Counter(flaw.values[row // flaw.every % len(flaw.values)] for row in range(first, rows, flaw.every))


@pytest.mark.parametrize(("name", "first"), list(zip(FLAWS, (10, 25, 40, 55, 70), strict=True)))
def test_dirt_is_exact(run: Run, tmp_path: Path, name: str, first: int) -> None:
    """Repeated rows and bad values stand in an export exactly as often as is said, and never two in one row."""
    users = 5000
    made(run, tmp_path, users=users)
    columns = cells(tmp_path / "raw" / f"{name}.csv")
    rows = list(zip(*columns.values(), strict=True))
    unique = [row for row, before in zip(rows, [None, *rows], strict=False) if row != before]

    assert len(rows) - len(unique) == len(range(first, len(unique), REPEATED_EVERY))
    bad = {place: set() for place in range(len(unique))}
    for nth, flaw in enumerate(FLAWS[name], start=1):
        column = list(columns).index(flaw.column)
        found = [place for place, row in enumerate(unique) if row[column] in flaw.values]
        others = {value for one in FLAWS[name] if one != flaw and one.column == flaw.column for value in one.values}
        assert not others & set(flaw.values)
        assert Counter(unique[place][column] for place in found) == expected(flaw, first + nth, len(unique))
        for place in found:
            bad[place].add(flaw.column)
    assert max(map(len, bad.values())) == 1


def test_dates_keep_their_limits() -> None:
    """No export of users tells of a day after the cut-off, and payments lie between the days asked for."""
    who, day = people(0, 0, 3000), dt.date.fromisoformat
    logins = pa.table(active_user(who, CUTOFF))["last_login_mp_date_1"].drop_null().to_pylist()
    bought = marketplace(who, CUTOFF)["RECENCY_ML"].to_pylist()
    paid = payments(who, day("2025-09-01"), UNTIL)["FECHA"].to_pylist()

    assert (max(logins), max(bought)) == (CUTOFF, CUTOFF)
    assert (min(paid), max(paid)) == (day("2025-09-01"), UNTIL)


def test_people_look_real() -> None:
    """Payments have a heavy tail, some users have none, and exports leave out whom they do not know."""
    who = people(0, 0, 10_000)
    counts = Counter(payments(who, dt.date(2025, 7, 6), UNTIL)["CUS_CUST_ID_BUY"].to_pylist())
    often = sorted(counts.values())

    assert 0.02 < 1 - len(counts) / 10_000 < 0.1
    assert often[-100] > 10 * often[len(often) // 2]
    assert 0.94 < len(funds(who, CUTOFF)["INVERSION"]) / 10_000 < 0.96
    assert 0.8 < len(marketplace(who, CUTOFF)["SPENT_ML"]) / 10_000 < 0.95
    assert {name: values.null_count for name, values in demographics(who).items()} == dict.fromkeys(
        HEADERS["DEMOGRAFICOS"].split(","), 0
    )


def test_any_week_looks_alike() -> None:
    """From one week to another the population does not drift: shares and means move by no more than chance."""
    who = people(0, 0, 20_000)
    weeks = [CUTOFF - dt.timedelta(days=7 * back) for back in range(0, 60, 6)]
    paying = [len(payments(who, week, week)["SPENT"]) for week in weeks]
    active = [sum(active_user(who, week)["MAU_MP_1"].to_pylist()) / 20_000 for week in weeks]

    assert max(paying) < 1.15 * min(paying)
    assert max(active) - min(active) < 0.01


def test_made_once_only(run: Run, tmp_path: Path) -> None:
    """A second run with the same arguments touches nothing and tells the same."""
    first = made(run, tmp_path)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "raw").iterdir()}

    assert made(run, tmp_path) == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "raw").iterdir()} == times


def test_own_exports_are_taken(run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Files that the step did not make stay, and are the run's as they are now; the log has their digests."""
    (tmp_path / "raw").mkdir()
    for name, header in HEADERS.items():
        (tmp_path / "raw" / f"{name}.csv").write_text(f"{header}\n1\n2")
    before = content(tmp_path)
    with caplog.at_level("INFO"):
        done = made(run, tmp_path)

    counts = dict.fromkeys(map(str.lower, HEADERS), 2)
    assert done == Sources.model_validate(counts | {"generated": False})
    assert content(tmp_path) == before
    digests = {name: hashlib.sha256(before[f"{name}.csv"]).hexdigest() for name in HEADERS}
    logged = [record.getMessage() for record in caplog.records if record.name == run.log.name]
    assert logged == [
        f"{tmp_path}/raw/{name}.csv (somebody's own): taken as it is, SHA-256 {digest}"
        for name, digest in digests.items()
    ]
    next_step = replace(run, before=Before(files={"raw": "generate"}))
    with files_of(InFolder(folder=str(tmp_path)), next_step).read("raw/PAYMENTS.csv") as file:
        assert file.read_bytes() == before["PAYMENTS.csv"]


def test_edited_export_stops_run(run: Run, tmp_path: Path) -> None:
    """An own export that is edited after it was taken is an error in the steps that read it, with the step to clear."""
    (tmp_path / "raw").mkdir()
    for name, header in HEADERS.items():
        (tmp_path / "raw" / f"{name}.csv").write_text(f"{header}\n1\n2")
    made(run, tmp_path)
    with (tmp_path / "raw" / "PAYMENTS.csv").open("a") as file:
        file.write("\n3")

    next_step = files_of(InFolder(folder=str(tmp_path)), replace(run, before=Before(files={"raw": "generate"})))
    problem = r"raw/PAYMENTS.csv has changed since 'generate' wrote it; clear 'generate' with its downstream$"
    with pytest.raises(PermanentError, match=problem):
        next_step.find("raw/PAYMENTS.csv")
    made(run, tmp_path)
    assert next_step.find("raw/PAYMENTS.csv").startswith(".runs/files/crypto_events_dag/2026-01-05--")


def test_runs_do_not_mix(run: Run, tmp_path: Path) -> None:
    """Each of two runs keeps the exports that it made; those with the known names are of the later date."""
    older = replace(
        run, run_id="backfill", date=UNTIL - dt.timedelta(weeks=1), before=Before(files={"raw": "generate"})
    )
    later = replace(run, date=UNTIL, before=Before(files={"raw": "generate"}))
    for one in (later, older):
        made(one, tmp_path, until=one.date)
    made(replace(run, date=UNTIL), tmp_path / "alone")

    texts = []
    for one in (later, older):
        with files_of(InFolder(folder=str(tmp_path)), one).read("raw/PAYMENTS.csv") as file:
            texts.append(file.read_bytes())
    assert texts[0] != texts[1]
    assert texts[0] == (tmp_path / "raw" / "PAYMENTS.csv").read_bytes()
    assert content(tmp_path) == content(tmp_path / "alone")


def test_export_that_came_meanwhile_stays(run: Run, tmp_path: Path) -> None:
    """A file that somebody puts there while the step invents one is not written over."""
    files = InFolder(folder=str(tmp_path))
    exports = Exports(files_of(files, run), "raw")
    (tmp_path / "raw").mkdir()
    with exports.files.write(exports.path("PAYMENTS"), partial(exports.is_own, "PAYMENTS")) as file:
        file.write_text("invented")
        (tmp_path / "raw" / "PAYMENTS.csv").write_text("own")

    assert (tmp_path / "raw" / "PAYMENTS.csv").read_text() == "own"


def test_exports_of_earlier_release(run: Run, tmp_path: Path) -> None:
    """Exports that an earlier release invented, as its marker says, are not taken for somebody's own."""
    made(run, tmp_path)
    digests = {name: [hashlib.sha256(content(tmp_path)[f"{name}.csv"]).hexdigest()] for name in HEADERS}
    shutil.rmtree(tmp_path / ".runs")
    (tmp_path / "raw" / "_generated.json").write_text(json.dumps({"digests": digests, "rows": None}))

    assert made(run, tmp_path, users=310).generated
    assert content(tmp_path)["DEMOGRAFICOS.csv"].count(b"\n") > 310


@pytest.mark.parametrize("users", [300, 400])
def test_own_export_among_made(run: Run, tmp_path: Path, users: int) -> None:
    """A file that somebody put in the place of a made one is never written over, whatever is asked for."""
    made(run, tmp_path)
    with (tmp_path / "raw" / "PAYMENTS.csv").open("a") as file:
        file.write("2026-01-01,1,1,1,QR,0\n")
    before = content(tmp_path)

    assert not made(run, tmp_path, users=users).generated
    assert content(tmp_path) == before


def test_lacking_export_is_told(run: Run, tmp_path: Path) -> None:
    """Somebody's own exports must be whole: they are not mixed with invented ones."""
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "PAYMENTS.csv").write_text("x")
    with pytest.raises(PermanentError) as raised:
        made(run, tmp_path)
    assert str(raised.value) == (
        f"{tmp_path}/raw has PAYMENTS.csv, which this step did not make, but no ACTIVE_USER.csv; add ACTIVE_USER, "
        "DEMOGRAFICOS, DINERO_CUENTA, MARKETPLACE_DATA, or name another `folder` to have all made"
    )


def test_removed_export_is_made_again(run: Run, tmp_path: Path) -> None:
    """A made file that somebody removed comes back."""
    made(run, tmp_path)
    before = content(tmp_path)
    (tmp_path / "raw" / "DINERO_CUENTA.csv").unlink()
    made(run, tmp_path)

    assert content(tmp_path) == before


def test_broken_marker_is_told(run: Run, tmp_path: Path) -> None:
    """A marker that the step did not write, beside files that it does not know, says what to do."""
    made(run, tmp_path)
    shutil.rmtree(tmp_path / ".runs")
    (tmp_path / "raw" / "_generated.json").write_text("{}}")
    with pytest.raises(PermanentError, match=r"raw/_generated.json was not written by this step; remove it to keep"):
        made(run, tmp_path)


class Crash(Exception):
    """The end of a process, at a place of the test's choice."""


@dataclass
class Crashing:
    """A place where the nth write ends the attempt, before or after the file is in its place."""

    inner: Place
    left: int
    placed: bool

    def __getattr__(self, name: str) -> Callable[..., object]:
        return getattr(self.inner, name)  # type: ignore[no-any-return]  # what it does not change is the other's

    @contextmanager
    def write(self, path: str) -> Iterator[Path]:
        with self.inner.write(path) as file:
            yield file
            self.left -= 1
            if not self.left and not self.placed:
                raise Crash
        if not self.left:
            raise Crash


@pytest.mark.parametrize("placed", [False, True])
@pytest.mark.parametrize("nth", range(1, 13))
def test_any_crash_is_mended(run: Run, tmp_path: Path, nth: int, placed: bool) -> None:  # noqa: FBT001
    """However far an attempt came in replacing older files, the next makes all of them, and takes none for foreign."""
    whole = made(run, tmp_path / "whole", users=60)
    made(run, tmp_path, users=50)
    place = Crashing(place_of(InFolder(folder=str(tmp_path)), run), nth, placed)
    wanted = Arguments(users=60, until=UNTIL, horizon_days=HORIZON, days=180, seed=0)
    with suppress(Crash):
        exports = Exports(RunFiles(place, run, 10), "raw")  # type: ignore[arg-type]  # the rest is the inner one's
        generate(exports, wanted)
        pytest.fail(f"there is no write number {nth}")

    assert made(run, tmp_path, users=60) == whole
    assert content(tmp_path) == content(tmp_path / "whole")


def test_killed_attempt_is_mended(run: Run, tmp_path: Path) -> None:
    """A first attempt that is killed after some files is made whole by the next, as if nothing had been."""
    program = f"""
import datetime as dt, pathlib
from tasks.synthetic.churn_sources import churn_sources
from tasks.contract import Run
from tasks.files.places import InFolder
run = Run("d", "r", "t", dt.date(2026, 1, 5), configs=pathlib.Path("configs"))
files = InFolder(folder={str(tmp_path / "one")!r})
churn_sources(50_000, dt.date.fromisoformat("{UNTIL}"), {HORIZON}, "raw", files, run=run)
"""
    with subprocess.Popen([sys.executable, "-c", program], cwd=REPOSITORY) as attempt:
        eventually("the payments to be begun", (tmp_path / "one" / "raw" / "PAYMENTS.csv").exists)
        os.kill(attempt.pid, signal.SIGKILL)
    assert not (tmp_path / "one" / "raw" / "_generated.json").exists()

    assert made(run, tmp_path / "one", users=50_000) == made(run, tmp_path / "two", users=50_000)
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_memory_stays_flat(run: Run, tmp_path: Path) -> None:
    """Four times as many users need no more memory."""
    peaks = []
    for users in (4000, 16_000):
        exports = Exports(files_of(InFolder(folder=str(tmp_path / f"{users}")), run), "raw")
        with peak_memory() as peak:
            generate(exports, Arguments(users=users, until=UNTIL, horizon_days=HORIZON, days=60, seed=0), block=2000)
        peaks.append(peak())

    assert peaks[1] < 1.15 * peaks[0]


def test_bucket_serves_as_well(object_store: ObjectStore, run: Run, tmp_path: Path) -> None:
    """In a bucket the same files are made, once."""
    files = InBucket(connection="object_store", bucket="ge-artifacts", prefix=f"sources/{tmp_path.name}")
    place = place_of(files, run)
    for _ in range(2):
        assert churn_sources(300, UNTIL, HORIZON, "raw", files, run=run) == made(run, tmp_path)

    for name, text in content(tmp_path).items():
        with place.read(f"raw/{name}") as file:
            assert file.read_bytes() == text


def test_bad_dates_are_bad() -> None:
    """Of the bad dates only one is a day at all, and it lies far ahead."""
    days = []
    for text in BAD_DATES:
        with suppress(ValueError):
            days.append(dt.date.fromisoformat(text))
    assert days == [dt.date(2099, 12, 31)]
