"""wait.until, wait.file and wait.sql: what each look finds, and how the triggerer looks."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowSkipException, TaskDeferred
from psycopg2.sql import SQL, Identifier

from factory.bridge.failures import StepFailed
from factory.bridge.poking import Poke, wait_for
from stack.database import Database
from stack.objects import ObjectStore
from tasks.contract import MissingResource, NotYet, PermanentError, Run
from tasks.files.places import InBucket, InFolder
from tasks.waits import Arrived, file, http, sql, until
from tests.support.database import Sql
from tests.support.web import Said, serving

LONG_AGO = dt.datetime(2026, 1, 1, tzinfo=dt.UTC).timestamp()


@pytest.fixture
def here(run: Run, tmp_path: Path) -> Run:
    """A run of a project in an empty folder."""
    (tmp_path / "configs" / "sql").mkdir(parents=True)
    return replace(run, configs=tmp_path / "configs")


@pytest.fixture
def incoming(tmp_path: Path) -> Path:
    """The folder `incoming/sales` of that project."""
    folder = tmp_path / "incoming" / "sales"
    folder.mkdir(parents=True)
    return folder


def put(path: Path, *, changed: float = LONG_AGO) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("a\n")
    os.utime(path, (changed, changed))


# --- a moment ---------------------------------------------------------------------------------------------------------


def test_past_moment_has_come() -> None:
    """A moment in the past is not waited for."""
    assert until(dt.datetime(2026, 1, 5, tzinfo=dt.UTC)).moment == "2026-01-05T00:00:00+00:00"


def test_future_moment_is_waited_for() -> None:
    """The next look is when it comes."""
    moment = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    with pytest.raises(NotYet, match="has not come") as caught:
        until(moment, timeout=7200)
    assert 3500 < caught.value.poke_interval <= 3600


# --- files ------------------------------------------------------------------------------------------------------------


def test_file_is_found(here: Run, incoming: Path) -> None:
    """The files that match, sorted, by their paths below the place; others are not named."""
    for name in ("sales_2.csv", "sales_1.csv", "sales_10.txt", "old/sales_3.csv"):
        put(incoming / name)
    found = file("sales/sales_*.csv", InFolder(folder="incoming"), run=here)
    assert found == Arrived(files=["sales/sales_1.csv", "sales/sales_2.csv"], count=2)


@pytest.mark.parametrize(
    ("at_least", "problem"),
    [(1, "there is no such file"), (2, "0 of at least 2 files are there")],
)
def test_missing_file_is_waited_for(here: Run, incoming: Path, at_least: int, problem: str) -> None:
    """A folder without the file, and one that does not exist, are waited for."""
    incoming.rmdir()
    with pytest.raises(NotYet, match=problem):
        file("sales/x.csv", InFolder(folder="incoming"), at_least, run=here)


def test_growing_file_is_waited_for(here: Run, incoming: Path) -> None:
    """A file that has just changed may be half a file; with `at_rest: 0` that is not asked."""
    put(incoming / "a.csv")
    put(incoming / "b.csv", changed=dt.datetime.now(dt.UTC).timestamp())
    with pytest.raises(NotYet, match=re.escape("sales/b.csv changed at")):
        file("sales/*.csv", InFolder(folder="incoming"), at_rest=600, run=here)
    assert file("sales/*.csv", InFolder(folder="incoming"), at_rest=0, run=here).count == 2


def test_object_is_found(here: Run, object_store: ObjectStore) -> None:
    """In a bucket as in a folder."""
    place = InBucket(connection="object_store", bucket="pipeline-files", prefix="incoming")
    with pytest.raises(NotYet, match=re.escape("s3://pipeline-files/incoming/sales/*.csv: there is no such file")):
        file("sales/*.csv", place, run=here)
    object_store.client().put_object(Bucket="pipeline-files", Key="incoming/sales/a.csv", Body=b"a")
    try:
        assert file("sales/*.csv", place, at_rest=0, run=here).files == ["sales/a.csv"]
    finally:
        object_store.client().delete_object(Bucket="pipeline-files", Key="incoming/sales/a.csv")


def test_root_of_a_bucket_is_looked_at(here: Run, object_store: ObjectStore) -> None:
    """A pattern without a folder, in a place without a prefix; what is in folders does not count."""
    place, client = InBucket(connection="object_store", bucket="pipeline-files"), object_store.client()
    keys = ("at_the_root_1.csv", "at_the_root/at_the_root_2.csv")
    for key in keys:
        client.put_object(Bucket="pipeline-files", Key=key, Body=b"a")
    try:
        assert file("at_the_root_*.csv", place, at_rest=0, run=here).files == ["at_the_root_1.csv"]
    finally:
        for key in keys:
            client.delete_object(Bucket="pipeline-files", Key=key)


# --- a row ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "seen"),
    [
        ("SELECT 1 WHERE false", "no row"),
        ("SELECT NULL::text", "a row that begins with None"),
        ("SELECT count(*) FROM generate_series(1, 3) AS n WHERE n::text = %(name)s", "a row that begins with 0"),
        ("SELECT false", "a row that begins with False"),
    ],
)
def test_row_is_waited_for(here: Run, database: object, query: str, seen: str) -> None:
    """No row, null, false and 0 are not yet what is waited for."""
    (here.configs / "sql" / "ready.sql").write_text(query)
    values = {"name": "loaded"} if "%(name)s" in query else None
    with pytest.raises(NotYet, match=rf"^configs/sql/ready.sql returns {seen}$"):
        sql("crypto_postgres", "ready.sql", values, run=here)


def test_row_is_returned(here: Run, sql_of: Sql) -> None:
    """The first column of the first row is the output."""
    sql_of("CREATE TABLE loads (day date); INSERT INTO loads VALUES ('2026-01-05')")
    (here.configs / "sql" / "ready.sql").write_text("SELECT max(day) FROM loads WHERE day >= %(day)s")
    assert sql("crypto_postgres", "ready.sql", {"day": dt.date(2026, 1, 5)}, run=here).value == "2026-01-05"


def test_wrong_query_is_not_waited_for(here: Run, database: object) -> None:
    """A table that does not exist, and a statement that is no query, fail at once."""
    (here.configs / "sql" / "ready.sql").write_text("SELECT 1 FROM nowhere")
    with pytest.raises(MissingResource, match="nowhere"):
        sql("crypto_postgres", "ready.sql", run=here)
    (here.configs / "sql" / "ready.sql").write_text("DELETE FROM loads")
    with pytest.raises(PermanentError, match=r"ready\.sql, line 1"):
        sql("crypto_postgres", "ready.sql", run=here)


def test_query_writes_nothing(here: Run, sql_of: Sql) -> None:
    """A function that writes is refused by the server."""
    sql_of("CREATE TABLE seen (n integer)")
    sql_of("CREATE FUNCTION touch() RETURNS int LANGUAGE sql AS 'INSERT INTO seen VALUES (1) RETURNING n'")
    (here.configs / "sql" / "ready.sql").write_text("SELECT touch()")
    with pytest.raises(PermanentError, match=r'calls "touch", which is not among the functions'):
        sql("crypto_postgres", "ready.sql", run=here)
    with pytest.raises(PermanentError, match=r"read-only transaction.*; a wait may only read"):
        sql("crypto_postgres", "ready.sql", run=replace(here, functions=frozenset({"touch"})))
    assert sql_of("SELECT count(*) FROM seen") == [(0,)]


@pytest.mark.parametrize("end", ["", ";", "; -- done", "\n-- all of them\n;\n"])
def test_query_may_end_in_a_comment(here: Run, database: object, end: str) -> None:
    """What is after the query does not reach the SQL that is written around it."""
    (here.configs / "sql" / "ready.sql").write_text(f"SELECT 7{end}")
    assert sql("crypto_postgres", "ready.sql", run=here).value == "7"


def test_login_that_only_reads_may_wait(here: Run, sql_of: Sql, database: Database) -> None:
    """A login or a database that refuses to write is asked all the same."""
    sql_of(SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(Identifier(database.dbname)))
    (here.configs / "sql" / "ready.sql").write_text("SELECT 7")
    assert sql("crypto_postgres", "ready.sql", run=here).value == "7"


def test_undeclared_call_is_refused(here: Run, sql_of: Sql) -> None:
    """A function by the syntax of a column needs to be listed too, and the triggerer knows the list."""
    sql_of("CREATE TABLE t (n integer); INSERT INTO t VALUES (1)")
    sql_of("CREATE FUNCTION evil(t) RETURNS integer LANGUAGE sql AS 'SELECT 7'")
    (here.configs / "sql" / "ready.sql").write_text("SELECT t.evil FROM t")
    with pytest.raises(PermanentError, match=r"calls public\.evil, a function of this database's own"):
        sql("crypto_postgres", "ready.sql", run=here)
    step = {"uses": "wait.sql", "arguments": {"connection": "crypto_postgres", "query": "ready.sql"}}
    (here.configs / "sql" / "ready.sql").write_text("SELECT t.evil FROM t WHERE n = 2")
    assert not deferred(step, here, functions=frozenset({"evil"})).is_there()


# --- an answer --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "wanted", "problem"),
    [
        (Said("not now", 503), {}, "503 Service Unavailable: not now"),
        (Said("no", 404), {}, "404 Not Found: no"),
        (Said("{", length=9), {"data_selector": "a"}, "the answer broke off"),
        (Said.of({"job": {}}), {"data_selector": "job.state"}, "shop: a has null at job.state"),
        (Said.of({"job": {"state": 0}}), {"data_selector": "job.state"}, "shop: a has 0 at job.state"),
        (Said.of({"job": "run"}), {"data_selector": "job", "equals": "done"}, 'shop: a has "run" at job'),
        (Said.of({"n": True}), {"data_selector": "n", "equals": 1}, "shop: a has true at n"),
    ],
)
def test_answer_is_waited_for(
    here: Run, monkeypatch: pytest.MonkeyPatch, said: Said, wanted: dict[str, Any], problem: str
) -> None:
    """A server that has failed, that lacks the path, or that has not yet the value; then the value is the output."""
    with serving() as web:
        monkeypatch.setenv("AIRFLOW_CONN_SHOP", web.connection())
        web.pages["/a"] = said
        with pytest.raises(NotYet, match=problem):
            http("shop", "a", **wanted, run=here)
        web.pages["/a"] = Said.of({"job": {"state": "done"}})
        assert http("shop", "a", data_selector="job.state", equals="done", run=here).value == "done"
        assert http("shop", "a", run=here).value == ""


def test_server_that_is_down_is_waited_for(here: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens; a connection that does not exist is no reason to wait."""
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", json.dumps({"conn_type": "http", "host": "127.0.0.1", "port": 1}))
    with pytest.raises(NotYet, match="Connection refused"):
        http("shop", "a", run=here)
    monkeypatch.delenv("AIRFLOW_CONN_SHOP")
    with pytest.raises(MissingResource, match="connection 'shop' does not exist"):
        http("shop", "a", run=here)


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (Said("key?", 401), "401 Unauthorized: key\\?; check login"),
        (Said("<title>Log in</title>", headers={"Content-Type": "text/html"}), "not with data: Log in"),
        (Said("done"), "does not answer with JSON"),
    ],
)
def test_refusal_is_not_waited_for(here: Run, monkeypatch: pytest.MonkeyPatch, said: Said, problem: str) -> None:
    """It would stay as it is."""
    with serving() as web:
        monkeypatch.setenv("AIRFLOW_CONN_SHOP", web.connection())
        web.pages["/a"] = said
        with pytest.raises(PermanentError, match=problem):
            http("shop", "a", data_selector="state", run=here)


