"""Connections: what they open, and what their errors say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import psycopg2
import pytest
import sqlalchemy

from stack.database import Database
from stack.objects import ObjectStore
from tasks.contract import MissingResource, PermanentError, Run, TransientError
from tasks.services.objects import bucket_errors
from tasks.services.objects import object_store as store_client
from tasks.services.postgres import postgres, postgres_url
from tests.support.database import Sql

CONNECTION = "crypto_postgres"


@pytest.fixture
def table(sql: Sql) -> None:
    """A table with a constraint of each sort."""
    sql("CREATE TABLE t (a integer NOT NULL CHECK (a > 0), b text, UNIQUE (a))")


def execute(text: str) -> None:
    with postgres(CONNECTION) as session, session.cursor() as cursor:
        cursor.execute(text)


def write_and_fail() -> None:
    with postgres(CONNECTION) as session, session.cursor() as cursor:
        cursor.execute("INSERT INTO t VALUES (1)")
        _ = 1 / 0


def test_block_end_commits(table: None, sql: Sql) -> None:
    """What a block did is there when it ends."""
    execute("INSERT INTO t VALUES (1)")
    assert sql("SELECT a FROM t") == [(1,)]


def test_exception_rolls_back(table: None, sql: Sql) -> None:
    """What a block did is gone when it raises, and the exception comes through as it is."""
    with pytest.raises(ZeroDivisionError):
        write_and_fail()
    assert sql("SELECT a FROM t") == []


def test_session_is_closed(database: Database) -> None:
    """No session outlives its block, however it ends."""
    with postgres(CONNECTION) as good:
        pass
    with pytest.raises(ZeroDivisionError), postgres(CONNECTION) as bad:
        _ = 1 / 0
    assert (good.closed, bad.closed) == (1, 1)


def test_session_names_task(database: Database, run: Run) -> None:
    """The operator sees in pg_stat_activity which task a session works for; its clock is UTC."""
    with postgres(CONNECTION, run=run) as session, session.cursor() as cursor:
        cursor.execute("SELECT current_setting('application_name'), current_setting('TimeZone')")
        assert cursor.fetchone() == ("taskflow crypto_events_dag.some_task", "UTC")


def test_url_opens_same_session(database: Database, run: Run) -> None:
    """SQLAlchemy reaches the same database with the same settings."""
    engine = sqlalchemy.create_engine(postgres_url(CONNECTION, run=run))
    question = "SELECT current_database(), current_setting('application_name'), current_setting('TimeZone')"
    with engine.connect() as session:
        found = session.execute(sqlalchemy.text(question)).one()
    engine.dispose()
    assert tuple(found) == (database.dbname, "taskflow crypto_events_dag.some_task", "UTC")


@pytest.mark.parametrize(
    ("statement", "error", "problem"),
    [
        (
            "SELECT * FROM raw.nope",
            MissingResource,
            (
                "table 'raw.nope' does not exist in {address}; create it (postgres.run_sql runs a file of "
                "configs/sql/), or correct the name in the step"
            ),
        ),
        (
            "SELECT c FROM t",
            MissingResource,
            "column 'c' does not exist in {address}; add it to the table, or correct the name in the step",
        ),
        (
            "INSERT INTO t (c) VALUES (1)",
            MissingResource,
            "column 'c' does not exist in table 't' of {address}; add it to the table, or correct the name in the step",
        ),
        (
            "CREATE TABLE nope.t ()",
            MissingResource,
            "schema 'nope' does not exist in {address}; create it, or correct the name in the step",
        ),
        (
            "SELECT nope(b) FROM t",
            MissingResource,
            (
                "function 'nope(text)' does not exist in {address}; correct the expression in the step; cast its "
                "arguments in the expression"
            ),
        ),
        (
            "SELECT b::nope FROM t",
            MissingResource,
            "type 'nope' does not exist in {address}; create it, or correct the name in the step",
        ),
        (
            "SELECT b * 1 FROM t",
            PermanentError,
            (
                "{address}: operator does not exist: text * integer; cast its arguments in the expression "
                "(near '* 1 FROM t')"
            ),
        ),
        ("SELECT a FRM t u v", PermanentError, "{address}: syntax error at or near \"t\" (near 't u v')"),
        ("SELECT 1 / (a - a) FROM (SELECT 1 AS a) s", PermanentError, "{address}: division by zero"),
        (
            "INSERT INTO t VALUES (null, 'x')",
            PermanentError,
            (
                '{address}: null value in column "a" of relation "t" violates not-null constraint (table public.t; '
                "column a; Failing row contains (null, x).)"
            ),
        ),
        (
            "INSERT INTO t VALUES (-1)",
            PermanentError,
            (
                '{address}: new row for relation "t" violates check constraint "t_a_check" (table public.t; constraint '
                "t_a_check; Failing row contains (-1, null).)"
            ),
        ),
        (
            "INSERT INTO t VALUES (1), (1)",
            PermanentError,
            (
                '{address}: duplicate key value violates unique constraint "t_a_key" (table public.t; '
                "constraint t_a_key; Key (a)=(1) already exists.)"
            ),
        ),
        ("SELECT * FROM pg_authid", PermanentError, "{address}: permission denied for table pg_authid"),
        (
            "DO $$ BEGIN RAISE 'could not serialize' USING ERRCODE = '40001'; END $$",
            TransientError,
            "{address}: could not serialize",
        ),
        ("SET lock_timeout = 1; LOCK TABLE held", TransientError, "{address}: canceling statement due to lock timeout"),
    ],
)
def test_statement_errors_name(
    database: Database, table: None, sql: Sql, statement: str, error: type[Exception], problem: str
) -> None:
    """An error of a statement says where it was, what is wrong and whether a retry can help."""
    sql("CREATE TABLE held ()")
    address = f"Postgres at {database.host}:{database.port}, database {database.dbname!r} (connection {CONNECTION!r})"
    with psycopg2.connect(database.dsn) as other, other.cursor() as cursor:
        cursor.execute("LOCK TABLE held")
        with pytest.raises(error) as raised:
            execute(statement)
    assert type(raised.value) is error
    assert str(raised.value) == problem.format(address=address)


def test_ended_session_is_transient(database: Database) -> None:
    """A server that goes away in the middle is worth a retry."""
    with pytest.raises(TransientError, match=r"^Postgres at .* \(connection 'crypto_postgres'\): "):
        execute("SELECT pg_terminate_backend(pg_backend_pid())")


def test_unknown_connection_is_missing() -> None:
    """A connection that Airflow does not know is named, with the way to make it."""
    with pytest.raises(MissingResource) as raised, postgres("nowhere"):
        pass
    assert str(raised.value) == (
        "connection 'nowhere' does not exist in Airflow; create it in the UI under Admin > Connections, or set "
        "AIRFLOW_CONN_NOWHERE"
    )


@pytest.mark.parametrize(
    ("change", "error", "problem"),
    [
        (
            {"schema": "nope"},
            MissingResource,
            (
                "database 'nope' does not exist in Postgres at {host}:{port}, database 'nope' (connection 'odd'); "
                "create it, or correct the connection's schema"
            ),
        ),
        (
            {"password": "not-the-word"},
            PermanentError,
            (
                "Postgres at {host}:{port}, database {dbname!r} (connection 'odd') refused the login; correct the "
                'connection\'s login and password: connection to server at "{host}", port {port} failed: FATAL:  '
                'password authentication failed for user "crypto"'
            ),
        ),
        (
            {"port": 1},
            TransientError,
            (
                "Postgres at {host}:1, database {dbname!r} (connection 'odd'): connection to server at \"{host}\", "
                "port 1 failed: Connection refused\n\tIs the server running on that host and accepting TCP/IP "
                "connections?"
            ),
        ),
        (
            {"conn_type": "mysql"},
            PermanentError,
            ("connection 'odd' is of type 'mysql', not 'postgres'; correct it in the UI under Admin > Connections"),
        ),
        (
            {"extra": {"sllmode": "require"}},
            PermanentError,
            (
                "Postgres at {host}:{port}, database {dbname!r} (connection 'odd'): invalid dsn: invalid connection "
                'option "sllmode"'
            ),
        ),
    ],
    ids=["database", "password", "port", "type", "extra"],
)
def test_wrong_connection_says_how(
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, object],
    error: type[Exception],
    problem: str,
) -> None:
    """A connection that does not work says what is wrong with it, and never shows its password."""
    monkeypatch.setenv("AIRFLOW_CONN_ODD", json.dumps(json.loads(database.airflow_connection) | change))
    with pytest.raises(error) as raised, postgres("odd"):
        pass
    assert type(raised.value) is error
    assert str(raised.value) == problem.format(host=database.host, port=database.port, dbname=database.dbname)
    assert database.password not in str(raised.value)


def test_object_store_keeps_objects(object_store: ObjectStore) -> None:
    """The client writes and reads through the Airflow connection."""
    client = store_client("object_store")
    with bucket_errors("object_store", "ge-artifacts"):
        client.put_object(Bucket="ge-artifacts", Key="a/b.txt", Body=b"text")
        assert client.get_object(Bucket="ge-artifacts", Key="a/b.txt")["Body"].read() == b"text"


@pytest.mark.parametrize("way", ["head_bucket", "put_object", "upload_file"])
def test_missing_bucket_is_named(object_store: ObjectStore, tmp_path: Path, way: str) -> None:
    """Each way of touching a bucket that does not exist names it, where it was looked for and what to do."""
    file = tmp_path / "file"
    file.touch()
    ways: dict[str, Callable[[], object]] = {
        "head_bucket": lambda: store_client("object_store").head_bucket(Bucket="nope"),
        "put_object": lambda: store_client("object_store").put_object(Bucket="nope", Key="k", Body=b""),
        "upload_file": lambda: store_client("object_store").upload_file(str(file), "nope", "k"),
    }
    with pytest.raises(MissingResource) as raised, bucket_errors("object_store", "nope"):
        ways[way]()
    assert str(raised.value) == (
        f"bucket 'nope' does not exist in object store at {endpoint(object_store)} (connection 'object_store'); create "
        "it, or correct the name in the step"
    )


def test_wrong_keys_are_permanent(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that the store refuses fail at once."""
    changed(object_store, monkeypatch, password="not-the-secret")
    with pytest.raises(PermanentError) as raised, bucket_errors("odd_store", "ge-artifacts"):
        store_client("odd_store").list_objects_v2(Bucket="ge-artifacts")
    assert str(raised.value) == (
        f"object store at {endpoint(object_store)} (connection 'odd_store') refused access to bucket 'ge-artifacts' "
        "(SignatureDoesNotMatch); check the keys of connection 'odd_store' and their rights to the bucket"
    )


def test_silent_store_is_transient(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that does not answer is worth a retry."""
    changed(object_store, monkeypatch, extra={"endpoint_url": "http://127.0.0.1:1", "region_name": "us-east-1"})
    with pytest.raises(TransientError) as raised, bucket_errors("odd_store", "ge-artifacts"):
        store_client("odd_store").head_bucket(Bucket="ge-artifacts")
    assert str(raised.value) == (
        "object store at http://127.0.0.1:1 (connection 'odd_store'): Could not connect to the endpoint URL: "
        '"http://127.0.0.1:1/ge-artifacts"'
    )


def test_missing_store_is_missing() -> None:
    """A store without a connection is not looked for with whatever keys the machine has."""
    with pytest.raises(MissingResource, match=r"^connection 'no_store' does not exist in Airflow"):
        store_client("no_store")


def endpoint(store: ObjectStore) -> str:
    return str(json.loads(store.airflow_connection)["extra"]["endpoint_url"])


def changed(store: ObjectStore, monkeypatch: pytest.MonkeyPatch, **change: object) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_ODD_STORE", json.dumps(json.loads(store.airflow_connection) | change))
