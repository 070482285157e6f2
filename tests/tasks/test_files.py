"""Files are put in their place whole, in a folder and in a bucket."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import hashlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tasks.contract import MissingResource, PermanentError
from tasks.files.places import BucketPlace, FolderPlace, InBucket, InFolder, Place, bucket_place, place_of
from tasks.files.run_files import RunFiles
from tasks.spark.reach import ByDisk, ByS3a

if TYPE_CHECKING:
    from stack.objects import ObjectStore
    from tasks.contract import Run

BUCKET = "ge-artifacts"


@pytest.fixture
def here(run: Run, tmp_path: Path) -> Run:
    """A run of a project in an empty folder."""
    return dataclasses.replace(run, configs=tmp_path / "configs")


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, here: Run, tmp_path: Path) -> Place:
    """An empty place of either kind."""
    if request.param == "folder":
        return place_of(InFolder(folder="data"), here)
    request.getfixturevalue("object_store")
    return place_of(InBucket(connection="object_store", bucket=BUCKET, prefix=f"files/{tmp_path.name}"), here)


def put(place: Place, path: str, text: str) -> None:
    with place.write(path) as file:
        file.write_text(text)


def text_of(place: Place, path: str) -> str:
    with place.read(path) as file:
        return file.read_text()


def test_file_comes_back(place: Place) -> None:
    """What was written is read, and replaced by what is written next."""
    put(place, "churn/a.csv", "one")
    put(place, "churn/a.csv", "two")

    assert text_of(place, "churn/a.csv") == "two"
    assert place.exists("churn/a.csv")
    assert not place.exists("churn/a")


def test_failed_write_changes_nothing(place: Place) -> None:
    """An exception in the middle leaves the file that was there."""
    put(place, "a.csv", "old")

    with contextlib.suppress(RuntimeError), place.write("a.csv") as file:
        file.write_text("ne")
        raise RuntimeError

    assert text_of(place, "a.csv") == "old"


def test_names_are_one_level(place: Place) -> None:
    """A listing has the files of the folder itself, sorted; none where there is no folder."""
    for path in ("history/b.parquet", "history/a.parquet", "history/old/c.parquet"):
        put(place, path, "x")

    assert place.names("history") == ["a.parquet", "b.parquet"]
    assert place.names("nowhere") == []


def test_removed_file_is_gone(place: Place) -> None:
    """Removing is repeatable."""
    put(place, "a.csv", "x")

    place.remove("a.csv")
    place.remove("a.csv")

    assert not place.exists("a.csv")


def test_removed_folders_are_gone(here: Run, tmp_path: Path) -> None:
    """The folders that a removed file leaves empty go with it, up to the place; the others stay."""
    place = FolderPlace(tmp_path / "data", here)
    for path in ("a/b/c.csv", "a/d.csv", "e/f.csv"):
        put(place, path, "x")

    for path in ("a/b/c.csv", "e/f.csv"):
        place.remove(path)

    assert [entry.path for entry in place.below("")] == ["a/d.csv"]
    assert not (tmp_path / "data" / "a" / "b").exists()
    place.remove("a/d.csv")
    assert (tmp_path / "data").is_dir()


def test_all_below_is_listed(place: Place) -> None:
    """A listing of all files below a folder has their paths, and when they were written."""
    began = dt.datetime.now(dt.UTC).replace(microsecond=0)
    for path in ("a/b/c.csv", "a/d.csv", "ab/e.csv"):
        put(place, path, "x")

    found = place.below("a")
    assert [entry.path for entry in found] == ["a/b/c.csv", "a/d.csv"]
    assert all(began <= entry.modified <= dt.datetime.now(dt.UTC) for entry in found)
    assert place.below("nowhere") == []


def test_link_has_the_content(place: Place) -> None:
    """A linked file is the other, with its stamp, and stays when that is written again."""
    put(place, "one.csv", "one")
    put(place, "a/two.csv", "two")
    place.link("one.csv", "a/two.csv")
    assert text_of(place, "a/two.csv") == place.text("a/two.csv") == "one"
    assert place.stamp("a/two.csv") == place.stamp("one.csv") is not None

    put(place, "one.csv", "new")
    assert place.text("a/two.csv") == "one"
    assert place.stamp("a/two.csv") != place.stamp("one.csv")
    assert place.digest("a/two.csv") == hashlib.sha256(b"one").hexdigest()


def test_missing_file_has_no_stamp(place: Place) -> None:
    """A file that does not exist has neither stamp nor text, and cannot be linked."""
    put(place, "a/b.csv", "x")

    assert [place.stamp(path) for path in ("a", "no.csv")] == [None, None]
    assert place.text("no.csv") is None
    for act in (lambda: place.link("no.csv", "a/b.csv"), lambda: place.digest("no.csv")):
        with pytest.raises(MissingResource, match=r"^file 'no\.csv' does not exist in "):
            act()
    assert place.text("a/b.csv") == "x"


def test_foreign_object_is_known(request: pytest.FixtureRequest, here: Run, tmp_path: Path) -> None:
    """An object that somebody else uploaded has a digest and a stamp too, which its next version does not have."""
    place = bucket_place_of(request, here, tmp_path.name)
    stamps = []
    for text in (b"one", b"two"):
        place.client.put_object(Bucket=BUCKET, Key=place.key("a.csv"), Body=text)
        stamps.append(place.stamp("a.csv"))
        assert place.digest("a.csv") == hashlib.sha256(text).hexdigest()

    assert None not in stamps
    assert stamps[0] != stamps[1]


def test_link_to_another_disk(here: Run, tmp_path: Path) -> None:
    """Where a disk cannot give a file a second name, the bytes are copied."""
    if Path("/dev/shm").stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is one disk only")
    place = FolderPlace(tmp_path / "data", here)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as other:
        (Path(other) / "raw.csv").write_text("own")
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "raw.csv").symlink_to(Path(other) / "raw.csv")
        place.link("raw.csv", "taken.csv")

        assert place.text("taken.csv") == "own"
        assert place.stamp("taken.csv") == place.stamp("raw.csv")
        assert not (tmp_path / "data" / "taken.csv").is_symlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a link somebody else's")
@pytest.mark.parametrize("link", ["incoming", "incoming/a.csv"])
def test_link_of_another_user_is_not_followed(here: Run, tmp_path: Path, link: str) -> None:
    """Whoever brings files into a folder cannot have others read; links of the place's owner lead where they say."""
    outside, place = tmp_path / "outside", FolderPlace(tmp_path / "data", here)
    outside.mkdir()
    (outside / "a.csv").write_text("secret")
    made = tmp_path / "data" / link
    made.parent.mkdir(parents=True)
    made.symlink_to(outside if link == "incoming" else outside / "a.csv")
    assert text_of(place, "incoming/a.csv") == "secret"

    os.lchown(made, 4711, 4711)

    for access in (place.exists, place.text, place.digest, place.stamp, lambda path: put(place, path, "x")):
        with pytest.raises(PermanentError, match=f"/data/{link} is a link that another user made, so it is not"):
            access("incoming/a.csv")
    with pytest.raises(PermanentError, match="is a link that another user made"):
        place.link("incoming/a.csv", "b.csv")
    assert (outside / "a.csv").read_text() == "secret"


