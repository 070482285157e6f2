"""Builds are recorded with the rows they wrote, and a gate and a load take no others."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path

import pytest

from stack.database import Cluster, Database
from tasks.contract import Before, DataRejected, GateBefore, PermanentError, Run
from tasks.postgres.merging import Deactivation
from tasks.postgres.passes import Judged, fingerprint, record_pass
from tasks.postgres.tables import merge, rebuild_table, run_sql
from tasks.postgres.versions import standing_build
from tests.support.database import Sql

CONNECTION = "crypto_postgres"
TABLES = """
    CREATE SCHEMA s;
    CREATE TABLE s.raw (id int, price int);
    CREATE TABLE s.staging (id int, price int);
    CREATE TABLE s.prod (id int PRIMARY KEY, price int, is_active boolean NOT NULL DEFAULT true);
    INSERT INTO s.raw SELECT n, n FROM generate_series(1, 10) AS n;
"""


@pytest.fixture
def tables(sql: Sql) -> None:
    sql(TABLES)


def named(run: Run, task_id: str, *, gates: tuple[GateBefore, ...] = ()) -> Run:
    return replace(run, task_id=task_id, before=Before(builds={"s.staging": "build"}, gates=gates))


def build(run: Run) -> int:
    columns = {"id": "id", "price": "price"}
    return rebuild_table(CONNECTION, "s.staging", "s.raw", columns, run=named(run, "build")).rows


def load(run: Run, *, gates: tuple[GateBefore, ...] = (), **asked: object) -> object:
    return merge(CONNECTION, "s.staging", "s.prod", ["id"], run=named(run, "load", gates=gates), **asked)


def test_own_rows_are_loaded(tables: None, run: Run) -> None:
    """A run loads what it built."""
    assert build(run) == 10
    assert load(run).inserted == 10


def test_rows_of_another_run_are_named(tables: None, run: Run, sql: Sql) -> None:
    """Cleared alone, a load finds another run's rows: it says whose, for which date, and from where to clear."""
    build(run)
    other = replace(run, run_id="manual__2", date=dt.date(2026, 1, 6))
    build(other)

    with pytest.raises(PermanentError) as refused:
        load(run)

    assert str(refused.value).startswith(
        "s.staging holds the rows of crypto_events_dag.build in run manual__2, for 2026-01-06, built at "
    )
    assert str(refused.value).endswith(
        "not those of this run (crypto_events_dag, manual__1); clear 'build' with its downstream"
    )
    assert sql("SELECT count(*) FROM s.prod") == [(0,)]


def test_run_of_another_airflow_is_another(tables: None, run: Run) -> None:
    """A run of the same name in another Airflow is another run."""
    build(replace(run, deployment="https://staging"))

    with pytest.raises(PermanentError, match="in run manual__1 of https://staging, for 2026-01-05"):
        load(run)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("INSERT INTO s.staging VALUES (11, 11)", "1 are of somebody else"),
        ("UPDATE s.staging SET price = 0 WHERE id < 3", "2 of its rows are gone or changed, 2 are of somebody else"),
        ("DELETE FROM s.staging WHERE id = 5", "1 of its rows are gone or changed"),
        ("TRUNCATE s.staging", "10 of its rows are gone or changed"),
    ],
)
def test_changed_table_is_refused(tables: None, run: Run, sql: Sql, change: str, told: str) -> None:
    """What somebody changed after the build is counted, and nothing is loaded."""
    build(run)
    sql(change)

    with pytest.raises(PermanentError, match=f"of 10 rows, {told}; clear 'build' with its downstream"):
        load(run)

    assert sql("SELECT count(*) FROM s.prod") == [(0,)]


@pytest.mark.parametrize("care", ["VACUUM (FREEZE) s.staging", "VACUUM FULL s.staging", "ANALYZE s.staging"])
def test_maintenance_changes_nothing(tables: None, run: Run, sql: Sql, care: str) -> None:
    """A version survives whatever keeps the rows."""
    build(run)
    sql(care)

    assert load(run).inserted == 10


