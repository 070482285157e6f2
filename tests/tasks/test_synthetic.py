"""synthetic.fill_table."""

from __future__ import annotations

import datetime as dt
import tracemalloc
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any, get_args

import pytest
from pydantic import TypeAdapter, ValidationError

from stack.database import Database
from tasks.contract import MissingResource, PermanentError, Run, TransientError
from tasks.synthetic.tables import DecimalRange, Filled, Provider, Rule, fill_table
from tests.support.database import Gate, Sql

CONNECTION = "crypto_postgres"

TABLE = """
    CREATE SCHEMA raw;
    CREATE TABLE raw.t (site text, person bigint, day text, price numeric(12, 2), at timestamp NOT NULL, note text);
"""

RULES = {
    "site": {"choice": ["A", "B", None], "weights": [0.5, 0.5, 0]},
    "person": {"sequence": {"start": 100}},
    "day": {"day": "D/M/YYYY"},
    "price": {"decimal": {"min": -2.5, "max": 99.99, "digits": 2}},
    "at": {"timestamp_in_day": {"start": "08:00", "end": "20:00"}},
    "note": {"faker": "address"},
}
FLAWS = {"site": ["CHILE"], "person": [None], "day": ["2026-13-45", ""], "price": [-1]}

CONTENT = "SELECT * FROM raw.t ORDER BY at::date, person, t::text"
PER_DAY = "SELECT at::date, count(*) FROM raw.t GROUP BY 1 ORDER BY 1"


@pytest.fixture
def table(sql: Sql) -> None:
    """An empty table."""
    sql(TABLE)


def rules(written: Mapping[str, object]) -> dict[str, Rule]:
    return TypeAdapter(dict[str, Rule]).validate_python(written, strict=True)


def filled(run: Run, **change: Any) -> Filled:
    asked: dict[str, Any] = {"columns": RULES, "rows_per_day": 10, "window_days": 3} | change
    columns = rules(asked.pop("columns"))
    return fill_table(CONNECTION, asked.pop("table", "raw.t"), asked.pop("day_column", "at"), columns, **asked, run=run)


def days(*numbers: int) -> list[dt.date]:
    return [dt.date(2026, 1, number) for number in numbers]


def test_window_is_filled(table: None, run: Run, sql: Sql) -> None:
    """Each day of the window, the run's date the last, has the rows asked for."""
    assert filled(run) == Filled(inserted=30, bad=0, rows=30)
    assert sql(PER_DAY) == [(day, 10) for day in days(3, 4, 5)]


def test_days_are_topped_up(table: None, run: Run, sql: Sql) -> None:
    """Rows are added to what is there, never beyond the target, and nothing is taken away."""
    filled(run, rows_per_day=4, window_days=1)
    before = sql(CONTENT)
    assert filled(run) == Filled(inserted=26, bad=0, rows=30)
    assert filled(run) == Filled(inserted=0, bad=0, rows=30)
    assert filled(run, rows_per_day=2) == Filled(inserted=0, bad=0, rows=30)
    assert set(before) <= set(sql(CONTENT))


def test_later_window_overlaps(table: None, run: Run, sql: Sql) -> None:
    """The next day's run adds its own day alone."""
    filled(run)
    tomorrow = replace(run, date=run.date + dt.timedelta(days=1))
    assert filled(tomorrow) == Filled(inserted=10, bad=0, rows=30)
    assert sql(PER_DAY) == [(day, 10) for day in days(3, 4, 5, 6)]


def test_rows_never_vary(table: None, run: Run, sql: Sql) -> None:
    """The rows of a day depend on neither the window, nor the steps in which it was filled, nor the block's size."""
    filled(run)
    whole = sql(CONTENT)
    sql("TRUNCATE raw.t")
    filled(run, rows_per_day=7, window_days=1)
    filled(replace(run, date=run.date - dt.timedelta(days=2)), window_days=1)
    filled(run, rows_per_day=8, window_days=2)
    filled(run)
    assert sql(CONTENT) == whole