def test_folder_on_another_disk(here: Run, tmp_path: Path) -> None:
    """A folder that is a link to another disk is written as any other, and nothing else is left in it."""
    if Path("/dev/shm").stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is one disk only")
    place = FolderPlace(tmp_path, here)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as other:
        (tmp_path / "churn").symlink_to(other)
        put(place, "churn/a.csv", "first")
        put(place, "churn/a.csv", "second")
        place.link("churn/a.csv", "churn/b.csv")

        assert [text_of(place, f"churn/{name}") for name in place.names("churn")] == ["second", "second"]
        assert sorted(path.name for path in Path(other).iterdir()) == ["a.csv", "b.csv"]
        assert place.stamp("churn/a.csv") == place.stamp("churn/b.csv")


def test_tries_have_scratch_of_their_own(here: Run, tmp_path: Path) -> None:
    """A try that Airflow has given up goes on, and neither takes anything from the next one nor leaves it anything."""
    first, second = (FolderPlace(tmp_path, dataclasses.replace(here, attempt=name)) for name in ("first", "second"))
    with first.write("a.csv") as slow:
        slow.write_text("slow")
        with second.write("a.csv") as file:
            assert list(file.parent.iterdir()) == []
            file.write_text("second")
        assert text_of(second, "a.csv") == "second"
        assert slow.read_text() == "slow"
    assert text_of(first, "a.csv") == "slow"


def test_killed_tries_are_removed(here: Run, tmp_path: Path) -> None:
    """What a killed try left behind is removed when nobody has touched it for a week."""
    runs = [dataclasses.replace(here, attempt=name) for name in ("old", "new")]
    killed = [FolderPlace(tmp_path, run).write("a.csv") for run in runs]
    old, new = (one.__enter__() for one in killed)
    for file in (old, new):
        file.write_text("half")
    for path in (old, old.parent):
        os.utime(path, (path.stat().st_mtime - 8 * 86_400,) * 2)

    put(FolderPlace(tmp_path, here), "a.csv", "whole")

    assert (old.parent.exists(), new.exists()) == (False, True)


def test_missing_file_is_named(place: Place) -> None:
    """A file that is not there is named with where it was looked for."""
    with pytest.raises(MissingResource, match=r"^file 'churn/no\.csv' does not exist in .*; run the step or"):
        text_of(place, "churn/no.csv")


def test_missing_bucket_is_named(here: Run, object_store: ObjectStore) -> None:
    """A bucket that is not there is an error of its own, not a missing file."""
    place = place_of(InBucket(connection="object_store", bucket="nowhere"), here)

    with pytest.raises(MissingResource, match=r"^bucket 'nowhere' does not exist"):
        put(place, "a.csv", "x")
    with pytest.raises(MissingResource, match=r"^bucket 'nowhere' does not exist"):
        place.exists("a.csv")


