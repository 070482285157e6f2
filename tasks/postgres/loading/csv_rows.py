"""CSV as Postgres reads it: quoted or not, over several lines, null apart from an empty text.

Knows bytes, characters and quotes; knows nothing about types. A quote opens and closes wherever it stands, and a
doubled one within quotes is one, as in COPY: so what is counted and cut here is what the server sees.
"""

from __future__ import annotations

import codecs
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Annotated, BinaryIO, Literal, NamedTuple, Self

from pydantic import Field as Bounds
from pydantic import model_validator

from tasks.contract import DataRejected, Model
from tasks.files.packed import Unreadable, unpacked
from tasks.postgres.loading.rows import LONGEST, Field, Row, sound

Encoding = Literal["utf-8", "utf-16", "latin-1", "iso-8859-15", "windows-1250", "windows-1251", "windows-1252"]
_BLOCK = 1 << 20
_SEPARATORS = ",;|\t"
_ONE = {"separator": re.compile(r"[\t -~]"), "quote": re.compile(r"[!-/:-@\[-`{-~]")}
_SUCH = {"separator": ', or ; or "\\t"', "quote": "\" or '"}
_BREAK = re.compile(r"\r\n|\r|\n")
END_MARK = "\x1a"
"""What DOS programs write after the last line."""
_WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class CsvForm(Model):
    """How a CSV file is written.

    An unquoted field that is `null_text` is null; by default that is an empty one, and `""` is an empty text. With
    `header: false` the first line is a row, and the columns are in the order of `columns`, or of the table. A last line
    of nothing but Ctrl-Z (0x1A), as DOS programs write it, is not a row.
    """

    separator: str = ","
    quote: str = '"'
    encoding: Encoding = "utf-8"
    header: bool = True
    null_text: Annotated[str, Bounds(pattern=r"^[^\r\n]*$", max_length=40)] = ""

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        for what, one in (("separator", self.separator), ("quote", self.quote)):
            if not _ONE[what].fullmatch(one):
                raise ValueError(f"has a `{what}` ({one}) that is not one character such as {_SUCH[what]}")
        if self.separator == self.quote:
            raise ValueError(f"has a `separator` that is its `quote` ({self.quote})")
        if self.separator in self.null_text or self.quote in self.null_text:
            raise ValueError(f"has a `null_text` ({self.null_text}) with its `separator` or `quote` in it")
        return self


@contextmanager
def opened(path: Path, address: str, wanted: str = "CSV") -> Iterator[BinaryIO]:
    """Open a file, unpacked; raise DataRejected, here or where it is read, for one that cannot be."""
    with path.open("rb") as file:
        try:
            with unpacked(file, wanted) as plain:
                yield plain
        except Unreadable as error:
            raise DataRejected(f"{address} {error}") from error


class _First(NamedTuple):
    """The first record of a file."""

    text: str
    end: str
    """How it ends; empty if that is the end of the file."""