def test_seed_changes_rows(table: None, run: Run, sql: Sql) -> None:
    """Another seed gives other rows."""
    filled(run)
    first = sql("SELECT price, at, note FROM raw.t")
    sql("TRUNCATE raw.t")
    filled(run, seed=1)
    assert not set(first) & set(sql("SELECT price, at, note FROM raw.t"))


def test_tables_differ(table: None, run: Run, sql: Sql) -> None:
    """Another table gets other rows."""
    sql("CREATE TABLE raw.u (LIKE raw.t)")
    filled(run)
    filled(run, table="raw.u")
    assert sql("SELECT count(*) FROM raw.t JOIN raw.u USING (price, at)") == [(0,)]


def test_rules_are_kept(table: None, run: Run, sql: Sql) -> None:
    """Each column's values are what its rule says, to the bounds."""
    filled(run, rows_per_day=3000)
    (found,) = sql("""
        SELECT min(price), max(price), bool_and(scale(price) = 2), min(at::time), max(at::time),
               bool_and(day = extract(day FROM at) || '/' || extract(month FROM at) || '/' || extract(year FROM at)),
               count(DISTINCT (person, at::date)), min(person), max(person)
        FROM raw.t
    """)
    low, high, scaled, first, last, same_day, people, least, most = found
    assert Decimal("-2.5") <= low < -2
    assert 99 < high <= Decimal("99.99")
    assert (scaled, same_day, people, least, most) == (True, True, 9000, 100, 3099)
    assert dt.time(8) <= first < dt.time(8, 5)
    assert dt.time(19, 55) < last < dt.time(20)


def test_weights_are_kept(table: None, run: Run, sql: Sql) -> None:
    """A choice falls as often as its weight says, and one of weight 0 never."""
    weighted = {"choice": ["A", "B", "C", "D"], "weights": [0.7, 0.2, 0, 0.1]}
    filled(run, columns=RULES | {"site": weighted}, rows_per_day=10_000, window_days=1)
    found: dict[str, int] = dict(sql("SELECT site, count(*) FROM raw.t GROUP BY 1"))
    assert sorted(found) == ["A", "B", "D"]
    assert found["A"] == pytest.approx(7000, abs=200)
    assert found["B"] == pytest.approx(2000, abs=200)


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("D/M/YYYY", "5/1/2026"),
        ("DD/MM/YYYY", "05/01/2026"),
        ("YYYY-MM-DD", "2026-01-05"),
        ("MM.DD.YYYY", "01.05.2026"),
        ("YYYYMMDD", "20260105"),
    ],
)
def test_day_forms(table: None, run: Run, sql: Sql, form: str, text: str) -> None:
    """A day is written in the form asked for."""
    filled(run, columns=RULES | {"day": {"day": form}}, rows_per_day=1, window_days=1)
    assert sql("SELECT day FROM raw.t") == [(text,)]


def test_texts_survive_copy(table: None, run: Run, sql: Sql) -> None:
    """Tabs, line breaks, backslashes, quotes and nulls come out of the database as they went in."""
    texts = ["a\tb", "a\nb", "a\r\nb", "back\\slash", "\\N", "\\.", 'it\'s "so"', "", None, "ñ€"]
    filled(run, columns=RULES | {"note": {"choice": texts}}, rows_per_day=500, window_days=1)
    assert {text for (text,) in sql("SELECT DISTINCT note FROM raw.t")} == set(texts)


def test_providers_return_plain(table: None, run: Run, sql: Sql) -> None:
    """Every provider of the list gives values that fit a column, the same ones each time."""
    providers = get_args(Provider)
    sql(f"CREATE TABLE raw.p (at timestamp, {', '.join(f'{provider} text NOT NULL' for provider in providers)})")
    columns: dict[str, object] = {provider: {"faker": provider} for provider in providers}
    columns |= {"at": RULES["at"], "random_element": {"faker": "random_element", "arguments": {"elements": ["x", "y"]}}}
    seen = []
    for _ in range(2):
        sql("TRUNCATE raw.p")
        filled(run, table="raw.p", columns=columns, rows_per_day=5, window_days=1)
        seen.append(sql("SELECT * FROM raw.p ORDER BY at"))
    assert seen[0] == seen[1]
    assert not [value for row in seen[0] for value in row[1:] if value.startswith(("{", "[", "<"))]


