"""The SQL condition of each row-wise expectation, held against Great Expectations' own answer."""

from __future__ import annotations

import datetime as dt
import random
from typing import TYPE_CHECKING, Any

import pytest

from tasks.quality.gate import _one_snapshot
from tasks.quality.on_postgres.conditions import can_quarantine, row_condition
from tasks.quality.on_postgres.date_formats import matches_format
from tasks.quality.on_postgres.quarantine import _judged, batch_rows
from tasks.quality.suites import Batch, Expectation, Suite
from tasks.quality.verdicts import _Library, _open_batch, load_library
from tasks.services.postgres import postgres as connected
from tests.support.expectation_examples import EXAMPLES, NASTY_TABLE

if TYPE_CHECKING:
    from stack.database import Database
    from tasks.contract import Run
    from tests.support.database import Sql

Case = tuple[str, dict[str, Any]]


def rule(name: str, /, **arguments: Any) -> Case:
    return name, arguments


def only(column: str, operator: str, parameter: object) -> dict[str, Any]:
    return {"type": "comparison", "column": {"name": column}, "operator": operator, "parameter": parameter}


def known(column: str) -> dict[str, Any]:
    return {"type": "nullity", "column": {"name": column}, "is_null": False}


TEXT = {"condition_parser": "great_expectations"}

VARIANTS: list[Case] = [
    rule("expect_column_values_to_be_between", column="n", min_value=2, strict_min=True),
    rule("expect_column_values_to_be_between", column="n", max_value=2, strict_max=True),
    rule("expect_column_values_to_be_between", column="n", min_value=1, max_value=9, strict_min=True, strict_max=True),
    rule("expect_column_values_to_be_between", column="x", min_value=-1e-300, max_value=8.5),
    rule("expect_column_values_to_be_between", column="x", min_value=0),
    rule("expect_column_values_to_be_between", column="price", min_value=-0.1, max_value=3, strict_min=True),
    rule("expect_column_values_to_be_between", column="price", max_value=99999999999999999999.99),
    rule("expect_column_values_to_be_between", column="day", min_value="2026-01-02", max_value="2026-03-01"),
    rule("expect_column_values_to_be_between", column="day", min_value="2026-01-02T00:00:01"),
    rule("expect_column_values_to_be_in_set", column="word", value_set=["", "a", None, "'; DROP", "back\\slash", "😀"]),
    rule("expect_column_values_to_be_in_set", column="n", value_set=[1, 2.0, -5]),
    rule("expect_column_values_to_be_in_set", column="price", value_set=[3, 0.1, -0.1]),
    rule("expect_column_values_to_not_be_in_set", column="word", value_set=["a", None, "100%"]),
    rule("expect_column_values_to_not_be_in_set", column="n", value_set=[1, 100]),
    rule("expect_column_values_to_be_null", column="word", row_condition='col("n") > 5', **TEXT),
    rule("expect_column_values_to_not_be_null", column="other", row_condition='col("n") <= 2.5', **TEXT),
    rule("expect_column_values_to_not_be_null", column="n", row_condition='col("word").notnull()', **TEXT),
    rule("expect_column_values_to_not_be_null", column="n", row_condition='col("word") == "a"', **TEXT),
    rule("expect_column_values_to_not_be_null", column="m", row_condition="col(\"word\") != 'b'", **TEXT),
    rule("expect_column_values_to_be_unique", column="n"),
    rule("expect_column_values_to_be_unique", column="x"),
    rule("expect_column_values_to_be_unique", column="word", row_condition=only("n", ">=", 1)),
    rule("expect_compound_columns_to_be_unique", column_list=["word", "n"], ignore_row_if="never"),
    rule("expect_compound_columns_to_be_unique", column_list=["n", "m", "x"], ignore_row_if="any_value_is_missing"),
    rule("expect_compound_columns_to_be_unique", column_list=["n", "m"], row_condition=only("id", "<", 19)),
    rule("expect_column_values_to_match_like_pattern", column="word", like_pattern="a\\_%"),
    rule("expect_column_values_to_match_like_pattern", column="word", like_pattern="%!%", escape="!"),
    rule(
        "expect_column_values_to_match_like_pattern_list",
        column="word",
        like_pattern_list=["a%", "%b"],
        match_on="all",
    ),
    rule("expect_column_values_to_match_regex", column="word", regex=r"^\w+$"),
    rule("expect_column_values_to_match_regex", column="word", regex=r"'|\\|%"),
    rule("expect_column_values_to_match_regex_list", column="word", regex_list=["a", "^.$"], match_on="any"),
    rule("expect_column_values_to_match_strftime_format", column="written_day", strftime_format="%d/%m/%y"),
    rule("expect_column_value_lengths_to_be_between", column="word", max_value=1),
    rule("expect_column_value_lengths_to_be_between", column="word", min_value=1, strict_min=True),
    rule("expect_column_pair_values_to_be_equal", column_A="n", column_B="m", ignore_row_if="neither"),
    rule("expect_column_pair_values_to_be_equal", column_A="n", column_B="m", ignore_row_if="either_value_is_missing"),
    rule("expect_column_pair_values_a_to_be_greater_than_b", column_A="n", column_B="m"),
    rule(
        "expect_column_pair_values_a_to_be_greater_than_b",
        column_A="n",
        column_B="m",
        or_equal=True,
        ignore_row_if="neither",
    ),
    rule(
        "expect_column_pair_values_to_be_in_set",
        column_A="word",
        column_B="other",
        value_pairs_set=[["a", "a"], [None, "z"], ["b", None]],
        ignore_row_if="neither",
    ),
    rule("expect_multicolumn_sum_to_equal", column_list=["n", "m", "price"], sum_total=0.5),
    rule("expect_multicolumn_sum_to_equal", column_list=["n", "m"], sum_total=3, ignore_row_if="never"),
    rule("expect_multicolumn_values_to_be_equal", column_list=["n", "m"], ignore_row_if="any_value_is_missing"),
    rule("expect_multicolumn_values_to_be_equal", column_list=["word", "other", "written_day"], ignore_row_if="never"),
    rule(
        "expect_select_column_values_to_be_unique_within_record",
        column_list=["n", "m", "id"],
        ignore_row_if="never",
    ),
    rule("expect_column_value_z_scores_to_be_less_than", column="price", threshold=0.5, double_sided=False),
    rule("expect_column_value_z_scores_to_be_less_than", column="n", threshold=-1, double_sided=True),
    rule(
        "expect_column_value_z_scores_to_be_less_than",
        column="n",
        threshold=1,
        double_sided=True,
        row_condition=only("id", "IN", [1, 3, 6, 8, 9]),
    ),
    rule("expect_column_values_to_not_be_outliers", column="n", method="std", multiplier=1),
    rule("expect_column_values_to_not_be_outliers", column="n", method="std", multiplier=0),
    rule("expect_column_values_to_not_be_outliers", column="x", method="iqr", multiplier=1.5),
    rule("expect_column_values_to_not_be_outliers", column="x", method="std"),
    rule(
        "expect_column_values_to_not_be_outliers",
        column="n",
        multiplier=0.1,
        row_condition={"type": "and", "conditions": [known("word"), only("id", "!=", 8)]},
    ),
    rule(
        "expect_column_values_to_not_be_null",
        column="other",
        row_condition={
            "type": "or",
            "conditions": [only("word", "NOT_IN", ["a", "b"]), {"type": "and", "conditions": [only("n", "==", 2)]}],
        },
    ),
    rule("unexpected_rows_expectation", unexpected_rows_query="SELECT id FROM {batch}"),
    rule(
        "unexpected_rows_expectation",
        unexpected_rows_query="""
            select id, word -- from the batch
            from {batch}
            where subselect.n in (select n from raw.other_nasty where n > 5) or word like '%''; where%' or (m < -6)
            order by id;""",
    ),
]

