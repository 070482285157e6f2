"""The types that a step declares for the values that come back to it: what templates know, and no more."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

ValueType = Literal["boolean", "integer", "number", "text", "date", "datetime"]
"""A type of the values of templates."""
Scalar: TypeAlias = str | int | float | bool | None
"""A value as JSON has it: dates and datetimes as ISO texts."""
MAX_BYTES = 65_536
"""Of a result: it is kept with the run, and shown in the UI."""
NOUNS: Mapping[str, str] = {
    "boolean": "true or false",
    "integer": "an integer",
    "number": "a number",
    "text": "a text",
    "date": "a date",
    "datetime": "a datetime",
}

_SCHEMAS: Mapping[str, Mapping[str, str]] = {
    "date": {"type": "string", "format": "date"},
    "datetime": {"type": "string", "format": "date-time"},
    "text": {"type": "string"},
}


def schemas_of(returns: Mapping[str, object], null: list[dict[str, str]]) -> dict[str, Any]:
    """Return the JSON Schema of each declared value; `null` is empty, or the schema of null where that may come."""
    return {name: {"anyOf": [_SCHEMAS.get(str(kind), {"type": kind}), *null]} for name, kind in returns.items()}


def iso_date(text: str) -> str:
    """Return a date as templates have it; raise ValueError for another text, TypeError for none."""
    return dt.date.fromisoformat(text).isoformat()


def iso_datetime(text: str) -> str:
    """Return a moment as templates have it, in UTC if it has no zone; raise as `iso_date` does."""
    moment = dt.datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).isoformat()
