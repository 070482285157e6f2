"""quality.validate on the real Postgres and the real object store."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tasks.contract import DataRejected, MissingResource, PermanentError, Run, TransientError
from tasks.postgres.expressions import filled_query
from tasks.quality.data_docs import run_key
from tasks.quality.gate import Artifacts, Validation, validate
from tasks.quality.suites import Batch, Expectation, Quarantine, Suite
from tasks.quality.verdicts import UnansweredError
from tests.support.expectation_examples import EXAMPLES, NASTY_TABLE

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from stack.database import Database
    from stack.objects import ObjectStore
    from tests.support.database import Gate, Sql

ROOT = Path(__file__).parents[2]
DQ_RUNS = "dqm.dq_runs"
TRY = "0199a2b4-0000-7000-8000-000000000001"
STORED = Artifacts(connection="object_store", bucket="ge-artifacts")

EVENTS = """
    CREATE SCHEMA events;
    CREATE TABLE events.raw (id int, site text, price numeric(10, 2), day text);
    INSERT INTO events.raw SELECT number, 'ARGENTINA', number, '1/1/2026' FROM generate_series(1, 10) AS number;
    CREATE TABLE events.rejects (
        suite text, dag_id text, run_id text, reason text, id text, site text, validation_id uuid
    );
"""


def rule(name: str, reason: str | None = None, /, **arguments: Any) -> Expectation:
    return Expectation(type=name, reason=reason, arguments=arguments)


SITE = rule("expect_column_values_to_be_in_set", "invalid_site", column="site", value_set=["ARGENTINA", "BRASIL"])
PRICE = rule("expect_column_values_to_be_between", "negative_price", column="price", min_value=0)
DAY = rule("expect_column_values_to_match_strftime_format", "invalid_day", column="day", strftime_format="%d/%m/%Y")
COLUMNS = rule("expect_table_columns_to_match_set", column_set=["id", "site", "price", "day"])
ROWS = rule("expect_table_row_count_to_be_between", "too_few", min_value=1)
KEY = rule("expect_compound_columns_to_be_unique", "duplicate", column_list=["id", "site"])


@pytest.fixture
def suite(sql: Sql) -> Suite:
    """A suite that its ten rows keep."""
    sql(EVENTS)
    sql((ROOT / "configs/sql/crypto/tables.sql").read_text())
    return Suite(
        name="suite_raw",
        connection="crypto_postgres",
        batch=Batch(table="events.raw"),
        quarantine=Quarantine(table="events.rejects", columns={"id": "id::text", "site": "site"}),
        expectations=[COLUMNS, ROWS, SITE, PRICE, DAY, KEY],
    )


@pytest.fixture
def spoilt(suite: Suite, sql: Sql) -> Suite:
    """The same suite, with three rows that break four of its rules."""
    sql("UPDATE events.raw SET site = 'CHILE', price = -1 WHERE id = 1")
    sql("UPDATE events.raw SET day = '31/2/2026' WHERE id = 2")
    sql("INSERT INTO events.raw SELECT * FROM events.raw WHERE id = 3")
    return suite


def rejected(suite: Suite, run: Run, **arguments: Any) -> DataRejected:
    with pytest.raises(DataRejected) as caught:
        validate(suite, **arguments, run=run)
    return caught.value


def found(suite: Suite, run: Run, **arguments: Any) -> Validation:
    """Return what a rejected validation has for those who look at it."""
    output = rejected(suite, run, **arguments).output
    assert isinstance(output, Validation)
    return output


# --- The verdict ------------------------------------------------------------------------------------------------------


def test_kept_suite_passes(suite: Suite, run: Run, sql: Sql) -> None:
    """A batch that keeps its rules leaves a record, and nothing set aside."""
    assert validate(suite, record_in=DQ_RUNS, run=run) == Validation(
        suite="suite_raw", passed=True, expectations=6, failed=0, rows=10, rejected=0, data_docs=None, result=None
    )
    assert sql(
        "SELECT suite, dag_id, run_id, task_id, run_date, passed, expectations, failed, rejected FROM dqm.dq_runs"
    ) == [("suite_raw", "crypto_events_dag", "manual__1", "some_task", run.date, True, 6, 0, 0)]


REJECTION = f"""\
suite suite_raw on events.raw, 11 rows: rejected, 4 of 6 expectations failed
  expect_column_values_to_be_in_set (column="site", value_set=["ARGENTINA", "BRASIL"]): 1 of 11 (9.09 %), \
