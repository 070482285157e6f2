"""The bytes of a file that may be packed: with gzip, bzip2 or xz, or as the only file in a zip.

Knows a packed file by its first bytes, whatever its name is; knows nothing about the text in it.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, cast

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_ZIP, _EMPTY_ZIP, _SPLIT_ZIP = b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08"
_GZIP, _XZ = b"\x1f\x8b", b"\xfd7zXZ\x00"
_BZIP2 = tuple(b"BZh%d%b" % (level, block) for level in range(1, 10) for block in (b"1AY&SY", b"\x17rE8P\x90"))
"""With a block, or without any: `BZh` alone could be the name of a column."""
_PACKED = (_GZIP, *_BZIP2, _XZ, _ZIP, _EMPTY_ZIP, _SPLIT_ZIP)
_OTHERS = {
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"\xff\x06\x00\x00sNaP": "snappy",
    b"\x1f\x9d": "packed with compress",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!\x1a\x07": "RAR",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"PAR1\x15": "Parquet",
    b"ARROW1\0": "Arrow",
    b"Obj\x01": "Avro",
    b"SQLite format 3\0": "an SQLite database",
    b"%PDF-": "PDF",
}
"""By a file's first bytes, which no header of a CSV has."""
_HEAD = 16
_TAR = slice(257, 262)
_BLOCK = 1 << 16


class Unreadable(ValueError):
    """A file that cannot be unpacked; the text goes on after its name, and ends with what to do."""


def head_of(file: BinaryIO) -> bytes:
    """Return the first bytes of a file."""
    file.seek(0)
    head = file.read(_HEAD)
    file.seek(0)
    return head


def is_packed(file: BinaryIO) -> bool:
    """Return whether a file has to be unpacked."""
    return head_of(file).startswith(_PACKED)


@contextmanager
def unpacked(file: BinaryIO, wanted: str) -> Iterator[BinaryIO]:
    """Provide the bytes that a file has, unpacked, from their beginning; `wanted` is what they should be: CSV.

    Raises Unreadable, here or where the bytes are read, for what is broken, cut off, or packed in a way that is not
    known here.
    """
    _require_known(head_of(file), wanted)
    try:
        with _opened(file, wanted) as plain:
            if plain is not file:
                _require_single(plain, wanted)
            yield plain
    except OSError as error:
        if error.errno is not None or type(error) not in (OSError, gzip.BadGzipFile):
            raise
        raise _broken(error) from error  # of bzip2, which has no error of its own
    except (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile) as error:
        raise _broken(error) from error


def _broken(error: Exception) -> Unreadable:
    return Unreadable(f"is packed, and broken or cut off ({error}); export or copy it again")


@contextmanager
def _opened(file: BinaryIO, wanted: str) -> Iterator[BinaryIO]:
    head = head_of(file)
    if head.startswith((_ZIP, _EMPTY_ZIP, _SPLIT_ZIP)):
        with _zip(file, wanted) as plain:
            yield plain
    elif head.startswith(_GZIP):
        with gzip.open(file) as plain:
            yield cast("BinaryIO", plain)
    elif head.startswith((*_BZIP2, _XZ)):
        begin = bz2.BZ2Decompressor if head.startswith(_BZIP2) else lzma.LZMADecompressor
        yield cast("BinaryIO", io.BufferedReader(_Streams(file, begin), _BLOCK))
    else:
        yield file


def _require_known(head: bytes, wanted: str) -> None:
    kind = next((kind for magic, kind in _OTHERS.items() if head.startswith(magic)), None)
    if kind:
        raise Unreadable(f"is {kind}, not {wanted}; export it as {wanted}, plain or packed as gzip, bzip2, xz or zip")


def _require_single(plain: BinaryIO, wanted: str) -> None:
    """Raise Unreadable for what is packed twice, or holds several files."""
    start = plain.read(_TAR.stop)
    plain.seek(0)
    if start.startswith(_PACKED):
        raise Unreadable(f"is packed twice; pack the {wanted} once")
    if start[_TAR] == b"ustar":
        raise Unreadable(f"is a tar, which holds several files; pack the {wanted} alone")
    _require_known(start, wanted)


@contextmanager
def _zip(file: BinaryIO, wanted: str) -> Iterator[BinaryIO]:
    try:
        archive = zipfile.ZipFile(file)
        member = _member(archive, wanted)
    except Unreadable:
        raise
    except OSError as error:
        if error.errno != errno.EINVAL:  # of a place before the file's beginning
            raise
        raise _broken(error) from error
    except (ValueError, OverflowError, NotImplementedError, struct.error) as error:
        raise _broken(error) from error
    with archive, member:
        yield member


def _member(archive: zipfile.ZipFile, wanted: str) -> BinaryIO:
    """Open the only file of a zip."""
    files = [info for info in archive.infolist() if not info.is_dir() and not info.filename.startswith("__MACOSX/")]
    names = [info.filename for info in files]
    if "[Content_Types].xml" in names:
        raise Unreadable(f"is an Excel workbook or another document, not {wanted}; export it as {wanted}")
    if len(files) != 1:
        shown = ", ".join(names[:5]) or "none"
        raise Unreadable(f"is a zip with {len(files)} files ({shown}); pack the {wanted} alone")
    if files[0].flag_bits & 1:
        raise Unreadable(f"is a zip with a password; pack the {wanted} without one")
    try:
        return cast("BinaryIO", archive.open(files[0]))
    except NotImplementedError as error:
        problem = f"is a zip whose file is packed in a way that is not known here ({error})"
        raise Unreadable(f"{problem}; pack it with deflate, or as gzip") from error


class _Streams(io.RawIOBase):
    """Packed streams, one after another, to the last byte of a file.

    Python's own readers of bzip2 and xz end without a word before a stream that is broken, and before zeros between
    two streams.
    """

    def __init__(self, file: BinaryIO, begin: Callable[[], bz2.BZ2Decompressor | lzma.LZMADecompressor]) -> None:
        self._file, self._begin = file, begin
        self._stream = begin()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go back to the beginning, and nowhere else."""
        if (offset, whence) != (0, io.SEEK_SET):
            raise io.UnsupportedOperation("only the beginning can be sought")
        self._file.seek(0)
        self._stream = self._begin()
        return 0

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Read the next bytes."""
        view = memoryview(buffer).cast("B")
        made = self._read(len(view))
        view[: len(made)] = made
        return len(made)

    def _read(self, most: int) -> bytes:
        while True:
            given = b""
            if self._stream.eof:
                if not (given := self._next_stream()):
                    return b""
                self._stream = self._begin()
            elif self._stream.needs_input and not (given := self._file.read(_BLOCK)):
                raise EOFError("it ends within a stream")
            if made := self._stream.decompress(given, most):
                return made

    def _next_stream(self) -> bytes:
        """Return the first bytes after a stream and the zeros that may follow it."""
        rest = self._stream.unused_data
        while not (there := rest.lstrip(b"\0")):
            if not (rest := self._file.read(_BLOCK)):
                return b""
        return there
