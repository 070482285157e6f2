"""The bytes of a CSV file as text: unpacked, decoded and split into lines.

Knows how files are packed and encoded; knows nothing about quotes, fields or rows.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, BinaryIO, TextIO, cast

from pydantic import AfterValidator

_UNPACKERS: dict[bytes, Callable[[BinaryIO], object]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
"""By a file's first bytes."""
_ZIP, _EMPTY_ZIP = b"PK\x03\x04", b"PK\x05\x06"
_REFUSED = {
    b"\x28\xb5\x2f\xfd": "zstd",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"PAR1": "Parquet",
}
_PACKED_NAMES = (".gz", ".bz2", ".xz", ".zip", ".zst", ".lz4", ".snappy", ".deflate")
"""Names by which Hadoop would unpack a file, whatever is in it."""
_HEAD = 8
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
    head = _head(file)
    packed = any(head.startswith(magic) for magic in (*_UNPACKERS, _ZIP, _EMPTY_ZIP))
    return encoding == "utf-8" and not packed and not name.lower().endswith(_PACKED_NAMES)


@contextmanager
def opened_text(file: BinaryIO, encoding: str) -> Iterator[TextIO]:
    """Provide the text of a file, from its beginning; its line ends are as in the file.

    Bytes that are not text become U+FFFD. Raises ValueError for a file that is packed in a way that is not known here,
    for a packed one that is broken, and for one whose first bytes say that it has another encoding.
    """
    try:
        with _unpacked(file) as plain:
            start = plain.read(4)
            _check_mark(start, encoding)
            plain.seek(0)
            text = io.TextIOWrapper(plain, encoding=encoding, errors="replace", newline="")
            if text.read(1) != _MARK:
                text.seek(0)
            yield text
            text.detach()
    except (EOFError, zipfile.BadZipFile, zlib.error, gzip.BadGzipFile, lzma.LZMAError) as error:
        raise ValueError(f"is packed, and broken or cut off ({error}); export or copy it again") from error


@contextmanager
def _unpacked(file: BinaryIO) -> Iterator[BinaryIO]:
    head = _head(file)
    for magic, kind in _REFUSED.items():
        if head.startswith(magic):
            raise ValueError(f"is {kind}, not CSV; export it as CSV, plain or packed as gzip, bzip2, xz or zip")
    for magic, opener in _UNPACKERS.items():
        if head.startswith(magic):
            with cast("BinaryIO", opener(file)) as plain:
                yield plain
            return
    if not head.startswith((_ZIP, _EMPTY_ZIP)):
        yield file
        return
    with zipfile.ZipFile(file) as archive, archive.open(_only_name(archive)) as member:
        yield cast("BinaryIO", member)


def _only_name(archive: zipfile.ZipFile) -> str:
    files = [info for info in archive.infolist() if not info.is_dir()]
    names = [info.filename for info in files if not info.filename.startswith("__MACOSX/")]
    if "[Content_Types].xml" in names:
        raise ValueError("is an Excel workbook or another document, not CSV; export it as CSV")
    if len(names) != 1:
        shown = ", ".join(names[:5]) or "none"
        raise ValueError(f"is a zip with {len(names)} files ({shown}); pack the CSV alone")
    if any(info.flag_bits & 1 for info in files):
        raise ValueError("is a zip with a password; pack the CSV without one")
    return names[0]


def _check_mark(start: bytes, encoding: str) -> None:
    """Raise ValueError if a file's first bytes say another encoding."""
    kind = "utf-32" if start == codecs.BOM_UTF32_LE else next((_MARKS[m] for m in _MARKS if start.startswith(m)), None)
    if encoding in _MARKED and kind is None and start:
        raise ValueError(f"does not begin with a byte order mark; set `encoding` to {encoding}-le or {encoding}-be")
    if kind and not encoding.startswith(kind):
        remedy = "leave `encoding` out" if kind == "utf-8" else f"set `encoding: {kind}`"
        raise ValueError(f"is {kind.upper()} text, as its first bytes say; {remedy}")


def _head(file: BinaryIO) -> bytes:
    file.seek(0)
    head = file.read(_HEAD)
    file.seek(0)
    return head
