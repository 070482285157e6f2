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
from tasks.contract import Before, BuiltIn, Occupied, PermanentError, Run
from tasks.postgres.claims import claim
from tasks.postgres.tables import merge, rebuild_table, run_sql
from tests.support.database import Gate, Sql

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


def test_waiting_run_keeps_what_other_steps_built(tables: None, run: Run, sql: Sql) -> None:
    """A later step whose table is taken leaves the run the claims of its earlier builds."""
    named = replace(of_run(run, 1, 2), before=Before(claims=(STAGING,)))
    claim([STAGING], named, MINUTE)
    claim([BuiltIn(CONNECTION, "s.named_by_template")], of_run(run, 2), MINUTE)

    with pytest.raises(Occupied, match=r"s\.named_by_template is claimed by .* run manual__2"):
        claim([BuiltIn(CONNECTION, "s.named_by_template")], replace(named, task_id="later"), MINUTE)

    assert holders(sql) == {"s.staging": "manual__1", "s.named_by_template": "manual__2"}


def test_no_two_runs_wait_for_each_other(tables: None, run: Run, sql: Sql, caplog: pytest.LogCaptureFixture) -> None:
    """Each of three runs has a table that the next one wants: the one that closes the ring gives its own back."""
    numbers, names = (1, 2, 3), [BuiltIn(CONNECTION, f"s.t{number}") for number in (1, 2, 3)]
    runs = [of_run(run, number, *numbers) for number in numbers]
    for who, table in zip(runs, names, strict=True):
        claim([table], who, MINUTE)
    later = [replace(who, task_id="later") for who in runs]
    for who, table in ((later[0], names[1]), (later[1], names[2])):
        with pytest.raises(Occupied) as told:
            claim([table], who, MINUTE)
        assert not told.value.can_ask

    with pytest.raises(Occupied, match=r"s\.t1 is claimed by .* run manual__1"):
        claim([names[0]], later[2], MINUTE)
    assert "gives back all tables that it has claimed: s.t1 is claimed by" in caplog.text

    claim([names[2]], later[1], MINUTE)
    assert holders(sql) == {"s.t1": "manual__1", "s.t2": "manual__2", "s.t3": "manual__2"}


def test_looks_in_a_ring_do_not_lock_each_other_out(
    tables: None, run: Run, sql: Sql, gate: Gate, database: Database
) -> None:
    """One that closes a ring gives back the very table that another has just looked at: the server ends neither."""
    first, second = (of_run(run, number, 1, 2) for number in (1, 2))
    a, b = (BuiltIn(CONNECTION, name) for name in ("s.a", "s.b"))
    claim([a], first, MINUTE)
    claim([b], second, MINUTE)
    first, second = (replace(who, task_id="later") for who in (first, second))
    with pytest.raises(Occupied):
        claim([b], first, MINUTE)

    with database.connect() as session, session.cursor() as cursor:
        cursor.execute("BEGIN; SELECT pg_advisory_xact_lock(hashtext('taskflow.waits'))")
        closing = gate.start(claim, [a], second, MINUTE)
        gate.waiting(1)
        looking = gate.start(claim, [b], first, MINUTE)
        gate.waiting(2)
        cursor.execute("ROLLBACK")

    with pytest.raises(Occupied, match=r"s\.a is claimed by .* run manual__1"):
        closing.result(30)
    looking.result(30)
    assert holders(sql) == {"s.a": "manual__1", "s.b": "manual__1"}


def test_cleared_run_goes_on_with_what_it_holds(tables: None, run: Run, sql: Sql) -> None:
    """While it has all of its tables nobody comes before it; once it has lost one, it waits at the end of the line."""
    other = BuiltIn(CONNECTION, "s.other")
    before = Before(claims=(STAGING, other))
    cleared = lambda *running: replace(of_run(run, 1, *running), before=before)  # noqa: E731
    claim([STAGING], cleared(), MINUTE)
    with pytest.raises(Occupied, match=r"claimed by .* run manual__1"):
        claim([STAGING], of_run(run, 2, 1), MINUTE)

    claim([STAGING], cleared(1, 2), MINUTE)
    assert holders(sql) == {"s.staging": "manual__1", "s.other": "manual__1"}

    claim([STAGING], of_run(run, 2), MINUTE)
    with pytest.raises(Occupied, match=r"claimed by .* run manual__2"):
        claim([STAGING], of_run(run, 3, 2), MINUTE)
    with pytest.raises(Occupied, match=r"s\.other, s\.staging: before this run comes .* run manual__3.* waits too"):
        claim([other], cleared(1, 3), MINUTE)  # the second run has ended, and the third has not looked yet
    assert holders(sql) == {"s.staging": "manual__2"}

    claim([STAGING], of_run(run, 3, 1), MINUTE)
    with pytest.raises(Occupied, match=r"claimed by .* run manual__3"):
        claim([other], cleared(1, 3), MINUTE)
    claim([other], cleared(1), MINUTE)
    assert holders(sql) == {"s.staging": "manual__1", "s.other": "manual__1"}


