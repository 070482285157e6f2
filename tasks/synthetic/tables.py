"""Invented rows for tables whose real source is elsewhere.

Knows rules for columns and how to stream rows to Postgres. Row i of a day depends only on the seed, the table, the day
and i, so a run that was killed, repeated or delayed leaves the same rows as an undisturbed one.
"""

from __future__ import annotations

import datetime as dt
import io
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from itertools import accumulate
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from tasks.contract import Column, ConnectionId, Model, Output, PermanentError, Run, Table, reusable
from tasks.draws import draw_key, draws, fractions
from tasks.postgres.relations import ColumnFacts, columns_of, require_columns
from tasks.postgres.sql import table_identifier
from tasks.postgres.statements import name, names, statement, value
from tasks.services.postgres import postgres

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from psycopg2.extensions import cursor as Cursor  # noqa: N812  psycopg2 spells its class in lower case

    from tasks.draws import Numbers

Scalar = str | int | float | bool | None
"""One value of a column; null too."""

Provider = Literal[
    "address", "bban", "bs", "building_number", "catch_phrase", "city", "color_name", "company", "company_email",
    "country", "country_code", "credit_card_number", "credit_card_provider", "cryptocurrency_code",
    "cryptocurrency_name", "currency_code", "currency_name", "domain_name", "ean13", "email", "file_name",
    "first_name", "hex_color", "iban", "ipv4", "ipv6", "isbn13", "job", "language_code", "last_name", "latitude",
    "license_plate", "longitude", "mac_address", "mime_type", "name", "paragraph", "password", "phone_number",
    "postcode", "pybool", "pydecimal", "pyfloat", "pyint", "pystr", "random_element", "sentence", "slug", "ssn",
    "state", "street_address", "swift", "timezone", "url", "user_agent", "user_name", "uuid4", "word",
]  # fmt: skip
"""Faker providers that return one plain value, the same on any day."""

POOL = 5_000
"""Different values in a Faker column: Faker makes some 5,000 values a second, COPY takes 500,000 rows."""

BLOCK = 20_000
"""Rows held in memory at a time."""

_WIDEST = 10**18
"""Draws are made in 64 bits."""


class Choice(Model):
    """One of some values, each equally likely unless `weights` says otherwise."""

    choice: Annotated[list[Scalar], Field(min_length=1)]
    weights: list[Annotated[float, Field(ge=0)]] | None = None

    @model_validator(mode="after")
    def _weighted_alike(self) -> Self:
        if self.weights is not None and len(self.weights) != len(self.choice):
            raise ValueError(f"has {len(self.weights)} `weights` for {len(self.choice)} choices; give each choice one")
        if self.weights is not None and not sum(self.weights):
            raise ValueError("has `weights` that are all 0, so nothing could be chosen")
        return self


class IntegerRange(Model):
    """Whole numbers from `min` to `max`, both included."""

    min: Annotated[int, Field(ge=-_WIDEST, le=_WIDEST)]
    max: Annotated[int, Field(ge=-_WIDEST, le=_WIDEST)]

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"has a `min` ({self.min}) greater than its `max` ({self.max})")
        return self


class Integer(Model):
    """A whole number, each in the range equally likely."""

    integer: IntegerRange


class DecimalRange(Model):
    """Numbers from `min` to `max`, both included, with `digits` digits after the point."""

    min: Annotated[float, Field(allow_inf_nan=False)]
    max: Annotated[float, Field(allow_inf_nan=False)]
    digits: Annotated[int, Field(ge=0, le=12)] = 2

    @property
    def scaled(self) -> tuple[int, int]:
        """The range in units of the last digit."""
        low, high = (Decimal(str(limit)).scaleb(self.digits) for limit in (self.min, self.max))
        return math.ceil(low), math.floor(high)

    @model_validator(mode="after")
    def _drawable(self) -> Self:
        low, high = self.scaled
        if low > high:
            raise ValueError(f"has no number with {self.digits} digits between {self.min} and {self.max}")
        if max(-low, high) > _WIDEST:
            raise ValueError(f"has too many digits ({self.digits}) for numbers up to {max(-self.min, self.max)}")
        return self


class DecimalNumber(Model):
    """An exact decimal number, each in the range equally likely."""

    decimal: DecimalRange


class Numbering(Model):
    """Where a sequence starts."""

    start: Annotated[int, Field(ge=0, le=_WIDEST)] = 1


class Sequential(Model):
    """A number that is unique within the day, counting from `start`."""

    sequence: Numbering


