"""SQL that a person wrote in YAML: what is allowed, and how values are inserted.

Knows the text of an expression; never opens a connection.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from psycopg2.sql import Composable, Identifier

SqlValue = str | int | float | bool | Decimal | dt.date | dt.datetime | None


def literal(value: SqlValue | Iterable[SqlValue]) -> str:
    """Return `value` as a Postgres literal; a list becomes `(a, b, …)`, for use after IN."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, int | float | Decimal):
        return f"({value})" if value < 0 else str(value)
    if isinstance(value, dt.datetime):
        return (
            f"TIMESTAMP '{value.isoformat(sep=' ')}'"
            if value.tzinfo is None
            else f"TIMESTAMPTZ '{value.isoformat(sep=' ')}'"
        )
    if isinstance(value, dt.date):
        return f"DATE '{value.isoformat()}'"
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, Iterable):
        return "(" + ", ".join(literal(item) for item in value) + ")"
    raise TypeError(f"a {type(value).__name__} cannot be written as a SQL literal")


def _quoted(text: str) -> str:
    if "\0" in text:
        raise ValueError("SQL text cannot contain the character NUL")
    doubled = text.replace("'", "''")
    return " E'" + doubled.replace("\\", "\\\\") + "'" if "\\" in text else f"'{doubled}'"


def table_identifier(table: str) -> Identifier:
    """Return `schema.table` as a quoted identifier."""
    from psycopg2.sql import Identifier

    return Identifier(*table.split("."))


def quoted_table(table: str) -> str:
    """Return `schema.table` as a text that Postgres reads as the name of a relation."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in table.split("."))


def fragment(expression: str) -> Composable:
    """Return a checked expression for composition, in parentheses so that it cannot affect its surroundings.

    Execute a statement composed with it without further parameters: a `%` in the expression is a plain `%`.
    """
    from psycopg2.sql import SQL

    check_expression(expression)
    return SQL(f"({expression.rstrip()}\n)")


def check_expression(expression: str) -> None:
    """Raise ValueError unless `expression` is one SQL expression: no statement, no subquery."""
    import sqlglot
    from sqlglot import exp

    try:
        parsed = [tree for tree in sqlglot.parse(expression, dialect="postgres") if tree is not None]
    except sqlglot.errors.SqlglotError as error:
        raise ValueError(f"is not a SQL expression: {_first_problem(error)}") from None
    if len(parsed) != 1:
        raise ValueError(f"contains {len(parsed)} SQL statements, not one expression")
    refused = (
        exp.Query,
        exp.Subquery,
        exp.DML,
        exp.DDL,
        exp.Drop,
        exp.Command,
        exp.Alter,
        exp.TruncateTable,
        exp.Set,
        exp.Alias,
    )
    if part := parsed[0].find(*refused):
        raise ValueError(f"contains {part.key.upper()}, but only an expression over the row's columns is allowed")


def _first_problem(error: Exception) -> str:
    problems = getattr(error, "errors", None) or [{}]
    where = problems[0]
    return f"{where.get('description', 'cannot be read').rstrip('.')} near {where.get('highlight', '')!r}"
