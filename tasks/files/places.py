"""The files that steps pass to each other: read and written whole, in a folder or in a bucket.

Knows where they are and how one is replaced atomically, not what is in them or how Spark's executors reach them
(`tasks.spark.reach`). A reader sees the old file or the new one, never half of it: in a folder by a rename, in a bucket
because an upload counts only once it is complete.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from mimetypes import guess_type
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Literal, Protocol

from pydantic import Field

from tasks.contract import Bucket, ConnectionId, DataFile, MissingResource, Model, PermanentError, Run
from tasks.files.ranges import opened
from tasks.services.objects import bucket_errors, object_store

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_SCRATCH = ".scratch"


class InFolder(Model):
    """A folder: absolute, or relative to the project (the folder with `configs/`)."""

    folder: Annotated[str, Field(min_length=1)]


class InBucket(Model):
    """A bucket of an object store; the keys begin with `prefix`.

    `spark` says how Spark's executors reach it. With `copy`, the step copies what it reads to a disk that the driver
    shares with them. With `s3a`, they access the bucket directly; Spark needs the jars for it (docs/shapes.md).
    """

    connection: ConnectionId
    bucket: Bucket
    prefix: DataFile | None = None
    spark: Literal["copy", "s3a"] = "copy"


Files = InFolder | InBucket
"""Where the pipelines' files are; `configs/defaults.yaml` sets it once for every task."""


class Place(Protocol):
    """Where files are. A path is that of a `DataFile`."""

    def address(self, path: str) -> str:
        """Return where people find `path`: an absolute path, or s3://bucket/key."""

    def exists(self, path: str) -> bool:
        """Return whether the file exists."""

    def names(self, folder: str) -> list[str]:
        """Return the sorted names of the files directly in `folder`; none if it does not exist."""

    def read(self, path: str) -> AbstractContextManager[Path]:
        """Provide a local file with the content of `path` during the block; raise MissingResource."""

    def write(self, path: str) -> AbstractContextManager[Path]:
        """Provide the path of a local file to write, in a private folder that can hold scratch files too.

        At the end of the block the file replaces `path` atomically; after an exception nothing has changed.
        """

    def remove(self, path: str) -> None:
        """Remove `path`, if it exists."""


def place_of(files: Files, run: Run) -> Place:
    """Return the place that a step's `files` names."""
    if isinstance(files, InBucket):
        return bucket_place(files, run)
    return FolderPlace((run.configs.parent / files.folder).absolute(), run)


def bucket_place(files: InBucket, run: Run) -> BucketPlace:
    """Return the place in a bucket."""
    return BucketPlace(files.connection, files.bucket, files.prefix or "", object_store(files.connection), run)


def missing(path: str, place: Place) -> MissingResource:
    """Return the error for a file that does not exist."""
    remedy = "run the step or the pipeline that writes it first, or correct the name in the step"
    return MissingResource("file", path, place.address("").rstrip("/"), remedy)


