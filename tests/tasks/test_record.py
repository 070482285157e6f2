"""Each try of a validation leaves its own record and rejected rows, whatever comes after it."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from stack.paths import REPOSITORY
from tasks.contract import Before, DataRejected, PermanentError, Run, TransientError
from tasks.postgres.tables import rebuild_table, run_sql
from tasks.quality.gate import validate
from tasks.quality.suites import Batch, Expectation, Quarantine, Suite

if TYPE_CHECKING:
    from stack.database import Database
    from tests.support.database import Gate, Sql

CONNECTION = "crypto_postgres"
RECORDS, REJECTS = "dqm.dq_runs", "dqm.bt_crypto_events_rejects"
ROWS = """
    CREATE SCHEMA s;
    CREATE TABLE s.raw (site text, price int);
    INSERT INTO s.raw VALUES ('A', 1), ('B', 2), ('CHILE', 3);
    CREATE TABLE s.staging (site text, price int);
"""
SITE = Expectation(
    type="expect_column_values_to_be_in_set",
    reason="invalid_site",
    arguments={"column": "site", "value_set": ["A", "B"]},
)
PRICE = Expectation(
    type="expect_column_values_to_be_between",
    reason="negative_price",
    arguments={"column": "price", "min_value": 0, "mostly": 0.9},
)
TRIES = [f"0199a2b4-0000-7000-8000-00000000000{number}" for number in range(5)]


@pytest.fixture
def suite(sql: Sql, run: Run) -> Suite:
    """A suite that one of three rows breaks, on a table that no step builds."""
    run_sql(CONNECTION, "crypto/tables.sql", run=run)
    sql(ROWS)
    return Suite(
        name="sites",
        connection=CONNECTION,
        batch=Batch(table="s.raw", where="price < 10"),
        quarantine=Quarantine(table=REJECTS, columns={"site_id": "site"}),
        expectations=[SITE, PRICE],
    )


def judged(suite: Suite, run: Run, number: int = 0, record_in: str | None = RECORDS, **of: Any) -> bool:
    """Return the verdict of a try."""
    try:
        return validate(
            suite, record_in=record_in, run=replace(run, attempt=TRIES[number], try_number=number + 1, **of)
        ).passed
    except DataRejected:
        return False


def rejects(sql: Sql, table: str = REJECTS) -> list[tuple[int, str]]:
    """Return the number of each rejected row's try, and its site."""
    found = sql(f"SELECT validation_id::text, site_id FROM {table} ORDER BY 1, 2")
    return [(TRIES.index(validation), site) for validation, site in found]


def test_record_says_what_was_judged(suite: Suite, run: Run, sql: Sql) -> None:
    """A record says who judged which rows of which version, by which thresholds, when, and with what outcome."""
    sql("INSERT INTO s.raw VALUES ('PERU', 10)")
    judged(suite, run, deployment="here", task_id="gate", map_index=2)
    (record,) = sql("SELECT to_jsonb(r) - '{details,started_at,ended_at,version}'::text[] FROM dqm.dq_runs AS r")
    assert record[0] == {
        "validation_id": TRIES[0],
        "deployment": "here",
        "dag_id": "crypto_events_dag",
        "run_id": "manual__1",
        "task_id": "gate",
        "map_index": 2,
        "try_number": 1,
        "run_date": "2026-01-05",
        "suite": "sites",
        "table_name": "s.raw",
        "batch_where": "price < 10",
        "row_count": 3,
        "expectations": 2,
        "failed": 1,
        "rejected": 1,
        "passed": False,
        "error": None,
    }
    ((thresholds, in_order, version),) = sql("""
        SELECT details #> '{expectations,1,arguments}', started_at < ended_at AND ended_at < clock_timestamp(), version
        FROM dqm.dq_runs
    """)
    assert (thresholds, in_order) == ({"column": "price", "min_value": 0, "mostly": 0.9}, True)
    assert version.startswith("rows 3:")