@dataclass
class CsvFile:
    """A CSV file whose header has been read."""

    path: Path
    address: str
    form: CsvForm
    columns: Sequence[str]
    end: str
    """How its lines end."""
    unit: str = "line"
    _records: int = 0
    _is_quoted: bool = field(default=False)
    _last: bytes = b""

    @classmethod
    def opened(cls, path: Path, address: str, form: CsvForm, expected: Sequence[str]) -> CsvFile:
        """Read the header; raise DataRejected for a file without one, and for one that is empty."""
        first = _first_record(path, address, form)
        columns = expected
        if form.header:
            columns = [(name or "").strip() for name in split(first.text, form)]
        return cls(path, address, form, columns, first.end)

    @property
    def options(self) -> str:
        """How COPY reads the file."""
        quoted = {name: _quoted(getattr(self.form, name)) for name in ("separator", "quote", "null_text")}
        text = "FORMAT csv, ENCODING 'UTF8', HEADER {header}, DELIMITER {separator}, QUOTE {quote}, NULL {null_text}"
        return text.format(header=str(self.form.header).lower(), **quoted)

    def count(self) -> int:
        """Return how many rows `blocks` has yielded."""
        return self._records + (self._last not in (b"", self._ending)) - self.form.header

    @property
    def _ending(self) -> bytes:
        return b"\r" if self.end == "\r" else b"\n"

    def blocks(self) -> Iterator[bytes]:
        """Yield the file as UTF-8, without a byte order mark."""
        with opened(self.path, self.address) as file:
            for block in _text_of(file, self.form.encoding, self.address):
                self._count(block)
                yield block

    def _count(self, block: bytes) -> None:
        parts = block.split(self.form.quote.encode())
        self._records += sum(part.count(self._ending) for part in parts[self._is_quoted :: 2])
        self._is_quoted ^= len(parts) % 2 == 0
        self._last = block[-1:]

    def rows(self) -> Iterator[Row]:
        """Yield the rows after the header, each with its own text; raise DataRejected for one that breaks off."""
        started, lines = 1, list[str]()
        is_open, length = False, 0
        for number, line in enumerate(self._lines(), start=1):
            if not lines and not line.strip(END_MARK):
                continue  # no other line is without a line end
            started = started if lines else number
            lines.append(line)
            length += len(line)
            is_open ^= line.count(self.form.quote) % 2 == 1
            if length > LONGEST:
                problem = f"has a row of more than {LONGEST:,} characters, which begins in line {started:,}"
                raise DataRejected(f"{self.address} {problem}: a quote in it may not be closed")
            if not is_open:
                if started > 1 or not self.form.header:
                    yield self._row(started, "".join(lines))
                lines, length = [], 0
        if lines:
            raise DataRejected(f"{self.address} ends within quotes that open in line {started:,}: {_CUT}")

    def _lines(self) -> Iterator[str]:
        newline = "\r" if self.end == "\r" else "\n"
        with opened(self.path, self.address) as file:
            name = "utf-8-sig" if self.form.encoding == "utf-8" else self.form.encoding
            errors = "surrogateescape" if self.form.encoding != "utf-16" else "strict"
            text = io.TextIOWrapper(file, encoding=name, errors=errors, newline=newline)
            try:
                while line := text.readline(LONGEST + 1):
                    yield line
            except UnicodeDecodeError as error:
                raise not_text(self.address, self.form.encoding, error) from None

    def _row(self, line: int, record: str) -> Row:
        text = record.removesuffix("\r") if self.end == "\r" else record.removesuffix("\n")
        text = text.removesuffix("\r") if self.end == "\r\n" else text
        fields = split(text, self.form)
        if len(fields) != len(self.columns):
            if not record.endswith(("\n", "\r")) and len(fields) < len(self.columns):
                problem = f"ends in line {line:,} after {len(fields)} of {len(self.columns)} fields"
                raise DataRejected(f"{self.address} {problem}: {_CUT}")
            return Row(line, text, (), f"has {len(fields)} fields, not {len(self.columns)}")
        if _BREAK.search(text) and _BREAK.search(_segment(self.form.quote).sub("", text)):
            return Row(line, text, (), "has a line break that is not quoted")
        return sound(Row(line, text, fields))


_CUT = "the file seems to be cut off; export or copy it again"


def not_text(address: str, encoding: str, error: UnicodeDecodeError) -> DataRejected:
    """Return the error for bytes that are not text."""
    problem = f"has bytes that are not {encoding} ({error.reason})"
    return DataRejected(f"{address} {problem}; {_OTHER_ENCODING}")


_OTHER_ENCODING = "set `csv: {encoding: …}` to what wrote the file, or export it as UTF-8"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'" if "\\" not in text else "E'" + text.replace("\\", r"\\") + "'"


def _text_of(file: BinaryIO, encoding: Encoding, address: str) -> Iterator[bytes]:
    """Yield the text as UTF-8, without a byte order mark and without the last line if it is the end mark of DOS."""
    held, before = b"", b"\n"
    for block in _as_utf8(file, encoding, address):
        if body := block.rstrip(END_MARK.encode()):
            yield held + body
            before, held = body[-1:], b""
        held += block[len(body) :]
    if held and before not in b"\r\n":
        yield held


def _as_utf8(file: BinaryIO, encoding: Encoding, address: str) -> Iterator[bytes]:
    if encoding == "utf-8":
        block = file.read(_BLOCK)
        if block.startswith(_WIDE):
            raise DataRejected(f"{address} is UTF-16; set `csv: {{encoding: utf-16}}`")
        block = block.removeprefix(codecs.BOM_UTF8)
        while block:
            yield block
            block = file.read(_BLOCK)
        return
    text = io.TextIOWrapper(file, encoding=encoding, newline="")
    try:
        while part := text.read(_BLOCK):
            yield part.encode()
    except UnicodeDecodeError as error:
        raise not_text(address, encoding, error) from None


