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


class DayLimit(Model):
    """A day, counted back from `date`."""

    date: dt.date
    days_before: Annotated[int, Field(ge=0, le=36_600)] = 0

    @property
    def day(self) -> dt.date:
        """The limit itself."""
        return self.date - dt.timedelta(days=self.days_before)


class CsvColumn(Model):
    """What a CSV column must contain, and what happens to a value that does not fit.

    White space around a text is removed; an empty text is null. `format` is for dates: `D/M/YYYY` is 7/1/2026,
    `DD/MM/YYYY` is 07/01/2026. `bad` says whether a value of the wrong type, or outside a limit, drops its row or
    becomes null. By default it drops the row if the column is `required`, and becomes null if not; a null in a
    `required` column always drops the row.
    """

    type: Literal["integer", "number", "text", "date", "boolean"]
    name: Column | None = None
    required: bool = False
    format: Annotated[str, Field(pattern=r"^(DD?|MM?|YYYY|[-/. ])+$")] | None = None
    minimum: int | float | None = None
    maximum: int | float | None = None
    values: Annotated[list[str], Field(min_length=1)] | None = None
    not_after: DayLimit | None = None
    not_before: DayLimit | None = None
    bad: Literal["drop_row", "null"] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for rule, types in _APPLIES.items():
            if getattr(self, rule) is not None and self.type not in types:
                raise ValueError(f"has `{rule}`, which a column of type {self.type} does not have")
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

    stripped = sql.nullif(sql.trim(text), sql.lit(""))
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
        yield Rule("not UTF-8 text", text.contains(_REPLACEMENT))
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


def _integer(text: Expression, _column: CsvColumn) -> Expression:
    """Read an integer; `3.0` counts, as tools write integer columns with nulls like that."""
    from pyspark.sql import functions as sql

    whole = sql.regexp_extract(text, r"^([+-]?[0-9]+)\.0*$", 1)
    return sql.coalesce(text.try_cast("bigint"), sql.when(text.contains("."), whole.try_cast("bigint")))


def _number(text: Expression, _column: CsvColumn) -> Expression:
    """Read a finite number; Java's `NaN`, `Infinity` and `1.0d` do not count."""
    from pyspark.sql import functions as sql

    value = text.try_cast("double")
    return sql.when((sql.abs(value) < sql.lit(float("inf"))) & (sql.ascii(sql.right(text, sql.lit(1))) < 58), value)


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
