"""SQL that is composed: names of tables, and expressions that a person wrote in YAML.

Knows texts only; never opens a connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.postgres.expressions import check_expression

if TYPE_CHECKING:
    from psycopg2.sql import Composable, Identifier


def table_identifier(table: str) -> Identifier:
    """Return `schema.table` as a quoted identifier."""
    from psycopg2.sql import Identifier

    return Identifier(*table.split("."))


def quoted_table(table: str) -> str:
    """Return `schema.table` as a text that Postgres reads as the name of a relation."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in table.split("."))


def fragment(expression: str) -> Composable:
    """Return a checked expression for composition, in parentheses so that it cannot affect its surroundings.

    Which functions it may call is checked before a task is called. Execute a statement composed with it without further
    parameters: a `%` in the expression is a plain `%`.
    """
    from psycopg2.sql import SQL

    check_expression((expression,), None)
    return SQL(f"({expression.rstrip()}\n)")
