"""The operators and functions of expressions: what each takes, gives and does.

A new function is one entry of `FUNCTIONS`. Every one takes plain values and returns one, of limited size.
"""

from __future__ import annotations

import calendar
import datetime as dt
import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from factory.language.value_types import MAX_INTEGER, Signature

MAX_SIZE = 1_000_000
"""The maximum size of a value: the characters of a text; the items of a list with what they hold."""


class ComputationError(Exception):
    """A value cannot be computed. `always`: with these literals, whatever the other values are."""

    def __init__(self, message: str, hint: str = "", *, always: bool = False) -> None:
        super().__init__(message)
        self.hint = hint
        self.always = always


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator: the types that it takes together, and what it computes."""

    signatures: tuple[Signature, ...]
    apply: Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Function:
    """A function: its signatures, an example, a line for the guide, and what it computes."""

    group: Literal["dates", "texts", "numbers", "lists", "all"]
    signatures: tuple[Signature, ...]
    example: str
    does: str
    apply: Callable[..., Any]


def _takes(*written: str) -> tuple[Signature, ...]:
    """Read signatures: `integer, number > number`."""
    sides = (one.split(" > ") for one in written)
    return tuple(Signature(tuple(takes.split(", ")), gives) for takes, gives in sides)


# --- limits ---------------------------------------------------------------------------------------------------------


def limited(value: Any) -> Any:
    """Return a computed value, or raise ComputationError if it is larger than a value may be."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ComputationError("the number is too large")
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise ComputationError("the integer has more than 63 bits", "compute with numbers: 1.0 * …")
    if isinstance(value, str):
        _check_length(len(value))
    elif isinstance(value, list | Mapping) and size(value) > MAX_SIZE:
        raise ComputationError(f"the list would have more than {MAX_SIZE:,} items and characters")
    return value


def _check_length(characters: int) -> None:
    if characters > MAX_SIZE:
        raise ComputationError(f"the text would have more than {MAX_SIZE:,} characters")


def size(value: object) -> int:
    """Return how many characters and items a value has, with everything in it; stop counting above the maximum."""
    found, waiting = 0, [value]
    while waiting and found <= MAX_SIZE:
        one = waiting.pop()
        found += 1 + (len(one) if isinstance(one, str | list | Mapping) else 0)
        waiting += one.values() if isinstance(one, Mapping) else one if isinstance(one, list) else ()
    return found


# --- texts ------------------------------------------------------------------------------------------------------------


def written(value: object) -> str:
    """Return a value as it is written in a longer text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.isoformat() if isinstance(value, dt.date) else str(value)


def _join_texts(left: object, right: object) -> str:
    first, second = written(left), written(right)
    _check_length(len(first) + len(second))
    return first + second


def _replace(text: str, old: str, new: str) -> str:
    if not old:
        raise ComputationError("there is no text to replace", "name the text that is replaced", always=True)
    _check_length(len(text) + text.count(old) * (len(new) - len(old)))
    return text.replace(old, new)


def _split(text: str, separator: str) -> list[str]:
    if not separator:
        raise ComputationError("there is no text to split at", 'name it: split(",")', always=True)
    return text.split(separator)


def _join(items: list[object], separator: str) -> str:
    texts = [written(one) for one in items]
    _check_length(sum(map(len, texts)) + len(separator) * len(texts))
    return separator.join(texts)


# --- numbers ----------------------------------------------------------------------------------------------------------


def _divided(divide: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def divided(left: float, right: float) -> Any:
        if right == 0:
            raise ComputationError("it divides by zero", "divide only if the divisor is not 0: a / b if b != 0 else 0")
        return divide(left, right)

    return divided


def _multiplied(left: float, right: float) -> Any:
    return left * right


def _int(value: float | str) -> int:
    if isinstance(value, str):
        if not re.fullmatch(r"[+-]?[0-9]{1,20}", value.strip()):
            raise ComputationError(f"{_quoted(value)} is not an integer")
        return int(value)
    if not math.isfinite(value):
        raise ComputationError("the number is too large")
    return int(value)


def _number(value: float | str) -> float:
    if isinstance(value, str) and not re.fullmatch(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?", value.strip()):
        raise ComputationError(f"{_quoted(value)} is not a number")
    return float(value)


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:39]}…")


def _round(value: float, digits: int | None = None) -> float:
    if digits is not None and not 0 <= digits <= 15:
        raise ComputationError("a number is rounded to 0 to 15 digits", always=True)
    return round(value) if digits is None else float(round(value, digits))


# --- dates ------------------------------------------------------------------------------------------------------------


def _shifted(move: Callable[[Any, int], Any]) -> Callable[[Any, int], Any]:
    def shifted(day: dt.date, count: int) -> Any:
        try:
            return move(day, count)
        except (OverflowError, ValueError):
            raise ComputationError("the date would be outside the years 1 to 9999") from None

    return shifted


def _plus_months(day: dt.date, months: int) -> dt.date:
    year, month = divmod(day.year * 12 + day.month - 1 + months, 12)
    if not 1 <= year <= 9999:
        raise OverflowError
    return day.replace(year=year, month=month + 1, day=min(day.day, calendar.monthrange(year, month + 1)[1]))


def _as_date(day: dt.date) -> dt.date:
    return day.date() if isinstance(day, dt.datetime) else day


def _last_of_month(day: dt.date) -> dt.date:
    return _as_date(day).replace(day=calendar.monthrange(day.year, day.month)[1])


DIRECTIVES: Mapping[str, Callable[[dt.datetime], str]] = {
    "Y": lambda at: f"{at.year:04}",
    "y": lambda at: f"{at.year % 100:02}",
    "m": lambda at: f"{at.month:02}",
    "d": lambda at: f"{at.day:02}",
    "H": lambda at: f"{at.hour:02}",
    "M": lambda at: f"{at.minute:02}",
    "S": lambda at: f"{at.second:02}",
    "f": lambda at: f"{at.microsecond:06}",
    "j": lambda at: f"{at.timetuple().tm_yday:03}",
    "u": lambda at: str(at.isoweekday()),
    "G": lambda at: f"{at.isocalendar().year:04}",
    "V": lambda at: f"{at.isocalendar().week:02}",
    "z": lambda at: at.strftime("%z"),
    "%": lambda _: "%",
}
"""The directives of strftime that do not depend on the machine's language."""