for example "CHILE" [invalid_site]
  expect_column_values_to_be_between (column="price", min_value=0): 1 of 11 (9.09 %), \
for example -1.0 [negative_price]
  expect_column_values_to_match_strftime_format (column="day", strftime_format="%d/%m/%Y"): 1 of 11 (9.09 %), \
for example "31/2/2026" [invalid_day]
  expect_compound_columns_to_be_unique (column_list=["id", "site"]): 2 of 11 (18.2 %), \
for example {{"id": 3, "site": "ARGENTINA"}} [duplicate]
rejected rows: invalid_site 1, negative_price 1, invalid_day 1, duplicate 2; in events.rejects \
where validation_id = '{TRY}'
after mending the source, clear 'some_task' with its downstream"""


def test_broken_suite_stops(spoilt: Suite, run: Run, sql: Sql) -> None:
    """Broken rules stop the run without a retry, told with their counts; their rows are set aside by reason."""
    error = rejected(spoilt, replace(run, attempt=TRY), record_in=DQ_RUNS)
    assert isinstance(error, PermanentError)
    assert str(error) == REJECTION
    assert error.output == Validation(
        suite="suite_raw", passed=False, expectations=6, failed=4, rows=11, rejected=5, data_docs=None, result=None
    )
    assert sql("SELECT reason, id FROM events.rejects ORDER BY reason, id") == [
        ("duplicate", "3"),
        ("duplicate", "3"),
        ("invalid_day", "2"),
        ("invalid_site", "1"),
        ("negative_price", "1"),
    ]


def test_details_are_recorded(spoilt: Suite, run: Run, sql: Sql) -> None:
    """The record holds each rule with its arguments, and counts and examples of those that failed."""
    rejected(spoilt, run, record_in=DQ_RUNS)
    ((passed, failed, count, details),) = sql("SELECT passed, failed, rejected, details FROM dqm.dq_runs")
    assert (passed, failed, count) == (False, 4, 5)
    assert details["rejected"] == {"invalid_site": 1, "negative_price": 1, "invalid_day": 1, "duplicate": 2}
    assert (details["rows"], details["batch"]) == (11, {"table": "events.raw", "where": None})
    assert details["expectations"][1] == {
        "type": "expect_table_row_count_to_be_between",
        "arguments": {"min_value": 1},
        "reason": "too_few",
        "passed": True,
    }
    site = details["expectations"][2]
    assert {name: site[name] for name in ("reason", "passed", "unexpected_count", "partial_unexpected_list")} == {
        "reason": "invalid_site",
        "passed": False,
        "unexpected_count": 1,
        "partial_unexpected_list": ["CHILE"],
    }


def test_mostly_is_threshold(spoilt: Suite, run: Run) -> None:
    """`mostly` is the share that must keep the rule: 10 of 11 prices do."""
    lenient = PRICE.model_copy(update={"arguments": {**PRICE.arguments, "mostly": 0.9}})
    strict = PRICE.model_copy(update={"arguments": {**PRICE.arguments, "mostly": 0.95}})
    assert validate(spoilt.model_copy(update={"expectations": [lenient]}), run=run).passed
    assert found(spoilt.model_copy(update={"expectations": [strict]}), run).failed == 1


def test_where_bounds_batch(spoilt: Suite, run: Run) -> None:
    """Rows outside `where` are not judged."""
    batch = Batch(table="events.raw", where="id > 3 AND site <> '%'")
    validation = validate(spoilt.model_copy(update={"batch": batch}), run=run)
    assert (validation.passed, validation.rows) == (True, 7)


def test_empty_batch_is_told(suite: Suite, run: Run) -> None:
    """Rules about rows hold of an empty batch, which is pointed out; only a rule about their number fails."""
    empty = suite.model_copy(update={"batch": Batch(table="events.raw", where="false")})
    error = rejected(empty, run)
    assert [line.split()[0] for line in str(error).splitlines()[1:3]] == ["the", ROWS.type]
    assert "  the batch is empty: no row can break a rule\n" in str(error)


def test_log_lists_rules(suite: Suite, run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """The log of a gate that passes has one block with a line for each rule."""
    with caplog.at_level(logging.INFO):
        validate(suite, run=run)
    (block,) = [record.getMessage() for record in caplog.records if record.name == "tasks"]
    assert [line.split()[:2] for line in block.splitlines()[1:]] == [["ok", one.type] for one in suite.expectations]


def test_failure_is_told_once(spoilt: Suite, run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """What stops the run is in its error, and nowhere else."""
    with caplog.at_level(logging.INFO):
        rejected(spoilt, run)
    assert [record for record in caplog.records if record.name == "tasks"] == []


def test_every_expectation_runs(sql: Sql, run: Run, bucket: S3Client) -> None:
    """Each expectation of the library that knows SQL is answered, and shown on the page: kept or broken, no error."""
    sql(NASTY_TABLE)
    rules = [rule(name, **example) for name, example in EXAMPLES.items()]
    in_sql = [one for one in rules if one.type not in NOT_IN_SQL]
    suite = Suite(name="all", connection="crypto_postgres", batch=Batch(table="raw.nasty"), expectations=in_sql)
    output = found(suite, run, artifacts=STORED)
    assert (output.expectations, output.failed) == (55, 35)
    page = text_of(bucket, output.data_docs)
    assert page.count('class="fas fa-check-circle') == 20
    assert page.count('class="fas fa-times') == 35 + 1  # and of the suite itself


NOT_IN_SQL = {
    "expect_column_values_to_be_dateutil_parseable",
    "expect_column_values_to_be_decreasing",
    "expect_column_values_to_be_increasing",
    "expect_column_values_to_match_json_schema",
}


# --- What cannot be answered ------------------------------------------------------------------------------------------


def with_rule(suite: Suite, name: str, /, **arguments: Any) -> Suite:
    return suite.model_copy(update={"expectations": [SITE, PRICE, rule(name, **arguments), KEY]})


def test_missing_column_named(suite: Suite, run: Run, sql: Sql) -> None:
    """A rule about a column that is not there is a mistake in the suite, not bad data."""
    wrong = with_rule(suite, "expect_column_values_to_not_be_null", column="sitte")
    with pytest.raises(MissingResource) as caught:
        validate(wrong, record_in=DQ_RUNS, run=run)
    problem = "column 'sitte' does not exist in table events.raw; did you mean \"site\"? It has id, site, price, day"
    assert str(caught.value) == problem
    assert sql("SELECT passed, error FROM dqm.dq_runs") == [(None, problem)]


def test_absent_column_may_be_rule(suite: Suite, run: Run) -> None:
    """A rule that a column exists is answered where it does not."""
    assert found(with_rule(suite, "expect_column_to_exist", column="sitte"), run).failed == 1


def test_missing_table_named(suite: Suite, run: Run) -> None:
    """A batch that is not there is named."""
    absent = suite.model_copy(update={"batch": Batch(table="events.rawr")})
    with pytest.raises(MissingResource, match=r"table 'events\.rawr' does not exist in Postgres at"):
        validate(absent, run=run)


UNANSWERABLE = [
    (
        rule("expect_column_values_to_be_between", column="site", min_value=1),
        UnansweredError,
        r"^suite 'suite_raw', expect_column_values_to_be_between: .*cannot be computed on column of type TEXT",
    ),
    (
        rule("expect_column_values_to_match_regex", column="price", regex="^[0-9]+$"),
        UnansweredError,
        r"^suite 'suite_raw', expect_column_values_to_match_regex: Postgres at .*operator does not exist: numeric ~",
    ),
    (
        rule("expect_column_values_to_match_regex", column="site", regex="a{2,1}"),
        PermanentError,
        r"^suite 'suite_raw', expect_column_values_to_match_regex: regex is not a Postgres regular expression",
    ),
    (
        rule("unexpected_rows_expectation", unexpected_rows_query="SELECT * FROM {batch} WHERE sitte = 'A'"),
        MissingResource,
        r"^column 'sitte' does not exist in Postgres at .*, where suite 'suite_raw', unexpected_rows_expectation",
    ),
    (
        rule("unexpected_rows_expectation", unexpected_rows_query="SELECT * FROM {batch} WHERE 1 / (id - 1) > 5"),
        UnansweredError,
        r"^suite 'suite_raw', unexpected_rows_expectation: Postgres at .*division by zero",
    ),
    (
        rule("expect_column_values_to_be_in_sett", column="site"),
        PermanentError,
        r"^suite 'suite_raw', expect_column_values_to_be_in_sett: Great Expectations has no expectation",
    ),
]


@pytest.mark.parametrize(("wrong", "kind", "message"), UNANSWERABLE)
def test_unanswerable_rule_named(
    wrong: Expectation, kind: type[Exception], message: str, spoilt: Suite, run: Run, sql: Sql
) -> None:
    """A rule that the database cannot answer stops the run under its own name, though others broke with it."""
    asked = spoilt.model_copy(update={"expectations": [SITE, PRICE, wrong, KEY]})
    with pytest.raises(kind, match=message) as caught:
        validate(asked, record_in=DQ_RUNS, run=run)
    assert not isinstance(caught.value, DataRejected)
    assert sql("SELECT passed, error FROM dqm.dq_runs") == [(None, str(caught.value))]
    assert sql("SELECT count(*) FROM events.rejects") == [(0,)]


TRUE_CONDITIONS = [
    r"':site' = chr(58) || 'site' AND site <> ':x::y: :z'",
    r"'\:x' = chr(92) || ':x' AND 'a\:' = 'a' || chr(92) || ':'",
    "(ARRAY[1, 2, 3])[:1] = ARRAY[1] AND (ARRAY[1, 2, 3])[id:id] = (ARRAY[1, 2, 3])[id:id]",
    "'{1,2}'::int[] = ARRAY[1, 2] AND '{' || '}' = '{}' AND '{site}' <> 'x'",
    "TIME '12:30:00' = '12:30' AND '100%s %(x)s' LIKE '100%'",
    "E'\\x7b' = '{'",
]


@pytest.mark.parametrize("condition", TRUE_CONDITIONS)
def test_query_is_asked_as_it_is_written(condition: str, suite: Suite, run: Run) -> None:
    """Colons, braces and percent signs in a query mean what they mean in Postgres, in the gate and in quarantine."""
    for wanted, where in ((0, f"NOT ({condition})"), (10, condition)):
        asked = rule(
            "unexpected_rows_expectation", "odd", unexpected_rows_query=f"SELECT * FROM {{batch}} WHERE {where}"
        )
        checked = suite.model_copy(update={"expectations": [asked]})
        if not wanted:
            assert validate(checked, run=run).passed
            continue
        with pytest.raises(DataRejected) as caught:
            validate(checked, run=run)
        assert isinstance(caught.value.output, Validation)
        assert caught.value.output.rejected == wanted


SECRET = "SELECT * FROM {batch}, lower('x') AS f WHERE f.secret IS NULL"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            {"expectations": [rule("unexpected_rows_expectation", unexpected_rows_query=SECRET)]},
            "suite 'suite_raw', unexpected_rows_expectation: unexpected_rows_query calls events.secret, a function",
        ),
        (
            {"batch": Batch(table="events.raw", where="id @@@ id")},
            "batch.where calls events.same by the operator @@@ of public, a function",
        ),
        (
            {"quarantine": Quarantine(table="events.rejects", columns={"id": "(id @@@ id)::text"})},
            "quarantine.columns.id calls events.same by the operator @@@ of public, a function",
        ),
    ],
)
def test_suite_calls_nothing_of_the_database(
    change: dict[str, Any], problem: str, suite: Suite, run: Run, sql: Sql
) -> None:
    """A query, a condition and a column call no function of the database, by whatever syntax."""
    sql("""
        CREATE TABLE events.told (id int);
        CREATE FUNCTION events.same(int, int) RETURNS bool LANGUAGE sql
            AS 'INSERT INTO events.told VALUES (1) RETURNING true';
        CREATE FUNCTION events.secret(text) RETURNS text LANGUAGE sql AS 'SELECT events.same(1, 1)::text';
        CREATE OPERATOR public.@@@ (LEFTARG = int, RIGHTARG = int, FUNCTION = events.same);
    """)
    with pytest.raises(PermanentError, match=f"^{re.escape(problem)}"):
        validate(suite.model_copy(update=change), run=run)
    assert sql("SELECT count(*) FROM events.told") == [(0,)]


def test_query_may_end_in_a_comment(spoilt: Suite, run: Run, sql: Sql) -> None:
    """A comment or a semicolon does not swallow what the library writes after the query; a lookup is read."""
    sql("CREATE TABLE events.sites AS SELECT 'ARGENTINA' AS known")
    query = "SELECT b.* FROM {batch} AS b LEFT JOIN sites ON site = known -- all\nWHERE known IS NULL; -- {x} it's"
    asked = rule("unexpected_rows_expectation", "unknown_site", unexpected_rows_query=query)
    output = found(spoilt.model_copy(update={"expectations": [asked]}), run)

    assert output.failed == 1


@pytest.mark.parametrize(
    "site",
    [
        "zz' AND FALSE AND 'a'='a",
        "zz\\' AND FALSE AND 'a'='a",
        "{batch}",
        "{batch} WHERE FALSE --",
        "__batch__",
        ":x {} {0} %s %(x)s $1 $$",
    ],
)
def test_value_cannot_turn_a_gate_green(site: str, spoilt: Suite, run: Run) -> None:
    """Whatever a trigger form passes, a query compares with that text and nothing more."""
    query = filled_query(("SELECT * FROM {batch} WHERE price < 0 AND site <> ", ""), [site])
    asked = rule("unexpected_rows_expectation", "negative_price", unexpected_rows_query=query)
    with pytest.raises(DataRejected):
        validate(spoilt.model_copy(update={"expectations": [asked]}), run=run)


def test_lost_session_is_retried(suite: Suite, run: Run, gate: Gate, database: Database, sql: Sql) -> None:
    """A connection that breaks in the middle leaves a record that says so, and a retry may help."""
    sql("UPDATE events.raw SET price = -1 WHERE id = 1")
    gate.hold("events.rejects", "true")
    with gate.closed(database):
        attempt = gate.start(validate, suite, record_in=DQ_RUNS, run=run)
        (session,) = gate.waiting()
        gate.terminate(session)
        with pytest.raises(TransientError) as lost:
            attempt.result(30)
    assert sql("SELECT passed, error FROM dqm.dq_runs") == [(None, str(lost.value))]
    assert sql("SELECT count(*) FROM events.rejects") == [(0,)]
    assert found(suite, run, record_in=DQ_RUNS).rejected == 1


def test_retry_waits_for_attempt(suite: Suite, run: Run, gate: Gate, database: Database, sql: Sql) -> None:
    """A retry that starts while the attempt before it is still alive writes nothing twice."""
    sql("UPDATE events.raw SET price = -1 WHERE id = 1")
    gate.hold("events.rejects", "true")
    with gate.closed(database):
        first = gate.start(validate, suite, record_in=DQ_RUNS, run=run)
        gate.waiting()
        second = gate.start(validate, suite, record_in=DQ_RUNS, run=run)
        gate.waiting(2)
    for attempt in (first, second):
        assert isinstance(attempt.exception(60), DataRejected)
    assert sql("SELECT (SELECT count(*) FROM dqm.dq_runs), (SELECT count(*) FROM events.rejects)") == [(2, 1)]


# --- What people look at ----------------------------------------------------------------------------------------------


@pytest.fixture
def bucket(object_store: ObjectStore) -> S3Client:
    """The object store, as a client."""
    return object_store.client()


def text_of(bucket: S3Client, link: str | None) -> str:
    assert link is not None
    return bucket.get_object(Bucket="ge-artifacts", Key=link.removeprefix("s3://ge-artifacts/"))["Body"].read().decode()


def test_artifacts_are_uploaded(spoilt: Suite, run: Run, bucket: S3Client) -> None:
    """Results and Data Docs lie under keys made of suite, run and try, with content types that a browser shows."""
    output = found(spoilt, replace(run, attempt=TRY), artifacts=STORED)
    place = "suite_raw/crypto_events_dag__manual__1-" + run_key(run)[-8:]
    assert output.result == f"s3://ge-artifacts/validations/{place}/{TRY}.json"
    assert output.data_docs == f"s3://ge-artifacts/data_docs/{place}/{TRY}/index.html"
    listed = bucket.list_objects_v2(Bucket="ge-artifacts")["Contents"]
    types = {one["Key"]: bucket.head_object(Bucket="ge-artifacts", Key=one["Key"])["ContentType"] for one in listed}
    assert {key: kind for key, kind in types.items() if place in key and (TRY in key or key in latest(place))} == {
        f"validations/{place}.json": "application/json",
        f"validations/{place}/{TRY}.json": "application/json",
        f"data_docs/{place}/index.html": "text/html; charset=utf-8",
        f"data_docs/{place}/{TRY}/index.html": "text/html; charset=utf-8",
        f"data_docs/{place}/{TRY}/expectations.html": "text/html; charset=utf-8",
    }
    result = json.loads(text_of(bucket, output.result))
    assert (result["success"], result["statistics"]["unsuccessful_expectations"], len(result["results"])) == (
        False,
        4,
        6,
    )


def latest(place: str) -> tuple[str, str]:
    """Return the keys of a run and suite that lead to the newest try."""
    return f"validations/{place}.json", f"data_docs/{place}/index.html"


def test_each_try_has_addresses(spoilt: Suite, run: Run, bucket: S3Client, sql: Sql) -> None:
    """The pages and the result of a failed try stay when the next passes; the run's own addresses lead to the next."""
    before = found(spoilt, run, artifacts=STORED)
    sql("DELETE FROM events.raw WHERE id < 4")
    after = validate(spoilt, artifacts=STORED, run=replace(run, attempt=TRY, try_number=2))
    results = [json.loads(text_of(bucket, one.result))["success"] for one in (before, after)]
    assert (results, "CHILE" in text_of(bucket, before.data_docs)) == ([False, True], True)
    assert "manual__1 · some_task, try 2<" in text_of(bucket, after.data_docs)
    result, page = (f"s3://ge-artifacts/{key}" for key in latest(f"suite_raw/{run_key(run)}"))
    assert text_of(bucket, result) == text_of(bucket, after.result)
    assert set(re.findall(r'(?:url=|href=")([^"]*)"', text_of(bucket, page))) == {f"{TRY}/index.html"}


