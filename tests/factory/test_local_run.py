"""`taskflow run` beside an Airflow that works on the same tables."""

from __future__ import annotations

import datetime as dt
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from stack.database import Database
from stack.paths import REPOSITORY
from tasks.contract import BuiltIn, Run
from tasks.postgres.claims import claim
from tests.support.waiting import eventually
from tests.support.warm_taskflow import Warm

SPEC = """\
dag_id: local
steps:
  build:
    uses: postgres.rebuild_table
    with:
      connection: crypto_postgres
      source: s.raw
      target: s.staging
      columns: {id: id}
"""


def test_local_run_waits_for_a_run_of_airflow(database: Database, warm_taskflow: Warm, tmp_path: Path) -> None:
    """The run in this process waits for the other one, says for whom, and goes on when its rows are loaded."""
    (tmp_path / "configs").mkdir()
    spec = tmp_path / "pipelines" / "local.yaml"
    spec.parent.mkdir()
    spec.write_text(SPEC)
    with database.connect() as session, session.cursor() as cursor:
        cursor.execute("CREATE SCHEMA s; CREATE TABLE s.raw AS SELECT 1 AS id; CREATE TABLE s.staging (id int)")
        theirs = Run("crypto", "scheduled__1", "build", dt.date(2026, 1, 1), deployment="the stack")
        claim([BuiltIn("crypto_postgres", "s.staging")], theirs, 60)
        with ThreadPoolExecutor() as threads:
            running = threads.submit(warm_taskflow, tmp_path, "run", "local")
            told = "waiting, without a worker's slot: s.staging is claimed by crypto, run scheduled__1 of the stack"
            eventually("the local run to wait", lambda: told in " ".join(warm_taskflow.said().split()))
            cursor.execute("UPDATE taskflow.claims SET is_loaded = true")
        cursor.execute("SELECT deployment FROM taskflow.claims")
        ((holder,),) = cursor.fetchall()

    done = running.result()
    assert done.returncode == 0, done.stdout + done.stderr
    assert holder.startswith("taskflow run on ")


GATES = """\
dag_id: gates
suites:
  sites:
    connection: crypto_postgres
    batch: {table: s.raw}
    expectations:
      - expect_column_values_to_not_be_null: {column: id}
steps:
  first: {uses: quality.validate, with: {suite: sites, record_in: dqm.dq_runs, artifacts: null}}
  each:
    uses: quality.validate
    needs: first
    with: {suite: sites, record_in: dqm.dq_runs, artifacts: null}
    expand: {lock_timeout: [10, 20]}
"""


def test_each_task_instance_keeps_its_record(database: Database, warm_taskflow: Warm, tmp_path: Path) -> None:
    """Two steps, of which one is mapped, may use one suite: the id of each task instance is that of its record."""
    (tmp_path / "configs").mkdir()
    spec = tmp_path / "pipelines" / "gates.yaml"
    spec.parent.mkdir()
    spec.write_text(GATES)
    with database.connect() as session, session.cursor() as cursor:
        cursor.execute((REPOSITORY / "configs/sql/crypto/tables.sql").read_text())
        cursor.execute("CREATE SCHEMA s; CREATE TABLE s.raw AS SELECT 1 AS id")

    done = warm_taskflow(tmp_path, "run", "gates")

    assert done.returncode == 0, done.stdout + done.stderr
    with database.connect() as session, session.cursor() as cursor:
        cursor.execute("""
            SELECT records.task_id, records.map_index, records.try_number, records.passed, records.ended_at IS NOT NULL
            FROM dqm.dq_runs AS records JOIN taskflow.passes ON attempt = validation_id::text ORDER BY 1, 2
        """)
        assert cursor.fetchall() == [
            ("each", 0, 1, True, True),
            ("each", 1, 1, True, True),
            ("first", -1, 1, True, True),
        ]