@pytest.fixture(name="sql_of")
def _sql_of(sql: Sql) -> Sql:
    """Statements in the test's database: `sql` is the task here."""
    return sql


# --- between two looks ------------------------------------------------------------------------------------------------


class Step:
    """A task as the worker holds it."""

    def __init__(self, waiting_since: dt.datetime | None = None) -> None:
        self.waiting_since = waiting_since


def deferred(step: Mapping[str, Any], run: Run, timeout: float = 60, functions: frozenset[str] = frozenset()) -> Poke:
    """Return the trigger that a task leaves that has to wait."""
    with pytest.raises(TaskDeferred) as caught:
        wait_for(NotYet("nothing is there", 1, timeout), step, run, functions, {"task": Step()})
    trigger = caught.value.trigger
    assert isinstance(trigger, Poke)
    name, given = trigger.serialize()
    assert (name, caught.value.method_name) == ("factory.bridge.poking.Poke", "resume")
    return Poke(**json.loads(json.dumps(given)))  # as the triggerer gets it


async def fired(trigger: Poke) -> dict[str, str]:
    event = await anext(trigger.run())
    return dict(event.payload)


def test_triggerer_looks_until_it_is_there(here: Run, incoming: Path) -> None:
    """The triggerer calls the task itself; the event says since when it has waited."""
    arguments = {"path": "sales/*.csv", "files": {"folder": "incoming"}, "at_rest": 0}
    trigger = deferred({"uses": "wait.file", "arguments": arguments}, here)
    assert not trigger.is_there()
    put(incoming / "a.csv")
    assert trigger.is_there()
    trigger.times["interval"] = 0.01
    assert asyncio.run(fired(trigger)) == {"since": trigger.times["since"]}


def test_triggerer_ends_for_an_error(here: Run) -> None:
    """A task that would fail is not waited for: the worker meets the error and tells it."""
    assert deferred({"uses": "wait.sql", "arguments": {"connection": "nowhere", "query": "x.sql"}}, here).is_there()


def test_triggerer_ends_after_the_longest_wait(here: Run) -> None:
    """The event comes when the time is over, whether or not it is there."""
    trigger = deferred({"uses": "wait.file", "arguments": {"path": "x", "files": {"folder": "none"}}}, here, 0.05)
    assert "since" in asyncio.run(fired(trigger))


@pytest.mark.parametrize(("soft_fail", "error"), [(False, StepFailed), (True, AirflowSkipException)])
def test_longest_wait_ends(run: Run, soft_fail: bool, error: type[Exception]) -> None:  # noqa: FBT001
    """After `timeout` a wait fails, or is skipped where the step says so, with what was waited for and how long."""
    since = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=90)
    context = {"task": Step(since), "ti": SimpleNamespace(task_id="arrived")}
    with pytest.raises(error, match=r"waited 9\d s: nothing is there"):
        wait_for(NotYet("nothing is there", 1, 60, soft_fail), {}, run, frozenset(), context)
