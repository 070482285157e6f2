"""Rows that break rules are set aside once for each reason, by the transaction that judged them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tasks.contract import MissingResource, PermanentError, Run
from tasks.quality.on_postgres.quarantine import quarantine, require_validation_id
from tasks.quality.suites import Batch, Expectation, Quarantine, Suite
from tasks.services.postgres import postgres as connected

if TYPE_CHECKING:
    from tests.support.database import Sql

TABLES = """
    CREATE SCHEMA raw;
    CREATE TABLE raw.events (id int, site text, price numeric, day date);
    INSERT INTO raw.events VALUES (1, 'A', 5, '2026-01-01'), (2, 'X', 7, '2026-01-01'), (3, 'Y', -1, '2026-01-01'),
                                  (4, NULL, -2, '2026-01-02'), (5, 'B', NULL, '2026-01-02'), (5, 'B', 3, '2025-01-01');
    CREATE TABLE raw.rejects (
        suite text, dag_id text, run_id text, validation_id text, reason text, id text, site text
    );
"""


FIRST, SECOND = "0199a2b4-0000-7000-8000-000000000001", "0199a2b4-0000-7000-8000-000000000002"


def rule(name: str, reason: str | None, /, **arguments: Any) -> Expectation:
    return Expectation(type=name, reason=reason, arguments=arguments)


SITE = rule("expect_column_values_to_be_in_set", "invalid_site", column="site", value_set=["A", "B"])
PRICE = rule("expect_column_values_to_be_between", "negative_price", column="price", min_value=0)
KNOWN_SITE = rule("expect_column_values_to_not_be_null", "missing", column="site")
KNOWN_PRICE = rule("expect_column_values_to_not_be_null", "missing", column="price")
KEY = rule("expect_column_values_to_be_unique", "duplicate", column="id")


@pytest.fixture
def suite(sql: Sql) -> Suite:
    """A suite on six rows, all of which but one break something."""
    sql(TABLES)
    return Suite(
        name="checks",
        connection="crypto_postgres",
        batch=Batch(table="raw.events"),
        quarantine=Quarantine(table="raw.rejects", columns={"id": "id::text", "site": "upper(site) || '%{}'"}),
        expectations=[SITE, PRICE, KNOWN_SITE, KNOWN_PRICE, KEY],
    )


def set_aside(suite: Suite, failed: list[Expectation], run: Run, instead_of: tuple[str, ...] = ()) -> dict[str, int]:
    with connected(suite.connection) as session, session.cursor() as cursor:
        return quarantine(cursor, suite, failed, replace(run, attempt=run.attempt or FIRST), instead_of=instead_of)


def test_row_appears_per_reason(suite: Suite, run: Run, sql: Sql) -> None:
    """A row that breaks two rules stands under both reasons, with the expressions of the suite; a good one nowhere."""
    assert set_aside(suite, [SITE, PRICE], run) == {"invalid_site": 2, "negative_price": 2}
    assert sql("SELECT * FROM raw.rejects ORDER BY reason, id") == [
        ("checks", "crypto_events_dag", "manual__1", FIRST, "invalid_site", "2", "X%{}"),
        ("checks", "crypto_events_dag", "manual__1", FIRST, "invalid_site", "3", "Y%{}"),
        ("checks", "crypto_events_dag", "manual__1", FIRST, "negative_price", "3", "Y%{}"),
        ("checks", "crypto_events_dag", "manual__1", FIRST, "negative_price", "4", None),
    ]


def test_shared_reason_counts_once(suite: Suite, run: Run, sql: Sql) -> None:
    """Rules with one reason are one rule to the quarantine."""
    sql("INSERT INTO raw.events VALUES (6, NULL, NULL, '2026-01-02')")
    assert set_aside(suite, [KNOWN_SITE, KNOWN_PRICE], run) == {"missing": 3}


def test_other_tries_keep_rows(suite: Suite, run: Run, sql: Sql) -> None:
    """A try takes the place of those it names, and leaves other tries, runs and suites alone."""
    other = replace(run, run_id="manual__2")
    set_aside(suite, [SITE, PRICE], run)
    set_aside(suite, [SITE], other)
    set_aside(suite.model_copy(update={"name": "other"}), [SITE], run)
    sql("UPDATE raw.events SET site = 'A' WHERE site = 'X'")
    assert set_aside(suite, [SITE], replace(run, attempt=SECOND)) == {"invalid_site": 1}
    assert set_aside(suite, [SITE, PRICE], replace(run, attempt=SECOND), (SECOND,)) == {
        "invalid_site": 1,
        "negative_price": 2,
    }
    assert sql("SELECT suite, run_id, validation_id, count(*) FROM raw.rejects GROUP BY 1, 2, 3 ORDER BY 1, 2, 3") == [
        ("checks", "manual__1", FIRST, 4),
        ("checks", "manual__1", SECOND, 3),
        ("checks", "manual__2", FIRST, 2),
        ("other", "manual__1", FIRST, 2),
    ]


def test_passed_try_keeps_rows(suite: Suite, run: Run, sql: Sql) -> None:
    """What a try set aside stays when the next one finds nothing wrong."""
    set_aside(suite, [SITE], run)
    assert set_aside(suite, [], replace(run, attempt=SECOND), (FIRST,)) == {}
    assert sql("SELECT count(*) FROM raw.rejects") == [(2,)]


def test_batch_bounds_rows(suite: Suite, run: Run, sql: Sql) -> None:
    """Rows outside the batch are neither set aside nor counted among the copies of a key."""
    assert set_aside(suite, [KEY], run) == {"duplicate": 2}
    narrow = suite.model_copy(update={"batch": Batch(table="raw.events", where="day >= DATE '2026-01-02'")})
    assert set_aside(narrow, [KEY, PRICE], run) == {"duplicate": 0, "negative_price": 1}


def test_batch_wide_rules_join(suite: Suite, run: Run) -> None:
    """Rules that look at the whole batch are asked in the same statement as the others."""
    far = rule("expect_column_value_z_scores_to_be_less_than", "far", column="price", threshold=1, double_sided=True)
    outlier = rule("expect_column_values_to_not_be_outliers", "outlier", column="price", multiplier=0.1)
    counts = set_aside(suite, [far, outlier, KEY, SITE], run)
    assert counts == {"far": 2, "outlier": 2, "duplicate": 2, "invalid_site": 2}


def test_rules_without_reason(suite: Suite, run: Run) -> None:
    """A rule without a reason, or about the table, sets no row aside."""
    count = rule("expect_table_row_count_to_equal", "too_few", value=100)
    unnamed = SITE.model_copy(update={"reason": None})
    assert set_aside(suite, [count, unnamed], run) == {}


def test_odd_names_survive(suite: Suite, run: Run, sql: Sql) -> None:
    """Names and values are quoted, whatever stands in them."""
    sql("""CREATE TABLE raw."Odd" ("Mixed Case" text, "per%cent" int, "quo""te" text, reason text, "select" int)""")
    sql("""INSERT INTO raw."Odd" VALUES ('it''s {0} %s', 1, 'a', 'x', 1), ('fine', 2, 'b', 'y', 2)""")
    keys = "suite text, dag_id text, run_id text, validation_id uuid"
    sql(f"""CREATE TABLE raw."Odd rejects" ({keys}, reason text, "Mixed Case" text)""")
    odd = suite.model_copy(
        update={
            "batch": Batch(table="raw.Odd"),
            "quarantine": Quarantine.model_construct(table="raw.Odd rejects", columns={"Mixed Case": '"Mixed Case"'}),
        }
    )
    rules = [
        rule("expect_column_values_to_not_be_in_set", "one", column="Mixed Case", value_set=["it's {0} %s"]),
        rule("expect_column_values_to_be_between", "two", column="per%cent", min_value=2),
        rule("expect_column_values_to_not_match_regex", "three", column='quo"te', regex="^[a%{}]$"),
        rule("expect_column_values_to_be_in_set", "four", column="reason", value_set=["y"]),
    ]
    assert set_aside(odd, rules, run) == {"one": 1, "two": 1, "three": 1, "four": 1}
    assert sql('SELECT DISTINCT "Mixed Case" FROM raw."Odd rejects"') == [("it's {0} %s",)]


def test_missing_target_named(suite: Suite, run: Run) -> None:
    """A quarantine that is not there is named, not made."""
    absent = suite.model_copy(update={"quarantine": Quarantine(table="raw.rejected", columns={"id": "id"})})
    with pytest.raises(MissingResource, match=r"table 'raw\.rejected' does not exist in Postgres"):
        set_aside(absent, [SITE], run)


def test_missing_column_told(suite: Suite, sql: Sql) -> None:
    """A table of rejects that cannot say which validation filled it is named, with the statement that mends it."""
    assert suite.quarantine
    sql("ALTER TABLE raw.rejects DROP COLUMN validation_id")
    with connected(suite.connection) as session, session.cursor() as cursor, pytest.raises(MissingResource) as missing:
        require_validation_id(cursor, suite.quarantine)
    told = str(missing.value)
    assert told.startswith("column 'validation_id' does not exist in table raw.rejects, where rejected rows are set")
    sql(told.partition("add it: ")[2])
    with connected(suite.connection) as session, session.cursor() as cursor:
        require_validation_id(cursor, suite.quarantine)


def test_failed_cast_writes_nothing(suite: Suite, run: Run, sql: Sql) -> None:
    """An expression that fails on a broken row leaves the rejects as they were."""
    set_aside(suite, [SITE], run)
    cast = suite.model_copy(update={"quarantine": Quarantine(table="raw.rejects", columns={"id": "site::int::text"})})
    with pytest.raises(PermanentError, match="invalid input syntax for type integer"):
        set_aside(cast, [SITE], run)
    assert sql("SELECT count(*) FROM raw.rejects") == [(2,)]