def _first_record(path: Path, address: str, form: CsvForm) -> _First:
    with opened(path, address) as file:
        raw = b"".join(_up_to(_text_of(file, form.encoding, address), _BLOCK))
    if not raw.strip(b"\r\n\t "):
        raise DataRejected(f"{address} is empty" if len(raw) < _BLOCK else f"{address} begins with empty lines only")
    text = raw.decode("utf-8", "replace")
    first = _cut(text, form.quote)
    if form.header and "\ufffd" in first.text:
        raise DataRejected(f"{address} has a header with bytes that are not {form.encoding}; {_OTHER_ENCODING}")
    if form.header and not first.text.strip():
        raise DataRejected(f"{address} has no header: its first line is empty")
    if not first.end and len(raw) >= _BLOCK:
        raise DataRejected(f"{address} has a first line of more than {_BLOCK:,} bytes; is a quote in it not closed?")
    return first


def _up_to(blocks: Iterator[bytes], size: int) -> Iterator[bytes]:
    for block in blocks:
        yield block
        size -= len(block)
        if size <= 0:
            return


def _cut(text: str, quote: str) -> _First:
    """Return the text up to the first line break that is not quoted."""
    place = 0
    for number, part in enumerate(text.split(quote)):
        if number % 2 == 0 and (found := _BREAK.search(part)):
            return _First(text[: place + found.start()], found[0])
        place += len(part) + 1
    return _First(text, "")


@cache
def _segment(quote: str) -> re.Pattern[str]:
    """Return what matches a part in quotes."""
    quote = re.escape(quote)
    return re.compile(rf"{quote}((?:[^{quote}]|{quote}{quote})*+){quote}")


@cache
def _field(quote: str, separator: str) -> re.Pattern[str]:
    """Return what matches a field, up to the separator or the end."""
    quote, separator = re.escape(quote), re.escape(separator)
    return re.compile(rf"(?:{quote}(?:[^{quote}]|{quote}{quote})*+(?:{quote}|$)|[^{separator}{quote}])*+")


def split(record: str, form: CsvForm) -> list[str | None]:
    """Return the fields of a record; None for null."""
    if form.quote not in record:
        return [None if text == form.null_text else text for text in record.split(form.separator)]
    one = _field(form.quote, form.separator)
    fields, place = list[str | None](), 0
    while found := one.match(record, place):
        fields.append(_value(found[0], form))
        place = found.end() + 1
        if place > len(record):
            break
    return fields


def _value(text: str, form: CsvForm) -> str | None:
    if form.quote not in text:
        return None if text == form.null_text else text
    return _segment(form.quote).sub(lambda quoted: quoted[1].replace(form.quote * 2, form.quote), text)


def require_columns(address: str, names: Sequence[str], fields: Sequence[Field], table: str) -> None:
    """Raise DataRejected unless a file has the columns of the table, in any order; the message names both."""
    wanted = {one.name for one in fields}
    missing = [one.name for one in fields if one.name not in names and not one.may_be_absent]
    others = [name for name in names if name not in wanted]
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if not (missing or others or repeated):
        return
    what = [f"{', '.join(missing)} missing"] if missing else []
    what += [f"{', '.join(repr(name) for name in others)} not known"] if others else []
    what += [f"{', '.join(repeated)} repeated"] if repeated else []
    shown = f"it has {', '.join(map(repr, names))}; {table} takes {', '.join(one.name for one in fields)}"
    raise DataRejected(
        f"{address} has other columns than {table}: {'; '.join(what)} ({shown}){_likely(names, missing)}"
    )


def _likely(names: Sequence[str], missing: Sequence[str]) -> str:
    for separator in _SEPARATORS:
        if len(names) == 1 and separator in names[0]:
            return f"; is it separated by {separator!r}? Then set `csv: {{separator: {separator!r}}}`"
    folded = {name.casefold(): name for name in names}
    pairs = [(name, folded.get(name.casefold()) or next(iter(get_close_matches(name, names, n=1)), None))
             for name in missing]  # fmt: skip
    meant = [f"{other!r} for {name}" for name, other in pairs if other]
    return f"; is {' and '.join(meant)}? Then rename it in the file or the table" if meant else ""
