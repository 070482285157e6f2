"""Where the characters of a text are in its file, whatever its quotes, its escapes and its line breaks.

Knows how YAML writes a scalar, not the library that reads it. Lines and columns begin with 0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

Place: TypeAlias = tuple[int, int]
"""A line and a column."""


_COMMENT_LIKE_TEXT = re.compile(r"[ \t]+#[^\s#]")
CUT_OFF = (
    "what follows ' #' is a comment in YAML, so the text ends before it",
    "quote the whole text; or write a space after the #, if it is a comment",
)
"""The message and the hint for an unquoted text that a # may have cut."""


def is_cut_off(lines: Sequence[str], line: int, column: int) -> bool:
    """Return whether an unquoted text that ends there seems to go on: people begin a comment with `# `."""
    return line < len(lines) and _COMMENT_LIKE_TEXT.match(lines[line], column) is not None


_ANCHOR = re.compile(r"&\S+\s+")


def after_anchor(lines: Sequence[str], line: int, column: int) -> Place:
    """Return where a text begins whose node begins there, perhaps with an anchor."""
    anchor = _ANCHOR.match(lines[line], column) if line < len(lines) else None
    return line, anchor.end() if anchor else column


@dataclass(frozen=True)
class Positions:
    """The places of the characters of `text`, which is written from `start` to `end` in one of YAML's styles.

    YAML folds and indents with white space only: the n-th other character of the text is the n-th of its source.
    """

    text: str
    style: str | None
    start: Place
    end: Place
    lines: Sequence[str]

    def of(self, offset: int) -> Place:
        """Return line and column of the character at `offset`; of white space, of the next other one."""
        nth = sum(not sign.isspace() for sign in self.text[:offset])
        return self._source[min(nth, len(self._source) - 1)]

    @cached_property
    def _source(self) -> Sequence[Place]:
        """The places of the characters that are not white space."""
        (first_line, first_column), (last_line, last_column) = self.start, self.end
        quote = self.style if self.style in ("'", '"') else ""
        found: list[Place] = []
        is_block = self.style in ("|", ">")
        for number in range(first_line + is_block, min(last_line + 1, len(self.lines))):
            line = self.lines[number]
            first = first_column + len(quote) if number == first_line else 0
            last = last_column - len(quote) if number == last_line else len(line)
            found += [(number, column) for column in _characters(line, first, last, quote)]
        return found or [self.start]


_ESCAPED = {"'": re.compile(r"''|\S"), '"': re.compile(r"\\(?:x..|u.{4}|U.{8}|.|$)|\S"), "": re.compile(r"\S")}
_SPACE = r"09|0[a-dA-D]|20|85|[aA]0"
_ESCAPED_SPACE = re.compile(rf"\\(?:[tnvfr NLP_\t]|$|x(?:{_SPACE})|u(?:00(?:{_SPACE})|202[89]))")


def _characters(line: str, first: int, last: int, quote: str) -> Iterator[int]:
    """Yield the column of each character of a line of a scalar; an escape is one, or none if it is white space."""
    for match in _ESCAPED[quote].finditer(line, first, last):
        if not (quote == '"' and _ESCAPED_SPACE.fullmatch(match.group())):
            yield match.start()