def test_versions_keep_their_evidence(suite: Suite, run: Run, sql: Sql) -> None:
    """Failed tries on different rows keep their records and rejects, also when the next one passes."""
    assert not judged(suite, run, 0)
    sql("UPDATE s.raw SET site = 'PERU' WHERE site = 'CHILE'")
    assert not judged(suite, run, 1)
    sql("UPDATE s.raw SET site = 'A' WHERE site = 'PERU'")
    assert judged(suite, run, 2)

    assert rejects(sql) == [(0, "CHILE"), (1, "PERU")]
    assert sql("SELECT try_number, passed, rejected FROM dqm.dq_runs ORDER BY started_at") == [
        (1, False, 1),
        (2, False, 1),
        (3, True, 0),
    ]
    assert sql("SELECT count(DISTINCT version) FROM dqm.dq_runs") == [(3,)]


def test_builds_are_versions(suite: Suite, run: Run, sql: Sql) -> None:
    """A table that a step builds has another version with each build, though its rows are equal."""
    gate = replace(run, before=Before(builds={"s.staging": "build"}))
    staged = suite.model_copy(update={"batch": Batch(table="s.staging")})
    for number in (0, 1):
        rebuild_table(CONNECTION, "s.staging", "s.raw", {"site": "site", "price": "price"}, run=run)
        assert not judged(staged, gate, number)
    assert not judged(staged, gate, 2)

    assert rejects(sql) == [(0, "CHILE"), (2, "CHILE")]
    assert sql("SELECT version FROM dqm.dq_runs ORDER BY started_at") == [("build 1",), ("build 2",), ("build 2",)]


def test_part_of_a_version_is_counted(suite: Suite, run: Run, sql: Sql) -> None:
    """What a load takes has its version as a whole, also where a gate judges a part and counts the rows of that."""
    rebuild_table(CONNECTION, "s.staging", "s.raw", {"site": "site", "price": "price"}, run=run)
    before = Before(builds={"s.staging": "build"}, watched=frozenset({"s.raw"}))
    for number, table in enumerate(("s.staging", "s.raw")):
        batch = Batch(table=table, where="price < 3")
        judged(suite.model_copy(update={"batch": batch}), run, number, before=before)
    whole, of_part = "split_part(version, ':', 1)", "row_count"
    assert sql(f"SELECT {whole}, {of_part} FROM dqm.dq_runs ORDER BY started_at") == [("build 1", 2), ("rows 3", 2)]


@pytest.mark.parametrize("record_in", [RECORDS, None])
def test_same_version_stands_once(suite: Suite, run: Run, sql: Sql, record_in: str | None) -> None:
    """Killed after its commit and retried, a gate leaves each bad row once, as that of the last try."""
    for number in range(3):
        assert not judged(suite, run, number, record_in)
    assert rejects(sql) == [(2, "CHILE")]
    assert sql("SELECT count(*) FROM taskflow.passes WHERE NOT passed") == [(3,)]


def test_evidence_of_other_reasons_is_kept(suite: Suite, run: Run, sql: Sql) -> None:
    """A rule that reads another table can pass on the same version later: what it had set aside stays, once."""
    sql("""
        CREATE TABLE s.known (site text); INSERT INTO s.known VALUES ('A');
        INSERT INTO s.raw VALUES ('CHILE', 4), ('PERU', 5);
    """)
    query = "SELECT * FROM {batch} WHERE site NOT IN (SELECT site FROM s.known)"
    known = Expectation(
        type="unexpected_rows_expectation", reason="unknown", arguments={"unexpected_rows_query": query}
    )
    both = suite.model_copy(update={"expectations": [SITE, known]})
    stored = f"SELECT validation_id::text, reason, site_id FROM {REJECTS} ORDER BY 1, 2, 3"

    assert not judged(both, run, 0)
    sql("INSERT INTO s.known VALUES ('B'), ('PERU')")
    assert not judged(both, run, 1)
    invalid = [(TRIES[1], "invalid_site", site) for site in ("CHILE", "CHILE", "PERU")]
    kept = [(TRIES[0], "unknown", site) for site in ("B", "PERU")]
    assert sql(stored) == [*kept, *invalid, *[(TRIES[1], "unknown", "CHILE")] * 2]

    sql("INSERT INTO s.known VALUES ('CHILE')")
    assert not judged(both, run, 2)
    invalid = [(TRIES[2], "invalid_site", site) for site in ("CHILE", "CHILE", "PERU")]
    assert sql(stored) == [*kept, *[(TRIES[1], "unknown", "CHILE")] * 2, *invalid]
    assert rejects(sql, f"{REJECTS}_latest") == [(2, "CHILE"), (2, "CHILE"), (2, "PERU")]


