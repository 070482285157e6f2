"""How Spark's executors reach the files that steps hand to each other: on a disk that they share, or in the bucket.

Knows at which address Spark reads a file, and where it writes the parts of a table that is then made one file; knows
nothing of how that is done (`tasks.spark.parquet`), nor how a session comes to open s3a:// (`tasks.spark.s3a`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from tasks.contract import Run
from tasks.files.places import BucketPlace, Files, InBucket, Place, bucket_place, missing, place_of


@dataclass(frozen=True, slots=True)
class Source:
    """A file that is read."""

    address: str
    """Where Spark reads it."""
    open: Callable[[], AbstractContextManager[BinaryIO]]
    """For a look at some of its bytes from here."""


@dataclass(frozen=True, slots=True)
class Parts:
    """A table in parts: Parquet files that Spark writes, and may read, at `address`."""

    address: str
    seen: Callable[[], AbstractContextManager[Path]]
    """Gives a folder in which the driver reads them, for as long as a block lasts."""
    shared: bool
    """Whether the executors wrote them to a disk that the driver must see, and not to a bucket."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A file while it is made."""

    file: Path
    parts: Callable[[str], Parts]
    """Gives the place of a table of that name, which is gone when the file is made."""


class Reach(Protocol):
    """A place as Spark reaches it. A path is that of a `DataFile`."""

    @property
    def place(self) -> Place:
        """The place."""

    def read(self, path: str) -> AbstractContextManager[Source]:
        """Give the file for as long as the block lasts; raise MissingResource."""

    def write(self, path: str) -> AbstractContextManager[Draft]:
        """Give a draft of `path`: at the end of the block it takes its place, as `Place.write` says."""


def reach_of(files: Files, run: Run) -> Reach:
    """Return how Spark reaches the place that a step's `files` names."""
    if isinstance(files, InBucket) and files.spark == "s3a":
        return ByS3a(bucket_place(files, run))
    return ByDisk(place_of(files, run))


@dataclass(frozen=True, slots=True)
class ByDisk:
    """The driver and the executors see the same disk: that of the folder, or that to which objects are copied."""

    place: Place

    @contextmanager
    def read(self, path: str) -> Iterator[Source]:
        with self.place.read(path) as file:
            yield Source(file.as_uri(), lambda: file.open("rb"))

    @contextmanager
    def write(self, path: str) -> Iterator[Draft]:
        with self.place.write(path) as file:
            yield Draft(file, lambda name: shared_parts(file.with_name(name)))


def shared_parts(folder: Path) -> Parts:
    """Return a table in parts in a folder of a disk that the driver shares with the executors."""
    return Parts(folder.as_uri(), lambda: nullcontext(folder), shared=True)


@dataclass(frozen=True, slots=True)
class ByS3a:
    """The executors read and write the bucket themselves; the driver copies only the parts that it joins."""

    place: BucketPlace

    @contextmanager
    def read(self, path: str) -> Iterator[Source]:
        if not self.place.exists(path):
            raise missing(path, self.place)
        yield Source(self._address(self.place.key(path)), lambda: self.place.open(path))

    @contextmanager
    def write(self, path: str) -> Iterator[Draft]:
        with self.place.write(path) as file, self.place.scratch(path) as prefix:
            yield Draft(file, lambda name: self._parts(f"{prefix}{name}"))

    def _parts(self, key: str) -> Parts:
        return Parts(self._address(key), lambda: self.place.copies(f"{key}/"), shared=False)

    def _address(self, key: str) -> str:
        return f"s3a://{self.place.bucket}/{key}"