def test_share_is_bad(table: None, run: Run, sql: Sql) -> None:
    """Of each day's new rows the share asked for has one bad value, and each column and value takes its turn."""
    assert filled(run, rows_per_day=100, bad_share=0.12, bad_values=FLAWS) == Filled(inserted=300, bad=36, rows=300)
    flaws = Counter(tuple(flaws) for (flaws,) in sql("SELECT array_remove(ARRAY[" + FLAW + "], NULL) FROM raw.t"))
    assert flaws.pop(()) == 264
    assert {len(found) for found in flaws} == {1}
    assert sorted(flaws.values()) == [3, 6, 9, 9, 9]


FLAW = """
    CASE WHEN site = 'CHILE' THEN 'site' END, CASE WHEN person IS NULL THEN 'person' END,
    CASE WHEN day = '2026-13-45' THEN 'day' WHEN day = '' THEN 'no day' END, CASE WHEN price = -1 THEN 'price' END
"""


def test_share_counts_new(table: None, run: Run, sql: Sql) -> None:
    """Rows that were there stay good; of the new ones the share is bad."""
    filled(run, rows_per_day=50)
    good = sql(CONTENT)
    assert filled(run, rows_per_day=100, bad_share=0.1, bad_values=FLAWS) == Filled(inserted=150, bad=15, rows=300)
    assert set(good) <= set(sql(CONTENT))


def test_any_share_shows(table: None, run: Run, database: Database) -> None:
    """A share that is less than a row a day still gives one."""
    assert filled(run, bad_share=0.001, bad_values=FLAWS).bad == 3


def test_whole_share_is_bad(table: None, run: Run, database: Database) -> None:
    """A share of 1 spoils every row."""
    assert filled(run, bad_share=1.0, bad_values=FLAWS).bad == 30


@pytest.mark.parametrize(
    ("change", "error", "problem"),
    [
        ({"table": "raw.nope"}, MissingResource, r"^table 'raw.nope' does not exist in Postgres at "),
        (
            {"columns": RULES | {"pirce": {"choice": [1]}}},
            MissingResource,
            r"^column 'pirce' does not exist in table raw.t; did you mean \"price\"\? It has site, person, day, ",
        ),
        ({"day_column": "nope"}, PermanentError, r"^day_column 'nope' has no rule in `columns`, but needs "),
        (
            {"day_column": "day"},
            PermanentError,
            r"^day_column 'day' has the rule DayText in `columns`, but needs ",
        ),
        (
            {"bad_share": 0.1},
            PermanentError,
            r"^bad_share is 0.1, but `bad_values` is empty; list bad values for some columns",
        ),
        (
            {"bad_share": 0.1, "bad_values": {"at": [None]}},
            PermanentError,
            r"^bad_values names the day_column 'at', but all rows",
        ),
        (
            {"bad_share": 0.1, "bad_values": {"nope": [1]}},
            PermanentError,
            r"^bad_values names nope, which has no rule in `columns`$",
        ),
        (
            {"bad_share": 0.1, "bad_values": {"person": ["x"]}},
            PermanentError,
            r'invalid input syntax for type bigint: "x" \(COPY t, line 1, column person: "x"\)$',
        ),
        (
            {"columns": RULES | {"note": {"faker": "pyint", "arguments": {"lowest": 1}}}},
            PermanentError,
            r"^column 'note': Faker's pyint refuses \{'lowest': 1\}: .*unexpected keyword argument 'lowest'$",
        ),
    ],
)
def test_wrong_rules_say_why(
    table: None, run: Run, sql: Sql, change: dict[str, Any], error: type[Exception], problem: str
) -> None:
    """A fill that cannot be done says why, and inserts nothing."""
    with pytest.raises(error, match=problem):
        filled(run, **change)
    assert sql("SELECT count(*) FROM raw.t") == [(0,)]


