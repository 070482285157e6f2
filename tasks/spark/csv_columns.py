"""The declared columns of a CSV: how text becomes a value, and what is wrong if it does not.

Knows the rules of one column, as Spark expressions; knows nothing about files or what happens to the rows.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from tasks.contract import Column, Model
from tasks.spark.csv_records import NUL

if TYPE_CHECKING:
    from pyspark.sql import Column as Expression

ISO = "YYYY-MM-DD"
_BOUNDED = ("integer", "number")
_APPLIES = {
    "minimum": _BOUNDED,
    "maximum": _BOUNDED,
    "values": ("text",),
    "format": ("date",),
    "not_after": ("date",),
    "not_before": ("date",),
    "decimal": _BOUNDED,
    "thousands": _BOUNDED,
}
"""The types that a rule applies to."""
_PATTERNS = {"YYYY": "yyyy", "MM": "MM", "M": "M", "DD": "dd", "D": "d"}
_ARTICLES = {
    "integer": "not an integer",
    "number": "not a number",
    "boolean": "not true or false",
}
_REPLACEMENT = "\ufffd"
"""What a decoder writes in place of bytes that are not text."""
_WHITE = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
"""The characters with Unicode's property White_Space."""
_SPACES = " \xa0\u2009\u202f"
"""What is typed between thousands, and how it is printed."""
_LONGEST_NUMBER = 400
"""Characters: a pattern is not tried on more."""
_KEPT_DIGITS = 15
"""Digits that a 64-bit number keeps, whatever they are."""


class DayLimit(Model):
    """A day, counted back from `date`."""

    date: dt.date
    """The day to count from, such as `{{ run.date }}`."""
    days_before: Annotated[int, Field(ge=0, le=36_600)] = 0

    @property
    def day(self) -> dt.date:
        """The limit itself."""
        return self.date - dt.timedelta(days=self.days_before)


class CsvColumn(Model):
    """What a CSV column must contain, and what happens to a value that does not fit.

    White space around a text is removed, tabs and all that Unicode calls so (U+00A0, U+2003, U+3000), also within
    quotes; an empty text is null. Characters of no width (U+200B, U+FEFF) are not white space. `format` is for dates:
    `D/M/YYYY` is 7/1/2026, `DD/MM/YYYY` is 07/01/2026. A number is a 64-bit one, of about 15 digits; an integer has up
    to 18. `decimal` is the sign before a number's fraction, a point unless it says `","`; `thousands` is the sign
    between groups of digits: with `decimal: ","` and `thousands: "."`, 1.234,5 is read as 1234.5. `thousands: " "` is
    any kind of space. Where neither is set, 1.234 is 1.234, and the report says so if that is not certain; a column
    that has values like 1,5 too is rejected. `bad` says whether a value of the wrong type, or outside a limit, drops
    its row or becomes null. By default it drops the row if the column is `required`, and becomes null if not; a null in
    a `required` column always drops the row.
    """

    type: Literal["integer", "number", "text", "date", "boolean"]
    name: Column | None = None
    """What the column is called from here on; by default as in the file."""
    required: bool = False
    """Whether a row without a value is dropped."""
    format: Annotated[str, Field(pattern=r"^(DD?|MM?|YYYY|[-/. ])+$")] | None = None
    decimal: Literal[".", ","] | None = None
    thousands: Literal[".", ",", " ", "'", "’", "_"] | None = None
    minimum: int | float | None = None
    """The smallest number that is allowed."""
    maximum: int | float | None = None
    """The largest number that is allowed."""
    values: Annotated[list[str], Field(min_length=1)] | None = None
    """The texts that are allowed."""
    not_after: DayLimit | None = None
    """Of a date: the last day that is allowed."""
    not_before: DayLimit | None = None
    """Of a date: the first day that is allowed."""
    bad: Literal["drop_row", "null"] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for rule, types in _APPLIES.items():
            if getattr(self, rule) is not None and self.type not in types:
                raise ValueError(f"has `{rule}`, which a column of type {self.type} does not have")
        if self.thousands == self.point:
            raise ValueError(f"has {self.point!r} between thousands and before the fraction; set `decimal` to another")
        if self.required and self.bad == "null":
            raise ValueError("has `bad: null`, but is `required`, so a null drops the row; leave one of them out")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError(f"has a `minimum` ({self.minimum}) above its `maximum` ({self.maximum})")
        if self.format and sorted(re.findall("[DMY]+", self.format.replace("DD", "D").replace("MM", "M"))) != [
            "D",
            "M",
            "YYYY",
        ]:
            raise ValueError(f"has a `format` ({self.format}) that does not give day, month and year once each")
        return self

    @property
    def point(self) -> str:
        """The sign before a number's fraction."""
        return self.decimal or "."

    @property
    def is_guessed(self) -> bool:
        """Whether nothing says what a point in its numbers is."""
        return self.type == "number" and self.decimal is None and self.thousands is None

    @property
    def drops(self) -> bool:
        """Whether a value that does not fit drops its row."""
        return self.required or self.bad == "drop_row"