DERIVABLE: list[Case] = [
    case for case in EXAMPLES.items() if can_quarantine(Expectation(type=case[0], arguments=case[1]))
]


@pytest.fixture
def nasty(database: Database, sql: Sql) -> Suite:
    """A suite without rules on a table of everything that makes trouble."""
    sql(NASTY_TABLE)
    fine = Expectation(type="expect_table_row_count_to_equal", arguments={"value": 20})
    return Suite(name="nasty", connection="crypto_postgres", batch=Batch(table="raw.nasty"), expectations=[fine])


def test_conditions_agree_with_library(nasty: Suite, run: Run) -> None:
    """For every derivable expectation, the rows that its condition finds are those that the library finds."""
    cases = [*DERIVABLE, *VARIANTS]
    suite = nasty.model_copy(update={"expectations": [Expectation(type=name, arguments=one) for name, one in cases]})
    named = [place for place, (_, one) in enumerate(cases) if one.get("column") != "price"]
    with connected("crypto_postgres", autocommit=True) as session, _one_snapshot(session, suite, run) as cursor:
        load_library()
        _open_batch(cursor, suite)
        library = _Library.open(suite, {"crypto_postgres": session})
        counts = [counted(one.result) for one in library.ask(range(len(cases)), "BASIC").results]
        names = dict(zip(named, library.ask(named, WITH_ROWS).results, strict=True))
        found = [broken(cursor, suite.batch, expectation) for expectation in suite.expectations]
    assert {case[0]: len(ids) for case, ids in zip(enumerate(cases), found, strict=True)} == dict(enumerate(counts))
    assert [(cases[place], found[place]) for place, one in names.items() if not agree(found[place], one.result)] == []
    assert sum(map(bool, found)) > len(cases) * 0.8  # a rule that no row breaks proves little


WITH_ROWS = {"result_format": "COMPLETE", "unexpected_index_column_names": ["id"], "partial_unexpected_count": 1000}
"""Asks for the rows as well; the library cannot do so for a numeric column that holds NaN."""


def broken(cursor: Any, batch: Batch, expectation: Expectation) -> list[int]:
    from psycopg2.sql import SQL

    condition = row_condition(expectation)
    assert condition is not None
    query = SQL("WITH subselect AS NOT MATERIALIZED ({}) SELECT id FROM {} WHERE {} ORDER BY id")
    cursor.execute(query.format(batch_rows(batch), _judged([condition]), SQL(condition.sql)))
    return [number for (number,) in cursor.fetchall()]


