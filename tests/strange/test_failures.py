"""What a failure says: the step, the reason, what to do, and where it is written; once, and nothing else."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from stack.database import Database
from stack.paths import REPOSITORY
from tasks.contract import ArgumentRefused, PermanentError, Run
from tasks.files.places import InFolder
from tasks.postgres.copy_table import copy_table
from tasks.postgres.export import export
from tasks.postgres.merging import Deactivation
from tasks.postgres.query import query
from tasks.postgres.tables import rebuild_table
from tasks.quality.gate import validate
from tasks.quality.suites import Batch, Expectation, Quarantine, Suite
from tests.support.database import Sql
from tests.support.merging import merged
from tests.support.warm_taskflow import Warm

SETUP = """
    CREATE SCHEMA s; CREATE TABLE s.raw AS SELECT 1 AS id, 0 AS n, 'EURO' AS word;
    CREATE TABLE s.built (id int, v int, code varchar(3));
"""


@pytest.mark.parametrize(
    ("columns", "where", "place", "problem"),
    [
        ({"id": "id", "v": "10 / n"}, None, ("columns", "v"), "division by zero; divide by NULLIF"),
        (
            {"id": "id", "code": "word"},
            None,
            ("columns", "code"),
            "value too long for type character varying(3); shorten",
        ),
        (
            {"v": "1", "id": "word::int"},
            None,
            ("columns", "id"),
            'invalid input syntax for type integer: "EURO"; correct',
        ),
        ({"v": "1", "id": "2000000000 * (id + 1)"}, None, ("columns", "id"), "integer out of range; correct"),
        ({"id": "id"}, "id / n > 1", ("where",), "division by zero; divide by NULLIF"),
        ({"id": "to_date(word, 'YYYY-MM-DD') - DATE '2026-01-01'"}, None, ("columns", "id"), 'invalid value "EURO"'),
    ],
)
def test_expression_at_fault_is_named(
    sql: Sql, run: Run, columns: dict[str, str], where: str | None, place: tuple[str, ...], problem: str
) -> None:
    """A value that cannot be made is blamed on the column whose expression makes it, or on the condition."""
    sql(SETUP)

    with pytest.raises(ArgumentRefused) as told:
        rebuild_table("crypto_postgres", "s.built", "s.raw", columns, where, run=run)

    assert told.value.path == place
    assert told.value.problem.startswith(problem)


def test_column_of_a_merge_is_named(sql: Sql, run: Run) -> None:
    """What the target cannot store is blamed on the column of the source."""
    sql(SETUP + "CREATE TABLE s.target (id int PRIMARY KEY, n int, word varchar(3))")

    with pytest.raises(PermanentError, match=r'^column "word" of s\.raw: value too long for type .*; shorten'):
        merged(run, source="s.raw", target="s.target", keys=["id"], deactivate=None, timestamps=None)


VIEW = "CREATE VIEW s.view AS SELECT id, 10 / n AS v FROM s.raw;"


def exported(run: Run, folder: Path, **given: str) -> None:
    export("crypto_postgres", "out.csv", InFolder(folder=str(folder)), "csv", **given, run=run)


def test_query_at_fault_is_named(sql: Sql, run: Run, tmp_path: Path) -> None:
    """The argument that is a whole query, or the column of the view that is read."""
    sql(SETUP + VIEW)
    failing = "SELECT 10 / n AS v FROM s.raw"

    for attempt in (
        lambda: query("crypto_postgres", failing, run=run),
        lambda: exported(run, tmp_path, sql=failing),
    ):
        with pytest.raises(ArgumentRefused, match=r"^sql: division by zero; divide by NULLIF"):
            attempt()
    with pytest.raises(PermanentError, match=r'^column "v" of s\.view: division by zero; divide by NULLIF'):
        exported(run, tmp_path, table="s.view")
    with pytest.raises(PermanentError, match=r'^column "v" of s\.view \(connection \S+\): division by zero; divide'):
        copy_table("crypto_postgres", "s.view", "crypto_postgres", "s.copied", run=run)


def test_window_of_a_merge_is_named(sql: Sql, run: Run) -> None:
    """The condition on the rows of the target that it divides by."""
    sql(SETUP + "CREATE TABLE s.target (id int PRIMARY KEY, n int, is_active boolean);")
    sql("INSERT INTO s.target VALUES (7, 0, true)")
    window = Deactivation(window="id / n > 0")

    with pytest.raises(ArgumentRefused, match=r"^deactivate\.window: division by zero; divide by NULLIF"):
        merged(run, source="s.raw", target="s.target", keys=["id"], deactivate=window, timestamps=None)


@pytest.mark.parametrize(
    ("where", "column", "problem"),
    [
        ("10 / n > 0", "id::text", r"batch\.where: division by zero; divide by NULLIF"),
        (None, "10 / n", r"^quarantine\.columns\.row of suite 'whole': division by zero; divide by NULLIF"),
        (
            None,
            "word",
            r"^quarantine\.columns\.row of suite 'whole': value too long for type character varying\(3\); short",
        ),
    ],
)
def test_expression_of_a_suite_is_named(sql: Sql, run: Run, where: str | None, column: str, problem: str) -> None:
    """The condition of its batch, or the column of its quarantine."""
    sql(SETUP + (REPOSITORY / "configs/sql/crypto/tables.sql").read_text())
    sql("""
        CREATE TABLE s.rejects
            (suite text, dag_id text, run_id text, reason text, validation_id uuid, row varchar(3));
    """)
    suite = Suite(
        name="whole",
        connection="crypto_postgres",
        batch=Batch(table="s.raw", where=where),
        quarantine=Quarantine(table="s.rejects", columns={"row": column}),
        expectations=[Expectation(type="expect_column_values_to_be_null", reason="id", arguments={"column": "id"})],
    )

    with pytest.raises(PermanentError, match=problem):
        validate(suite, record_in="dqm.dq_runs", run=run)


SPEC = """\
dag_id: failing
suites:
  whole:
    connection: crypto_postgres
    batch: {table: s.built}
    expectations:
      - expect_column_values_to_be_null: {column: id}