def test_views_have_versions(suite: Suite, run: Run, sql: Sql) -> None:
    """A try on a view knows whether an earlier one saw the same rows."""
    sql("CREATE VIEW s.shown AS SELECT * FROM s.raw")
    shown = suite.model_copy(update={"batch": Batch(table="s.shown")})
    judged(shown, run, 0)
    judged(shown, run, 1)
    sql("UPDATE s.raw SET price = 4 WHERE site = 'CHILE'")
    judged(shown, run, 2)
    assert rejects(sql) == [(1, "CHILE"), (2, "CHILE")]


def test_edited_suite_keeps_evidence(suite: Suite, run: Run, sql: Sql) -> None:
    """A try by other rules leaves the rows of the earlier one."""
    judged(suite, run, 0)
    judged(suite.model_copy(update={"expectations": [SITE]}), run, 1)
    assert rejects(sql) == [(0, "CHILE"), (1, "CHILE")]


@pytest.mark.parametrize(
    "of", [{"task_id": "other"}, {"map_index": 1}, {"deployment": "there"}, {"run_id": "manual__2"}]
)
def test_other_gates_keep_evidence(suite: Suite, run: Run, sql: Sql, of: dict[str, Any]) -> None:
    """Another step, another instance of a mapped step, another Airflow and another run have rejects of their own."""
    judged(suite, run, 0)
    judged(suite, run, 1, **of)
    assert rejects(sql) == [(0, "CHILE"), (1, "CHILE")]


def test_latest_rejects_stand_once(suite: Suite, run: Run, sql: Sql) -> None:
    """The view has the rejects of a run's last verdict on each suite: none after a pass; an error is no verdict."""
    latest = f"{REJECTS}_latest"
    judged(suite, run, 0)
    judged(suite, run, 1, run_id="manual__2")
    sql("UPDATE s.raw SET price = 5 WHERE site = 'CHILE'")
    judged(suite, run, 2, task_id="other")
    assert rejects(sql, latest) == [(1, "CHILE"), (2, "CHILE")]

    with pytest.raises(PermanentError):
        judged(suite.model_copy(update={"batch": Batch(table="s.none")}), run, 3)
    assert rejects(sql, latest) == [(1, "CHILE"), (2, "CHILE")]

    sql("DELETE FROM s.raw WHERE site = 'CHILE'")
    assert judged(suite, run, 4)
    assert rejects(sql, latest) == [(1, "CHILE")]
    assert rejects(sql) == [(0, "CHILE"), (1, "CHILE"), (2, "CHILE")]


JUDGE = """
import datetime as dt, sys
from tasks.contract import Run
from tasks.quality.gate import validate
from tasks.quality.suites import Suite

run = Run("crypto_events_dag", "manual__1", "some_task", dt.date(2026, 1, 5), attempt=sys.argv[2])
validate(Suite.model_validate_json(sys.argv[1]), record_in="dqm.dq_runs", run=run)
"""