def counted(result: dict[str, Any]) -> int:
    return int(result.get("unexpected_count", result.get("observed_value")))


def agree(ids: list[int], result: dict[str, Any]) -> bool:
    """Return whether the library names the same rows, where it names any."""
    rows = result.get("unexpected_index_list") or result.get("details", {}).get("unexpected_rows")
    return rows is None or sorted(row["id"] for row in rows) == ids


def test_table_rules_have_none() -> None:
    """What is asked of a whole column or table is no question to a row."""
    derivable = {name for name, _ in DERIVABLE}
    assert {name for name in EXAMPLES if name.startswith(("expect_table", "expect_column_m", "expect_column_d"))} & (
        derivable
    ) == set()
    assert len(derivable) == 28


@pytest.mark.parametrize(
    "query",
    [
        "SELECT n FROM {batch} GROUP BY n HAVING count(*) > 1",
        "SELECT * FROM {batch} WHERE n > 5 LIMIT 3",
        "SELECT DISTINCT word FROM {batch} WHERE n > 5",
        "SELECT count(*) FROM {batch} HAVING count(*) > 5",
        "SELECT b.* FROM {batch} AS b JOIN raw.other AS o ON o.id = b.id WHERE o.n < b.n",
        "SELECT * FROM {batch} WHERE n > (SELECT avg(n) FROM {batch})",
        "SELECT * FROM {batch} WHERE n > 5 UNION SELECT * FROM {batch} WHERE n < 0",
        "WITH big AS (SELECT * FROM {batch}) SELECT * FROM big WHERE n > 5",
    ],
)
def test_query_asks_more(query: str) -> None:
    """A query whose rows are not rows of the batch, picked one by one, cannot tell which rows to set aside."""
    rule_ = Expectation(type="unexpected_rows_expectation", arguments={"unexpected_rows_query": query})
    assert not can_quarantine(rule_)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("expect_column_values_to_be_in_set", {"column": "{{ params.c }}", "value_set": "{{ params.sites }}"}),
        ("expect_column_values_to_be_between", {"column": "a", "min_value": "{{ params.x }}"}),
        (
            "expect_column_value_z_scores_to_be_less_than",
            {"column": "a", "threshold": "{{ x }}", "double_sided": "{{ y }}"},
        ),
        (
            "unexpected_rows_expectation",
            {"unexpected_rows_query": "SELECT * FROM {batch} WHERE day > {{ run.date }} - {{ params.days }}"},
        ),
    ],
)
def test_templates_do_not_matter(name: str, arguments: dict[str, Any]) -> None:
    """Whether rows can be set aside is known before the templates are filled."""
    assert can_quarantine(Expectation(type=name, arguments=arguments))


FORMATS = (
    "%d/%m/%Y",
    "%Y-%m-%d",
    "%Y%m%d",
    "%d%m%Y",
    "%y%m%d",
    "%Y-%m-%dT%H:%M:%S",
    "%Y-%m-%d %H:%M:%S.%f",
    "%Y-%m-%dT%H:%M:%S%z",
    "%H%M%S",
    "%I:%M %p",
    "%d %b %Y",
    "%d %B %Y",
    "%d/%m",
    "%m/%Y",
    "%Y.%m.%d 100%%",
    "[%d] (%m)",
)


@pytest.mark.parametrize("strftime_format", FORMATS)
def test_formats_read_like_python(strftime_format: str, sql: Sql) -> None:
    """A text is a date in SQL when `datetime.strptime` reads it as one."""
    texts = nearly_dates(strftime_format)
    condition = matches_format("text", strftime_format)
    assert condition is not None
    from psycopg2.sql import SQL, Literal

    found = sql(SQL("SELECT text FROM unnest({}) AS text WHERE {}").format(Literal(texts), SQL(condition)))
    expected = {text for text in texts if is_read(text, strftime_format)}
    assert {text for (text,) in found} == expected
    assert expected


def nearly_dates(strftime_format: str) -> list[str]:
    """Return texts of the format, and texts with a character changed, dropped or doubled."""
    chance = random.Random(strftime_format)
    texts: set[str] = set()
    for _ in range(3000):
        day = dt.datetime(chance.randrange(1, 10_000), 1, 1, tzinfo=dt.UTC) + dt.timedelta(
            seconds=chance.randrange(31_536_000)
        )
        text = day.strftime(strftime_format).replace("%f", "123456")
        place = chance.randrange(len(text) + 1)
        change = chance.choice(["", "", "0", "1", "2", "3", "9", " ", "/", "-", "a", "Z", "\n"])
        texts |= {text, text[:place] + change + text[place + 1 :], text[:place] + change + text[place:]}
        texts |= {text.replace("/0", "/").lstrip("0"), text.upper(), text.lower()}
    return sorted(text for text in texts if text.isascii())


def is_read(text: str, strftime_format: str) -> bool:
    try:
        dt.datetime.strptime(text, strftime_format)  # noqa: DTZ007  only whether it is read
    except ValueError:
        return False
    return True