class DayText(Model):
    """The row's day as text: `D/M/YYYY` is 7/1/2026, `DD/MM/YYYY` is 07/01/2026, `YYYY-MM-DD` is 2026-01-07."""

    day: Annotated[str, Field(pattern=r"^(DD?|MM?|YYYY|[-/. ])+$")]


class TimeSpan(Model):
    """Times of a day from `start` to before `end`, written HH:MM."""

    start: Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")] = "00:00"
    end: Annotated[str, Field(pattern=r"^(([01]\d|2[0-3]):[0-5]\d|24:00)$")] = "24:00"

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if _seconds(self.start) >= _seconds(self.end):
            raise ValueError(f"has a `start` ({self.start}) that is not before its `end` ({self.end})")
        return self


class TimestampInDay(Model):
    """A moment within the row's day, to the second."""

    timestamp_in_day: TimeSpan


class Fake(Model):
    """What a provider of Faker returns, called with `arguments`."""

    faker: Provider
    arguments: dict[str, Scalar | list[Scalar]] = Field(default_factory=dict)


def _rule_name(written: object) -> str | None:
    keys = written if isinstance(written, Mapping) else type(written).model_fields if isinstance(written, Model) else ()
    return next((rule for rule in _RULES if rule in keys), None)


_RULES = ("choice", "integer", "decimal", "sequence", "day", "timestamp_in_day", "faker")

Rule = Annotated[
    Annotated[Choice, Tag("choice")]
    | Annotated[Integer, Tag("integer")]
    | Annotated[DecimalNumber, Tag("decimal")]
    | Annotated[Sequential, Tag("sequence")]
    | Annotated[DayText, Tag("day")]
    | Annotated[TimestampInDay, Tag("timestamp_in_day")]
    | Annotated[Fake, Tag("faker")],
    Discriminator(
        _rule_name,
        custom_error_type="rule",
        custom_error_message=f"should be a mapping with one of {', '.join(_RULES)}",
    ),
]
"""How the values of one column are made."""


class Filled(Output):
    """What a fill did."""

    inserted: int
    bad: int
    """Rows with a bad value, among those inserted."""
    rows: int
    """Rows in the window of the table now."""


@reusable("synthetic.fill_table", role="source")
def fill_table(
    connection: ConnectionId,
    table: Table,
    day_column: Column,
    columns: Annotated[dict[Column, Rule], Field(min_length=1)],
    rows_per_day: Annotated[int, Field(ge=0, le=10_000_000)],
    window_days: Annotated[int, Field(ge=1, le=3660)] = 1,
    bad_share: Annotated[float, Field(ge=0, le=1)] = 0.0,
    bad_values: dict[Column, Annotated[list[Scalar], Field(min_length=1)]] | None = None,
    seed: int = 0,
    *,
    run: Run,
) -> Filled:
    """Top up each day of a window of `table` to `rows_per_day` invented rows.

    The window is the `window_days` days up to and including the run's date. A row's day is that of `day_column`, whose
    rule must be `timestamp_in_day` or `day: YYYY-MM-DD`. Rows are only ever inserted, in one transaction; runs on the
    same table wait for each other. `columns` has a rule for each column to fill: `choice` (with `weights`), `integer`,
    `decimal`, `sequence` (unique within the day), `day` (as text), `timestamp_in_day` or `faker`. The share
    `bad_share`, rounded up, of a day's new rows gets a value of `bad_values` instead of the good one. Another `seed`
    gives other rows. Rows are numbered from the day's count: delete whole days or none.
    """
    days = [run.date - dt.timedelta(days=back) for back in reversed(range(window_days))]
    _require_day_rule(day_column, columns.get(day_column))
    flaws = _flaws(bad_share, bad_values or {}, list(columns), day_column)
    rows = Rows(table, seed, {column: _maker(table, seed, column, rule) for column, rule in columns.items()}, flaws)
    started = monotonic()
    with postgres(connection, run=run) as session, session.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('synthetic.fill_table'), hashtext(%s))", (table,))
        _require_fillable(table, columns_of(cursor, table), list(columns))
        there = dict.fromkeys(days, 0) | _count_by_day(cursor, table, day_column, days)
        for day, count in there.items():
            if count < rows_per_day:
                _copy(cursor, table, list(columns), rows.lines(day, count, rows_per_day))
                run.log.info("%s of %s: %s rows added to %s", day, table, f"{rows_per_day - count:,}", f"{count:,}")
    new = [range(count, rows_per_day) for count in there.values()]
    inserted, bad = sum(map(len, new)), sum(flaws.before(day.stop) - flaws.before(day.start) for day in new if day)
    run.log.info(
        "%s: %s rows inserted, %s of them bad, in %.1f s", table, f"{inserted:,}", f"{bad:,}", monotonic() - started
    )
    return Filled(inserted=inserted, bad=bad, rows=sum(there.values()) + inserted)


