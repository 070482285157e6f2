"""What the server's own parser reads in a SQL text: tokens, statements, the first mistake.

libpg_query is the parser of Postgres 18 as a library. Two of its traps are closed here: it stops at a NUL without
saying so, and it ends the process if a text is nested too deeply.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, TypeAlias

Tree: TypeAlias = Any
"""A part of a parse tree: `{"FuncCall": {"funcname": […], "location": 7}}`, lists of such, and plain values."""

MAX_DEPTH = 1000
"""How deeply a text may be nested, by a bound from its tokens."""

PLACES = frozenset(
    {
        "list_end",
        "list_start",
        "location",
        "name_location",
        "rexpr_list_end",
        "rexpr_list_start",
        "stmt_len",
        "stmt_location",
    }
)
"""The keys of a tree that only say where something is written."""

COMMENTS = frozenset({"SQL_COMMENT", "C_COMMENT"})
SEMICOLON = "ASCII_59"
_OPENING, _CLOSING, _COMMA = frozenset({"ASCII_40", "ASCII_91"}), frozenset({"ASCII_41", "ASCII_93"}), "ASCII_44"
_LONG_OPERATOR = re.compile(r"[-+*/<>=~!@#%^&|`?]{65}")
_SET_OPERATIONS = frozenset({"UNION", "INTERSECT", "EXCEPT"})

# In the parser's JSON a quote within a text is escaped, so no text looks like a key.
_PLACE = re.compile(rb',?"(?:' + "|".join(sorted(PLACES)).encode() + rb')":-?\d+')
_NODE = re.compile(rb'"([A-Z]\w*)":')


class SyntaxProblem(ValueError):
    """A text that Postgres cannot read; `place` is the index in it of what is wrong."""

    def __init__(self, message: str, place: int = 0) -> None:
        super().__init__(message)
        self.place = place


class Token(NamedTuple):
    """A token: its name in Postgres' grammar, such as IDENT, SCONST, PARAM or ASCII_40 for a parenthesis."""

    kind: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Parsed:
    """What the parser makes of a text, as JSON: protobuf's reader would give up at 100 levels."""

    json: bytes

    @property
    def statements(self) -> list[Tree]:
        """The tree of each statement."""
        try:
            return [statement.get("stmt", {}) for statement in json.loads(self.json).get("stmts", ())]
        except RecursionError:
            raise SyntaxProblem("is nested too deeply to be read") from None

    @property
    def meaning(self) -> bytes:
        """Equal for two texts that differ at most in where things are written."""
        return _PLACE.sub(b"", self.json)

    @property
    def nodes(self) -> set[str]:
        """The names of all nodes."""
        return {name.decode() for name in _NODE.findall(self.json)}


def tokens(text: str) -> list[Token]:
    """Return the tokens of `text`, comments included; raise SyntaxProblem for an open quote or comment."""
    if (nul := text.find("\0")) >= 0:
        raise SyntaxProblem("contains the character NUL", nul)
    if _LONG_OPERATOR.search(text):  # the scanner's time grows with its square
        raise SyntaxProblem("contains an operator of more than 64 characters", 0)
    postgast = _library()
    try:
        scanned = postgast.scan(text).tokens
    except postgast.PgQueryError as error:
        raise SyntaxProblem(error.message, max(error.cursorpos - 1, 0)) from None
    except UnicodeEncodeError as error:
        raise SyntaxProblem("contains half of a surrogate pair, which is not a character", error.start) from None
    names = _token_names()
    found = [Token(names.get(token.token, f"ASCII_{token.token}"), token.start, token.end) for token in scanned]
    return found if text.isascii() else list(_in_characters(found, text.encode()))


def statements(text: str) -> list[Tree]:
    """Return the tree of each statement; raise SyntaxProblem if Postgres could not read `text`."""
    require_shallow(tokens(text))
    return parsed(text).statements


def parsed(text: str) -> Parsed:
    """Return what the parser makes of a text that is known to be shallow; raise SyntaxProblem if it cannot read it."""
    _library()
    from postgast.native import lib

    result = lib.pg_query_parse(text.encode())
    try:
        if result.error:
            error = result.error.contents
            raise SyntaxProblem(error.message.decode(), max(error.cursorpos - 1, 0))
        return Parsed(result.parse_tree)
    finally:
        lib.pg_query_free_parse_result(result)


def require_shallow(found: Sequence[Token]) -> None:
    """Raise SyntaxProblem for tokens that may be nested more deeply than the parser can bear.

    A level of nesting needs a token of its own. A comma, though, ends what stands before it inside the nearest
    parentheses, so a long list is not deep.
    """
    outside: list[tuple[int, int]] = []
    before, here, joined = 0, 0, 0
    for token in found:
        here += 1
        if before + here + joined > MAX_DEPTH:
            raise SyntaxProblem(f"may be nested more than {MAX_DEPTH:,} levels deep", token.start)
        if token.kind in _OPENING:
            outside.append((here, joined))
            before, here, joined = before + here + joined, 0, 0
        elif token.kind in _CLOSING and outside:
            here, joined = outside.pop()
            before -= here + joined
        elif token.kind == _COMMA:
            here = 0
        elif token.kind == SEMICOLON:
            here = joined = 0
        elif token.kind in _SET_OPERATIONS:
            joined += 1


def outermost(found: Sequence[Token]) -> list[Token]:
    """Return the tokens outside all parentheses."""
    depth, outside = 0, []
    for token in found:
        depth -= token.kind in _CLOSING
        if depth == 0:
            outside.append(token)
        depth += token.kind in _OPENING
    return outside


def same(one: Tree, other: Tree) -> bool:
    """Return whether two trees differ at most in where things are written."""
    pairs = [(one, other)]
    while pairs:
        left, right = pairs.pop()
        if isinstance(left, dict) and isinstance(right, dict):
            names = left.keys() | right.keys()
            pairs += [(left.get(name), right.get(name)) for name in names if name not in PLACES]
        elif isinstance(left, list) and isinstance(right, list):
            if len(left) != len(right):
                return False
            pairs += zip(left, right, strict=True)
        elif left != right or type(left) is not type(right):
            return False
    return True


def nodes(tree: Tree) -> list[tuple[str, Tree]]:
    """Return every mapping and list in `tree`, with its key: the name of a node or of a field."""
    found: list[tuple[str, Tree]] = [("", tree)]
    for _, part in found:  # it grows meanwhile
        if isinstance(part, dict):
            found += [one for one in part.items() if isinstance(one[1], dict | list)]
        else:
            found += [("", item) for item in part if isinstance(item, dict | list)]
    return found


@cache
def _library() -> Any:
    import postgast

    return postgast


@cache
def _token_names() -> dict[int, str]:
    return {number: name for name, number in _library().pg_query_pb2.Token.items()}


def _in_characters(found: list[Token], data: bytes) -> Iterator[Token]:
    """Yield tokens whose places count characters; the parser counts bytes."""
    bytes_before = characters = 0
    for token in found:
        start = characters + len(data[bytes_before : token.start].decode())
        characters = start + len(data[token.start : token.end].decode())
        bytes_before = token.end
        yield Token(token.kind, start, characters)


def without_comments(query: str) -> str:
    """Return a query without comments and without a semicolon, so that more SQL can be written around it."""
    kept, end = [], 0
    for token in tokens(query):
        if token.kind in COMMENTS or token.kind == SEMICOLON:
            kept += [query[end : token.start], " "]
            end = token.end
    return "".join([*kept, query[end:]]).strip()