@pytest.mark.parametrize(
    "change",
    [
        """
        ALTER TABLE s.staging RENAME id TO x;
        ALTER TABLE s.staging RENAME price TO id;
        ALTER TABLE s.staging RENAME x TO price
        """,
        "ALTER TABLE s.staging ADD COLUMN is_active boolean DEFAULT false",
        "ALTER TABLE s.staging DROP COLUMN price",
        "ALTER TABLE s.staging DROP COLUMN price; ALTER TABLE s.staging ADD COLUMN price int DEFAULT 7",
        "ALTER TABLE s.staging ALTER short TYPE varchar(20)",
        "ALTER TABLE s.staging ALTER short TYPE text",
        "SET timezone = 'UTC'; ALTER TABLE s.staging ALTER at TYPE timestamptz",
        'ALTER TABLE s.staging ALTER short TYPE varchar(10) COLLATE "C"',
        """
        ALTER TYPE s.mood RENAME VALUE 'sad' TO 'x';
        ALTER TYPE s.mood RENAME VALUE 'glad' TO 'sad';
        ALTER TYPE s.mood RENAME VALUE 'x' TO 'glad'
        """,
        "ALTER TYPE s.pair RENAME ATTRIBUTE a TO x; ALTER TYPE s.pair RENAME ATTRIBUTE b TO a",
        "ALTER TABLE s.staging ALTER doubled DROP EXPRESSION",
    ],
)
@pytest.mark.parametrize("source", ["s.staging", "s.outside"])
def test_changed_columns_are_refused(
    tables: None, run: Run, sql: Sql, database: Database, change: str, source: str
) -> None:
    """DDL that writes no row changes what the rows mean: it is seen in a table that a step built, and in any other."""
    sql("""
        CREATE TYPE s.mood AS ENUM ('sad', 'glad');
        CREATE TYPE s.pair AS (a int, b int);
        ALTER TABLE s.staging ADD short varchar(10), ADD at timestamp, ADD moods s.mood[], ADD pair s.pair,
            ADD doubled int GENERATED ALWAYS AS (id * 2) STORED;
        CREATE TABLE s.outside (LIKE s.staging INCLUDING GENERATED);
    """)
    build(run)
    gate, is_external = GateBefore("check", source, "x"), source == "s.outside"
    with database.connect() as session, session.cursor() as cursor:
        judged = Judged(source, fingerprint=fingerprint(cursor, source))
        if is_external:
            record_pass(cursor, judged, "suite", replace(run, task_id="check", before=Before(digest="x")), passed=True)

    sql(change.replace("s.staging", source))

    loading = named(run, "load", gates=(gate,) if is_external else ())
    told = "was built or changed after gate 'check'" if is_external else "columns of s.staging, or one of their types,"
    with pytest.raises(PermanentError, match=told):
        merge(CONNECTION, source, "s.prod", ["id"], external_source=is_external, run=loading)


def test_changed_columns_stop_a_gate(tables: None, run: Run, sql: Sql, database: Database) -> None:
    """A gate judges what its run built, with the columns that it was built with."""
    build(run)
    sql("ALTER TABLE s.staging ADD COLUMN late int DEFAULT 0")

    with (
        database.connect() as session,
        session.cursor() as cursor,
        pytest.raises(PermanentError, match=r"the columns of s\.staging, or one of their types, were changed after"),
    ):
        standing_build(cursor, "s.staging", named(run, "gate"))


@pytest.mark.parametrize(
    "change",
    [
        "VACUUM FULL s.staging",
        "ALTER TABLE s.staging ALTER price SET DEFAULT 3",
        "CREATE INDEX ON s.staging (id)",
        "COMMENT ON COLUMN s.staging.price IS 'in cents'",
    ],
)
def test_same_columns_are_loaded(tables: None, run: Run, sql: Sql, change: str) -> None:
    """What changes neither rows nor columns is no reason to refuse; the value of an added column may be written out."""
    sql("ALTER TABLE s.staging ADD COLUMN late int DEFAULT 0")
    build(run)
    sql(change)

    assert load(run).inserted == 10


def test_search_path_is_no_change(tables: None, run: Run, sql: Sql, tmp_path: Path) -> None:
    """A computation is the same whether the build's search_path has its schema or not."""
    sql("CREATE SCHEMA lib; CREATE FUNCTION lib.twice(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 2 * $1'")
    sql("ALTER TABLE s.staging ADD doubled int GENERATED ALWAYS AS (lib.twice(price)) STORED")
    (tmp_path / "sql").mkdir()
    fill = "TRUNCATE s.staging; INSERT INTO s.staging SELECT id, price FROM s.raw;"
    (tmp_path / "sql" / "fill.sql").write_text(f"SET LOCAL search_path TO lib, public; {fill}")
    building = replace(named(run, "build"), configs=tmp_path)

    run_sql(CONNECTION, "fill.sql", builds=["s.staging"], run=building)

    assert load(run, columns=["price"]).inserted == 10


def test_renamed_table_is_refused(tables: None, run: Run, sql: Sql) -> None:
    """Two tables of a run that swap their names: each holds what was built as the other."""
    sql("CREATE TABLE s.other (LIKE s.staging)")
    build(run)
    sql("ALTER TABLE s.staging RENAME TO x; ALTER TABLE s.other RENAME TO staging; ALTER TABLE s.x RENAME TO other")
    loading = replace(run, before=Before(builds={"s.other": "build_other"}))

    with pytest.raises(PermanentError, match=r"s\.other had another name, s\.staging, .* clear 'build_other' with its"):
        merge(CONNECTION, "s.other", "s.prod", ["id"], run=loading)


