"""A CSV file before its rows are read: its header, and whether it is complete.

Knows the text of the file; knows nothing about types, and does not start Spark: problems here are reported at once.
Only the first and the last bytes of a sound file are read: they may have to be fetched.
"""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from string import whitespace
from typing import BinaryIO, TextIO

from tasks.names import nearest
from tasks.spark.csv_records import fields, records, shown

_LONGEST_HEADER = 1 << 20
_TAIL = 1 << 20
_SEPARATORS = ",;|\t"
END_MARK = "\x1a"
"""What DOS programs write after the last line."""
_REPLACEMENT = "\ufffd"
"""What a decoder writes in place of bytes that are not text."""
_CUT_OFF = "the file seems to be cut off; export or copy it again"


def read_header(text: TextIO, separator: str, *, multiline: bool) -> list[str]:
    """Return the names in the first row; raise ValueError if there are none."""
    lines = iter(lambda: text.readline(_LONGEST_HEADER), "")
    first = next(records(lines, separator, multiline=multiline), None)
    if first is None or not first.text.strip():
        raise ValueError("has no header: its first line is empty" if first and next(lines, "") else "is empty")
    if len(first.text) >= _LONGEST_HEADER:
        raise ValueError(f"has a first line of more than {_LONGEST_HEADER:,} characters; is it a CSV file?")
    return _names(first.text, separator)


def _names(header: str, separator: str) -> list[str]:
    if (place := header.find(_REPLACEMENT)) >= 0:
        remedy = "set `encoding` (latin-1, cp1252, utf-16, …), or export it as UTF-8"
        raise ValueError(f"is not text of this encoding: character {place + 1} of the header; {remedy}")
    if "\0" in header:
        raise ValueError("has NUL bytes in its header; is it UTF-16? Then set `encoding` to utf-16-le or utf-16-be")
    if (names := fields(header, separator)) is None:
        raise ValueError("has a header that ends within quotes; set `multiline: true` if a name has several lines")
    return [name.strip() for name in names]


def header_problems(names: Sequence[str], declared: Collection[str], separator: str, *, closed: bool) -> Iterator[str]:
    """Yield what is wrong with a header: columns that are missing, repeated or, if `closed`, not declared."""
    others = [name for name in names if name not in declared]
    there = ", ".join(map(_named, names))
    for name in declared:
        if name not in names:
            near = nearest(name, others)
            hint = f'did you mean "{near}"? ' if near else _other_separator(names, separator)
            yield f'has no column "{name}"; {hint}its columns are {there}'
    for name, count in Counter(names).items():
        if count > 1 and name in declared:
            yield f'has {count} columns "{name}"; rename all but one in the file'
    if closed and others and set(declared) <= set(names):
        shown_names = ", ".join(map(_named, others))
        yield f"has columns that are not declared: {shown_names}; declare them, or set ignore_other_columns: true"


def _named(name: str) -> str:
    return name or '"" (a column without a name)'


def _other_separator(names: Sequence[str], separator: str) -> str:
    likely = [other for other in _SEPARATORS if other != separator and len(names) == 1 and other in names[0]]
    return f"is it separated by {likely[0]!r}? Then set `separator`; " if likely else ""


def check_end(file: BinaryIO, separator: str, columns: int) -> None:
    """Raise ValueError if a file of UTF-8 lines has no rows, or ends in the middle of one."""
    line = _last_line(file)
    if line is None:
        raise ValueError("has a header and no rows")
    last = line.decode("utf-8", "replace")  # bytes that are not text elsewhere in it are checked by column
    if problem := cut(last, separator, columns):
        raise ValueError(f"ends in line {_lines(file):,} {problem}")


def cut(last: str, separator: str, columns: int) -> str | None:
    """Return where a text's last row breaks off; None if it does not: what has a line end is complete, or just bad."""
    if last.endswith(("\n", "\r")):
        return None
    if last.endswith(_REPLACEMENT):
        return f"within a character of UTF-8; if it has another encoding, set `encoding` ({shown(last)}): {_CUT_OFF}"
    values = fields(last, separator)
    if values is None:
        return f"within quotes ({shown(last)}): {_CUT_OFF}"
    if len(values) < columns:
        return f"after {len(values)} of {columns} fields ({shown(last)}): {_CUT_OFF}"
    return "with Ctrl-Z (0x1A) right after its last value; remove it" if last.endswith(END_MARK) else None


def is_nothing(line: str) -> bool:
    """Return whether a line has neither text nor more than the end mark of DOS."""
    return not line.strip(f"{whitespace}{END_MARK}")


def _last_line(file: BinaryIO) -> bytes | None:
    """Return the last line that is not empty, with its line end; None if that is the header."""
    size = tail = file.seek(0, os.SEEK_END)
    tail = min(size, _TAIL)
    while True:
        file.seek(size - tail)
        lines = file.read(tail).splitlines(keepends=True)
        there = [place for place, line in enumerate(lines) if not is_nothing(line.decode("latin-1"))]
        if there and there[-1] > 0:
            return lines[there[-1]]
        if tail == size:
            return None
        tail = min(size, 2 * tail)


def _lines(file: BinaryIO) -> int:
    """Return the number of the last line that is not empty."""
    file.seek(0)
    text = io.TextIOWrapper(file, "latin-1", newline="")
    number = max((number for number, line in enumerate(text, start=1) if not is_nothing(line)), default=0)
    text.detach()
    return number
