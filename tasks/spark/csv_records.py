"""The rows of a CSV text, where a line may be less than a row: fields of several lines.

Knows quotes and line ends; knows nothing about the bytes of a file (`tasks.spark.csv_text`) or about columns. A quote
that opens a field and is never closed as CSV wants it breaks its own line only: the lines after it are rows again.
"""

from __future__ import annotations

import csv
import io
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

END = "\x01"
"""A last field that is added to a line: if the line then does not end with it, the line ends within quotes."""
NUL = "\ufdd0"
"""What stands for a NUL in the fields: Spark's reader loses some. Unicode gives this character to programs for their
own use; no text has it."""
_LONGEST = 1 << 27
"""Characters of a field of several lines: a quote that is never closed would hold the rest of a file."""
_LINE_ENDS = ("\r\n", "\n", "\r")


class Record(NamedTuple):
    """A row, or a line of one."""

    text: str
    """With the line end, if there is one."""
    inside: bool = False
    """Whether it is a line of a field of several lines, which is not a row."""


def records(lines: Iterable[str], separator: str, *, multiline: bool) -> Iterator[Record]:
    """Yield the rows of a text; with `multiline`, a row may have several lines.

    Raises ValueError if the text ends in a field of several lines; without `multiline`, that is a broken row like any
    other.
    """
    coming = _Coming(iter(lines))
    for line in coming:
        if is_whole(line, separator):
            yield Record(line)
            continue
        opened = coming.number
        end = coming.read_field(line, separator)
        if end == "none" and multiline:
            raise ValueError(f"ends within quotes that open in line {opened:,} ({shown(line)})")
        if end != "closed":
            coming.give_back(coming.held[1:])
            yield Record(line)
        elif multiline:
            yield Record("".join(coming.held))
        else:
            yield from (Record(part, inside=True) for part in coming.held)


@dataclass
class _Coming:
    """The lines that are still to come; some may be given back."""

    lines: Iterator[str]
    number: int = 0
    """Of the line that came last."""
    held: list[str] = field(default_factory=list)
    """The lines of the field that was read last."""
    _back: deque[str] = field(default_factory=deque)

    def __iter__(self) -> Iterator[str]:
        while True:
            line = self._back.popleft() if self._back else next(self.lines, None)
            if line is None:
                return
            self.number += 1
            yield line

    def give_back(self, lines: list[str]) -> None:
        self._back.extendleft(reversed(lines))
        self.number -= len(lines)

    def read_field(self, line: str, separator: str) -> str:
        """Hold the lines of the row that begins with `line`; return whether it is `closed`, `bad`, or has `none`."""
        self.held = []
        try:
            with _fields_up_to(_LONGEST):
                next(csv.reader(self._fed(line), delimiter=separator, strict=True))
        except csv.Error as error:
            return "none" if "unexpected end" in str(error) else "bad"
        return "closed"

    def _fed(self, line: str) -> Iterator[str]:
        self.held.append(line)
        yield line
        for other in self:
            self.held.append(other)
            yield other


def is_whole(line: str, separator: str) -> bool:
    """Return whether a line ends outside quotes."""
    return '"' not in line or fields(line, separator) is not None


def fields(record: str, separator: str) -> list[str] | None:
    """Return the fields of a row; None if it ends within quotes."""
    lines = io.StringIO(f"{bare(record)}{separator}{END}", newline="")
    with _fields_up_to(sys.maxsize):
        found = next(csv.reader(lines, delimiter=separator))
    return found[:-1] if found[-1] == END else None


def bare(line: str) -> str:
    """Return a line without its line end."""
    return next((line.removesuffix(end) for end in _LINE_ENDS if line.endswith(end)), line)


def shown(line: str) -> str:
    """Return the beginning of a line for a message, in quotes."""
    return f'"{line[:60].rstrip()}"'


@contextmanager
def _fields_up_to(characters: int) -> Iterator[None]:
    """Let Python's reader take fields beyond 128 KiB."""
    before = csv.field_size_limit(characters)
    try:
        yield
    finally:
        csv.field_size_limit(before)