def test_killed_try_has_no_end(suite: Suite, run: Run, gate: Gate, database: Database, sql: Sql) -> None:
    """A try that is killed before its commit leaves a record without an end, with the rules, and no rejects."""
    gate.hold(REJECTS, "true")
    with gate.closed(database):
        with subprocess.Popen(
            [sys.executable, "-c", JUDGE, suite.model_dump_json(), TRIES[0]], cwd=REPOSITORY
        ) as killed:
            (session,) = gate.waiting()
            killed.send_signal(signal.SIGKILL)
        gate.terminate(session)
    assert sql("""
        SELECT passed, error, version, ended_at, jsonb_array_length(details->'expectations') FROM dqm.dq_runs
    """) == [(None, None, None, None, 2)]
    assert rejects(sql) == []

    assert not judged(suite, run, 1)
    assert rejects(sql) == [(1, "CHILE")]
    assert sql("SELECT ended_at IS NULL FROM dqm.dq_runs ORDER BY started_at") == [(True,), (False,)]


def test_call_without_airflow_has_id(suite: Suite, run: Run, sql: Sql) -> None:
    """A validation that no task instance asks for gets an id, which its record, verdict and rejects share."""
    with pytest.raises(DataRejected) as rejected:
        validate(suite, record_in=RECORDS, run=run)
    ((record, verdict, row),) = sql(f"""
        SELECT (SELECT validation_id FROM {RECORDS})::text, (SELECT attempt FROM taskflow.passes),
               (SELECT validation_id FROM {REJECTS})::text
    """)
    assert record == verdict == row == str(UUID(record))
    assert f"; in {REJECTS} where validation_id = '{record}'\n" in str(rejected.value)


def test_deleted_record_is_told(suite: Suite, run: Run, gate: Gate, database: Database, sql: Sql) -> None:
    """A try whose record somebody deletes ends without a verdict, and is retried."""
    gate.hold(REJECTS, "true")
    with gate.closed(database):
        first = gate.start(judged, suite, run, 0)
        gate.waiting()
        second = gate.start(judged, suite, run, 1)
        gate.waiting(2)
        sql("DELETE FROM dqm.dq_runs WHERE validation_id = %s", TRIES[1])
    assert first.result(30) is False
    with pytest.raises(TransientError, match=rf"^dqm\.dq_runs: somebody deleted the record of this try, {TRIES[1]}$"):
        second.result(30)
    assert rejects(sql) == [(0, "CHILE")]


# --- Tables of an earlier form ----------------------------------------------------------------------------------------

OLD = """
    CREATE SCHEMA dqm;
    CREATE TABLE dqm.bt_crypto_events_rejects (
        suite text NOT NULL, dag_id text NOT NULL, run_id text NOT NULL, reason text NOT NULL,
        quarantined_at timestamptz NOT NULL DEFAULT now(), site_id text, user_id text, purchase_date text,
        crypto_type text, purchase_price text, purchase_units text, purchase_value text, inserted_at text
    );
    CREATE INDEX bt_crypto_events_rejects_run ON dqm.bt_crypto_events_rejects (suite, dag_id, run_id);
    CREATE TABLE dqm.dq_runs (
        suite text NOT NULL, dag_id text NOT NULL, run_id text NOT NULL, task_id text NOT NULL, run_date date NOT NULL,
        passed boolean NOT NULL, expectations integer NOT NULL, failed integer NOT NULL, rejected bigint NOT NULL,
        details jsonb NOT NULL, created_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (dag_id, run_id, suite)
    );
"""
OLD_ROWS = """
    INSERT INTO dqm.dq_runs VALUES
        ('sites', 'crypto_events_dag', 'manual__0', 'gate', '2026-01-04', false, 2, 1, 2,
         '{"batch": {"table": "s.raw", "where": "price < 10"}, "rows": 7}', '2026-01-04 10:00Z'),
        ('sites', 'crypto_events_dag', 'manual__1', 'gate', '2026-01-05', true, 2, 0, 0,
         '{"batch": {"table": "s.raw", "where": null}, "rows": 9}', '2026-01-05 10:00Z');
    INSERT INTO dqm.bt_crypto_events_rejects VALUES
        ('sites', 'crypto_events_dag', 'manual__0', 'invalid_site', '2026-01-04 10:00Z', 'PERU'),
        ('sites', 'crypto_events_dag', 'manual__0', 'invalid_site', '2026-01-04 10:00Z', 'CHILE'),
        ('unrecorded', 'crypto_events_dag', 'manual__0', 'invalid_site', '2026-01-04 10:00Z', 'CHILE');
"""
COLUMNS = """
    SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns
    WHERE table_schema = 'dqm' ORDER BY 1, 2
"""
KEYS = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'dqm.dq_runs'::regclass AND contype = 'p'"