def test_killed_attempt_is_cleared(here: Run, tmp_path: Path) -> None:
    """What an attempt that was killed left in its private folder is not there for the next."""
    place = FolderPlace(tmp_path, here)
    attempt = place.write("a.csv")
    half = attempt.__enter__()
    (half.parent / "parts").mkdir()

    with place.write("a.csv") as file:
        assert list(file.parent.iterdir()) == []
        file.write_text("whole")

    assert text_of(place, "a.csv") == "whole"


def bucket_place_of(request: pytest.FixtureRequest, here: Run, prefix: str) -> BucketPlace:
    request.getfixturevalue("object_store")
    return bucket_place(InBucket(connection="object_store", bucket=BUCKET, prefix=f"files/{prefix}"), here)


def test_object_is_read_in_ranges(request: pytest.FixtureRequest, here: Run, tmp_path: Path) -> None:
    """The start and the end of an object are read without the rest."""
    place, text = bucket_place_of(request, here, tmp_path.name), "first\n" + "x" * 3_000_000 + "\nlast"
    put(place, "a.csv", text)
    asked = list[str]()
    place.client.meta.events.register("before-call.s3.GetObject", lambda params, **_: asked.append(params["headers"]))

    with place.open("a.csv") as file:
        assert file.readline() == b"first\n"
        file.seek(-4, os.SEEK_END)
        assert file.read() == b"last"
        assert file.read() == b""

    assert [one["Range"] for one in asked] == ["bytes=0-1048575", "bytes=3000007-3000010"]
    with pytest.raises(MissingResource, match=r"^file 'b\.csv' does not exist"), place.open("b.csv"):
        pytest.fail("it opened")


def test_scratch_is_own_and_emptied(request: pytest.FixtureRequest, here: Run, tmp_path: Path) -> None:
    """What is below a task's prefix is gone at its end and, where an attempt was killed, at the next one's start."""
    place = bucket_place_of(request, here, tmp_path.name)
    other = dataclasses.replace(place, run=dataclasses.replace(here, task_id="other"))
    place.scratch("a.parquet").__enter__()

    def write(prefix: str, name: str) -> None:
        place.client.put_object(Bucket=BUCKET, Key=f"{prefix}{name}", Body=b"x")

    with other.scratch("a.parquet") as theirs:
        write(theirs, "parts/part-1")
        with contextlib.suppress(RuntimeError), place.scratch("a.parquet") as mine:
            write(mine, "parts/part-0")
            write(mine, "parts/_temporary/0")
            with place.copies(f"{mine}parts/") as folder:
                assert [one.name for one in folder.iterdir()] == ["part-0"]
            raise RuntimeError
        with place.copies(f"{mine}parts/") as folder, place.copies(f"{theirs}parts/") as kept:
            assert (list(folder.iterdir()), [one.name for one in kept.iterdir()]) == ([], ["part-1"])
        write(mine, "parts/killed")
        with place.scratch("a.parquet") as again, place.copies(f"{again}parts/") as folder:
            assert (again, list(folder.iterdir())) == (mine, [])


def test_part_that_the_driver_made_is_among_the_others(
    request: pytest.FixtureRequest, here: Run, tmp_path: Path
) -> None:
    """In the bucket for executors that read it themselves, and on the disk that they share: until the file is done."""
    in_bucket = bucket_place_of(request, here, tmp_path.name)
    for place in (in_bucket, FolderPlace(tmp_path / "data", here)):
        files = RunFiles(place, here, 10)
        reach = ByS3a(files, place) if isinstance(place, BucketPlace) else ByDisk(files)
        with reach.write("a.parquet") as draft:
            draft.file.write_text("whole")
            made, copy = tmp_path / "part-00000.parquet", draft.parts("copy")
            made.write_text("rows")
            copy.put(made)
            with copy.seen() as folder:
                assert [(one.name, one.read_text()) for one in folder.iterdir()] == [("part-00000.parquet", "rows")]


def test_content_type_follows_name(place: Place, request: pytest.FixtureRequest) -> None:
    """A browser that opens a report from the bucket shows it."""
    put(place, "report.html", "<p>")

    if (store := getattr(place, "client", None)) is not None:
        head = store.head_object(Bucket=BUCKET, Key=f"{place.address('report.html').split('/', 3)[3]}")
        assert head["ContentType"] == "text/html"
    else:
        assert place.address("report.html").endswith("/data/report.html")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_unwritable_folder_is_named(here: Run, tmp_path: Path) -> None:
    """A folder where the worker may not write is an error that names it."""
    (tmp_path / "locked").mkdir(mode=0o500)

    with pytest.raises(PermanentError, match=r"/locked/.scratch.* cannot be written"):
        put(FolderPlace(tmp_path / "locked", here), "a.csv", "x")
