"""SQL statements composed of quoted names and literals, never of text that a person wrote.

Knows how psycopg2 composes; SQL that a person writes is checked in `tasks.postgres.sql`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

EXACT_TEXTS = """
    SET LOCAL datestyle = 'ISO, YMD'; SET LOCAL intervalstyle = 'postgres'; SET LOCAL extra_float_digits = 1;
    SET LOCAL bytea_output = 'hex'; SET LOCAL lc_monetary = 'C'
"""
"""Lets the server write and read every value as the same text, whatever its own settings are."""

if TYPE_CHECKING:
    from collections.abc import Iterable

    from psycopg2.extensions import cursor as Cursor  # noqa: N812  psycopg2 spells its class in lower case
    from psycopg2.sql import Composable


def statement(text: str, **parts: Composable) -> Composable:
    """Return `text` with each `{name}` replaced by that part."""
    from psycopg2.sql import SQL

    return SQL(text).format(**parts)


def name(column: str, *, of: str | None = None) -> Composable:
    """Return a quoted column, qualified with an alias."""
    from psycopg2.sql import Identifier

    return Identifier(column) if of is None else Identifier(of, column)


def names(columns: Iterable[str], *, of: str | None = None) -> Composable:
    """Return quoted columns, separated by commas."""
    return joined(", ", (name(column, of=of) for column in columns))


def joined(separator: str, parts: Iterable[Composable]) -> Composable:
    """Return the parts with `separator` between them."""
    from psycopg2.sql import SQL

    return SQL(separator).join(list(parts))


def value(of: object) -> Composable:
    """Return a Python value as a quoted literal."""
    from psycopg2.sql import Literal

    return Literal(of)


def only_row(cursor: Cursor) -> tuple[Any, ...]:
    """Return the row of a statement that always returns exactly one."""
    row = cursor.fetchone()
    assert row is not None
    return row
