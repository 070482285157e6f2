"""Values as Postgres literals."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable
from decimal import Decimal
from typing import TypeAlias

SqlValue: TypeAlias = str | int | float | bool | Decimal | dt.date | dt.datetime | None
"""A value that has a literal."""


def literal(value: object) -> str:
    """Return `value` as a Postgres literal; a list becomes `(a, b, …)`, for use after IN."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, int):
        return f"({value})" if value < 0 else str(value)
    if isinstance(value, float | Decimal):
        return _number(value)
    if isinstance(value, dt.datetime):
        kind = "TIMESTAMP" if value.tzinfo is None else "TIMESTAMPTZ"
        return f"{kind} '{value.isoformat(sep=' ')}'"
    if isinstance(value, dt.date):
        return f"DATE '{value.isoformat()}'"
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, Iterable) and not isinstance(value, dict | bytes):
        return "(" + ", ".join(literal(item) for item in value) + ")"
    raise TypeError(f"a {type(value).__name__} cannot be written as a SQL literal")


def braceless(text: str) -> str:
    """Return the same literal without braces."""
    if "{" not in text and "}" not in text:
        return text
    escaped = text if text.startswith(" E") else f" E{text}"  # without an E there is no backslash in it
    return escaped.replace("{", "\\x7b").replace("}", "\\x7d")


def array(values: Iterable[object]) -> str:
    """Return `values` as an array; an empty one as a text, whose type the server takes from where it is used."""
    items = ", ".join(literal(value) for value in values)
    return f"ARRAY[{items}]" if items else "'{}'"


def _number(value: float | Decimal) -> str:
    if math.isfinite(value):
        return f"({value})" if math.copysign(1, value) < 0 else str(value)
    name = "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return f"CAST('{name}' AS {'numeric' if isinstance(value, Decimal) else 'double precision'})"


def _quoted(text: str) -> str:
    if "\0" in text:
        raise ValueError("SQL text cannot contain the character NUL")
    doubled = text.replace("'", "''")
    return " E'" + doubled.replace("\\", "\\\\") + "'" if "\\" in text else f"'{doubled}'"