@dataclass(frozen=True, slots=True)
class Rule:
    """One possible problem of a value."""

    problem: str
    """The problem in words: `not a date YYYY-MM-DD`, `below 0`."""
    broken: Expression
    is_type: bool = False
    """Whether the value cannot be read at all; the whole column may then be something else."""


def name_of(csv_name: str, column: CsvColumn) -> str:
    """Return the column's new name; raise ValueError if it is needed and missing."""
    if column.name is not None:
        return column.name
    try:
        return str(TypeAdapter(Column).validate_python(csv_name.lower()))
    except ValidationError:
        raise ValueError(f"has a column {csv_name!r} that needs a `name` of letters, digits and _") from None


def given(text: Expression, nulls: list[str]) -> Expression:
    """Return the text of a value without white space around it; null if it is empty or one of `nulls`."""
    from pyspark.sql import functions as sql

    stripped = sql.nullif(sql.trim(text, sql.lit(_WHITE)), sql.lit(""))
    return sql.when(~stripped.isin(nulls), stripped) if nulls else stripped


def converted(text: Expression, column: CsvColumn) -> Expression:
    """Return the value of a text; null if the text does not have the column's type."""
    return _READERS[column.type](text, column)


def rules(text: Expression, value: Expression, column: CsvColumn) -> Iterator[Rule]:
    """Yield the possible problems of a value, in the order in which they are checked."""
    from pyspark.sql import functions as sql

    if column.required:
        yield Rule("missing", text.isNull())
    if column.type == "text":
        yield Rule("not text in the `encoding` of the file", text.contains(_REPLACEMENT))
        yield Rule("has a NUL character", text.contains(NUL))
    else:
        yield Rule(wrong_type(column), text.isNotNull() & value.isNull(), is_type=True)
    if column.minimum is not None:
        yield Rule(f"below {column.minimum}", value < sql.lit(column.minimum))
    if column.maximum is not None:
        yield Rule(f"above {column.maximum}", value > sql.lit(column.maximum))
    if column.values is not None:
        yield Rule(f"not one of {', '.join(column.values)}", ~value.isin(column.values))
    if column.not_before is not None:
        yield Rule(f"before {column.not_before.day}", value < sql.lit(column.not_before.day))
    if column.not_after is not None:
        yield Rule(f"after {column.not_after.day}", value > sql.lit(column.not_after.day))


def wrong_type(column: CsvColumn) -> str:
    """Return the words for a text that does not have the column's type."""
    return _ARTICLES.get(column.type) or f"not a date {column.format or ISO}"


def _text(text: Expression, _column: CsvColumn) -> Expression:
    return text


def _integer(text: Expression, column: CsvColumn) -> Expression:
    """Read an integer; `3.0` counts, as tools write integer columns with nulls like that.

    `1.000` is an integer only if the column says which: one, or a thousand.
    """
    from pyspark.sql import functions as sql

    plain = text
    if column.decimal or column.thousands:
        plain = _plain(text, column)
    else:
        plain = sql.when(~text.contains(".") | ~text.rlike(_PERHAPS_THOUSANDS), text)
    whole = sql.regexp_extract(plain, r"^([+-]?[0-9]+)\.0*$", 1)
    return sql.coalesce(plain.try_cast("bigint"), sql.when(plain.contains("."), whole.try_cast("bigint")))


def _number(text: Expression, column: CsvColumn) -> Expression:
    """Read a finite number; Java's `NaN`, `Infinity`, `1.0d` and `0x1p3` do not count."""
    from pyspark.sql import functions as sql

    plain = text if column.is_guessed else _plain(text, column)
    value = sql.when(plain.rlike("^[-+.0-9eE]+$"), plain).try_cast("double")
    return sql.when(sql.abs(value) < sql.lit(float("inf")), value)


