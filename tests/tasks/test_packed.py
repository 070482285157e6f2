"""Files that are packed: read to their last byte, or refused with what to do."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import tarfile
import zipfile
from contextlib import suppress

import pytest

from tasks.files.packed import Unreadable, is_packed, unpacked

TEXT = b"id,v\n" + b"".join(b"%d,%x\n" % (number, number * 7919) for number in range(400))
HALF = len(TEXT) // 2


def read(content: bytes) -> bytes:
    with unpacked(io.BytesIO(content), "CSV") as plain:
        plain.read(100)
        plain.seek(0)
        return plain.read()


def in_zip(method: int = zipfile.ZIP_DEFLATED, *, others: tuple[str, ...] = ()) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for name in ("in.csv", *others):
            archive.writestr(name, TEXT)
    return packed.getvalue()


def in_tar() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        member = tarfile.TarInfo("in.csv")
        member.size = len(TEXT)
        archive.addfile(member, io.BytesIO(TEXT))
    return packed.getvalue()


def flagged(content: bytes, flag: int) -> bytes:
    """Return a zip with a flag set, where its only file is and in its index."""
    changed = bytearray(content)
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        changed[changed.index(signature) + place] |= flag
    return bytes(changed)


PACKED = {
    "plain": TEXT,
    "gzip": gzip.compress(TEXT),
    "gzip twice": gzip.compress(TEXT[:HALF]) + gzip.compress(TEXT[HALF:]),
    "gzip with zeros": gzip.compress(TEXT) + bytes(512),
    "bzip2": bz2.compress(TEXT),
    "bzip2 twice": bz2.compress(TEXT[:HALF]) + bz2.compress(TEXT[HALF:]),
    "xz": lzma.compress(TEXT),
    "xz with zeros between": lzma.compress(TEXT[:HALF]) + bytes(8) + lzma.compress(TEXT[HALF:]) + bytes(4),
    "zip": in_zip(),
    "zip of bytes": in_zip(zipfile.ZIP_STORED),
    "zip of bzip2": in_zip(zipfile.ZIP_BZIP2),
    "zip of lzma": in_zip(zipfile.ZIP_LZMA),
    "zip of a Mac": in_zip(others=("__MACOSX/._in.csv",)),
}


@pytest.mark.parametrize("name", PACKED)
def test_packed_file_is_read_to_its_end(name: str) -> None:
    """Streams that follow each other are one text, also with zeros between them."""
    assert read(PACKED[name]) == TEXT
    assert is_packed(io.BytesIO(PACKED[name])) == (name != "plain")


@pytest.mark.parametrize("name", [name for name in PACKED if name != "plain"])
def test_no_damage_is_passed_over(name: str) -> None:
    """A file with other bytes, or without some, gives its text or an error: never another text."""
    whole, chance = PACKED[name], random.Random(7)
    for _ in range(300):
        broken, place = bytearray(whole), chance.randrange(16, len(whole))
        match chance.randrange(3):
            case 0:
                del broken[place:]
            case 1:
                broken[place] ^= 1 << chance.randrange(8)
            case 2:
                broken[place:place] = chance.randbytes(9)
        found = None
        with suppress(Unreadable):
            found = read(bytes(broken))
        assert found in (None, TEXT, TEXT[:HALF]), place  # the half of a file that is cut between two streams


REFUSED = {
    "zstd": (b"\x28\xb5\x2f\xfd1234", "is zstd, not CSV; export it as CSV, plain or packed as gzip, bzip2, xz or zip"),
    "rar": (b"Rar!\x1a\x07\x01\0", "is RAR, not CSV"),
    "database": (b"SQLite format 3\0", "is an SQLite database, not CSV"),
    "split zip": (b"PK\x07\x08" + in_zip()[:-30], "is packed, and broken or cut off (File is not a zip file); export"),
    "zip of two": (in_zip(others=("b.csv",)), "is a zip with 2 files (in.csv, b.csv); pack the CSV alone"),
    "zip with a password": (flagged(in_zip(), 1), "is a zip with a password; pack the CSV without one"),
    "zip with a patch": (
        flagged(in_zip(), 0x20),
        "is a zip whose file is packed in a way that is not known here (compressed patched data (flag bit 5)); pack",
    ),
    "packed twice": (gzip.compress(gzip.compress(TEXT)), "is packed twice; pack the CSV once"),
    "tar": (gzip.compress(in_tar()), "is a tar, which holds several files; pack the CSV alone"),
    "workbook": (in_zip(others=("[Content_Types].xml",)), "is an Excel workbook or another document, not CSV; export"),
    "broken second stream": (
        bz2.compress(TEXT) + b"BZh9" + bytes(40),
        "is packed, and broken or cut off (Invalid data stream); export or copy it again",
    ),
    "text after a stream": (lzma.compress(TEXT) + b"id,v\n", "is packed, and broken or cut off (Input format not"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_unpacked_is_named(name: str) -> None:
    """With what it is, and what to do."""
    content, problem = REFUSED[name]

    with pytest.raises(Unreadable) as told:
        read(content)

    assert str(told.value).startswith(problem)


def test_names_of_columns_are_no_formats() -> None:
    """A text is no other format for its first letters."""
    for header in (b"PAR1,PAR2\n", b"ORC,v\n", b"SQLite,v\n", b"7z,v\n", b"PK,v\n", b"BZhours,v\n", b"BZh9,v\n"):
        assert read(header) == header
