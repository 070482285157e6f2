"""How Spark's executors reach the files that steps pass to each other: on a disk that they share, or in the bucket.

Knows the address where Spark reads the file of a run, and where it writes the parts of a table that are then joined
into one file; knows nothing about joining them (`tasks.spark.parquet`), or about how a session can open s3a://
(`tasks.spark.s3a`).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from tasks.contract import Run
from tasks.files.places import BucketPlace, Files, InBucket, bucket_place
from tasks.files.run_files import RunFiles, files_of


@dataclass(frozen=True, slots=True)
class Source:
    """A file to read."""

    address: str
    """Where Spark reads it."""
    shown: str
    """Where people find it."""
    open: Callable[[], AbstractContextManager[BinaryIO]]
    """Opens it in the driver, to read some of its bytes."""


@dataclass(frozen=True, slots=True)
class Parts:
    """A table in parts: Parquet files that Spark writes, and may read, at `address`."""

    address: str
    seen: Callable[[], AbstractContextManager[Path]]
    """Provides a folder where the driver can read them during a block."""
    put: Callable[[Path], None]
    """Adds a Parquet file that the driver made."""
    shared: bool
    """Whether the executors wrote them to a disk that the driver must see, and not to a bucket."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A file while it is made."""

    file: Path
    parts: Callable[[str], Parts]
    """Returns the place of a table with that name, which is removed when the file is complete."""


class Reach(Protocol):
    """The files of a run as Spark reaches them. A path is a `DataFile`."""

    @property
    def files(self) -> RunFiles:
        """The files."""

    def read(self, path: str) -> AbstractContextManager[Source]:
        """Provide the file that `RunFiles.find` returns during the block; raise its errors."""

    def write(self, path: str) -> AbstractContextManager[Draft]:
        """Provide a draft of `path`, which is written at the end of the block, as with `RunFiles.write`."""


def reach_of(files: Files, run: Run) -> Reach:
    """Return how Spark reaches the place that a step's `files` names."""
    if isinstance(files, InBucket) and files.spark == "s3a":
        place = bucket_place(files, run)
        return ByS3a(RunFiles(place, run, files.keep_runs), place)
    return ByDisk(files_of(files, run))


@dataclass(frozen=True, slots=True)
class ByDisk:
    """The driver and the executors see the same disk: the folder's, or the one that objects are copied to."""

    files: RunFiles

    @contextmanager
    def read(self, path: str) -> Iterator[Source]:
        found, place = self.files.find(path), self.files.place
        with place.read(found) as file:
            yield Source(file.as_uri(), place.address(found), lambda: file.open("rb"))

    @contextmanager
    def write(self, path: str) -> Iterator[Draft]:
        with self.files.write(path) as file:
            yield Draft(file, lambda name: shared_parts(file.with_name(name)))


def shared_parts(folder: Path) -> Parts:
    """Return a table in parts, in a folder on a disk that the driver shares with the executors."""
    return Parts(folder.as_uri(), lambda: nullcontext(folder), lambda file: _moved(file, folder), shared=True)


def _moved(file: Path, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    shutil.move(file, folder / file.name)


@dataclass(frozen=True, slots=True)
class ByS3a:
    """The executors read and write the bucket themselves; the driver copies only the parts that it joins."""

    files: RunFiles
    place: BucketPlace

    @contextmanager
    def read(self, path: str) -> Iterator[Source]:
        found = self.files.find(path)
        address = self._address(self.place.key(found))
        yield Source(address, self.place.address(found), lambda: self.place.open(found))

    @contextmanager
    def write(self, path: str) -> Iterator[Draft]:
        with self.files.write(path) as file, self.place.scratch(path) as prefix:
            yield Draft(file, lambda name: self._parts(f"{prefix}{name}"))

    def _parts(self, key: str) -> Parts:
        def put(file: Path) -> None:
            self.place.upload(file, f"{key}/{file.name}")

        return Parts(self._address(key), lambda: self.place.copies(f"{key}/"), put, shared=False)

    def _address(self, key: str) -> str:
        return f"s3a://{self.place.bucket}/{key}"
