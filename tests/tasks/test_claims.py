"""A run claims the tables that its plan builds, and another run waits for it; nobody waits for a run that has ended."""

from __future__ import annotations

import datetime as dt
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from stack.database import Cluster, Database
from tasks.contract import Before, BuiltIn, Occupied, Run
from tasks.postgres.claims import claim
from tasks.postgres.tables import merge, rebuild_table, run_sql
from tests.support.database import Sql

CONNECTION = "crypto_postgres"
STAGING = BuiltIn(CONNECTION, "s.staging")
TABLES = """
    CREATE SCHEMA s;
    CREATE TABLE s.raw (id int, price int);
    CREATE TABLE s.staging (id int, price int);
    CREATE TABLE s.prod (id int PRIMARY KEY, price int);
    INSERT INTO s.raw SELECT n, n FROM generate_series(1, 10) AS n;
"""
MINUTE = 60.0


@pytest.fixture
def tables(sql: Sql) -> None:
    sql(TABLES)


def of_run(run: Run, number: int, *running: int, task_id: str = "build", deployment: str = "here") -> Run:
    """Return a run by its number, in an Airflow where the runs of these numbers are running."""
    names = {f"manual__{one}" for one in running}
    date = dt.date(2026, 1, number)
    asks = {"is_running": lambda _dag_id, run_id: run_id in names, "deployment": deployment}
    return replace(run, run_id=f"manual__{number}", date=date, task_id=task_id, **asks)


def holders(sql: Sql) -> dict[str, str]:
    return dict(sql("SELECT table_name, run_id FROM taskflow.claims WHERE deployment IS NOT NULL"))


def test_running_run_keeps_its_tables(tables: None, run: Run, sql: Sql) -> None:
    """The second run is told whom it waits for; it builds when the first has ended, however it ended."""
    build = lambda who: rebuild_table(CONNECTION, "s.staging", "s.raw", {"id": "id"}, run=who)  # noqa: E731
    build(of_run(run, 1))

    with pytest.raises(Occupied) as told:
        build(of_run(run, 2, 1))

    holder = "s.staging is claimed by crypto_events_dag, run manual__1 of here, for 2026-01-01, since "
    assert str(told.value).startswith(holder)
    assert (told.value.dag_id, told.value.run_id, told.value.can_ask) == ("crypto_events_dag", "manual__1", True)
    assert sql("SELECT DISTINCT run_id FROM taskflow.builds") == [("manual__1",)]
    assert build(of_run(run, 2)).rows == 10
    assert holders(sql) == {"s.staging": "manual__2"}


def test_sql_file_claims_what_it_builds(tables: None, run: Run, tmp_path: object) -> None:
    """A file of SQL waits too, and only if it builds something."""
    folder = run.configs.__class__(str(tmp_path)) / "sql"
    folder.mkdir()
    (folder / "fill.sql").write_text("TRUNCATE s.staging; INSERT INTO s.staging SELECT * FROM s.raw")
    claim([STAGING], of_run(run, 1), MINUTE)
    other = replace(of_run(run, 2, 1), configs=folder.parent)

    with pytest.raises(Occupied):
        run_sql(CONNECTION, "fill.sql", builds=["s.staging"], run=other)

    assert run_sql(CONNECTION, "fill.sql", run=other).rows == 10


def test_claims_are_of_all_tables_at_once(tables: None, run: Run, sql: Sql) -> None:
    """The first build claims what later builds of its run fill; who waits holds nothing: no two wait for each other."""
    before = Before(claims=(STAGING, BuiltIn(CONNECTION, "s.other")))
    claim([STAGING], replace(of_run(run, 1), before=before), MINUTE)
    assert holders(sql) == {"s.staging": "manual__1", "s.other": "manual__1"}

    with pytest.raises(Occupied, match=r"s\.other is claimed"):
        claim([BuiltIn(CONNECTION, "s.new"), BuiltIn(CONNECTION, "s.other")], of_run(run, 2, 1), MINUTE)

    assert holders(sql) == {"s.staging": "manual__1", "s.other": "manual__1"}


def test_waiting_run_gives_back_what_it_had(tables: None, run: Run, sql: Sql) -> None:
    """A run that was cleared, and finds one of its tables taken, keeps none of the others."""
    both = [STAGING, BuiltIn(CONNECTION, "s.other")]
    claim(both, of_run(run, 1), MINUTE)
    claim([STAGING], of_run(run, 2), MINUTE)

    with pytest.raises(Occupied, match=r"s\.staging is claimed by .* run manual__2"):
        claim(both, of_run(run, 1, 2), MINUTE)

    assert holders(sql) == {"s.staging": "manual__2"}