def test_records_of_an_earlier_version_are_kept(tables: None, run: Run, sql: Sql) -> None:
    """The records get the column that they lack; what was built before it was noted is built again."""
    build(run)
    sql("ALTER TABLE taskflow.builds DROP COLUMN form")

    with pytest.raises(PermanentError, match=r"an earlier version of taskflow recorded .* clear 'build' with its down"):
        load(run)

    build(run)
    assert load(run).inserted == 10
    assert sql("SELECT count(*), count(form) FROM taskflow.builds") == [(2, 1)]


def test_unbuilt_table_is_refused(tables: None, run: Run) -> None:
    """A table without a recorded build, such as a dumped and restored one, is built again."""
    with pytest.raises(PermanentError, match=r"no step has recorded a build of s.staging; clear 'build'"):
        load(run)


def test_file_builds_what_it_fills(tables: None, run: Run, sql: Sql, tmp_path: object) -> None:
    """A file of SQL builds the tables that the step names, where it wrote all of their rows."""
    folder = run.configs.__class__(str(tmp_path)) / "sql"
    folder.mkdir()
    (folder / "fill.sql").write_text("TRUNCATE s.staging; INSERT INTO s.staging SELECT * FROM s.raw")
    (folder / "append.sql").write_text("INSERT INTO s.staging SELECT * FROM s.raw")
    filling = replace(run, configs=folder.parent, task_id="build")

    run_sql(CONNECTION, "fill.sql", builds=["s.staging"], run=filling)
    assert load(run).inserted == 10

    with pytest.raises(PermanentError, match=r"10 of the 20 rows of s.staging were not written by build"):
        run_sql(CONNECTION, "append.sql", builds=["s.staging"], run=filling)


def test_gate_without_verdict_stops_load(tables: None, run: Run) -> None:
    """A gate that was marked as success by hand has recorded nothing."""
    build(run)

    with pytest.raises(PermanentError, match="gate 'check' has recorded no verdict in this run, whatever its state"):
        load(run, gates=(GateBefore("check", "s.staging", "x"),))


def judge_here(database: Database, run: Run, *gates: str) -> None:
    """Record that gates have passed the rows that a run has built."""
    with database.connect() as session, session.cursor() as cursor:
        for gate in gates:
            judge = replace(named(run, gate), before=Before(builds={"s.staging": "build"}, digest="x"))
            judged = Judged("s.staging", standing_build(cursor, "s.staging", judge))
            record_pass(cursor, judged, "suite", judge, passed=True)


