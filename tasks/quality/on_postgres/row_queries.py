"""The query of an `unexpected_rows_expectation`: what is allowed, its condition on a row, and how the library takes it.

Knows the text of a query as a suite has it, with `{batch}` for the rows under test.
"""

from __future__ import annotations

import re
from typing import Literal

from tasks.postgres import expressions, grammar
from tasks.postgres.expressions import BATCH, PLACEHOLDER
from tasks.postgres.functions import harmless
from tasks.postgres.grammar import SEMICOLON, SyntaxProblem, Token, Tree, nodes, outermost, statements, tokens

SUBSELECT = "subselect"
"""The name of the rows under test in SQL; the library uses the same for `{batch}`."""

_PLAIN = frozenset({"targetList", "fromClause", "whereClause", "sortClause", "limitOption", "op"})
"""The parts of a SELECT whose result rows are still rows of the batch."""

# SQLAlchemy reads `:name` as a parameter, unless a backslash is before the colon, which it then takes away.
_PARAMETER = re.compile(r"(?<![:\w\\])(?=:\w+(?![:\w]))")
_ESCAPE = re.compile(r"\\(?=:\w*(?![:\w]))")


BatchUse = Literal["required", "allowed", "elsewhere"]
"""Whether a query has to read from the batch, may, or cannot, since it is asked of another database."""


def check_query(
    pieces: tuple[str, ...], batch: BatchUse = "required", *, functions: frozenset[str] | None = frozenset()
) -> None:
    """Raise ValueError unless a text is one SELECT, whatever its values are, that the library can ask."""
    is_read = any(PLACEHOLDER in piece for piece in pieces)
    if batch == "required" and not is_read:
        raise ValueError("does not read from {batch}, so it would look at rows outside the batch")
    if batch == "elsewhere" and is_read:
        raise ValueError("reads from {batch}, but it is asked of another database, which does not have it")
    tree = expressions.check_query(pieces, functions)
    if is_read and _is_renamed(tree):
        raise ValueError(
            f"gives {{batch}} another name: the library calls it {SUBSELECT!r}, except in a query with a JOIN"
        )
    _require_askable(pieces)


def _require_askable(pieces: tuple[str, ...]) -> None:
    """Raise ValueError if a query no longer can be read when the library puts the batch and its own query around it."""
    numbered = "".join(f"${place}{piece}" if place else piece for place, piece in enumerate(pieces))
    try:
        statements(f"SELECT count(*) FROM ({as_asked(numbered, 'SELECT')}) AS asked")  # noqa: S608  it is only read
    except SyntaxProblem as problem:
        form = "(SELECT …)" if _joins(numbered) else f"(SELECT …) AS {SUBSELECT}"
        raise ValueError(f"cannot be asked about a batch: {{batch}} becomes {form}, and then {problem}") from None


def as_asked(query: str, rows: str) -> str:
    """Return a query over `rows`, a SELECT, as the library asks it: it gives them a name unless there is a JOIN."""
    text = without_comments(query)
    return text.replace(PLACEHOLDER, f"({rows})" if _joins(text) else f"({rows}) AS {SUBSELECT}")


def without_comments(query: str) -> str:
    """Return a query without comments and without a semicolon, since the library writes more SQL after it."""
    return grammar.without_comments(query.replace(PLACEHOLDER, BATCH)).replace(BATCH, PLACEHOLDER)


def _joins(query: str) -> bool:
    return any(token.kind == "JOIN" for token in tokens(query.replace(PLACEHOLDER, BATCH)))


def condition_of(query: str) -> str | None:
    """Return the condition under which `query` returns a row of the batch; None if it does more than that."""
    try:
        check_query((query,), functions=None)
        tree = expressions.check_query((query,), None)
    except ValueError:
        return None
    return _after_where(query.replace(PLACEHOLDER, BATCH)) if _is_plain(tree) else None


def for_library(query: str, batch: BatchUse = "required") -> str:
    """Return the query as the library takes it, which formats it with Python and gives it to SQLAlchemy as text."""
    escaped = _PARAMETER.sub(r"\\", _ESCAPE.sub(r"\\\\", without_comments(query)))
    if batch == "elsewhere":
        return escaped  # it is not formatted
    return PLACEHOLDER.join(part.replace("{", "{{").replace("}", "}}") for part in escaped.split(PLACEHOLDER))


def _is_plain(tree: Tree) -> bool:
    select = tree["SelectStmt"]
    if select.keys() - _PLAIN:
        return False
    parts = nodes(tree)
    tables = [part["relname"] for name, part in parts if name == "RangeVar"]
    called = [
        part["funcname"][-1]["String"]["sval"] for name, part in nodes(select["targetList"]) if name == "FuncCall"
    ]
    source = select.get("fromClause", [{}])
    return (
        len(source) == 1
        and source[0].get("RangeVar", {}).get("relname") == BATCH
        and tables.count(BATCH) == 1
        and not harmless().aggregates.intersection(called)
    )


def _is_renamed(tree: Tree) -> bool:
    parts = nodes(tree)
    renamed = any(name == "RangeVar" and part["relname"] == BATCH and "alias" in part for name, part in parts)
    return renamed and not any(name == "JoinExpr" for name, _ in parts)


def _after_where(text: str) -> str:
    """Return the text after WHERE, untouched; TRUE if there is no WHERE."""
    outside = outermost(tokens(text))
    start = next((token.end for token in outside if token.kind == "WHERE"), None)
    if start is None:
        return "TRUE"
    ends = [token.start for token, after in zip(outside, [*outside[1:], None], strict=True) if _ends(token, after)]
    return f"({text[start : min(ends, default=len(text))].strip()}\n)"


def _ends(token: Token, after: Token | None) -> bool:
    return token.kind == SEMICOLON or (token.kind == "ORDER" and after is not None and after.kind == "BY")
