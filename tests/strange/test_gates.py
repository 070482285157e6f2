"""Gates over tables as people have them: values that Python cannot hold, types that the library does not know, names.

Each table is one batch with a rule for each of its rows, as a gate takes longer than a rule.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from psycopg2.sql import SQL, Identifier

from stack.database import Database
from stack.paths import REPOSITORY
from tasks.contract import DataRejected, PermanentError, Run
from tasks.quality.gate import validate
from tasks.quality.suites import Batch, Expectation, Quarantine, Suite
from tests.support.database import Sql

TYPES = """
    CREATE SCHEMA s; CREATE TYPE s.pair AS (a int, b int); CREATE TYPE s.mood AS ENUM ('sad', 'glad');
    CREATE DOMAIN s.shape AS box; CREATE DOMAIN s.own_mood AS s.mood; CREATE TYPE s.span AS RANGE (subtype = float8);
    CREATE TABLE s.rejects (suite text, dag_id text, run_id text, reason text, validation_id uuid, row text);
"""

BETWEEN = "expect_column_values_to_be_between"
MAX = "expect_column_max_to_be_between"
MIN = "expect_column_min_to_be_between"
NULL = "expect_column_values_to_be_null"
NOT_NULL = "expect_column_values_to_not_be_null"
UNIQUE = "expect_column_values_to_be_unique"
IN_SET = "expect_column_values_to_be_in_set"
QUERY = "unexpected_rows_expectation"

Rule = tuple[str, dict[str, Any]]


@pytest.fixture
def strange(sql: Sql) -> Sql:
    """A database with types of its own, and the tables of records."""
    sql(TYPES)
    sql((REPOSITORY / "configs/sql/crypto/tables.sql").read_text())
    return sql


def told(run: Run, rules: Iterable[Rule]) -> dict[int, str]:
    """Return what a gate over s.t says of the rules that its rows break, by their place."""
    suite = Suite(
        name="strange",
        connection="crypto_postgres",
        batch=Batch(table="s.t"),
        quarantine=Quarantine(table="s.rejects", columns={"row": "'a row'"}),
        expectations=[
            Expectation(type=name, reason=f"r{place}", arguments=arguments)
            for place, (name, arguments) in enumerate(rules)
        ],
    )
    try:
        validate(suite, record_in="dqm.dq_runs", run=run)
    except DataRejected as rejected:
        lines = (line for line in str(rejected).splitlines() if line.startswith("  "))
        found = (line.rpartition("): ")[2].rpartition(" [") for line in lines)
        return {int(place[1:-1]): text for text, _, place in found}
    return {}


def set_aside(sql: Sql) -> dict[int, int]:
    """Return how many rows were set aside, by the place of the rule that they break."""
    return dict(sql("SELECT substr(reason, 2)::int, count(*) FROM s.rejects GROUP BY reason"))


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


KINDS = {
    "point": "(1,2)",
    "polygon": "((0,0),(1,1))",
    "circle": "<(0,0),1>",
    "box[]": "{(2,2),(0,0)}",
    "xml": None,
    "s.pair": "(1,2)",
    "s.pair[]": None,
    "s.shape": "(2,2),(0,0)",
    "s.own_mood": "sad",
    "s.mood[]": "{sad}",
    "s.span": "[1,2)",
    "int4multirange": "{[1,3)}",
    "pg_snapshot": "10:20:",
    "pg_lsn": "16/B374D848",
    "tsquery": "a",
    "macaddr8": "08:00:2b:01:02:03:04:05",
    "money": "1",
    "bit varying(5)": "101",
    "interval year to month": "1 year",
}


def test_no_rule_asks_about_a_column_of_an_unknown_type(strange: Sql, run: Run) -> None:
    """Columns that no rule names may be of any type."""
    columns = ", ".join(f"{quoted(kind)} {kind}" for kind in KINDS)
    strange(f"CREATE TABLE s.t (id int, {columns})")
    strange(f"INSERT INTO s.t VALUES (1{', %s' * len(KINDS)})", *KINDS.values())
    strange("INSERT INTO s.t VALUES (1)")

    assert told(run, [(UNIQUE, {"column": "id"})]) == {0: "2 of 2 (100 %), for example 1"}
    assert set_aside(strange) == {0: 2}
    assert strange("SELECT passed, rejected, error FROM dqm.dq_runs") == [(False, 2, None)]


SHOWN = [
    ("interval", "1 day", '"1 day"'),
    ("interval", "100000000 years", '"100000000 years"'),
    ("int4range", "[1,2)", '"[1,2)"'),
    ("daterange", "[2026-01-01,20226-01-01)", '"[2026-01-01,20226-01-01)"'),
    ("tstzrange", "[2026-01-01,infinity)", r'"[\"2026-01-01 00:00:00+00\",infinity)"'),
    ("numrange[]", '{"[1,2)"}', '["[1,2)"]'),
    ("bytea", "\\x01", r'"\\x01"'),
    ("bytea[]", '{"\\\\x01"}', r'["\\x01"]'),
    ("time", "24:00", '"24:00:00"'),
    ("timetz", "24:00+15", '"24:00:00+15"'),
    ("interval[]", '{"1 day"}', '["1 day"]'),
    ("date", "20226-01-05", '"20226-01-05"'),
    ("date", "0044-03-15 BC", '"0044-03-15 BC"'),
    ("date", "infinity", '"infinity"'),
    ("date", "2026-01-05", '"2026-01-05"'),
    ("date[]", "{20226-01-01,2026-01-01}", '["20226-01-01", "2026-01-01"]'),
    ("timestamp", "20226-01-05 12:00", '"20226-01-05 12:00:00"'),
    ("timestamp", "2026-01-05 12:00:00.5", '"2026-01-05T12:00:00.500000"'),
    ("timestamptz", "-infinity", '"-infinity"'),
    ("timestamptz", "0044-03-15 BC", '"0044-03-15 00:00:00+00 BC"'),
    ("timestamptz", "2026-01-05 12:00+02", '"2026-01-05T10:00:00+00:00"'),
    ("double precision", "NaN", "NaN"),
    ("real", "-Infinity", "-Infinity"),
    ("numeric", "NaN", "NaN"),
    ("numeric", "Infinity", "Infinity"),
    ("numeric", "123456789012345678901234567890.123456789", '"123456789012345678901234567890.123456789"'),
    ("numeric", "1e-400", '"1E-400"'),
    ("numeric", "1.50", "1.5"),
    ("bigint", "9007199254740993", "9007199254740993"),
    ("json", '{"a": 1}', '{"a": 1}'),
    ("jsonb", '{"a": 20}', '{"a": 20}'),
    ("uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", '"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"'),
    ("inet", "10.0.0.1", '"10.0.0.1"'),
    ("text[]", "{a,NULL}", '["a", null]'),
    ("int[]", "{{1,2},{3,4}}", "[[1, 2], [3, 4]]"),
    ("point", "(1,2)", '"(1,2)"'),
    ("s.pair", "(1,2)", '"(1,2)"'),
    ("tsvector", "b a", "\"'a' 'b'\""),
]
"""A type, a value of it, and the value as an example."""


def test_examples_are_what_the_server_holds(strange: Sql, run: Run) -> None:
    """What Python or JSON cannot hold is an example as text; the rows are set aside, and the record is made."""
    strange(f"CREATE TABLE s.t ({', '.join(f'c{place} {kind}' for place, (kind, _, _) in enumerate(SHOWN))})")
    strange(f"INSERT INTO s.t VALUES ({', '.join(['%s'] * len(SHOWN))})", *(value for _, value, _ in SHOWN))
    strange("INSERT INTO s.t VALUES (NULL)")

    found = told(run, [(NULL, {"column": f"c{place}"}) for place in range(len(SHOWN))])

    assert found == {place: f"1 of 2 (50 %), for example {shown}" for place, (_, _, shown) in enumerate(SHOWN)}
    assert set_aside(strange) == dict.fromkeys(range(len(SHOWN)), 1)
    assert strange("SELECT passed, rejected, error FROM dqm.dq_runs") == [(False, len(SHOWN), None)]


DAYS = {"min_value": "2020-01-01", "max_value": "2030-01-01"}
MEAN, SUM, DEVIATION = (f"expect_column_{name}_to_be_between" for name in ("mean", "sum", "stdev"))
LIMITS: list[tuple[str, str, str, dict[str, Any], str | None]] = [
    ("date", "2026-01-05, 20226-01-05", BETWEEN, DAYS, '1 of 25 (50 %), for example "20226-01-05"'),
    ("timestamptz", "infinity, 2026-01-05", BETWEEN, DAYS, '1 of 25 (50 %), for example "infinity"'),
    ("date", "2026-01-05, 20226-01-05", MAX, {"max_value": "2030-01-01"}, 'observed "20226-01-05"'),
    ("date", "2026-01-05, infinity", MAX, {"max_value": "2030-01-01"}, 'observed "infinity"'),
    ("date", "20226-01-05", MAX, {"min_value": "2030-01-01"}, None),
    ("timestamp", "2026-01-05, 0044-03-15 BC", MIN, {"min_value": "2020-01-01"}, 'observed "0044-03-15 00:00:00 BC"'),
    ("date", "0044-03-15 BC", MIN, {"max_value": "2020-01-01"}, None),
    ("date", "20226-01-05", IN_SET, {"value_set": ["2026-01-05"]}, '1 of 25 (100 %), for example "20226-01-05"'),
    ("double precision", "1.5, NaN", MAX, {"max_value": 10}, "observed NaN"),
    ("double precision", "1.5, NaN", MEAN, {"max_value": 10}, "observed NaN"),
    ("numeric", "1.5, NaN", SUM, {"max_value": 10}, "observed NaN"),
    ("double precision", "1, Infinity", DEVIATION, {"max_value": 1}, "observed NaN"),
    ("numeric", "1, 12345678901234567890.1", MAX, {"max_value": 10}, 'observed "12345678901234567890.1"'),
    ("numeric", "1, 2", MAX, {"max_value": 2, "strict_max": True}, "observed 2.0"),
]
"""A type, values of it, a rule with its arguments, and what the gate says; a share is that of all values but nulls."""


def test_limits_hold_for_values_that_python_cannot_hold(strange: Sql, run: Run) -> None:
    """A year beyond Python's is after all of its dates, one before Christ before them, and NaN keeps no limit."""
    strange(f"CREATE TABLE s.t ({', '.join(f'c{place} {kind}' for place, (kind, *_) in enumerate(LIMITS))})")
    for place, (kind, values, *_) in enumerate(LIMITS):
        strange(f"INSERT INTO s.t (c{place}) SELECT unnest(%s::{kind}[])", "{" + values + "}")

    found = told(run, [(rule, {"column": f"c{place}", **given}) for place, (_, _, rule, given, _) in enumerate(LIMITS)])

    assert found == {place: says for place, (*_, says) in enumerate(LIMITS) if says}
    assert set_aside(strange) == {
        place: 1 for place, (_, _, rule, *_) in enumerate(LIMITS) if rule in (BETWEEN, IN_SET)
    }


