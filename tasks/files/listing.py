"""files.list, files.copy and files.delete: files by their names, without a look at what is in them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from tasks.contract import (
    Conflict,
    DataFile,
    DataRejected,
    FilePattern,
    Link,
    MissingResource,
    NamedFile,
    Output,
    PermanentError,
    Run,
    reusable,
)
from tasks.files.matching import file_conflicts, found_in, matching, named, require_matching
from tasks.files.places import Files, Place, place_of
from tasks.files.run_files import files_of

_SHOWN = 5


class Listed(Output):
    """The files that match."""

    files: list[str]
    """Their paths below the place, sorted: a later step names one with `expand: {file: "{{ steps.….files }}"}`."""
    count: int


class Copied(Output):
    """What became of the files."""

    copied: int
    unchanged: int
    """Files that the target had already, with the same content."""
    bytes: int
    """Of the files that were copied."""
    address: Link
    """The folder with the copies."""


class Deleted(Output):
    """What was deleted."""

    deleted: int


@reusable("files.list", role="source")
def list_files(
    folder: DataFile,
    files: Files,
    pattern: FilePattern = "*",
    recursive: bool = False,  # noqa: FBT001, FBT002  # a field of `with`
    limit: Annotated[int, Field(ge=1, le=1000)] = 1000,
    allow_empty: bool = False,  # noqa: FBT001, FBT002  # a field of `with`
    *,
    run: Run,
) -> Listed:
    """List the files in a folder whose names match `pattern`, sorted, to map a later step over them.

    `files` is the place. With `recursive`, those in the folders below it too. Names that begin with a dot are left
    out; files that a step before it writes are those of its own run.

    Raises MissingResource for no file at all, unless `allow_empty`, and DataRejected for more than `limit`: Airflow
    maps a step over 1,000 items at most.
    """
    there = files_of(files, run)
    choose = matching if allow_empty else require_matching
    names = choose(there, folder, pattern, recursive=recursive)
    if len(names) > limit:
        problem = f"{len(names):,} files match {pattern!r}, and `limit` is {limit:,}"
        raise DataRejected(f"{there.place.address(folder)}: {problem}; narrow the pattern, or raise `limit`")
    run.log.info("%s: %s files match %r", there.place.address(folder), f"{len(names):,}", pattern)
    return Listed(files=[f"{folder}/{name}" for name in names], count=len(names))


# --- copies -----------------------------------------------------------------------------------------------------------


class _Copy(NamedTuple):
    """A file to copy: where it lies, and the path that the copy gets."""

    source: str
    target: str


def _copy_conflicts(given: Mapping[str, Any]) -> Iterator[Conflict]:
    wrong = list(file_conflicts(given, "copies", "source_files"))
    yield from wrong
    folder = given.get("folder") or str(given.get("file") or "").rpartition("/")[0]
    if not wrong and given.get("source_files") == given.get("files") and given.get("target") in (None, folder):
        at = "target" if given.get("target") else "files"
        yield (at,), "the files would be copied onto themselves; name another `target`, or another place"


@reusable("files.copy", role="transform", conflicts=_copy_conflicts)
def copy(
    source_files: Files,
    files: Files,
    file: DataFile | None = None,
    folder: DataFile | None = None,
    pattern: FilePattern | None = None,
    target: NamedFile | None = None,
    overwrite: bool = False,  # noqa: FBT001, FBT002  # a field of `with`
    *,
    run: Run,
) -> Copied:
    """Copy files from the place `source_files` to the place `files`, between folders and buckets, under their names.

    One `file`, or those directly in a `folder` whose names match `pattern` (all but hidden ones). They go into the
    folder `target`; without it, into the folder of the same name. What a step before it writes is read as its own run
    wrote it; the copies are files under names that people know, not files of the run.

    Each copy has its name only when it is complete. One that is there with the same content is left as it is. Where
    one has another content, the step fails before it copies anything, unless `overwrite`. Raises MissingResource if
    nothing matches.
    """
    there, place = files_of(source_files, run), place_of(files, run)
    found = [there.find(file)] if file else found_in(there, str(folder), pattern or "*")
    into = target or folder or str(file).rpartition("/")[0]
    copies = [_Copy(one, "/".join(filter(None, (into, one.rpartition("/")[2])))) for one in found]
    same, differing = _compared(copies, there.place, place)
    if differing and not overwrite:
        shown = ", ".join(one.target for one in differing[:_SHOWN])
        problem = f"{len(differing):,} files are there with another content: {shown}"
        remedy = "delete them, choose another `target`, or set `overwrite: true`"
        raise PermanentError(f"{place.address(into)}: {problem}; {remedy}")
    size = sum(_copied(one, there.place, place) for one in copies if one not in same)
    done = Copied(copied=len(copies) - len(same), unchanged=len(same), bytes=size, address=place.address(into))
    run.log.info("%s: %s copied (%s bytes), %s unchanged", done.address, done.copied, f"{size:,}", done.unchanged)
    return done


def _compared(copies: list[_Copy], source: Place, target: Place) -> tuple[frozenset[_Copy], list[_Copy]]:
    """Return the copies that are there already, and those instead of which something else is."""
    there = [one for one in copies if target.exists(one.target)]
    same = frozenset(one for one in there if target.digest(one.target) == source.digest(one.source))
    return same, [one for one in there if one not in same]


def _copied(one: _Copy, source: Place, target: Place) -> int:
    """Copy a file, and return how many bytes it has."""
    with source.read(one.source) as old, target.write(one.target) as new:
        shutil.copyfile(old, new)
        return new.stat().st_size


# --- deletions --------------------------------------------------------------------------------------------------------


def _delete_conflicts(given: Mapping[str, Any]) -> Iterator[Conflict]:
    yield from file_conflicts(given, "deletes", "files")
    if given.get("folder") is not None and given.get("pattern") is None:
        yield ("folder",), 'a folder needs a `pattern` that says which of its files to delete; `"*"` is all of them'


@reusable("files.delete", role="maintenance", conflicts=_delete_conflicts)
def delete(
    files: Files,
    file: NamedFile | None = None,
    folder: NamedFile | None = None,
    pattern: FilePattern | None = None,
    missing_ok: bool = True,  # noqa: FBT001, FBT002  # a field of `with`
    *,
    run: Run,
) -> Deleted:
    """Delete one `file`, or the files directly in a `folder` whose names match `pattern`.

    `files` is the place. Only files under names that people know: never those that runs keep below `.runs`, none with
    a name that begins with a dot, none in a folder below it, and no folder. A step that is cleared finds them gone, so
    that is no error; with `missing_ok: false` it is one. Raises MissingResource then.
    """
    place = place_of(files, run)
    there = [file] if file else [f"{folder}/{name}" for name in named(place, str(folder), str(pattern))]
    gone = [path for path in there if place.exists(path)]
    if not gone and not missing_ok:
        remedy = "correct the name, or set `missing_ok: true`"
        raise MissingResource("file", file or str(pattern), place.address(folder or "").rstrip("/"), remedy)
    for path in gone:
        place.remove(path, keep_folders=True)
    run.log.info("%s: %s files deleted", place.address(file or f"{folder}/{pattern}"), f"{len(gone):,}")
    return Deleted(deleted=len(gone))
