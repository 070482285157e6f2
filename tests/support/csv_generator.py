"""CSV files by chance: all that programs write, and lines that Python and the cleaner read in different ways.

The same seed gives the same file.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import zipfile
from dataclasses import dataclass

EXTRA = "one field too many"


@dataclass(frozen=True, slots=True)
class Difference:
    """A line that Python's `csv` and the cleaner read in different ways."""

    line: str
    """`,` is the file's separator; the fields after the first are the row's own, as many as it needs."""
    python: list[str] | None
    """The first fields of Python's row; None if Python has no row."""
    cleaner: list[str] | None
    """Those of the cleaner's row; None if it has none, or a broken one."""
    why: str


DIFFERENCES = {
    "text after a quote": Difference(
        '"a"b', ["ab"], ['"a"b'], "kept as it stands, as nobody knows which of the quotes are meant"
    ),
    "quotes after a quote": Difference('"a" "b"', ['a "b"'], ['"a" "b"'], "kept as it stands"),
    "space after a quote": Difference('"a"  ', ["a  "], ["a"], "white space around a text is removed in any case"),
    "empty": Difference("", [""], [""], "an empty text is null (compared here as an empty one)"),
}
"""Each is the first field of a row with two fields or more."""
LINES = {
    "": "not a row, as in Python, which returns one without fields",
    "   ": "not a row; for Python it is one with one field",
}
"""Lines that are no rows for the cleaner, with the reason."""
ALPHABETS = (
    "abcXYZ019",
    " \t.,;|:'\\#-+/",
    '"',
    "äöüßéñçÄ€ŒŽ",
    "日本語テキスト",
    "😀𝒳",
    "\0\x01\x02\x7f\x85\xa0\u200b\u2028\ufeff",
)
ENCODINGS = ("utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1", "cp1252", "shift_jis")


@dataclass(frozen=True, slots=True)
class Generated:
    """A file, and what is in it."""

    seed: int
    name: str
    content: bytes
    encoding: str
    separator: str
    multiline: bool
    header: list[str]
    python: list[list[str]]
    """Its rows for Python's `csv`, without blank ones."""
    cleaner: list[list[str]]
    """Its rows for the cleaner, with empty texts for nulls."""
    broken: int
    """Its lines that are no rows for the cleaner, blank ones not counted."""


def generated(seed: int) -> Generated:
    """Return the file of a seed."""
    return _Writer(random.Random(seed)).file(seed)


class _Writer:
    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._encoding = chance.choice(ENCODINGS)
        self._separator = chance.choice(",,,;\t|:")
        self._multiline = chance.random() < 0.5
        self._ends = chance.choice([["\n"], ["\n"], ["\r\n"], ["\r"], ["\n", "\r\n", "\r"]])
        self._width = chance.choice([1, 2, 3, 3, 4, 7, 40])
        self._quoting = chance.choice(["needed", "needed", "all", "some"])
        self._text = io.StringIO(newline="")
        self._python: list[list[str]] = []
        self._cleaner: list[list[str]] = []
        self._broken = 0

    def file(self, seed: int) -> Generated:
        header = [f"c{place}" for place in range(self._width)]
        self._line(self._separator.join(map(self._quoted, header)))
        for _ in range(self._chance.choice([1, 3, 10, 30])):
            self._row()
        self._sound([self._plain() or "x" for _ in header])  # so that the file has a row, and ends well
        name, content = self._packed(seed)
        encoding = self._encoding.removesuffix("-sig")
        return Generated(
            seed, name, content, encoding, self._separator, self._multiline, header,
            self._python, self._cleaner, self._broken,
        )  # fmt: skip

    def _packed(self, seed: int) -> tuple[str, bytes]:
        text = self._text.getvalue()
        if self._chance.random() < 0.3:
            text = text.rstrip("\r\n")
        content = text.encode(self._encoding)
        kind = self._chance.choice(["csv"] * 6 + ["gz", "bz2", "xz", "zip"])
        packers = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zip": _zipped}
        name = f"{seed}.{kind}" if kind in ("csv", "zip") else f"{seed}.csv.{kind}"
        return name, packers[kind](content) if kind in packers else content

    def _row(self) -> None:
        kind = self._chance.random()
        if kind < 0.06 and self._width > 1:
            self._different(self._chance.choice(list(DIFFERENCES.values())))
        elif kind < 0.10:
            line = self._chance.choice(list(LINES))
            self._line(line)
            self._python += [[line]] if line else []
        elif kind < 0.13 and self._width > 1:
            self._ragged(["x"] * (self._width - 1))
        elif kind < 0.16:
            self._ragged(["x"] * self._width + [EXTRA])
        else:
            self._sound([self._cell() for _ in range(self._width)])

    def _different(self, difference: Difference) -> None:
        rest = [self._plain() for _ in range(self._width - 1)]
        self._line(self._separator.join([difference.line, *map(self._quoted, rest)]))
        if difference.python is not None:
            self._python.append([*difference.python, *rest])
        if difference.cleaner is not None:
            self._cleaner.append([*difference.cleaner, *rest])

    def _ragged(self, cells: list[str]) -> None:
        self._line(self._separator.join(cells))
        self._python.append(cells)
        self._broken += 1

    def _sound(self, cells: list[str]) -> None:
        texts = list(map(self._quoted, cells))
        if self._width == 1 and not texts[0].strip(" "):
            texts = [f'"{cells[0]}"']
        row = self._separator.join(texts)
        self._line(row)
        self._python.append(cells)
        lines = list(io.StringIO(row, newline=""))
        if len(lines) > 1 and not self._multiline:
            self._broken += sum(1 for line in lines if line.strip(" \r\n"))
        else:
            self._cleaner.append(cells)

    def _line(self, text: str) -> None:
        self._text.write(text + self._chance.choice(self._ends))

    def _cell(self) -> str:
        kind = self._chance.random()
        if kind < 0.15:
            return ""
        if kind < 0.25:
            breaks = self._chance.choice(["\n", "\r\n", "\r", "\n\n", '"\n', "\n,"])
            return f"{self._plain()}{breaks}{self._plain()}"
        if kind < 0.26:
            return self._plain() + "y" * 140_000
        return self._plain()

    def _plain(self) -> str:
        alphabet = self._chance.choice(ALPHABETS[:1] * 3 + ALPHABETS)
        text = "".join(self._chance.choice(alphabet) for _ in range(self._chance.randrange(6)))
        return text.encode(self._encoding, "ignore").decode(self._encoding)

    def _quoted(self, cell: str) -> str:
        needed = any(sign in cell for sign in ('"', "\n", "\r", self._separator))
        by_chance = self._quoting == "all" or (self._quoting == "some" and self._chance.random() < 0.5)
        return '"' + cell.replace('"', '""') + '"' if needed or by_chance else cell


def _zipped(content: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("export.csv", content)
    return packed.getvalue()