def _format(day: dt.date, pattern: str) -> str:
    at = day if isinstance(day, dt.datetime) else dt.datetime.combine(day, dt.time())

    def directive(match: re.Match[str]) -> str:
        make = DIRECTIVES.get(match[1])
        if make is None:
            allowed = " ".join(f"%{one}" for one in DIRECTIVES)
            raise ComputationError(f"{match[0]} is not a directive of format", f"directives: {allowed}", always=True)
        return make(at)

    _check_length(len(pattern) * 6)
    return re.sub(r"%(.?)", directive, pattern, flags=re.DOTALL)


# --- lists ------------------------------------------------------------------------------------------------------------


def _end(index: int) -> Callable[[list[Any]], Any]:
    def end(items: list[Any]) -> Any:
        if not items:
            raise ComputationError("the list is empty")
        return items[index]

    return end


def _extreme(choose: Callable[..., Any]) -> Callable[..., Any]:
    def extreme(*values: Any) -> Any:
        items = values[0] if len(values) == 1 else values
        if not items:
            raise ComputationError("the list is empty")
        return choose(items)

    return extreme


def _contains(item: object, whole: Any) -> bool:
    return item in whole


def _default(value: object, instead: object) -> object:
    return instead if value is None else value


def _sum(items: Iterable[float]) -> float:
    total: float = sum(items)
    return total


_ARITHMETIC = _takes("integer, integer > integer", "number, number > number")
_EQUALITY = _takes("T, T > boolean", "T, null > boolean", "null, T > boolean", "null, null > boolean")
_ORDER = tuple(Signature((one, one), "boolean") for one in ("number", "text", "date", "datetime"))
_MEMBERSHIP = _takes("text, text > boolean", "T, list of T > boolean")
_EXTREME = _takes(
    "integer, integer > integer", "number, number > number", "date, date > date", "datetime, datetime > datetime",
    "text, text > text", "list of integer > integer", "list of number > number", "list of date > date",
    "list of datetime > datetime", "list of text > text",
)  # fmt: skip
WRITABLE = "boolean | integer | number | text | date | datetime"

OPERATORS: Mapping[str, Operator] = {
    "or": Operator(_takes("boolean, boolean > boolean"), lambda left, right: left or right),
    "and": Operator(_takes("boolean, boolean > boolean"), lambda left, right: left and right),
    "not": Operator(_takes("boolean > boolean"), operator.not_),
    "==": Operator(_EQUALITY, operator.eq),
    "!=": Operator(_EQUALITY, operator.ne),
    "<": Operator(_ORDER, operator.lt),
    "<=": Operator(_ORDER, operator.le),
    ">": Operator(_ORDER, operator.gt),
    ">=": Operator(_ORDER, operator.ge),
    "in": Operator(_MEMBERSHIP, _contains),
    "not in": Operator(_MEMBERSHIP, lambda item, whole: not _contains(item, whole)),
    "+": Operator(_ARITHMETIC, operator.add),
    "-": Operator(_ARITHMETIC, operator.sub),
    "~": Operator((Signature((WRITABLE, WRITABLE), "text"),), _join_texts),
    "*": Operator(_ARITHMETIC, _multiplied),
    "/": Operator(_takes("number, number > number"), _divided(operator.truediv)),
    "//": Operator(_ARITHMETIC, _divided(operator.floordiv)),
    "%": Operator(_ARITHMETIC, _divided(operator.mod)),
}
"""The operators with two operands, and `not`."""