def test_pages_are_whole(spoilt: Suite, run: Run, bucket: S3Client) -> None:
    """A page links to the other, says what broke, and asks nothing of the internet."""
    output = found(spoilt, run, artifacts=STORED)
    page = text_of(bucket, output.data_docs)
    assert "CHILE" in page
    assert set(re.findall(r'(?:href|src)="([^"#][^"]*)"', page)) == {
        "data:,",
        "index.html",
        "expectations.html",
    }
    asked = text_of(bucket, str(output.data_docs).replace("index.html", "expectations.html"))
    assert "values must belong to this set" in asked


def test_missing_bucket_keeps_verdict(suite: Suite, run: Run, sql: Sql, object_store: ObjectStore) -> None:
    """A bucket that is not there is named; the verdict stays recorded."""
    nowhere = Artifacts(connection="object_store", bucket="nowhere")
    with pytest.raises(MissingResource, match="bucket 'nowhere' does not exist in object store at http"):
        validate(suite, record_in=DQ_RUNS, artifacts=nowhere, run=run)
    assert sql("SELECT passed FROM dqm.dq_runs") == [(True,)]


def test_rejection_precedes_bucket(spoilt: Suite, run: Run, sql: Sql, object_store: ObjectStore) -> None:
    """Bad data is told first, the missing bucket beside it; rejects and record are there."""
    nowhere = Artifacts(connection="object_store", bucket="nowhere")
    error = rejected(spoilt, run, record_in=DQ_RUNS, artifacts=nowhere)
    assert str(error).splitlines()[-2].startswith("no Data Docs: bucket 'nowhere' does not exist in object store at")
    assert sql("SELECT (SELECT count(*) FROM dqm.dq_runs), (SELECT count(*) FROM events.rejects)") == [(1, 5)]