def test_claims_in_two_databases(
    tables: None, run: Run, sql: Sql, cluster: Cluster, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that finds a table of the second database taken gives back those of the first."""
    other = database.named(f"{database.dbname}_other")
    cluster.create(other)
    monkeypatch.setenv("AIRFLOW_CONN_OTHER_POSTGRES", other.airflow_connection)
    elsewhere = BuiltIn("other_postgres", "s.elsewhere")
    claim([elsewhere], of_run(run, 1), MINUTE)

    with pytest.raises(Occupied, match="elsewhere is claimed"):
        claim([STAGING], replace(of_run(run, 2, 1), before=Before(claims=(STAGING, elsewhere))), MINUTE)

    assert holders(sql) == {}
    cluster.drop(other)


def test_two_connections_to_one_database_are_one_claim(
    tables: None, run: Run, sql: Sql, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table is claimed by its name in its database, not by the connection through which it is built."""
    monkeypatch.setenv("AIRFLOW_CONN_THE_SAME", database.airflow_connection)
    claim([STAGING, BuiltIn("the_same", "s.staging")], of_run(run, 1), MINUTE)

    with pytest.raises(Occupied):
        claim([BuiltIn("the_same", "s.staging")], of_run(run, 2, 1), MINUTE)


def test_runs_at_once_never_share(tables: None, run: Run) -> None:
    """Of eight runs that begin at once, one gets all tables, and the others none."""
    several = [BuiltIn(CONNECTION, f"s.t{number}") for number in range(5)]

    def try_to(number: int) -> bool:
        try:
            claim(several[number % 5 :] + several[: number % 5], of_run(run, number, *range(1, 9)), MINUTE)
        except Occupied:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(try_to, range(1, 9))) == 1


LOCAL = """
import datetime as dt, sys
from tasks.contract import BuiltIn, Run
from tasks.postgres.claims import claim
run = Run("dag", "manual__1", "build", dt.date(2026, 1, 1), deployment="taskflow run 4711", is_local=True)
claim([BuiltIn("crypto_postgres", "s.staging")], run, 60)
print("claimed", flush=True)
sys.stdin.read()
"""


def test_local_run_keeps_its_tables_while_its_process_lives(tables: None, run: Run, sql: Sql) -> None:
    """No Airflow knows the run of `taskflow run`: its claim ends with its process, also with kill -9."""
    command = [sys.executable, "-c", LOCAL]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "claimed\n"

        with pytest.raises(Occupied, match=r"run manual__1 of taskflow run 4711") as told:
            claim([STAGING], of_run(run, 2), MINUTE)

        assert not told.value.can_ask
        process.kill()
        process.wait()
    sql("""
        SELECT pg_terminate_backend(pid, 10000) FROM pg_locks
        WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    """)  # what the server does by itself within seconds
    claim([STAGING], of_run(run, 2), MINUTE)
    assert holders(sql) == {"s.staging": "manual__2"}


def test_run_of_another_airflow_is_waited_for(tables: None, run: Run, sql: Sql) -> None:
    """Another Airflow cannot be asked: its run has its tables until it has loaded them, or is silent for too long."""
    theirs = of_run(run, 1, deployment="elsewhere")
    rebuild_table(CONNECTION, "s.staging", "s.raw", {"id": "id", "price": "price"}, run=theirs)

    with pytest.raises(Occupied, match="run manual__1 of elsewhere") as told:
        claim([STAGING], of_run(run, 2), MINUTE)
    assert not told.value.can_ask

    before = Before(builds={"s.staging": "build"}, loaded_once=frozenset({"s.staging"}))
    merge(CONNECTION, "s.staging", "s.prod", ["id"], run=replace(theirs, task_id="load", before=before))
    claim([STAGING], of_run(run, 2), MINUTE)
    assert holders(sql) == {"s.staging": "manual__2"}


def test_silent_run_of_another_airflow_is_given_up(
    tables: None, run: Run, sql: Sql, caplog: pytest.LogCaptureFixture
) -> None:
    """An Airflow that is gone for good stops nobody for ever; the log says whose table is taken over."""
    caplog.set_level("INFO", logger="tasks")
    claim([STAGING], of_run(run, 1, deployment="elsewhere"), MINUTE)
    sql("UPDATE taskflow.claims SET claimed_at = claimed_at - interval '2 minutes'")

    claim([STAGING], of_run(run, 2), MINUTE)

    told = r"s\.staging: taken over from crypto_events_dag, run manual__1 of elsewhere, for 2026-01-01, since .*"
    assert any(re.fullmatch(f"{told}, which no longer needs it", line) for line in caplog.messages)


def test_claim_that_is_held_is_not_written_again(tables: None, run: Run, sql: Sql) -> None:
    """A later build of the run leaves the row alone: a load of the run, which notes its end in it, would conflict."""
    before = Before(claims=(STAGING, BuiltIn(CONNECTION, "s.other")))
    own = replace(of_run(run, 1), before=before)
    claim([STAGING], own, MINUTE)
    written = sql("SELECT table_name, xmin::text FROM taskflow.claims ORDER BY 1")

    claim([BuiltIn(CONNECTION, "s.other")], own, MINUTE)

    assert sql("SELECT table_name, xmin::text FROM taskflow.claims ORDER BY 1") == written