SIGNS: Mapping[str, Operator] = {
    "-": Operator(_takes("integer > integer", "number > number"), operator.neg),
    "+": Operator(_takes("integer > integer", "number > number"), operator.pos),
}
"""The operators before a number."""

DEFAULT = "default"
"""The one function whose first value may be null or missing."""
_MOVED = _takes("date, integer > date", "datetime, integer > datetime")
_DAY = "date | datetime"

FUNCTIONS: Mapping[str, Function] = {
    "add_days": Function(
        "dates", _MOVED, "run.date | add_days(-1)", "the day so many days later",
        _shifted(lambda day, count: day + dt.timedelta(days=count)),
    ),
    "add_months": Function(
        "dates", _MOVED, "run.date | add_months(-1)", "the same day of another month, or that month's last day",
        _shifted(_plus_months),
    ),
    "first_of_month": Function(
        "dates", (Signature((_DAY,), "date"),), "run.date | first_of_month", "the first day of its month",
        lambda day: _as_date(day).replace(day=1),
    ),
    "last_of_month": Function(
        "dates", (Signature((_DAY,), "date"),), "run.date | last_of_month", "the last day of its month", _last_of_month,
    ),
    "weekday": Function(
        "dates", (Signature((_DAY,), "integer"),), "weekday(run.date) == 1", "1 for Monday to 7 for Sunday",
        lambda day: day.isoweekday(),
    ),
    "days_between": Function(
        "dates", (Signature((_DAY, _DAY), "integer"),), "days_between(params.since, run.date)",
        "how many days from the first to the second", lambda first, last: (_as_date(last) - _as_date(first)).days,
    ),
    "format": Function(
        "dates", (Signature((_DAY, "text"), "text"),), "run.date | format('%Y/%m')",
        f"a date as text; directives: {' '.join(f'%{one}' for one in DIRECTIVES)}", _format,
    ),
    "upper": Function("texts", _takes("text > text"), "params.site | upper", "in capitals", lambda text: text.upper()),
    "lower": Function("texts", _takes("text > text"), "params.site | lower", "in small letters",
                      lambda text: text.lower()),
    "trim": Function("texts", _takes("text > text"), "params.site | trim", "without space at both ends",
                     lambda text: text.strip()),
    "replace": Function("texts", _takes("text, text, text > text"), "params.site | replace('-', '_')",
                        "with every occurrence of the first replaced by the second", _replace),
    "split": Function("texts", _takes("text, text > list of text"), "params.sites | split(',')",
                      "the list of its parts", _split),
    "join": Function("texts", (Signature((f"list of {WRITABLE}", "text"), "text"),), "params.sites | join(', ')",
                     "the items of a list as one text", _join),
    "text": Function("texts", (Signature((WRITABLE,), "text"),), "run.date | text", "as it is written in a text",
                     written),
    "abs": Function("numbers", _takes("integer > integer", "number > number"), "abs(params.shift)", "without its sign",
                    abs),
    "round": Function("numbers", _takes("number > integer", "number, integer > number"), "params.share | round(2)",
                      "to an integer, or to so many digits", _round),
    "min": Function("numbers", _EXTREME, "min(params.days, 7)", "the smallest of two values or of a list",
                    _extreme(min)),
    "max": Function("numbers", _EXTREME, "max(steps.load.counts)", "the largest of two values or of a list",
                    _extreme(max)),
    "int": Function("numbers", _takes("number > integer", "text > integer"), "int('7')",
                    "an integer, without what is behind the point", _int),
    "number": Function("numbers", _takes("number > number", "text > number"), "number('0.5')", "a number", _number),
    "length": Function("lists", _takes("text > integer", "list of T > integer"), "length(params.sites)",
                       "how many items a list or characters a text has", len),
    "first": Function("lists", _takes("list of T > T"), "steps.find.files | first", "the first item", _end(0)),
    "last": Function("lists", _takes("list of T > T"), "steps.find.files | last", "the last item", _end(-1)),
    "sum": Function("lists", _takes("list of integer > integer", "list of number > number"),
                    "sum(steps.load.inserted)", "the items added up", _sum),
    DEFAULT: Function("all", _takes("T, T > T"), "params.note | default('none')",
                        "another value instead of null, or of the output of a step that was skipped", _default),
}  # fmt: skip
"""The functions by their names."""