def test_run_keys_differ() -> None:
    """Runs that are written alike keep keys of their own."""
    from datetime import date

    keys = {run_key(Run("d", run_id, "t", date(2026, 1, 5))) for run_id in ("a b", "a/b", "a:b", "../a", "a" * 300)}
    assert len(keys) == 5
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]{1,180}", key) for key in keys)


# --- Memory -----------------------------------------------------------------------------------------------------------

MEASURE = """
import datetime as dt, json, resource, sys
from tasks.contract import DataRejected, Run
from tasks.quality.gate import validate
from tasks.quality.suites import Suite

run = Run("d", "r", "t", dt.date(2026, 1, 5))
suite = Suite.model_validate_json(sys.argv[1])
peaks = []
for where in ("id <= 1000", "true"):
    batch = suite.batch.model_copy(update={"where": where})
    try:
        validate(suite.model_copy(update={"batch": batch}), record_in="dqm.dq_runs", run=run)
    except DataRejected as error:
        peaks.append((error.output.rejected, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024))
print(json.dumps(peaks))
"""


def test_many_bad_rows_stay_outside(suite: Suite, sql: Sql) -> None:
    """Rows of 130 MB that break three rules raise the worker's memory by less than 100 MB."""
    sql("TRUNCATE events.raw")
    sql("INSERT INTO events.raw SELECT n, repeat('CHILE ', 70), -1, 'x' FROM generate_series(1, 300000) AS n")
    query = rule("unexpected_rows_expectation", "wrong", unexpected_rows_query="SELECT * FROM {batch} WHERE price < 0")
    broken = suite.model_copy(update={"expectations": [SITE, PRICE, query]})
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, broken.model_dump_json()], capture_output=True, text=True, check=True, cwd=ROOT
    )
    (few, before), (many, after) = json.loads(done.stdout.splitlines()[-1])
    assert (few, many) == (3000, 900_000)
    assert after - before < 100
