"""A row of a file on its way into a table, and the text in which COPY takes it.

Every value is a text that Postgres reads as a literal of its column's type, or None for null. Knows no format of files.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, Protocol

from tasks.contract import DataRejected

LONGEST = 1 << 24
"""The maximum length of a row in characters: more is nearly always a quote that is not closed."""
_ROWS_OF_A_BLOCK = 5_000
_SPECIAL = re.compile(r"[\\\n\r\t]")
_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", "\r": r"\r", "\t": r"\t"})


class Row(NamedTuple):
    """A row as it was read, or why it could not be."""

    line: int
    """Where it begins in the file; in a parquet file, the number of the row."""
    raw: str
    fields: Sequence[str | None] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Field:
    """A column of the table that is filled."""

    name: str
    type: str
    not_null: bool
    may_be_absent: bool
    """Whether the server fills it by itself if the file has no such column."""


class Source(Protocol):
    """A file that is read from its beginning to its end."""

    address: str
    """Where people find it."""
    unit: str
    """What its parts are called in messages: a line or a row."""

    @property
    def columns(self) -> Sequence[str]:
        """Its columns, in its order."""

    @property
    def options(self) -> str:
        """How COPY reads what `blocks` yields."""

    def blocks(self) -> Iterator[bytes]:
        """Yield the file as COPY reads it, so that each line has its own number; raise DataRejected."""

    def rows(self) -> Iterator[Row]:
        """Yield the file row by row, with those that cannot be read; raise DataRejected where it breaks off."""

    def count(self) -> int:
        """Return how many rows `blocks` has yielded."""


class Stream(io.RawIOBase):
    """Blocks of bytes as a file for COPY; it keeps what stopped them, as the driver only says that something did."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._block = io.BytesIO()
        self.problem: Exception | None = None

    def read(self, size: int = -1, /) -> bytes:
        while not (taken := self._block.read(size)):
            try:
                block = next(self._blocks, None)
            except Exception as problem:
                self.problem = problem
                raise
            if block is None:
                return b""
            self._block = io.BytesIO(block)
        return taken


def copy_line(fields: Sequence[str | None]) -> str:
    """Return the fields of a row as COPY reads them in its text format."""
    if _SPECIAL.search("".join([field for field in fields if field])):
        fields = [field and field.translate(_ESCAPES) for field in fields]
    return "\t".join([r"\N" if field is None else field for field in fields]) + "\n"


def copy_blocks(rows: Iterable[Sequence[str | None]]) -> Iterator[bytes]:
    """Yield rows as COPY reads them in its text format, some thousand at a time."""
    rows = iter(rows)
    while block := "".join(map(copy_line, islice(rows, _ROWS_OF_A_BLOCK))):
        yield block.encode()


def sound(row: Row) -> Row:
    """Return `row`, with a problem if Postgres cannot keep one of its texts."""
    text = "".join([field for field in row.fields if field])
    if "\0" in text:
        return row._replace(problem="holds the character NUL, which Postgres cannot keep")
    try:
        text.encode()
    except UnicodeEncodeError:
        return row._replace(problem="holds bytes that are not text in this encoding")
    return row


def checked(rows: Iterable[Row], source: Source, count: Callable[[], None]) -> Iterator[Sequence[str | None]]:
    """Yield the fields of rows; raise DataRejected for the first that has a problem."""
    for row in rows:
        if row.problem:
            raise DataRejected(f"{source.address}, {source.unit} {row.line:,} {row.problem}; {STOPPED}")
        count()
        yield row.fields


STOPPED = "mend the file, or set `on_bad_row: set_aside`"
"""What to do about a row that does not fit."""


def kept_text(raw: str) -> str:
    """Return a row's own text in a form that Postgres can keep: what is not text becomes an escape."""
    if raw.isascii() and "\0" not in raw:
        return raw
    return raw.replace("\0", r"\x00").encode("utf-8", "backslashreplace").decode()
