"""What a server answers as JSON: where in it a value is, and whether it is of the declared type.

Nothing is guessed and nothing is rounded: a value that does not fit is an error that shows it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NoReturn

from pydantic import Field

from tasks.contract import DataRejected
from tasks.declared import NOUNS, Scalar, ValueType, iso_date, iso_datetime
from tasks.services.http import Answer

JsonPath = Annotated[str, Field(pattern=r"^[^.\s]+(\.[^.\s]+)*$", max_length=500)]
"""Where a value is in JSON: keys, and numbers of items from 0, with dots between them, such as `data.items`."""

_DIGITS = 17
"""Of a number: with so many each 64-bit one has a text of its own."""
_SHOWN = 100
_NANOSECONDS = re.compile(r"\.\d{6}\d*[1-9]")
"""Digits of a moment that would be cut off."""


def json_of(answer: Answer, limit: int) -> Any:
    """Return the body of an answer, of at most `limit` bytes; None for an empty one. Raises DataRejected."""
    answer.require_data()
    body = b"".join(answer.blocks(limit))
    if not body.strip():
        return None
    try:
        return json.loads(body, parse_float=_float, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        shown = body[:_SHOWN].decode(errors="replace")
        raise DataRejected(f"{answer.asked} does not answer with JSON ({error}): {shown!r}") from error


def _float(text: str) -> float:
    digits = text.lower().partition("e")[0].replace(".", "").lstrip("-0")
    number = float(text)
    if len(digits) > _DIGITS or not math.isfinite(number):
        raise ValueError(f"{text} is not a number that 64 bits keep")  # becomes DataRejected
    return number


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")


class Absent(LookupError):
    """A path that leads nowhere: which part is missing, and what is there instead."""


def value_at(value: Any, path: str) -> Any:
    """Return what is at a path in JSON; raise Absent."""
    for part in path.split("."):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            raise Absent(f"no {part!r} in {shown(value)}")
    return value


def required_at(value: Any, path: str, asked: str, argument: str) -> Any:
    """Return what is at the path that `argument` gives; raise DataRejected if it leads nowhere."""
    try:
        return value_at(value, path)
    except Absent as absent:
        raise DataRejected(f"{asked} has nothing at {path!r}: {absent}; correct `{argument}`") from None


def shown(value: Any) -> str:
    """Return in a few words what a value is."""
    if isinstance(value, dict):
        return f"an object with {', '.join(list(value)[:10]) or 'no keys'}"
    if isinstance(value, list):
        return f"a list of {len(value):,}"
    return json.dumps(value, ensure_ascii=False)[:_SHOWN]


def declared(row: Mapping[str, Any], returns: Mapping[str, ValueType], where: str) -> dict[str, Scalar]:
    """Return the declared values of an object; those that it lacks are null. Raises DataRejected for a wrong one."""
    return {name: typed(row.get(name), kind, where, name) for name, kind in returns.items()}


def typed(value: Any, kind: str, where: str, name: str) -> Scalar:
    """Return a value as its declared type, dates and datetimes as ISO texts; null stays null. Raises DataRejected."""
    try:
        return None if value is None else _READERS[kind](value)
    except (TypeError, ValueError, OverflowError):
        problem = f"{where} has {shown(value)} as {name}, which is not {NOUNS[kind]}"
        raise DataRejected(f"{problem}; correct the declared type") from None


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _number(value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    return value


def _integer(value: Any) -> int:
    number = _number(value)
    if number != int(number) or abs(number) >= 2**63:
        raise ValueError
    return int(number)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _datetime(value: Any) -> str:
    if _NANOSECONDS.search(value):
        raise ValueError
    return iso_datetime(value)


_READERS: Mapping[str, Callable[[Any], Scalar]] = {
    "boolean": _boolean,
    "integer": _integer,
    "number": _number,
    "text": _text,
    "date": iso_date,
    "datetime": _datetime,
}
