"""A CSV file before its rows are read: its header, and whether it is complete.

Knows the text of the file; knows nothing about types, and does not start Spark: problems here are reported at once.
Only the first and the last bytes of a sound file are read: they may have to be fetched.
"""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from difflib import get_close_matches
from typing import BinaryIO

_LONGEST_LINE = 1 << 20
_SEPARATORS = ",;|\t"


def read_header(file: BinaryIO, separator: str) -> list[str]:
    """Return the names in the first line; raise ValueError if there are none."""
    file.seek(0)
    first = file.readline(_LONGEST_LINE)
    if not first.strip(b"\xef\xbb\xbf\r\n\t "):
        raise ValueError("is empty" if not file.read(1) else "has no header: its first line is empty")
    try:
        (names,) = csv.reader([first.decode("utf-8-sig")], delimiter=separator, strict=True)
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 text: byte {error.start + 1} of the header; export it as UTF-8") from None
    except csv.Error as error:
        raise ValueError(f"has a header that cannot be read ({error})") from None
    return [name.strip() for name in names]


def header_problems(names: Sequence[str], declared: Collection[str], separator: str, *, closed: bool) -> Iterator[str]:
    """Yield what is wrong with a header: columns that are missing, repeated or, if `closed`, not declared."""
    others = [name for name in names if name not in declared]
    for name in declared:
        if name not in names:
            near = get_close_matches(name, others, n=1) or [other for other in others if other.lower() == name.lower()]
            hint = f'did you mean "{near[0]}"? ' if near else _other_separator(names, separator)
            yield f'has no column "{name}"; {hint}its columns are {", ".join(names)}'
    for name, count in Counter(names).items():
        if count > 1 and name in declared:
            yield f'has {count} columns "{name}"'
    if closed and others and set(declared) <= set(names):
        yield f"has columns that are not declared: {', '.join(others)}; declare them, or set ignore_other_columns: true"


def _other_separator(names: Sequence[str], separator: str) -> str:
    likely = [other for other in _SEPARATORS if other != separator and len(names) == 1 and other in names[0]]
    return f"is it separated by {likely[0]!r}? Then set `separator`; " if likely else ""


def check_end(file: BinaryIO, separator: str, fields: int) -> None:
    """Raise ValueError if the file has no rows, or ends in the middle of one."""
    last = _last_line(file)
    if last is None:
        raise ValueError("has a header and no rows")
    if problem := _cut(last, separator, fields):
        shown = last[:60].decode("utf-8", "replace")
        remedy = "the file seems to be cut off; export or copy it again"
        raise ValueError(f'ends in line {_lines(file):,} {problem} ("{shown}"): {remedy}')


def _cut(last: bytes, separator: str, fields: int) -> str | None:
    """Return where the last line breaks off. Other bytes in it that are not text are checked by column."""
    try:
        last.decode()
    except UnicodeDecodeError as error:
        if error.end == len(last):
            return "within a character"
    try:
        (values,) = csv.reader([last.decode("utf-8", "replace")], delimiter=separator, strict=True)
    except csv.Error:
        return "within quotes"
    return f"after {len(values)} of {fields} fields" if len(values) < fields else None


def _last_line(file: BinaryIO) -> bytes | None:
    """Return the last line that is not empty; None if that is the header."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - _LONGEST_LINE, 0))
    lines = file.read().splitlines()
    there = [place for place, line in enumerate(lines) if line.strip()]
    return lines[there[-1]] if there and (there[-1] > 0 or size > _LONGEST_LINE) else None


def _lines(file: BinaryIO) -> int:
    """Return the number of the last line that is not empty."""
    count, ends, tail = 0, 0, b""
    file.seek(0)
    while block := file.read(_LONGEST_LINE):
        count += block.count(b"\n")
        tail = (tail + block)[-_LONGEST_LINE:]
    ends = len(tail) - len(tail.rstrip(b"\r\n"))
    return count - tail[len(tail) - ends :].count(b"\n") + 1
