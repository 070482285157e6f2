"""Where files are kept: read and written whole, in a folder or in a bucket.

Knows how a file is replaced atomically and recognised again; knows nothing about the runs that write them
(`tasks.files.run_files`), their content, or how Spark's executors reach them (`tasks.spark.reach`). A reader sees the
old file or the new one, never half of it: in a folder by a rename, in a bucket because an upload counts only once it is
complete.
"""

from __future__ import annotations

import datetime as dt
import errno
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from io import BufferedReader
from mimetypes import guess_type
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple, Protocol

from pydantic import Field

from tasks.contract import Bucket, ConnectionId, DataFile, Location, MissingResource, PermanentError, Run
from tasks.files.ranges import opened
from tasks.services.objects import bucket_errors, object_store

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import HeadObjectOutputTypeDef

_SCRATCH = ".scratch"
_SHA256 = "sha256"
"""The name of an object's metadata that has the digest of its content."""
_MISSING_KEY = ("404", "NoSuchKey")


KeptRuns = Annotated[int, Field(ge=1, le=1000)]
"""How many runs of a pipeline keep their files: those that wrote last.

Besides them, those that are still running do, and the run whose file has a published name.
"""


class InFolder(Location):
    """A folder: absolute, or relative to the project (the folder with `configs/`)."""

    folder: Annotated[str, Field(min_length=1)]
    keep_runs: KeptRuns = 10


class InBucket(Location):
    """A bucket of an object store; the keys begin with `prefix`.

    `spark` says how Spark's executors reach it. With `copy`, the step copies what it reads to a disk that the driver
    shares with them. With `s3a`, they access the bucket directly; Spark needs the jars for it (docs/shapes.md).
    """

    connection: ConnectionId
    bucket: Bucket
    prefix: DataFile | None = None
    spark: Literal["copy", "s3a"] = "copy"
    keep_runs: KeptRuns = 10


Files = InFolder | InBucket
"""Where the pipelines' files are: one of the `places` of `configs/`, which set it once for every task."""


class Entry(NamedTuple):
    """A file in a listing."""

    path: str
    modified: dt.datetime


