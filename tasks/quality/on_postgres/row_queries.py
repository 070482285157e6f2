"""The query of an `unexpected_rows_expectation`: what is allowed, and its condition on a row.

Knows the text of a query as Great Expectations reads it, with `{batch}` for the rows under test.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlglot import Token
    from sqlglot.expressions import Expr

BATCH = "subselect"
"""The name of the rows under test in SQL; the library uses the same for `{batch}`."""

_STAND_IN = "__batch__"
_PLAIN = {"expressions", "from_", "where", "order"}
"""The parts of a SELECT whose result rows are still rows of the batch."""


def check_query(query: str, *, batch: bool = True) -> None:
    """Raise ValueError unless `query` is one SELECT, and from `{batch}` if `batch` is true."""
    import sqlglot
    from sqlglot import exp

    text = _substituted(query)
    if batch and _STAND_IN not in text:
        raise ValueError("does not read from {batch}, so it would look at rows outside the batch")
    try:
        parsed = [tree for tree in sqlglot.parse(text, dialect="postgres") if tree is not None]
    except sqlglot.errors.SqlglotError as error:
        raise ValueError(f"is not valid Postgres SQL: {_first_problem(error)}") from None
    if len(parsed) != 1 or not isinstance(parsed[0], exp.Query):
        raise ValueError(f"is {_counted(parsed)}, not one SELECT")
    if changed := parsed[0].find(exp.DML, exp.DDL, exp.Into):
        raise ValueError(f"contains {changed.key.upper()}, but the query must not change anything")
    if batch and _is_renamed(parsed[0]):
        raise ValueError(f"gives {{batch}} another name: the library calls it {BATCH!r}, except in a query with a JOIN")


def condition_of(query: str) -> str | None:
    """Return the condition under which `query` returns a row of the batch; None if it does more than that."""
    try:
        check_query(query)
    except ValueError:
        return None
    text = _substituted(query)
    if not _is_plain(_select(text)):
        return None
    return _after_where(text)


def _substituted(query: str) -> str:
    """Return the query with a table's name for `{batch}`, as the library would format it."""
    try:
        return query.format(batch=_STAND_IN)
    except (KeyError, IndexError, ValueError) as error:
        reason = "write a literal brace twice; {batch} is the only name"
        raise ValueError(f"cannot be filled in ({error}): {reason}") from None


def _select(text: str) -> Expr:
    import sqlglot

    return sqlglot.parse_one(text, dialect="postgres")


def _is_plain(tree: Expr) -> bool:
    from sqlglot import exp

    if not isinstance(tree, exp.Select) or {name for name, part in tree.args.items() if part} - _PLAIN:
        return False
    tables = [table.name for table in tree.find_all(exp.Table)]
    source = tree.args["from_"].this if tree.args.get("from_") else None
    aggregates = any(column.find(exp.AggFunc) for column in tree.expressions)
    return (
        isinstance(source, exp.Table) and source.name == _STAND_IN and tables.count(_STAND_IN) == 1 and not aggregates
    )


def _is_renamed(tree: Expr) -> bool:
    from sqlglot import exp

    renamed = any(table.name == _STAND_IN and table.alias for table in tree.find_all(exp.Table))
    return renamed and tree.find(exp.Join) is None


def _after_where(text: str) -> str:
    """Return the text after WHERE, untouched; TRUE if there is no WHERE."""
    import sqlglot
    from sqlglot import TokenType

    outermost = _outermost(sqlglot.tokenize(text, dialect="postgres"))
    start = next((token.end + 1 for token in outermost if token.token_type == TokenType.WHERE), None)
    if start is None:
        return "TRUE"
    ends = [token.start for token in outermost if token.token_type in (TokenType.ORDER_BY, TokenType.SEMICOLON)]
    return f"({text[start : min(ends, default=len(text))].strip()}\n)"


def _outermost(tokens: list[Token]) -> list[Token]:
    """Return the tokens outside all parentheses."""
    from sqlglot import TokenType

    depth, outside = 0, []
    for token in tokens:
        depth -= token.token_type == TokenType.R_PAREN
        if depth == 0:
            outside.append(token)
        depth += token.token_type == TokenType.L_PAREN
    return outside


def _counted(parsed: list[Expr]) -> str:
    return f"{len(parsed)} SQL statements" if len(parsed) != 1 else f"a {parsed[0].key.upper()} statement"


def _first_problem(error: Exception) -> str:
    problem = (getattr(error, "errors", None) or [{}])[0]
    return f"{problem.get('description', 'cannot be read').rstrip('.')} near {problem.get('highlight', '')!r}"
