"""files.list, files.copy and files.delete: which files they mean, and what is there afterwards."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tasks.contract import Before, DataRejected, MissingResource, PermanentError, Run
from tasks.files.listing import copy, delete, list_files
from tasks.files.places import Files, InBucket, InFolder, Place, place_of
from tasks.files.run_files import files_of

if TYPE_CHECKING:
    from stack.objects import ObjectStore

INBOX, OUTBOX = InFolder(folder="inbox"), InFolder(folder="outbox")


@pytest.fixture
def here(run: Run, tmp_path: Path) -> Run:
    """A run of a project in an empty folder."""
    return replace(run, configs=tmp_path / "configs")


@pytest.fixture(params=["folder", "bucket"])
def outbox(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    """An empty place of either kind."""
    if request.param == "folder":
        return OUTBOX
    request.getfixturevalue("object_store")
    return InBucket(connection="object_store", bucket="ge-artifacts", prefix=f"listing/{tmp_path.name}")


def put(files: Files, run: Run, **texts: str) -> Place:
    """Write files below `sales/`, `a__b` for `a/b.csv`; return the place."""
    place = place_of(files, run)
    for name, text in texts.items():
        with place.write(f"sales/{name.replace('__', '/')}.csv") as file:
            file.write_text(text)
    return place


# --- files.list -------------------------------------------------------------------------------------------------------


def test_files_are_listed_in_order(here: Run, outbox: Files) -> None:
    """By their paths below the place; those of other names, hidden ones and those in folders below are left out."""
    place = put(outbox, here, day_2="b", day_10="c", day_1="a", other="d", old__day_3="e")
    with place.write("sales/.day_4.csv") as hidden:
        hidden.write_text("half")
    found = list_files("sales", outbox, "day_*.csv", run=here)
    assert found.files == ["sales/day_1.csv", "sales/day_10.csv", "sales/day_2.csv"]
    assert found.count == 3
    assert list_files("sales", outbox, "day_3.csv", recursive=True, run=here).files == ["sales/old/day_3.csv"]
    assert list_files("sales", outbox, "nothing", allow_empty=True, run=here).files == []


def test_own_files_are_listed(here: Run) -> None:
    """Of a folder that a step before writes, those of its own run: a later step reads them by the same names."""
    own = replace(here, before=Before(files={"sales": "make"}))
    put(INBOX, here, of_another_run="x")
    with files_of(INBOX, own).write("sales/mine.csv") as file:
        file.write_text("a")
    assert list_files("sales", INBOX, run=own).files == ["sales/mine.csv"]
    copy(INBOX, OUTBOX, folder="sales", run=own)
    assert place_of(OUTBOX, here).text("sales/mine.csv") == "a"


def test_too_few_or_many_files_are_an_error(here: Run) -> None:
    """The error says what is there instead."""
    with pytest.raises(MissingResource, match=re.escape("inbox/sales; it has no files; correct `folder`")):
        list_files("sales", INBOX, run=here)
    put(INBOX, here, a="1", b="2")
    with pytest.raises(MissingResource, match=r"'\*\.txt' does not exist in .*inbox/sales; it has a\.csv, b\.csv;"):
        list_files("sales", INBOX, "*.txt", run=here)
    with pytest.raises(DataRejected, match=r"2 files match '\*', and `limit` is 1; narrow the pattern"):
        list_files("sales", INBOX, limit=1, run=here)


# --- files.copy -------------------------------------------------------------------------------------------------------


def test_files_are_copied_once(here: Run, outbox: Files) -> None:
    """What is there with the same content is left; the second time nothing is copied."""
    put(INBOX, here, a="one", b="two")
    target = put(outbox, here, b="two")
    done = copy(INBOX, outbox, folder="sales", pattern="*.csv", run=here)
    assert (done.copied, done.unchanged, done.bytes) == (1, 1, 3)
    assert done.address == target.address("sales")
    assert target.text("sales/a.csv") == "one"
    again = copy(INBOX, outbox, folder="sales", run=here)
    assert (again.copied, again.unchanged, again.bytes) == (0, 2, 0)


def test_file_comes_back_from_bucket(here: Run, object_store: ObjectStore, tmp_path: Path) -> None:
    """From a bucket into a folder of another name; an object that somebody else put there has no recorded digest."""
    bucket = InBucket(connection="object_store", bucket="ge-artifacts", prefix=f"copied/{tmp_path.name}")
    key = f"copied/{tmp_path.name}/sales/a.csv"
    object_store.client().put_object(Bucket="ge-artifacts", Key=key, Body=b"one")
    for copied in (1, 0):
        assert copy(bucket, OUTBOX, file="sales/a.csv", target="daily/in", run=here).copied == copied
    assert place_of(OUTBOX, here).text("daily/in/a.csv") == "one"


def test_differing_file_stops_the_copy(here: Run, outbox: Files) -> None:
    """Nothing is copied then, unless `overwrite`."""
    put(INBOX, here, a="one", b="new")
    target = put(outbox, here, b="old")
    with pytest.raises(PermanentError, match=r"1 files are there with another content: sales/b\.csv; delete them"):
        copy(INBOX, outbox, folder="sales", run=here)
    assert target.text("sales/a.csv") is None
    assert copy(INBOX, outbox, folder="sales", overwrite=True, run=here).copied == 2
    assert target.text("sales/b.csv") == "new"


def test_missing_file_is_not_copied(here: Run) -> None:
    """Neither one file nor a folder without files."""
    with pytest.raises(MissingResource, match=r"file 'sales/a\.csv' does not exist in .*inbox; run the step"):
        copy(INBOX, OUTBOX, file="sales/a.csv", run=here)
    with pytest.raises(MissingResource, match="it has no files"):
        copy(INBOX, OUTBOX, folder="sales", run=here)


def test_missing_bucket_is_named(here: Run, object_store: object) -> None:
    """A bucket that does not exist is an error before anything is copied."""
    put(INBOX, here, a="one")
    nowhere = InBucket(connection="object_store", bucket="no-such-bucket")
    with pytest.raises(MissingResource, match="bucket 'no-such-bucket' does not exist"):
        copy(INBOX, nowhere, folder="sales", run=here)


# --- files.delete -----------------------------------------------------------------------------------------------------


def test_named_files_are_deleted(here: Run, outbox: Files) -> None:
    """Others, those in folders below and the folder itself stay; what is gone is no error when the step is cleared."""
    place = put(outbox, here, day_1="a", day_2="b", other="c", old__day_1="d")
    assert delete(outbox, folder="sales", pattern="day_*.csv", run=here).deleted == 2
    assert [entry.path for entry in place.below("sales")] == ["sales/old/day_1.csv", "sales/other.csv"]
    assert delete(outbox, folder="sales", pattern="day_*.csv", run=here).deleted == 0
    assert delete(outbox, file="sales/other.csv", run=here).deleted == 1
    with pytest.raises(MissingResource, match=r"file 'sales/other\.csv' does not exist in .*; correct the name"):
        delete(outbox, file="sales/other.csv", missing_ok=False, run=here)


def test_empty_folder_stays(here: Run, tmp_path: Path) -> None:
    """Whoever puts files into it finds it again."""
    put(INBOX, here, a="one")
    delete(INBOX, folder="sales", pattern="*", run=here)
    assert (tmp_path / "inbox" / "sales").is_dir()


def test_files_of_runs_are_not_deleted(here: Run) -> None:
    """A run that reads its own file finds it, when its name is gone."""
    own = replace(here, before=Before(files={"sales/a.csv": "make"}))
    files = files_of(INBOX, own)
    with files.write("sales/a.csv") as file:
        file.write_text("mine")
    assert delete(INBOX, folder="sales", pattern="*", run=here).deleted == 1
    with files.read("sales/a.csv") as file:
        assert file.read_text() == "mine"