def test_who_came_first_is_served_first(tables: None, run: Run, sql: Sql) -> None:
    """Whenever they look, runs that wait go on in the order in which they came; the log says who comes before."""
    claim([STAGING], of_run(run, 1), MINUTE)
    running = [1, 4, 2, 3]
    for number in running[1:]:
        with pytest.raises(Occupied, match="manual__1"):
            claim([STAGING], of_run(run, number, *running), MINUTE)

    while len(running) > 1:
        running.pop(0)
        first, *others = running
        for place, number in reversed(list(enumerate(others))):
            with pytest.raises(Occupied, match=r"s\.staging: before this run comes .*, which waits too") as told:
                claim([STAGING], of_run(run, number, *running), MINUTE)
            assert (told.value.run_id, told.value.can_ask) == (f"manual__{running[place]}", True)
        claim([STAGING], of_run(run, first, *running), MINUTE)
        assert holders(sql) == {"s.staging": f"manual__{first}"}
    assert sql("SELECT count(*) FROM taskflow.waits") == [(0,)]


def test_line_is_for_each_table(tables: None, run: Run) -> None:
    """A run that wants other tables waits for nobody; one that has been in the line before comes before new ones."""
    other = BuiltIn(CONNECTION, "s.other")
    claim([STAGING], of_run(run, 1), MINUTE)
    with pytest.raises(Occupied):
        claim([STAGING, other], of_run(run, 2, 1), MINUTE)

    claim([BuiltIn(CONNECTION, "s.third")], of_run(run, 3, 1, 2), MINUTE)
    with pytest.raises(Occupied, match=r"s\.other: before this run comes .* run manual__2"):
        claim([other], of_run(run, 4, 1, 2), MINUTE)
    claim([STAGING], of_run(run, 1, 2, 4), MINUTE)  # its own retry


@pytest.mark.parametrize("ended", ["not running", "its time is over"])
def test_who_no_longer_waits_is_passed_over(tables: None, run: Run, sql: Sql, ended: str) -> None:
    """A run that has failed, or has waited for as long as it may, stops nobody."""
    claim([STAGING], of_run(run, 1), MINUTE)
    with pytest.raises(Occupied):
        claim([STAGING], of_run(run, 2, 1), MINUTE)
    still = () if ended == "not running" else (2,)
    if still:
        sql("UPDATE taskflow.waits SET until = now()")

    claim([STAGING], of_run(run, 3, *still), MINUTE)


def test_waiter_of_another_airflow_is_believed_for_a_time(tables: None, run: Run, sql: Sql) -> None:
    """It cannot be asked: it has its place in the line until it has not looked for too long."""
    claim([STAGING], of_run(run, 1), MINUTE)
    with pytest.raises(Occupied):
        claim([STAGING], of_run(run, 2, 1, deployment="here"), MINUTE)
    sql("UPDATE taskflow.waits SET deployment = 'elsewhere'")

    with pytest.raises(Occupied, match="run manual__2 of elsewhere") as told:
        claim([STAGING], of_run(run, 3), MINUTE)
    assert not told.value.can_ask
    sql("UPDATE taskflow.waits SET seen_at = now() - interval '2 minutes' WHERE deployment = 'elsewhere'")
    claim([STAGING], of_run(run, 3), MINUTE)


def test_lost_session_stops_a_local_run(
    tables: None, run: Run, sql: Sql, gate: Gate, database: Database, request: pytest.FixtureRequest
) -> None:
    """If the server ends the session that keeps a local run's tables, nothing is committed from then on."""
    own = replace(of_run(run, 1, deployment=f"taskflow run of {request.node.name}"), is_local=True)
    before = Before(builds={"s.staging": "build"})
    columns = {"id": "id", "price": "price"}
    end = """
        SELECT pg_terminate_backend(pid, 10000) FROM pg_locks
        WHERE locktype = 'advisory' AND mode = 'ShareLock' AND granted AND objid <> 4711
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    """
    rebuild_table(CONNECTION, "s.staging", "s.raw", columns, run=own)
    sql(end)
    with pytest.raises(
        PermanentError, match=r"ended the session that kept this run's tables, .*; run the pipeline again"
    ):
        merge(CONNECTION, "s.staging", "s.prod", ["id"], run=replace(own, task_id="load", before=before))
    assert sql("SELECT count(*) FROM s.prod") == [(0,)]

    claim([STAGING], own, MINUTE)
    sql(end)
    with pytest.raises(PermanentError, match="ended the session"):
        claim([STAGING], own, MINUTE)

    gate.hold("s.staging", "true")
    with gate.closed(database):
        building = gate.start(rebuild_table, CONNECTION, "s.staging", "s.raw", columns, run=own)
        gate.waiting()
        sql(end)
    with pytest.raises(PermanentError, match="ended the session"):
        building.result(30)
    assert sql("SELECT count(*) FROM taskflow.builds") == [(1,)]


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
