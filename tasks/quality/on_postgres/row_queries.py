"""The query of an `unexpected_rows_expectation`: what is allowed, its condition on a row, and how the library takes it.

Knows the text of a query as a suite has it, with `{batch}` for the rows under test.
"""

from __future__ import annotations

import re

from tasks.postgres import expressions
from tasks.postgres.expressions import BATCH, PLACEHOLDER
from tasks.postgres.functions import harmless
from tasks.postgres.grammar import SEMICOLON, Token, Tree, nodes, outermost, tokens

SUBSELECT = "subselect"
"""The name of the rows under test in SQL; the library uses the same for `{batch}`."""

_PLAIN = frozenset({"targetList", "fromClause", "whereClause", "sortClause", "limitOption", "op"})
"""The parts of a SELECT whose result rows are still rows of the batch."""

# SQLAlchemy reads `:name` as a parameter, unless a backslash is before the colon, which it then takes away.
_PARAMETER = re.compile(r"(?<![:\w\\])(?=:\w+(?![:\w]))")
_ESCAPE = re.compile(r"\\(?=:\w*(?![:\w]))")


def check_query(pieces: tuple[str, ...], *, batch: bool = True, functions: frozenset[str] | None = frozenset()) -> None:
    """Raise ValueError unless a text is one SELECT whatever its values are, and from `{batch}` if `batch` is true."""
    if batch and not any(PLACEHOLDER in piece for piece in pieces):
        raise ValueError("does not read from {batch}, so it would look at rows outside the batch")
    tree = expressions.check_query(pieces, functions)
    if batch and _is_renamed(tree):
        raise ValueError(
            f"gives {{batch}} another name: the library calls it {SUBSELECT!r}, except in a query with a JOIN"
        )


def condition_of(query: str) -> str | None:
    """Return the condition under which `query` returns a row of the batch; None if it does more than that."""
    try:
        check_query((query,), functions=None)
        tree = expressions.check_query((query,), None)
    except ValueError:
        return None
    return _after_where(query.replace(PLACEHOLDER, BATCH)) if _is_plain(tree) else None


def for_library(query: str) -> str:
    """Return the query as the library takes it, which formats it with Python and gives it to SQLAlchemy as text."""
    escaped = _PARAMETER.sub(r"\\", _ESCAPE.sub(r"\\\\", query))
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