def _plain(text: Expression, column: CsvColumn) -> Expression:
    """Return a number in the column's own signs as programs write it; null for what is not one in these signs."""
    from pyspark.sql import functions as sql

    between = _SPACES if column.thousands == " " else column.thousands or ""
    fraction = rf"(?:\{column.point}[0-9]*)?"
    kinds = [rf"[0-9]*{fraction}(?:[eE][+-]?[0-9]+)?"]
    if between:
        kinds += [rf"[0-9]{{1,3}}(?:[{between}][0-9]{{3}})+{fraction}"]
        kinds += [rf"[0-9]{{1,2}}(?:[{between}][0-9]{{2}})+[{between}][0-9]{{3}}{fraction}"]  # India's 12,34,567
    fits = (sql.length(text) <= _LONGEST_NUMBER) & text.rlike(f"^[+-]?(?:{'|'.join(kinds)})$")
    return sql.when(fits, sql.translate(text, f"{column.point}{between}", "."))


_PERHAPS_THOUSANDS = r"^[+-]?[1-9][0-9]{0,2}\.[0-9]{3}$"
"""Such as 1.234."""
_OTHER_SIGNS = r"^[+-]?(?:[0-9][0-9.]*,[0-9]+|[0-9]{1,3}(?:\.[0-9]{3}){2,})$"
"""Such as 1,5 and 1.234,5, and 1.234.567: the point is not the decimal sign of these."""


_A_POINT = r"^[+-]?[0-9,]*\.[0-9]+$"


@dataclass(frozen=True, slots=True)
class Doubts:
    """How many numbers of a column may have been meant otherwise, or keep fewer digits than their text has."""

    name: str
    """Of the column in the CSV."""
    points: int
    thousands: int
    commas: int
    rounded: int
    thousand: str | None
    """Examples."""
    comma: str | None
    digits: str | None

    @property
    def mixed(self) -> str | None:
        """Why the column cannot be read."""
        if not self.thousands or not self.commas:
            return None
        counted = f'{self.commas:,} like "{self.comma}" and {self.thousands:,} like "{self.thousand}"'
        return f'column "{self.name}" has numbers in two ways, {counted}; set `decimal`, and `thousands` if it has them'

    @property
    def notes(self) -> list[str]:
        """What is not certain, or not exact."""
        notes = []
        if self.thousands and self.thousands == self.points:
            read = f'{self.thousands:,} numbers like "{self.thousand}" are read as fractions, and no other has a point'
            notes.append(f'{self.name}: {read}; set `decimal: "."`, or `decimal: ","` and `thousands: "."`')
        if self.rounded:
            kept = "more digits than a 64-bit number keeps"
            notes.append(f'{self.name}: {self.rounded:,} numbers have {kept} ("{self.digits}"), and are rounded')
        return notes


def doubts(text: Expression, value: Expression, column: CsvColumn) -> dict[str, Expression]:
    """Return the aggregates of a column of numbers that `Doubts` is made of; none for other columns."""
    from pyspark.sql import functions as sql

    if column.type != "number":
        return {}
    plain = text if column.is_guessed else _plain(text, column)
    exact = plain.try_cast("decimal(38, 10)") != value.try_cast("decimal(38, 10)")
    rounded = (sql.length(plain) > _KEPT_DIGITS) & sql.coalesce(exact, sql.lit(False))
    guessed = sql.lit(column.is_guessed)
    thousands = guessed & text.contains(".") & text.rlike(_PERHAPS_THOUSANDS)
    commas = guessed & value.isNull() & text.rlike(_OTHER_SIGNS)
    return {
        "points": sql.count_if(guessed & text.rlike(_A_POINT)),
        "thousands": sql.count_if(thousands),
        "commas": sql.count_if(commas),
        "rounded": sql.count_if(rounded),
        "thousand": sql.min(sql.when(thousands, text)),
        "comma": sql.min(sql.when(commas, sql.left(text, sql.lit(_SHOWN)))),
        "digits": sql.min(sql.when(rounded, sql.left(text, sql.lit(_SHOWN)))),
    }


_SHOWN = 60


def _date(text: Expression, column: CsvColumn) -> Expression:
    from pyspark.sql import functions as sql

    if (column.format or ISO) != ISO:
        pattern = re.sub("YYYY|MM?|DD?", lambda part: _PATTERNS[part[0]], str(column.format))
        return sql.try_to_timestamp(text, sql.lit(pattern)).cast("date")
    # A cast also accepts `2026`, `2026-1-5` and `2026-01-05 and more`; it is several times as fast as a pattern.
    shaped = (sql.length(text) == 10) & (sql.substring(text, 5, 1) == "-") & (sql.substring(text, 8, 1) == "-")
    return sql.when(shaped, text.try_cast("date"))


def _boolean(text: Expression, _column: CsvColumn) -> Expression:
    """Read `true`, `t`, `yes`, `y`, `1` and their opposites, in upper or lower case."""
    return text.try_cast("boolean")


_READERS = {"text": _text, "integer": _integer, "number": _number, "date": _date, "boolean": _boolean}
