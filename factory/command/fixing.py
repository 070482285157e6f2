"""`taskflow lint --fix`: writes the replacements that diagnostics bring, and keeps everything else byte for byte."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from factory.language.errors import Diagnostic


def fix(diagnostics: Iterable[Diagnostic], root: Path) -> list[str]:
    """Write every replacement of `diagnostics`, whose files are shown from `root`; return a line for each."""
    by_file: dict[Path, set[Diagnostic]] = {}
    for one in diagnostics:
        if one.replacement is not None:
            by_file.setdefault(root / one.span.file, set()).add(one)
    done: list[str] = []
    for file, found in by_file.items():
        done += _fix_file(file, sorted(found))
    return done


def _fix_file(file: Path, found: list[Diagnostic]) -> list[str]:
    written = file.read_bytes()
    text = written.decode("utf-8")
    lines = text.removeprefix("\ufeff").splitlines(keepends=True)
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
    target = file.resolve()
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as opened:
            opened.write(content)
        Path(temporary).chmod(target.stat().st_mode & 0o7777)
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
