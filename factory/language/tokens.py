"""The words and signs of expressions in templates.

Only ASCII letters and digits make names and numbers; whatever else is not quoted is an error with its place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from factory.language.errors import Hint, hint_text


class TemplateProblem(Exception):
    """A template that is wrong; `span` says where in its text."""

    code = "bad-template"

    def __init__(self, message: str, hint: Hint = None, span: tuple[int, int] = (0, 0)) -> None:
        super().__init__(message)
        self.given_hint = hint
        self.span = span

    @property
    def hint(self) -> str | None:
        """How to write it right."""
        return hint_text(self.given_hint)


MAX_NODES = 500
"""The maximum number of parts in one expression."""
MAX_DEPTH = 40
"""How deep an expression may be nested; it bounds every walk over the tree."""


def too_large(start: int, end: int) -> TemplateProblem:
    """Return the problem of an expression beyond one of these limits."""
    message = f"the expression has more than {MAX_NODES} parts, or is nested more than {MAX_DEPTH} deep"
    return TemplateProblem(message, "compute it in SQL, or in several steps", (start, end))


class Token(NamedTuple):
    """A word, a number, a quoted text or a sign."""

    kind: str
    text: str
    start: int
    end: int


_TOKEN = re.compile(
    r"""[ \t\r\n]+
    | (?P<number>[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?![A-Za-z0-9_.]))
    | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<text>'[^'\\]*(?:\\.[^'\\]*)*'|"[^"\\]*(?:\\.[^"\\]*)*")
    | (?P<end>\}\})
    | (?P<sign>==|!=|<=|>=|//|\*\*|&&|\|\||[-+~*/%|().,<>\[\]=!?:{}])
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "\\": "\\", "'": "'", '"': '"'}
KEYWORDS = frozenset({"and", "or", "not", "in", "if", "else", "is", "true", "false", "null"})
CONSTANTS: Mapping[str, bool | None] = {"true": True, "false": False, "null": None}
INSTEAD: Mapping[str, str] = {
    "=": "compare with ==", "**": "multiply with *", "&&": "write and", "||": "write or", "!": "write not",
    "?": "write a if b else c", ":": "write a if b else c", "is": "compare with ==, for example x == null",
    "{": "an expression has lists, but no mappings", "}": "an expression has lists, but no mappings",
}  # fmt: skip
NEGATING, COMPARING = 2, 3
POWERS: Mapping[str, int] = {
    "or": 0, "and": 1, "==": 3, "!=": 3, "<": 3, "<=": 3, ">": 3, ">=": 3, "in": 3, "not in": 3,
    "+": 4, "-": 4, "~": 5, "*": 6, "/": 6, "//": 6, "%": 6,
}  # fmt: skip
"""How tightly each operator binds, as in Jinja and Python; `not` stands between `and` and the comparisons."""


def tokens(text: str, start: int) -> tuple[list[Token], int]:
    """Return the tokens from `start` to the closing braces, and where the text goes on after them."""
    found: list[Token] = []
    position = start
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise _unreadable(text, position)
        position = match.end()
        kind = match.lastgroup
        if kind == "end":
            found.append(Token("end", "}}", match.start(), match.end()))
            return found, position
        if kind is not None:
            found.append(Token(kind, match.group(), match.start(), match.end()))
            if len(found) > 10 * MAX_NODES:
                raise too_large(start, position)
    raise TemplateProblem("the template has no closing }}", "compare it with {{ params.name }}", (start - 2, len(text)))


def _unreadable(text: str, position: int) -> TemplateProblem:
    sign = text[position]
    if sign in "'\"":
        return TemplateProblem(f"the text has no closing {sign}", f"add {sign}", (position, len(text)))
    if sign in "0123456789":
        end = position + len(re.match(r"[A-Za-z0-9_.]*", text[position : position + 100]).group())  # type: ignore[union-attr]  # it matches anything
        return TemplateProblem(
            f"{text[position:end]} is not a number", "write 5, 0.5 or 1e6", (position, max(end, position + 1))
        )
    return TemplateProblem(
        f"the character {sign!r} cannot be used in an expression",
        "names are of letters A to Z, digits and _; quote any other text",
        (position, position + 1),
    )


def unquoted(token: Token) -> str:
    """Return the text that a quoted text means."""
    for escape in _ESCAPE.finditer(token.text[1:-1]):
        if escape[1] not in _ESCAPES:
            at = token.start + 1 + escape.start()
            raise TemplateProblem(f"{escape[0]} is not an escape", r"write \\ for one backslash", (at, at + 2))
    return _ESCAPE.sub(lambda escape: _ESCAPES[escape[1]], token.text[1:-1])