def test_unfilled_column_is_named(table: None, run: Run, sql: Sql) -> None:
    """A column that must have a value and has no rule is named before a row is made."""
    sql("ALTER TABLE raw.t ADD must integer NOT NULL, ADD may integer NOT NULL DEFAULT 0")
    with pytest.raises(PermanentError) as raised:
        filled(run)
    assert str(raised.value) == "table raw.t needs a value for must (NOT NULL, no default); add a rule below `columns`"


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ({"chioce": ["A"]}, "should be a mapping with one of choice, integer, decimal, sequence, day, "),
        ("A", "should be a mapping with one of choice, integer, decimal, sequence, day, "),
        ({"choice": []}, "List should have at least 1 item"),
        ({"choice": ["A"], "weights": [1, 2]}, "has 2 `weights` for 1 choices; give each choice one"),
        ({"choice": ["A"], "weights": [0]}, "has `weights` that are all 0, so nothing could be chosen"),
        ({"choice": ["A"], "integer": {"min": 1, "max": 2}}, "Extra inputs are not permitted"),
        ({"integer": {"min": 3, "max": 2}}, r"has a `min` \(3\) greater than its `max` \(2\)"),
        ({"decimal": {"min": 0.001, "max": 0.002}}, "has no number with 2 digits between 0.001 and 0.002"),
        (
            {"decimal": {"min": 0, "max": 1e9, "digits": 12}},
            r"has too many digits \(12\) for numbers up to 1000000000.0",
        ),
        ({"sequence": {"start": -1}}, "greater than or equal to 0"),
        ({"day": "YY/MM"}, "String should match pattern"),
        (
            {"timestamp_in_day": {"start": "20:00", "end": "08:00"}},
            r"has a `start` \(20:00\) that is not before its `end` \(08:00\)",
        ),
        ({"timestamp_in_day": {"start": "8:00"}}, "String should match pattern"),
        ({"faker": "date_of_birth"}, "Input should be 'address', "),
    ],
)
def test_wrong_rule_is_refused(rule: object, problem: str) -> None:
    """A rule that makes no sense is refused when the spec is read."""
    with pytest.raises(ValidationError, match=problem):
        rules({"column": rule})


def test_fills_take_turns(table: None, run: Run, database: Database, sql: Sql, gate: Gate) -> None:
    """Two fills at once leave no row too many: the second waits and finds the days full."""
    gate.hold("raw.t", "NEW.person = 105")
    with gate.closed(database):
        runs = [gate.start(filled, run) for _ in range(2)]
        gate.waiting(2)
    assert sorted(one.result().inserted for one in runs) == [0, 30]
    assert sql(PER_DAY) == [(day, 10) for day in days(3, 4, 5)]


def test_killed_fill_repeats_exactly(table: None, run: Run, database: Database, sql: Sql, gate: Gate) -> None:
    """A fill that is killed in the middle of a day leaves nothing; the retry leaves an undisturbed run's rows."""
    asked = {"rows_per_day": 50, "bad_share": 0.1, "bad_values": FLAWS}
    filled(run, **asked)
    undisturbed = sql(CONTENT)
    sql("TRUNCATE raw.t")
    gate.hold("raw.t", "NEW.at >= '2026-01-04' AND NEW.person = 125")
    with gate.closed(database):
        killed = gate.start(filled, run, **asked)
        (session,) = gate.waiting()
        gate.terminate(session)
        assert isinstance(killed.exception(), TransientError)
    assert sql("SELECT count(*) FROM raw.t") == [(0,)]
    filled(run, **asked)
    assert sql(CONTENT) == undisturbed


def test_memory_stays_constant(table: None, run: Run, database: Database) -> None:
    """Ten times the rows need no more memory: rows are made a block at a time."""
    few = peak_memory(replace(run, date=run.date - dt.timedelta(days=1)), 40_000)
    assert peak_memory(run, 400_000) < 1.2 * few


def peak_memory(run: Run, rows: int) -> int:
    columns = {"person": RULES["person"], "at": RULES["at"]}
    tracemalloc.start()
    try:
        filled(run, columns=columns, rows_per_day=rows, window_days=1)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("limit", [float("inf"), float("-inf"), float("nan")])
def test_range_is_finite(limit: float) -> None:
    """YAML has numbers without end, of which no decimal can be drawn."""
    with pytest.raises(ValidationError, match="finite number"):
        DecimalRange(min=0, max=limit)
