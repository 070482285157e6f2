"""The bytes of a CSV file as text: decoded and split into lines.

Knows how files are encoded; knows nothing about quotes, fields or rows.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, BinaryIO, TextIO

from pydantic import AfterValidator

from tasks.files.packed import is_packed, unpacked

_PACKED_NAMES = (".gz", ".bz2", ".xz", ".zip", ".zst", ".lz4", ".snappy", ".deflate")
"""Names by which Hadoop would unpack a file, whatever is in it."""
_NO_TEXT = ("utf-7", "idna", "punycode", "unicode-escape", "raw-unicode-escape", "undefined")
"""Python's encodings of something else than a file's text."""
_MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_MARKED = ("utf-16", "utf-32")
"""Encodings whose byte order only the file's first bytes can say."""
_MARK = "\ufeff"


def _encoding(name: str) -> str:
    try:
        known = codecs.lookup(name).name.replace("_", "-")
        "".encode(known)
    except LookupError:
        known = ""
    if not known or known in _NO_TEXT:
        raise ValueError(f"{name} is not an encoding of text; known are utf-8, utf-16, latin-1, cp1252 and others")
    return "utf-8" if known in ("utf-8-sig", "ascii") else known


Encoding = Annotated[str, AfterValidator(_encoding)]
"""How a file's bytes are text, in one of the names that it has: `utf-8`, `UTF-16`, `latin-1`, `cp1252`."""


def is_plain(file: BinaryIO, name: str, encoding: str) -> bool:
    """Return whether Spark reads the file's lines itself: UTF-8, and not packed."""
    return encoding == "utf-8" and not is_packed(file) and not name.lower().endswith(_PACKED_NAMES)


@contextmanager
def opened_text(file: BinaryIO, encoding: str) -> Iterator[TextIO]:
    """Provide the text of a file, from its beginning; its line ends are as in the file.

    Bytes that are not text become U+FFFD. Raises ValueError for a file that is packed in a way that is not known here,
    for a packed one that is broken, and for one whose first bytes say that it has another encoding.
    """
    with unpacked(file, "CSV") as plain:
        start = plain.read(4)
        _check_mark(start, encoding)
        plain.seek(0)
        text = io.TextIOWrapper(plain, encoding=encoding, errors="replace", newline="")
        if text.read(1) != _MARK:
            text.seek(0)
        yield text
        text.detach()


def _check_mark(start: bytes, encoding: str) -> None:
    """Raise ValueError if a file's first bytes say another encoding."""
    kind = "utf-32" if start == codecs.BOM_UTF32_LE else next((_MARKS[m] for m in _MARKS if start.startswith(m)), None)
    if encoding in _MARKED and kind is None and start:
        raise ValueError(f"does not begin with a byte order mark; set `encoding` to {encoding}-le or {encoding}-be")
    if kind and not encoding.startswith(kind):
        remedy = "leave `encoding` out" if kind == "utf-8" else f"set `encoding: {kind}`"
        raise ValueError(f"is {kind.upper()} text, as its first bytes say; {remedy}")
