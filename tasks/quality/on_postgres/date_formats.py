"""A strptime format as a SQL condition: which texts Python would parse with it as a date or time.

Great Expectations can only do this on pandas and Spark. Knows the directives of `datetime.strptime` and Postgres'
regular expressions; knows no table and no connection.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tasks.postgres.literals import literal


def _any_case(text: str) -> str:
    """Return a regular expression for `text` in upper or lower case, as strptime accepts both."""
    return "".join(_character(character) for character in text)


def _character(character: str) -> str:
    if character.isalpha():
        return f"[{character.lower()}{character.upper()}]"
    return character if character.isdigit() else re.escape(character)


_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_SHORT_MONTHS = tuple(month[:3] for month in _MONTHS)
_CLOCK = r"(?:[0-1][0-9]|2[0-3])"

_DIRECTIVES = {
    "d": "3[0-1]|[1-2][0-9]|0[1-9]|[1-9]| [1-9]",
    "m": "1[0-2]|0[1-9]|[1-9]",
    "Y": "(?!0000)[0-9]{4}",
    "y": "[0-9]{2}",
    "H": "2[0-3]|[0-1][0-9]|[0-9]",
    "I": "1[0-2]|0[1-9]|[1-9]",
    "M": "[0-5][0-9]|[0-9]",
    "S": "[0-5][0-9]|[0-9]",
    "f": "[0-9]{1,6}",
    "p": f"{_any_case('AM')}|{_any_case('PM')}",
    "B": "|".join(map(_any_case, _MONTHS)),
    "b": "|".join(map(_any_case, _SHORT_MONTHS)),
    "z": rf"[+-]{_CLOCK}:?[0-5][0-9](?::?[0-5][0-9](?:\.[0-9]{{1,6}})?)?|Z",
}
"""What each directive accepts. Narrower than Python in one way: digits are 0 to 9, not those of every script."""

_EASY_DAYS = "1[0-9]|2[0-8]|0[1-9]|[1-9]| [1-9]"
"""The days that every month has."""

_DIGITS = frozenset("dmYyHIMSf")
_MEANINGS = {"Y": "year", "y": "year", "m": "month", "B": "month", "b": "month", "d": "day"}
_PIECES = re.compile(r"%(?P<directive>.)|(?P<space>\s+)|(?P<text>[^%\s]+|%\Z)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Shape:
    """A format in pieces: its texts as regular expressions, and its directives between them."""

    pieces: tuple[str, ...]
    directives: tuple[str, ...]
    separated: bool
    """No run of digits directly follows another, so a text can be split in only one way."""

    def pattern(self, days: str = _DIRECTIVES["d"]) -> str:
        """Return a regular expression with one group for each directive, as a SQL literal."""
        known = {**_DIRECTIVES, "d": days}
        groups = [f"({known[directive]})" for directive in self.directives] + [""]
        return literal("^" + "".join(text + group for text, group in zip(self.pieces, groups, strict=True)) + "$")

    def part(self, text: str, meaning: str) -> tuple[str, str] | None:
        """Return the directive that gives `meaning`, and the SQL of its part of `text`."""
        for place, directive in enumerate(self.directives, start=1):
            if _MEANINGS.get(directive) == meaning:
                return directive, f"(regexp_match({text}, {self.pattern()}))[{place}]"
        return None


def matches_format(text: str, strftime_format: str) -> str | None:
    """Return the SQL condition that the SQL expression `text` is a date or time by `strftime_format`.

    None if the format cannot be checked in SQL: a directive not in these, or a part of the date given twice.
    """
    shape = _shape(strftime_format)
    if shape is None:
        return None
    if "d" not in shape.directives:
        return f"{text} ~ {shape.pattern()}"
    easy = f"WHEN {text} ~ {shape.pattern(_EASY_DAYS)} THEN TRUE " if shape.separated else ""
    # CASE keeps the order: the parts are converted only if the shape is right and the day is past the 28th.
    return f"CASE {easy}WHEN {text} ~ {shape.pattern()} THEN {_is_calendar_day(text, shape)} ELSE FALSE END"


def _shape(strftime_format: str) -> _Shape | None:
    pieces, directives = [""], list[str]()
    separated = True
    for piece in _PIECES.finditer(strftime_format):
        directive = piece["directive"]
        if directive and directive != "%":
            if directive not in _DIRECTIVES or _same_part(directive, directives):
                return None
            separated &= not (directive in _DIGITS and _ends_in_digits(pieces[-1], directives))
            directives.append(directive)
            pieces.append("")
        else:
            pieces[-1] += r"\s+" if piece["space"] else _any_case(piece["text"] or "%")
    return _Shape(tuple(pieces), tuple(directives), separated) if directives else None


def _ends_in_digits(text: str, directives: list[str]) -> bool:
    return text[-1].isdigit() if text else bool(directives) and directives[-1] in _DIGITS


def _same_part(directive: str, earlier: list[str]) -> bool:
    meaning = _MEANINGS.get(directive, directive)
    return any(_MEANINGS.get(other, other) == meaning for other in earlier)


def _is_calendar_day(text: str, shape: _Shape) -> str:
    """Return the condition that the month has the day; for missing parts, strptime assumes January 1900."""
    year, month, day = (shape.part(text, meaning) for meaning in ("year", "month", "day"))
    first = f"make_date({_year(*year) if year else 1900}, {_month(*month) if month else 1}, 1)"
    last = f"date_part('day', {first} + interval '1 month - 1 day')"
    return f"{_integer(day[1])} <= {last}" if day else "TRUE"


def _year(directive: str, part: str) -> str:
    number = _integer(part)
    return number if directive == "Y" else f"{number} + CASE WHEN {number} < 69 THEN 2000 ELSE 1900 END"


def _month(directive: str, part: str) -> str:
    if directive == "m":
        return _integer(part)
    names = ", ".join(f"'{name.lower()}'" for name in _SHORT_MONTHS)
    return f"array_position(ARRAY[{names}], lower(left({part}, 3)))"


def _integer(part: str) -> str:
    return f"CAST({part} AS integer)"
