"""Which files of a run a folder and a pattern name: those that its steps wrote, and those with a name in the place.

Knows nothing of what is done with them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from tasks.contract import Conflict, MissingResource, PermanentError
from tasks.files.places import Place
from tasks.files.run_files import RunFiles

MAX_FILES = 10_000
_SHOWN = 10


def file_conflicts(given: Mapping[str, Any], does: str, otherwise: str) -> Iterator[Conflict]:
    """Yield what is wrong if a step does not name either one `file` or the files of one `folder`.

    `does` is what it does with them, `otherwise` the argument that is at fault if it names neither.
    """
    named = [argument for argument in ("file", "folder") if given.get(argument) is not None]
    if len(named) != 1:
        problem = f"a step {does} one `file`, or the files of one `folder`"
        yield (named[-1] if named else otherwise,), f"{problem}; {'remove one' if named else 'name it'}"
    if given.get("pattern") is not None and "folder" not in named:
        yield ("pattern",), "pattern chooses among the files of a `folder`, and there is none"


def found_in(there: RunFiles, folder: str, pattern: str) -> list[str]:
    """Return the paths of the files directly in `folder` that match `pattern`, sorted by name.

    Where a step before this one writes into the folder, they are its run's own. Raises MissingResource if there are
    none, naming those that do not match.
    """
    return [there.find(f"{folder}/{name}") for name in require_matching(there, folder, pattern)]


def require_matching(there: RunFiles, folder: str, pattern: str, *, recursive: bool = False) -> list[str]:
    """Return what `matching` does; raise MissingResource if there are none, naming those that do not match."""
    names = _names_in(there, folder, recursive=recursive)
    chosen = _chosen(there.place, folder, pattern, names)
    if not chosen:
        has = f"it has {', '.join(sorted(names)[:_SHOWN])}" if names else "it has no files"
        remedy = f"{has}; correct `folder` or `pattern`, or bring the files"
        raise MissingResource("file", pattern, there.place.address(folder), remedy)
    return chosen


def matching(there: RunFiles, folder: str, pattern: str, *, recursive: bool = False) -> list[str]:
    """Return the sorted names of the files in `folder` whose names match `pattern`; hidden ones never do.

    With `recursive` those in the folders below it too, by their paths below `folder`. Raises PermanentError if there
    are more than MAX_FILES.
    """
    return _chosen(there.place, folder, pattern, _names_in(there, folder, recursive=recursive))


def named(place: Place, folder: str, pattern: str) -> list[str]:
    """Return the sorted names of the files directly in `folder` that people know and that match `pattern`."""
    return _chosen(place, folder, pattern, _names_at(place, folder, recursive=False))


def _chosen(place: Place, folder: str, pattern: str, names: set[str]) -> list[str]:
    chosen = sorted(name for name in names if fnmatchcase(name.rpartition("/")[2], pattern))
    if len(chosen) > MAX_FILES:
        problem = f"{len(chosen):,} files match {pattern!r}, and the maximum is {MAX_FILES:,}"
        raise PermanentError(f"{place.address(folder)}: {problem}; narrow the pattern, or take them by date")
    return chosen


def _names_in(there: RunFiles, folder: str, *, recursive: bool) -> set[str]:
    written = there.run.before.files
    own = _names_at(there.place, there.own(folder), recursive=recursive) if written else set()
    is_written_whole = any(folder == path or folder.startswith(f"{path}/") for path in written)
    return own if is_written_whole else own | _names_at(there.place, folder, recursive=recursive)


def _names_at(place: Place, folder: str, *, recursive: bool) -> set[str]:
    entries = place.below(folder) if recursive else place.directly_in(folder)
    names = {entry.path.removeprefix(f"{folder}/") for entry in entries}
    return {name for name in names if name and not any(part[:1] in ("", ".") for part in name.split("/"))}
