"""SQL from YAML: what may stand there, and how values enter it; judged by a real Postgres."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pytest
from psycopg2.sql import SQL

from stack.database import Database
from tasks.postgres.expressions import check_expression
from tasks.postgres.literals import SqlValue, literal
from tasks.postgres.sql import fragment, table_identifier
from tests.support.database import Sql


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        False,
        0,
        -3,
        2**62,
        1.5,
        -0.25,
        Decimal("-12.3400000000"),
        "",
        "it's",
        "back\\slash '; DROP TABLE t; --",
        "100 %s of {it}\n\t$$",
        dt.date(2026, 1, 5),
        dt.datetime(2026, 1, 5, 23, 59, 59, 123456),  # noqa: DTZ001  a timestamp without a zone is meant
        dt.datetime(2026, 1, 5, 23, 59, tzinfo=dt.UTC),
    ],
)
def test_literal_is_read_back(sql: Sql, value: SqlValue) -> None:
    """Postgres reads a literal as the value that it was made of."""
    ((found,),) = sql(f"SELECT {literal(value)}")
    assert found == value


def test_negative_literal_subtracts(sql: Sql) -> None:
    """A negative number after a minus is not the start of a comment."""
    assert sql(f"SELECT 5 -{literal(-2)}") == [(7,)]


def test_list_follows_in(sql: Sql) -> None:
    """A list stands where IN wants one."""
    assert sql(f"SELECT 'b' IN {literal(['a', 'b'])}, 3 IN {literal([1, 2])}") == [(True, False)]


def test_nul_is_refused() -> None:
    """A character that no SQL text can hold is not dropped in silence."""
    with pytest.raises(ValueError, match="NUL"):
        literal("a\0b")


def test_table_keeps_case(sql: Sql) -> None:
    """A table is found by its exact spelling, however odd."""
    sql('CREATE SCHEMA "Odd"; CREATE TABLE "Odd"."Name$1" (a integer)')
    assert sql(SQL("SELECT count(*) FROM {}").format(table_identifier("Odd.Name$1"))) == [(0,)]


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1 + 2", 3),
        ("5 % 3", 2),
        ("'100 %s'", "100 %s"),
        ("CASE WHEN '7/1/2026' ~ '^[0-9]{1,2}/' THEN to_date('7/1/2026', 'DD/MM/YYYY') END", dt.date(2026, 1, 7)),
        ("DATE '2026-01-05' - 5 + 1", dt.date(2026, 1, 1)),
    ],
)
def test_fragment_is_one_value(sql: Sql, expression: str, value: object) -> None:
    """An expression means inside a statement what it means alone: a comment or a percent sign changes nothing."""
    assert sql(SQL("SELECT {}, 'after'").format(fragment(expression))) == [(value, "after")]


@pytest.mark.parametrize(
    "expression",
    [
        "1; DROP TABLE t",
        "1) FROM t; --",
        "(SELECT password FROM users)",
        "a IN (SELECT 1)",
        "EXISTS (SELECT 1)",
        "1 AS b",
        "DROP TABLE t",
        "SELECT 1",
        "a +",
        "'open",
        "/* open",
        "-- nothing",
    ],
)
def test_other_sql_is_refused(expression: str) -> None:
    """What is not one expression over the row's columns is refused before any database sees it."""
    with pytest.raises(ValueError, match=r"^(contains|is not a SQL expression)"):
        check_expression((expression,))


@pytest.fixture(autouse=True)
def _database(database: Database) -> None:
    """Every test here may ask the database."""