def _require_day_rule(day_column: str, rule: object) -> None:
    """Refuse a day column whose rule could move a row to another day."""
    if not isinstance(rule, TimestampInDay) and not (isinstance(rule, DayText) and rule.day == "YYYY-MM-DD"):
        given = "has no rule" if rule is None else f"has the rule {type(rule).__name__}"
        expected = "`timestamp_in_day` or `day: YYYY-MM-DD`, to count the rows of a day"
        raise PermanentError(f"day_column {day_column!r} {given} in `columns`, but needs {expected}")


def _require_fillable(table: str, there: Mapping[str, ColumnFacts], filled: Sequence[str]) -> None:
    require_columns(table, there, filled)
    if lacking := [column for column, facts in there.items() if facts.required and column not in filled]:
        problem = f"needs a value for {', '.join(lacking)} (NOT NULL, no default)"
        raise PermanentError(f"table {table} {problem}; add a rule below `columns`")


def _count_by_day(cursor: Cursor, table: str, day_column: str, days: Sequence[dt.date]) -> dict[dt.date, int]:
    text = """
        SELECT {day}::date, count(*) FROM {table}
        WHERE {day} >= {first} AND {day} < {after} GROUP BY 1
    """
    first, after = value(days[0]), value(days[-1] + dt.timedelta(days=1))
    cursor.execute(statement(text, day=name(day_column), table=table_identifier(table), first=first, after=after))
    return dict(cursor.fetchall())


def _copy(cursor: Cursor, table: str, columns: Sequence[str], lines: Iterator[bytes]) -> None:
    text = statement("COPY {table} ({columns}) FROM STDIN", table=table_identifier(table), columns=names(columns))
    cursor.copy_expert(text, io.BufferedReader(_Blocks(lines), 1 << 20))