class Place(Protocol):
    """Where files are. A path is that of a `DataFile`."""

    def address(self, path: str) -> str:
        """Return where people find `path`: an absolute path, or s3://bucket/key."""

    def exists(self, path: str) -> bool:
        """Return whether the file exists."""

    def names(self, folder: str) -> list[str]:
        """Return the sorted names of the files directly in `folder`; none if it does not exist."""

    def directly_in(self, folder: str) -> list[Entry]:
        """Return the files directly in `folder`, in order; none if it does not exist. "" is the place itself."""

    def below(self, folder: str) -> list[Entry]:
        """Return the files in `folder` and in the folders below it; none if it does not exist."""

    def stamp(self, path: str) -> str | None:
        """Return a text that changes with the file's content, and that `link` hands on; None for a missing file."""

    def digest(self, path: str) -> str:
        """Return the SHA-256 of a file; raise MissingResource."""

    def text(self, path: str) -> str | None:
        """Return the content of a small file; None if it does not exist."""

    def link(self, source: str, path: str) -> None:
        """Let `path` have the content of `source`, atomically, without moving the bytes where the place can do that.

        Raises MissingResource.
        """

    def read(self, path: str) -> AbstractContextManager[Path]:
        """Provide a local file with the content of `path` during the block; raise MissingResource."""

    def write(self, path: str) -> AbstractContextManager[Path]:
        """Provide the path of a local file to write, in a private folder that can hold scratch files too.

        At the end of the block the file replaces `path` atomically; after an exception nothing has changed.
        """

    def remove(self, path: str, *, keep_folders: bool = False) -> None:
        """Remove `path`, if it exists, and, unless `keep_folders`, the folders that are empty then."""


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
        return self._at(path).is_file()

    def _at(self, path: str) -> Path:
        """Return the local path; raise PermanentError if a link of somebody else's is on the way.

        Whoever may put files into a folder could otherwise have any file read that the worker's user reads.
        """
        at = self.root
        for part in Path(path).parts:
            at /= part
            with suppress(FileNotFoundError, NotADirectoryError):
                status = at.lstat()
                if stat.S_ISLNK(status.st_mode) and status.st_uid not in (0, os.geteuid(), self.root.stat().st_uid):
                    remedy = "let the owner of the place make it, or put the file itself there"
                    raise PermanentError(f"{at} is a link that another user made, so it is not followed; {remedy}")
        return at

    def names(self, folder: str) -> list[str]:
        return _names(self.directly_in(folder))

    def directly_in(self, folder: str) -> list[Entry]:
        below = self._at(folder)
        files = [path for path in below.iterdir() if path.is_file()] if below.is_dir() else []
        return self._entries(files)

    def below(self, folder: str) -> list[Entry]:
        files = (Path(parent, name) for parent, _, names in os.walk(self._at(folder)) for name in names)
        return self._entries(files)

    def _entries(self, files: Iterable[Path]) -> list[Entry]:
        entries = []
        for file in files:
            with suppress(FileNotFoundError):  # removed meanwhile
                modified = dt.datetime.fromtimestamp(file.stat().st_mtime, dt.UTC)
                entries.append(Entry(str(file.relative_to(self.root)), modified))
        return sorted(entries)

    def stamp(self, path: str) -> str | None:
        try:
            status = self._at(path).stat()
        except FileNotFoundError:
            return None
        return f"{status.st_size} bytes of {status.st_mtime_ns}" if stat.S_ISREG(status.st_mode) else None

    def digest(self, path: str) -> str:
        with self.read(path) as file:
            return sha256_of(file)

    def text(self, path: str) -> str | None:
        try:
            return self._at(path).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def link(self, source: str, path: str) -> None:
        with self._replacing(path) as made:
            try:
                _link(self._at(source).resolve(), made)
            except FileNotFoundError:
                raise missing(source, self) from None

    @contextmanager
    def read(self, path: str) -> Iterator[Path]:
        if not self.exists(path):
            raise missing(path, self)
        yield self.root / path

    @contextmanager
    def write(self, path: str) -> Iterator[Path]:
        with self._replacing(path) as made:
            yield made
            _sync(made)

    @contextmanager
    def _replacing(self, path: str) -> Iterator[Path]:
        """Provide a name in a private folder; at the end of the block, what has it replaces `path`."""
        target = self._at(path)
        scratch = self._scratch(path)
        try:
            _sweep(scratch.parent)
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir(parents=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            yield scratch / target.name
            _move(scratch / target.name, target)
        except PermissionError as error:
            raise PermanentError(f"{error.filename} cannot be written; let the workers' user write there") from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def remove(self, path: str, *, keep_folders: bool = False) -> None:
        file = self.root / path
        try:
            file.unlink(missing_ok=True)
        except PermissionError as error:
            raise PermanentError(f"{file} cannot be removed; let the workers' user write in its folder") from error
        if keep_folders:
            return
        with suppress(OSError):  # the first folder that is not empty
            for folder in file.parents[: len(file.relative_to(self.root).parts) - 1]:
                folder.rmdir()

    def _scratch(self, path: str) -> Path:
        """Return a folder for this try alone: on the same disk, as a rename is atomic only there."""
        return self.root / _SCRATCH / _owner(self.run, path)


def _names(entries: Iterable[Entry]) -> list[str]:
    return sorted(entry.path.rpartition("/")[2] for entry in entries)


def _owner(run: Run, path: str) -> str:
    """Return a name unique to this try and path: an earlier try that Airflow has given up may still be alive."""
    owner = (run.dag_id, run.run_id, run.task_id, str(run.map_index), run.attempt, path)
    return hashlib.sha256("\0".join(owner).encode()).hexdigest()[:16]


_LEFT_BEHIND = dt.timedelta(days=7)
"""For how long nobody has touched what a try that was killed left behind, before another try removes it."""


def _sweep(scratch: Path) -> None:
    """Remove what tries that were killed have left behind."""
    before = (dt.datetime.now(dt.UTC) - _LEFT_BEHIND).timestamp()
    for left in scratch.iterdir() if scratch.is_dir() else ():
        with suppress(FileNotFoundError):  # removed meanwhile
            if max(one.lstat().st_mtime for one in (left, *left.rglob("*"))) < before:
                shutil.rmtree(left, ignore_errors=True)


def _move(made: Path, target: Path) -> None:
    """Let a complete file replace `target`, also while someone removes folders that are empty (`Place.remove`)."""
    for _ in range(_MOVES):
        with suppress(FileNotFoundError):
            target.parent.mkdir(parents=True, exist_ok=True)
            _replace(made, target)
            return
    _replace(made, target)


def _replace(made: Path, target: Path) -> None:
    """Rename a file; where the folder of `target` is a link to another disk, copy it there first."""
    try:
        made.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy_beside(made, target)


def _copy_beside(made: Path, target: Path) -> None:
    scratch = target.parent / _SCRATCH / made.parent.name
    try:
        _sweep(scratch.parent)
        scratch.mkdir(parents=True, exist_ok=True)
        copy = scratch / target.name
        shutil.copy2(made, copy)
        _sync(copy)
        copy.replace(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        with suppress(OSError):  # another try uses it
            scratch.parent.rmdir()


_MOVES = 10


def _sync(file: Path) -> None:
    """Have the content on disk before the name points to it."""
    with file.open("rb") as written:
        os.fsync(written.fileno())


def _link(source: Path, target: Path) -> None:
    """Give a file a second name; copy it, with its time, where the disk or the file's owner does not allow that."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        shutil.copy2(source, target)
        _sync(target)


_NO_LINK = (errno.EPERM, errno.EXDEV, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS)


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a local file, read a block at a time."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


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
        return _names(self.directly_in(folder))

    def directly_in(self, folder: str) -> list[Entry]:
        start, below = len(self.key("x")) - 1, f"{self.key(folder)}/".lstrip("/")
        return [Entry(key[start:], modified) for key, modified in self._listed(below, directly=True) if key != below]

    def below(self, folder: str) -> list[Entry]:
        start = len(self.key("x")) - 1
        return [Entry(key[start:], modified) for key, modified in self._listed(f"{self.key(folder)}/")]

    def stamp(self, path: str) -> str | None:
        head = self._head(path)
        return None if head is None else head["Metadata"].get(_SHA256, head["ETag"])

    def digest(self, path: str) -> str:
        head = self._head(path)
        if head and (known := head["Metadata"].get(_SHA256)):
            return known
        with self.open(path) as content:
            return hashlib.file_digest(content, "sha256").hexdigest()

    def text(self, path: str) -> str | None:
        with bucket_errors(self.connection, self.bucket):
            try:
                return self.client.get_object(Bucket=self.bucket, Key=self.key(path))["Body"].read().decode()
            except self.client.exceptions.NoSuchKey:
                return None

    def link(self, source: str, path: str) -> None:
        head = self._head(source)
        if head is None:
            raise missing(source, self)
        kept = {"Metadata": head["Metadata"], "ContentType": head["ContentType"], "MetadataDirective": "REPLACE"}
        with bucket_errors(self.connection, self.bucket), self._present(source):
            self.client.copy(
                {"Bucket": self.bucket, "Key": self.key(source)}, self.bucket, self.key(path), ExtraArgs=kept
            )

    def _head(self, path: str) -> HeadObjectOutputTypeDef | None:
        """Return what the store knows of an object; None if it does not exist."""
        try:
            with bucket_errors(self.connection, self.bucket), self._present(path):
                return self.client.head_object(Bucket=self.bucket, Key=self.key(path))
        except MissingResource as error:
            if error.kind == "bucket":
                raise
            return None

    @contextmanager
    def _present(self, path: str) -> Iterator[None]:
        """Raise MissingResource for the file, where the block fails because the object does not exist.

        The store answers such a request as it does for a missing bucket.
        """
        from botocore.exceptions import ClientError

        try:
            yield
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") not in _MISSING_KEY or self.exists(path):
                raise
            raise missing(path, self) from None

    @contextmanager
    def read(self, path: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="taskflow-") as folder:
            copy = Path(folder) / Path(path).name
            with bucket_errors(self.connection, self.bucket), self._present(path):
                self.client.download_file(self.bucket, self.key(path), str(copy))
            yield copy

    @contextmanager
    def write(self, path: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="taskflow-") as folder:
            made = Path(folder) / Path(path).name
            yield made
            kind = guess_type(path)[0] or "application/octet-stream"
            known = {"ContentType": kind, "Metadata": {_SHA256: sha256_of(made)}}
            with bucket_errors(self.connection, self.bucket):
                self.client.upload_file(str(made), self.bucket, self.key(path), ExtraArgs=known)

    def remove(self, path: str, *, keep_folders: bool = False) -> None:  # noqa: ARG002  # a bucket has no folders
        self._delete(self.key(path))

    @contextmanager
    def open(self, path: str) -> Iterator[BufferedReader]:
        """Provide the bytes of `path`; only those that are read are fetched. Raises MissingResource."""
        if not self.exists(path):
            raise missing(path, self)
        with bucket_errors(self.connection, self.bucket), opened(self.client, self.bucket, self.key(path)) as file:
            yield file

    @contextmanager
    def scratch(self, path: str) -> Iterator[str]:
        """Provide a key prefix for this try alone, ending in a slash: empty, and emptied when the block ends."""
        scratch = f"{self.key(_SCRATCH)}/"
        below = f"{scratch}{_owner(self.run, path)}/"
        try:
            self._sweep(scratch)
            self._empty(below)
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

    def _sweep(self, scratch: str) -> None:
        """Remove what tries that were killed have left behind."""
        touched: dict[str, dt.datetime] = {}
        for key, modified in self._listed(scratch):
            owner = f"{scratch}{key.removeprefix(scratch).partition('/')[0]}/"
            touched[owner] = max(modified, touched.get(owner, modified))
        for owner, modified in touched.items():
            if dt.datetime.now(dt.UTC) - modified > _LEFT_BEHIND:
                self._empty(owner)

    def upload(self, file: Path, key: str) -> None:
        """Put a local file into the bucket."""
        with bucket_errors(self.connection, self.bucket):
            self.client.upload_file(str(file), self.bucket, key)

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
        return {key for key, _ in self._listed(start)}

    def _listed(self, start: str, *, directly: bool = False) -> list[tuple[str, dt.datetime]]:
        with bucket_errors(self.connection, self.bucket):
            delimiter = "/" if directly else ""
            lister = self.client.get_paginator("list_objects_v2")
            pages = lister.paginate(Bucket=self.bucket, Prefix=start, Delimiter=delimiter)
            return [(item["Key"], item["LastModified"]) for page in pages for item in page.get("Contents", [])]