NOON = "2026-01-31T12:00:00"
BOUNDS = [
    (f"{NOON}+00:00", "2030-01-31", True, False),
    ("2026-01-31", f"{NOON}+00:00", True, True),
    (f"{NOON}+02:00", NOON, True, False),
    (NOON, None, True, False),
    (f"{NOON}+00:00", None, True, False),
    (None, f"{NOON}-01:00", True, True),
    ("2026-01-31", None, True, True),
    (None, "2026-01-31", False, True),
]
"""The least and the greatest value, and whether noon and midnight of that day in UTC keep them."""


@pytest.mark.parametrize("kind", ["date", "timestamp", "timestamptz"])
def test_bounds_may_be_a_date_and_a_time(strange: Sql, run: Run, kind: str) -> None:
    """Dates and times are compared as Postgres does, in UTC, whether a rule is about rows or about their maximum."""
    strange(f"CREATE TABLE s.t AS SELECT TIMESTAMP '{NOON}'::{kind} AS v")
    given = [
        {name: bound for name, bound in (("min_value", low), ("max_value", high)) if bound} for low, high, *_ in BOUNDS
    ]

    found = told(run, [(rule, {"column": "v", **bounds}) for rule in (BETWEEN, MAX) for bounds in given])

    kept = [midnight if kind == "date" else noon for *_, noon, midnight in BOUNDS] * 2
    assert [place not in found for place in range(len(kept))] == kept
    assert sorted(set_aside(strange)) == [place for place in sorted(found) if place < len(BOUNDS)]