steps:
  build:
    uses: postgres.rebuild_table
    with:
      connection: crypto_postgres
      source: s.raw
      target: s.built
      columns:
        id: id
        v: 10 / EXPRESSION
  checks:
    needs: build
    steps:
      gate: {uses: quality.validate, with: {suite: whole}}
  load:
    uses: postgres.merge
    needs: checks
    with: {connection: crypto_postgres, source: s.built, target: s.target, keys: [id]}
"""


@pytest.fixture
def project(database: Database, tmp_path: Path) -> Path:
    """A folder with a spec that fails, beside one that is wrong; and the tables of the first."""
    with database.connect() as session, session.cursor() as cursor:
        cursor.execute(SETUP)
        cursor.execute((REPOSITORY / "configs/sql/crypto/tables.sql").read_text())
    (tmp_path / "configs").mkdir()
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "other.yaml").write_text("dag_id: other\nsteps: {say: {uses: messages.lag}}\n")
    return tmp_path


def shown(taskflow: Warm, project: Path, expression: str) -> str:
    """Return what `taskflow run` prints for a run that fails, without times."""
    (project / "pipelines" / "failing.yaml").write_text(SPEC.replace("EXPRESSION", expression))
    done = taskflow(project, "run", "failing")
    assert done.returncode == 1
    return done.stdout + done.stderr


NOISE = ("Traceback", "site-packages", "airflow.sdk", "AirflowFail", "other.yaml", "No tasks to run", "XCom not found")


def test_fault_of_the_spec_is_told_once(project: Path, warm_taskflow: Warm) -> None:
    """The step, the reason, what to do and the line; no frames, no other spec, no notice of a library."""
    text = shown(warm_taskflow, project, "n")

    assert 'step "build": columns.v: division by zero; divide by NULLIF(…, 0), which gives null\n' in text
    assert "pipelines/failing.yaml:17: v: 10 / n" in text
    assert text.count("division by zero") == 1
    assert [word for word in NOISE if word in text] == []


def test_fault_of_the_data_is_told_once(project: Path, warm_taskflow: Warm) -> None:
    """A gate says once which rule is broken, by which values, and which step to clear."""
    text = shown(warm_taskflow, project, "(n + 1)")

    assert 'step "checks.gate": suite whole on s.built, 1 row: rejected, 1 of 1 expectations failed\n' in text
    assert text.count("expect_column_values_to_be_null") == 1
    assert "clear 'build' with its downstream" in text
    assert [word for word in NOISE if word in text] == []
    assert not re.search(r"^\S+ .*ERROR(?!.*step)", text, re.MULTILINE)


LOGGED = """
import io
from types import SimpleNamespace
import structlog
from airflow.sdk._shared.logging.structlog import configure_logging
from factory.bridge.failures import fail
from tasks.contract import PermanentError

out = io.BytesIO()
configure_logging(json_output=True, log_level="INFO", output=out)
log = structlog.get_logger(logger_name="task")
log.info("begun")
context = {"ti": SimpleNamespace(task_id="build")}
for failing in (lambda: fail(PermanentError("no table; create it"), context), lambda: 1 / 0):
    try:
        failing()
    except Exception:
        log.exception("Task failed with exception")
print(out.getvalue().decode())
"""


def test_log_of_a_task_has_the_reason_alone() -> None:
    """In the log that Airflow shows, a foreseen failure is one event without frames, and a bug has its traceback."""
    outside = {name: value for name, value in os.environ.items() if name != "PYTEST_VERSION"}  # Airflow looks for it
    done = subprocess.run([sys.executable, "-c", LOGGED], env=outside, capture_output=True, text=True, check=True)

    _, foreseen, bug = (json.loads(line) for line in done.stdout.splitlines() if line)
    assert (foreseen["level"], foreseen["event"]) == ("error", 'step "build": no table; create it')
    assert "exception" not in foreseen
    assert bug["exception"][0]["exc_type"] == "ZeroDivisionError"
    assert bug["exception"][0]["frames"]
