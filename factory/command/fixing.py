"""`taskflow lint --fix`: writes the replacements that diagnostics bring, and keeps everything else byte for byte."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from factory.language.errors import Diagnostic, FactoryError


class FixError(FactoryError):
    """A file cannot be rewritten; nothing in it was."""


def fix(diagnostics: Iterable[Diagnostic], root: Path) -> list[str]:
    """Write every replacement of `diagnostics`, whose files are shown from `root`; return a line for each.

    Raises FixError for a file that a link keeps outside of `root`, that may not be written, or that has changed.
    """
    by_file: dict[Path, set[Diagnostic]] = {}
    for one in diagnostics:
        if one.replacement is not None:
            by_file.setdefault(root / one.span.file, set()).add(one)
    done: list[str] = []
    for file, found in by_file.items():
        try:
            done += _fix_file(_own(file, root), sorted(found))
        except OSError as error:
            raise FixError(f"{file} cannot be rewritten: {error.strerror or error}") from None
    return done


def _own(file: Path, root: Path) -> Path:
    """Return where a file of the project is; raise FixError if a link leads out of the project."""
    target = file.resolve()
    if not target.is_relative_to(root.resolve()):
        raise FixError(f"{file} is a link to {target}, which is not in the project {root}; rewrite that file itself")
    if not os.access(target, os.W_OK):
        raise FixError(f"{file} may not be written; change its permissions, or rewrite it by hand")
    return target


def _fix_file(file: Path, found: list[Diagnostic]) -> list[str]:
    written = file.read_bytes()
    text = written.decode("utf-8")
    lines = text.removeprefix("\ufeff").splitlines(keepends=True)
    if any(one.span.line > len(lines) or lines[one.span.line - 1].splitlines() != [one.source] for one in found):
        raise FixError(f"{file} has changed since it was read; run it again")
    for one in reversed(found):
        line, start, end = lines[one.span.line - 1], one.span.column - 1, one.span.end - 1
        lines[one.span.line - 1] = f"{line[:start]}{one.replacement}{line[end:]}"
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    _replace(file, (mark + "".join(lines)).encode("utf-8"))
    return [_line(one) for one in found]


def _line(one: Diagnostic) -> str:
    old = one.source[one.span.column - 1 : one.span.end - 1]
    return f"{one.span.file}:{one.span.line}:{one.span.column}: {old} -> {one.replacement}"


def _replace(file: Path, content: bytes) -> None:
    """Write `content` atomically, with the file's own permissions."""
    handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "wb") as opened:
            opened.write(content)
        Path(temporary).chmod(file.stat().st_mode & 0o7777)
        Path(temporary).replace(file)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