class _Blocks(io.RawIOBase):
    """A file for COPY to read, with only one block in memory at a time."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        room = memoryview(buffer)
        self._rest = self._rest or memoryview(next(self._blocks, b""))
        count = min(len(room), len(self._rest))
        room[:count], self._rest = self._rest[:count], self._rest[count:]
        return count


@dataclass(frozen=True, slots=True)
class Flaws:
    """How many of a day's rows are bad, and how their values go wrong."""

    share: Fraction
    values: Sequence[tuple[int, Sequence[str]]]
    """The place of a column, and its bad values as text for COPY."""

    def before(self, row: int) -> int:
        """Return how many of the rows below number `row` are bad: the share, rounded up."""
        return math.ceil(row * self.share)

    def within(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield each bad row's number, and how many bad rows come before it."""
        for nth in range(self.before(start), self.before(stop)):
            yield math.floor(nth / self.share), nth

    def pick(self, day: dt.date, nth: int) -> tuple[int, str]:
        """Return the place and the text of a bad value: columns take turns, and so do the values of each."""
        turn, place = divmod(day.toordinal() + nth, len(self.values))
        column, texts = self.values[place]
        return column, texts[turn % len(texts)]


def _flaws(share: float, values: Mapping[str, Sequence[Scalar]], columns: Sequence[str], day_column: str) -> Flaws:
    if share and not values:
        raise PermanentError(f"bad_share is {share}, but `bad_values` is empty; list bad values for some columns")
    if day_column in values:
        raise PermanentError(f"bad_values names the day_column {day_column!r}, but all rows are counted by it")
    if unfilled := [column for column in values if column not in columns]:
        raise PermanentError(f"bad_values names {', '.join(unfilled)}, which has no rule in `columns`")
    texts = [(columns.index(column), [_copy_text(value) for value in bad]) for column, bad in values.items()]
    return Flaws(Fraction(str(share)), texts)


Maker = Callable[[dt.date, "Numbers", "Numbers"], list[str]]
"""Makes a column's values as text for COPY, from the day, the rows' numbers and a random number for each."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a table, by day and number."""

    table: str
    seed: int
    makers: Mapping[str, Maker]
    flaws: Flaws

    def lines(self, day: dt.date, start: int, stop: int) -> Iterator[bytes]:
        """Yield rows `start` to before `stop` of a day in the text format of COPY, a block at a time."""
        for first in range(start, stop, BLOCK):
            after = min(first + BLOCK, stop)
            cells = [self.values(column, day, first, after) for column in self.makers]
            for row, nth in self.flaws.within(first, after):
                place, text = self.flaws.pick(day, nth)
                cells[place][row - first] = text
            yield ("\n".join(map("\t".join, zip(*cells, strict=True))) + "\n").encode()

    def values(self, column: str, day: dt.date, first: int, after: int) -> list[str]:
        """Return one column of rows `first` to before `after`."""
        import numpy as np

        numbers = np.arange(first, after, dtype=np.uint64)
        return self.makers[column](day, numbers, draws(draw_key(self.seed, self.table, day, column), numbers))


def _maker(table: str, seed: int, column: str, rule: Rule) -> Maker:
    match rule:
        case Choice():
            return _choice(rule)
        case Integer():
            return _decimal(rule.integer.min, rule.integer.max, 0)
        case DecimalNumber():
            low, high = rule.decimal.scaled
            return _decimal(low, high, rule.decimal.digits)
        case Sequential():
            return lambda _day, numbers, _random: [str(number) for number in (numbers + rule.sequence.start).tolist()]
        case DayText():
            return lambda day, numbers, _random: [_day_text(rule.day, day)] * len(numbers)
        case TimestampInDay():
            return _timestamp(rule.timestamp_in_day)
        case Fake():
            return _fake(draw_key(seed, table, column), column, rule)


def _drawn(texts: Sequence[str]) -> Maker:
    """Draw from `texts`, each equally likely."""
    import numpy as np

    pool = np.array(texts, dtype=object)
    return lambda _day, _numbers, random: pool[random % np.uint64(len(pool))].tolist()


def _choice(rule: Choice) -> Maker:
    import numpy as np

    texts = [_copy_text(value) for value in rule.choice]
    if rule.weights is None:
        return _drawn(texts)
    pool = np.array(texts, dtype=object)
    limits = np.array(list(accumulate(rule.weights))) / sum(rule.weights)
    return lambda _day, _numbers, random: pool[np.searchsorted(limits, fractions(random), side="right")].tolist()


def _decimal(low: int, high: int, digits: int) -> Maker:
    """Draw whole numbers from `low` to `high` and put the point `digits` from the end."""
    import numpy as np

    span, power = np.uint64(high - low + 1), 10**digits
    form = f"%s%d.%0{digits}d"

    def make(_day: dt.date, _numbers: Numbers, random: Numbers) -> list[str]:
        drawn = (random % span).astype(np.int64) + low
        if not digits:
            return [str(number) for number in drawn.tolist()]
        signs = np.where(drawn < 0, "-", "").tolist()
        whole, rest = (part.tolist() for part in np.divmod(np.abs(drawn), power))
        return list(map(form.__mod__, zip(signs, whole, rest, strict=True)))

    return make


def _timestamp(span: TimeSpan) -> Maker:
    first, after = _seconds(span.start), _seconds(span.end)
    clock = _drawn([str(dt.timedelta(seconds=second)).zfill(8) for second in range(first, after)])
    return lambda day, numbers, random: [f"{day} {time}" for time in clock(day, numbers, random)]


def _seconds(clock: str) -> int:
    hours, minutes = clock.split(":")
    return int(hours) * 3600 + int(minutes) * 60


def _day_text(form: str, day: dt.date) -> str:
    parts = {
        "D": str(day.day),
        "DD": f"{day.day:02}",
        "M": str(day.month),
        "MM": f"{day.month:02}",
        "YYYY": f"{day.year:04}",
    }
    return re.sub("DD?|MM?|YYYY", lambda part: parts[part[0]], form)


def _fake(key: int, column: str, rule: Fake) -> Maker:
    """Draw from a pool of Faker values; each place has its own seed, and is filled when it is drawn."""
    import numpy as np
    from faker import Faker
    from faker.exceptions import BaseFakerException

    faker, pool = Faker(), np.full(POOL, None, dtype=object)
    provide = getattr(faker, rule.faker)

    def fill(place: int) -> None:
        faker.seed_instance(key + place)
        try:
            pool[place] = _copy_text(provide(**rule.arguments))
        except (TypeError, ValueError, AttributeError, BaseFakerException) as error:
            problem = f"Faker's {rule.faker} refuses {rule.arguments}: {error}"
            raise PermanentError(f"column {column!r}: {problem}") from error

    def make(_day: dt.date, _numbers: Numbers, random: Numbers) -> list[str]:
        places = random % np.uint64(POOL)
        for place in np.unique(places).tolist():
            if pool[place] is None:
                fill(place)
        return list(pool[places])

    fill(0)  # now, as an error in the middle of a COPY would look like the server's
    return make


_COPY_ESCAPES = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})


def _copy_text(of: Scalar | Decimal) -> str:
    """Return a value in COPY's text format."""
    return r"\N" if of is None else str(of).translate(_COPY_ESCAPES)