CONDITIONS = [
    "note LIKE '% :x %'",
    "tags[:1] = ARRAY['x']",
    "tags[1:] = ARRAY['x', 'y']",
    "note LIKE '%{y}%'",
    "note = 'a :x b {y} 100% \\:z'",
    "note LIKE '%100\\%%' AND 5 % 3 = 2",
    'doc = \'{"a": ":b"}\'::jsonb',
    "doc -> 'a' ? ':b'",
    "id::text = '1'",
    "comment = 'set' AND load <> \"Ä b\"",
]


def test_query_says_what_postgres_reads(strange: Sql, run: Run) -> None:
    """Colons, slices, braces and percent signs of a query are those of Postgres; its columns may repeat."""
    strange('CREATE TABLE s.t (id int, note text, tags text[], doc jsonb, comment text, load int, "Ä b" int)')
    row = (1, "a :x b {y} 100% \\:z", ["x", "y"], '{"a": ":b"}', "set", 1, 2)
    strange("INSERT INTO s.t VALUES (%s, %s, %s, %s, %s, %s, %s)", *row)
    selected = ("*", "id", "*, tags[:1], id AS id")
    queries = [f"SELECT {columns} FROM {{batch}} WHERE {condition}" for condition in CONDITIONS for columns in selected]

    found = told(run, [(QUERY, {"unexpected_rows_query": query}) for query in queries])

    assert found == dict.fromkeys(range(len(queries)), "observed 1")
    assert set_aside(strange) == dict.fromkeys(range(len(queries)), 1)