def test_old_tables_are_migrated(run: Run, sql: Sql) -> None:
    """The file of the tables brings old ones to the new form, keeps what they know, and can run again."""
    run_sql(CONNECTION, "crypto/tables.sql", run=run)
    new = sql(COLUMNS), sql(KEYS)
    sql("DROP SCHEMA dqm CASCADE;" + OLD + OLD_ROWS)
    for _ in range(2):
        run_sql(CONNECTION, "crypto/tables.sql", run=run)

    assert (sql(COLUMNS), sql(KEYS)) == new
    told = "task_id, table_name, batch_where, row_count, passed, failed, rejected"
    assert sql(f"SELECT run_id, {told}, started_at = ended_at FROM dqm.dq_runs ORDER BY 1") == [
        ("manual__0", "gate", "s.raw", "price < 10", 7, False, 1, 2, True),
        ("manual__1", "gate", "s.raw", None, 9, True, 0, 0, True),
    ]
    assert sql("""
        SELECT rejects.suite, site_id, runs.run_id
        FROM dqm.bt_crypto_events_rejects AS rejects LEFT JOIN dqm.dq_runs AS runs USING (validation_id) ORDER BY 1, 2
    """) == [("sites", "CHILE", "manual__0"), ("sites", "PERU", "manual__0"), ("unrecorded", "CHILE", None)]
    assert sql(f"SELECT site_id FROM {REJECTS}_latest ORDER BY 1") == [("CHILE",), ("PERU",)]


def test_migrated_run_goes_on(run: Run, sql: Sql) -> None:
    """A run that was recorded before the migration gets a record more when its gate is cleared."""
    sql(OLD + OLD_ROWS + ROWS)
    run_sql(CONNECTION, "crypto/tables.sql", run=run)
    suite = Suite(name="sites", connection=CONNECTION, batch=Batch(table="s.raw"), expectations=[SITE])
    judged(suite, run)
    assert sql("SELECT passed FROM dqm.dq_runs WHERE run_id = 'manual__1' ORDER BY started_at") == [(True,), (False,)]


def test_own_old_table_is_told(suite: Suite, run: Run, sql: Sql) -> None:
    """A record table of one's own that has the old form is named, with the file to migrate it by; nothing is judged."""
    sql(OLD.partition("CREATE INDEX")[2].partition(";")[2].replace("dqm.dq_runs", "s.records"))
    with pytest.raises(PermanentError) as old:
        judged(suite, run, record_in="s.records")
    assert str(old.value) == (
        "s.records has one row for each suite of a run, as in earlier versions; now each try has its own. Migrate it "
        "with the statements by which configs/sql/crypto/tables.sql migrates dqm.dq_runs: they keep its rows"
    )
    assert rejects(sql) == []


def test_missing_record_column_is_told(suite: Suite, run: Run, sql: Sql) -> None:
    """A record table that lacks a column is named with it."""
    sql("CREATE TABLE s.records (LIKE dqm.dq_runs); ALTER TABLE s.records DROP COLUMN version")
    with pytest.raises(PermanentError, match=r"^column 'version' does not exist in table s\.records"):
        judged(suite, run, record_in="s.records")