@dataclass(frozen=True, slots=True)
class FolderPlace:
    """A folder on a disk that every worker shares."""

    root: Path
    run: Run

    def address(self, path: str) -> str:
        return str(self.root / path)

    def exists(self, path: str) -> bool:
        return (self.root / path).is_file()

    def names(self, folder: str) -> list[str]:
        below = self.root / folder
        return sorted(path.name for path in below.iterdir() if path.is_file()) if below.is_dir() else []

    @contextmanager
    def read(self, path: str) -> Iterator[Path]:
        if not self.exists(path):
            raise missing(path, self)
        yield self.root / path

    @contextmanager
    def write(self, path: str) -> Iterator[Path]:
        target = self.root / path
        scratch = self._scratch(path)
        try:
            shutil.rmtree(scratch, ignore_errors=True)  # left behind by an attempt that was killed
            scratch.mkdir(parents=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            yield scratch / target.name
            _sync(scratch / target.name)
            (scratch / target.name).replace(target)
        except PermissionError as error:
            raise PermanentError(f"{error.filename} cannot be written; let the workers' user write there") from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def remove(self, path: str) -> None:
        (self.root / path).unlink(missing_ok=True)

    def _scratch(self, path: str) -> Path:
        """Return a folder for this task alone: on the same disk, as a rename is atomic only there."""
        return self.root / _SCRATCH / _owner(self.run, path)


def _owner(run: Run, path: str) -> str:
    """Return a name unique to this task and path, and the same in every try."""
    owner = (run.dag_id, run.run_id, run.task_id, str(run.map_index), path)
    return hashlib.sha256("\0".join(owner).encode()).hexdigest()[:16]


def _sync(file: Path) -> None:
    """Have the content on disk before the name points to it."""
    with file.open("rb") as written:
        os.fsync(written.fileno())


@dataclass(frozen=True, slots=True)
class BucketPlace:
    """A bucket: files are copied to the worker for reading, and uploaded when they are complete."""

    connection: str
    bucket: str
    prefix: str
    client: S3Client
    run: Run

    def address(self, path: str) -> str:
        return f"s3://{self.bucket}/{self.key(path)}"

    def exists(self, path: str) -> bool:
        return self.key(path) in self._keys(self.key(path))

    def names(self, folder: str) -> list[str]:
        below = f"{self.key(folder)}/"
        names = (key.removeprefix(below) for key in self._keys(below))
        return sorted(name for name in names if name and "/" not in name)

    @contextmanager
    def read(self, path: str) -> Iterator[Path]:
        if not self.exists(path):
            raise missing(path, self)
        with tempfile.TemporaryDirectory(prefix="taskflow-") as folder:
            copy = Path(folder) / Path(path).name
            with bucket_errors(self.connection, self.bucket):
                self.client.download_file(self.bucket, self.key(path), str(copy))
            yield copy

    @contextmanager
    def write(self, path: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="taskflow-") as folder:
            made = Path(folder) / Path(path).name
            yield made
            kind = guess_type(path)[0] or "application/octet-stream"
            with bucket_errors(self.connection, self.bucket):
                self.client.upload_file(str(made), self.bucket, self.key(path), ExtraArgs={"ContentType": kind})

    def remove(self, path: str) -> None:
        self._delete(self.key(path))

    @contextmanager
    def open(self, path: str) -> Iterator[BinaryIO]:
        """Provide the bytes of `path`; only those that are read are fetched. Raises MissingResource."""
        if not self.exists(path):
            raise missing(path, self)
        with bucket_errors(self.connection, self.bucket), opened(self.client, self.bucket, self.key(path)) as file:
            yield file

    @contextmanager
    def scratch(self, path: str) -> Iterator[str]:
        """Provide a key prefix for this task alone, ending in a slash: empty, and emptied when the block ends."""
        below = f"{self.key(_SCRATCH)}/{_owner(self.run, path)}/"
        try:
            self._empty(below)  # left behind by an attempt that was killed
            yield below
        finally:
            self._empty(below)

    @contextmanager
    def copies(self, prefix: str) -> Iterator[Path]:
        """Provide a local folder with copies of the objects directly below `prefix`, which ends in a slash."""
        with tempfile.TemporaryDirectory(prefix="taskflow-") as folder:
            for key in self._keys(prefix):
                if (name := key.removeprefix(prefix)) and "/" not in name:
                    with bucket_errors(self.connection, self.bucket):
                        self.client.download_file(self.bucket, key, f"{folder}/{name}")
            yield Path(folder)

    def _empty(self, prefix: str) -> None:
        for key in self._keys(prefix):
            self._delete(key)

    def _delete(self, key: str) -> None:
        with bucket_errors(self.connection, self.bucket):
            self.client.delete_object(Bucket=self.bucket, Key=key)

    def key(self, path: str) -> str:
        """Return the key of `path` in the bucket."""
        return "/".join(part for part in (self.prefix, path) if part)

    def _keys(self, start: str) -> set[str]:
        with bucket_errors(self.connection, self.bucket):
            pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=start)
            return {item["Key"] for page in pages for item in page.get("Contents", [])}