NAMES = [
    "User Id",
    "Größe",
    "100%",
    "a:b",
    'c"d',
    "e.f",
    "select",
    "on",
    "null",
    "yes",
    "{batch}",
    "名",
    "%(x)s",
    "User",
]


def test_columns_of_a_rule_may_have_any_name(strange: Sql, run: Run) -> None:
    """A rule about a column with a strange name sets its rows aside."""
    strange(f"CREATE TABLE s.t ({', '.join(f'{quoted(name)} int' for name in NAMES)}); INSERT INTO s.t VALUES (NULL)")

    found = told(run, [(NOT_NULL, {"column": name}) for name in NAMES])

    assert found == dict.fromkeys(range(len(NAMES)), "1 of 1 (100 %), for example null")
    assert set_aside(strange) == dict.fromkeys(range(len(NAMES)), 1)


def test_value_that_has_no_order_with_its_limit_is_told(strange: Sql, run: Run) -> None:
    """An error about a comparison has neither Python's words nor its types."""
    strange("CREATE TABLE s.t AS SELECT 'x' AS v")

    with pytest.raises(PermanentError, match=r'its value is "x", which cannot be compared with 5$'):
        told(run, [(MAX, {"column": "v", "max_value": 5})])


def test_suggestion_ignores_case(strange: Sql, run: Run) -> None:
    """The name that differs only in case is the nearest."""
    strange('CREATE TABLE s.t ("UserId" int, "user" text)')

    with pytest.raises(PermanentError, match='did you mean "UserId"'):
        told(run, [(NOT_NULL, {"column": "userid"})])


def test_search_path_may_name_temporary_tables_last(strange: Sql, run: Run, database: Database) -> None:
    """The rules judge the rows under the condition, not the whole table, whatever path the login has."""
    strange("CREATE TABLE s.t (x int); INSERT INTO s.t VALUES (1), (2)")
    strange(SQL("ALTER DATABASE {} SET search_path = public, pg_temp").format(Identifier(database.dbname)))
    suite = Suite(
        name="strange",
        connection="crypto_postgres",
        batch=Batch(table="s.t", where="x > 100"),
        expectations=[Expectation(type="expect_table_row_count_to_be_between", arguments={"min_value": 1})],
    )
    with pytest.raises(DataRejected, match="expect_table_row_count_to_be_between"):
        validate(suite, record_in="dqm.dq_runs", run=run)