def test_two_connections_to_one_database_are_one_place(
    tables: None, run: Run, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gate that judges through another connection than the load's passes the very rows that it judged."""
    monkeypatch.setenv("AIRFLOW_CONN_THE_SAME", database.airflow_connection)
    gate = GateBefore("check", "s.staging", "x", "the_same")
    build(run)
    judge_here(database, run, "check")
    assert load(run, gates=(gate,)).inserted == 10

    build(run)
    with pytest.raises(PermanentError, match=r"s\.staging was built or changed after gate 'check' judged it"):
        load(run, gates=(gate,))


def test_gate_may_judge_in_another_database(
    tables: None, run: Run, cluster: Cluster, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gate on another table passes in its own database; one on the loaded table must have judged it in the load's."""
    other = database.named(f"{database.dbname}_other")
    cluster.create(other)
    monkeypatch.setenv("AIRFLOW_CONN_OTHER_POSTGRES", other.airflow_connection)
    with other.connect() as session, session.cursor() as cursor:
        cursor.execute("CREATE SCHEMA s; CREATE TABLE s.lookup (id int); CREATE TABLE s.staging (id int)")
        for table, gate in (("s.lookup", "source"), ("s.staging", "wrong")):
            judge = replace(run, task_id=gate, before=Before(digest="x"))
            record_pass(cursor, Judged(table), "suite", judge, passed=True)
    build(run)

    assert load(run, gates=(GateBefore("source", "s.lookup", "x", "other_postgres"),)).inserted == 10

    namesake = GateBefore("wrong", "s.staging", "x", "other_postgres")
    partial = GateBefore("partial", "s.staging", "x", is_whole=False)
    judge_here(database, run, "whole", "partial")
    lack = r"no gate before this load judges all rows of s\.staging in the database of crypto_postgres"
    for gates in ((namesake,), (namesake, partial)):
        with pytest.raises(
            PermanentError, match=rf"{lack} \('wrong' judges the one of other_postgres\); add one whose"
        ):
            load(run, gates=gates)
    assert load(run, gates=(namesake, partial, GateBefore("whole", "s.staging", "x"))).unchanged == 10
    cluster.drop(other)


@pytest.mark.parametrize("source", ["s.raw", "s.seen"], ids=["table", "view"])
@pytest.mark.parametrize(
    "change",
    ["INSERT INTO s.raw VALUES (11, 11)", "UPDATE s.raw SET price = 0 WHERE id = 1", "DELETE FROM s.raw WHERE id = 5"],
)
def test_external_rows_are_those_of_the_gate(
    tables: None, run: Run, sql: Sql, database: Database, source: str, change: str
) -> None:
    """A table or view that another system fills is loaded as its gate saw it, and not after a change."""
    sql("CREATE VIEW s.seen AS SELECT * FROM s.raw")
    gate = GateBefore("check", source, "x")
    with database.connect() as session, session.cursor() as cursor:
        judged = Judged(source, fingerprint=fingerprint(cursor, source))
        record_pass(cursor, judged, "suite", replace(run, task_id="check", before=Before(digest="x")), passed=True)

    loading = named(run, "load", gates=(gate,))
    assert merge(CONNECTION, source, "s.prod", ["id"], external_source=True, run=loading).inserted == 10

    sql(change)
    with pytest.raises(PermanentError, match=f"{source} was built or changed after gate 'check' judged it"):
        merge(CONNECTION, source, "s.prod", ["id"], external_source=True, run=loading)


@pytest.mark.parametrize("source", ["s.outside", "s.parted"])
def test_foreign_table_is_not_loaded(
    tables: None, run: Run, sql: Sql, cluster: Cluster, database: Database, source: str
) -> None:
    """Nothing tells whether a foreign table still has the rows that its gate saw: a copy of it is built and loaded."""
    with cluster.superuser.named(database.dbname).connect() as session, session.cursor() as cursor:
        cursor.execute(f"""
            CREATE EXTENSION postgres_fdw;
            CREATE SERVER here FOREIGN DATA WRAPPER postgres_fdw;
            GRANT USAGE ON FOREIGN SERVER here TO "{database.user}";
        """)
    sql("""
        CREATE FOREIGN TABLE s.outside (id int, price int) SERVER here;
        CREATE TABLE s.parted (id int, price int) PARTITION BY LIST (id);
        CREATE FOREIGN TABLE s.part PARTITION OF s.parted DEFAULT SERVER here;
    """)
    told = {"s.outside": r"s\.outside is a foreign table", "s.parted": r"s\.parted, of which s\.part is a part, is a"}

    with pytest.raises(PermanentError, match=f"^{told[source]}.*; copy it with postgres.rebuild_table, judge the copy"):
        merge(CONNECTION, source, "s.prod", ["id"], external_source=True, run=named(run, "load"))


def test_empty_source_switches_nothing_off(tables: None, run: Run, sql: Sql) -> None:
    """Nothing is not everything gone: an empty source needs a word of the step."""
    sql("INSERT INTO s.prod SELECT id, price FROM s.raw; DELETE FROM s.raw")
    build(run)
    window = Deactivation(window="true", max_deactivated_share=1)

    with pytest.raises(DataRejected, match=r"s.staging is empty: deactivating all of its window in s.prod is refused"):
        load(run, deactivate=window)

    assert load(run, deactivate=window, allow_empty=True).deactivated == 10


def test_mass_deactivation_stops(tables: None, run: Run, sql: Sql) -> None:
    """Above the share of the window's active rows, nothing is changed."""
    sql("INSERT INTO s.prod SELECT id, price FROM s.raw; DELETE FROM s.raw WHERE id > 4")
    build(run)
    problem = r"6 of 10 active rows of the window would be deactivated, above max_deactivated_share 0.5"

    with pytest.raises(DataRejected, match=problem):
        load(run, deactivate=Deactivation(window="true"))

    assert sql("SELECT count(*) FROM s.prod WHERE is_active") == [(10,)]
    assert load(run, deactivate=Deactivation(window="true", max_deactivated_share=0.6)).deactivated == 6


def test_missing_grant_is_named(cluster: Cluster, database: Database, run: Run, sql: Sql) -> None:
    """Where the login may not make the records, the error says which right is missing."""
    sql(TABLES)
    with cluster.superuser.named(database.dbname).connect() as session, session.cursor() as cursor:
        cursor.execute(f'ALTER DATABASE "{database.dbname}" OWNER TO postgres')
        cursor.execute(f'GRANT CONNECT ON DATABASE "{database.dbname}" TO "{database.user}"')
        cursor.execute(f'REVOKE CREATE ON DATABASE "{database.dbname}" FROM "{database.user}"')

    with pytest.raises(PermanentError, match="GRANT CREATE ON DATABASE"):
        build(run)
