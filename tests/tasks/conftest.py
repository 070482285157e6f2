"""What the tests of tasks share: a run to work for, and a way to ask the database."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from tasks.contract import Run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

    from psycopg2.sql import Composable

    from stack.database import Database

ROOT = Path(__file__).parents[2]

Sql = Callable[..., list[tuple[Any, ...]]]
T = TypeVar("T")


@pytest.fixture
def run() -> Run:
    """A run of 5 January 2026, with the repository's configs."""
    return Run("crypto_events_dag", "manual__1", "some_task", dt.date(2026, 1, 5), configs=ROOT / "configs")


@pytest.fixture
def sql(database: Database) -> Sql:
    """A function that runs statements in the test's database and returns the rows of the last."""

    def execute(text: str | Composable, *values: object) -> list[tuple[Any, ...]]:
        with database.connect() as session, session.cursor() as cursor:
            cursor.execute(text, values or None)
            return cursor.fetchall() if cursor.description else []

    return execute


@pytest.fixture
def gate(sql: Sql) -> Iterator[Gate]:
    """A place in the database where a task can be held up."""
    with ThreadPoolExecutor(4) as threads:
        yield Gate(sql, threads)


class Gate:
    """Holds a task up in the middle of writing a table, until it is let go or its session is ended."""

    def __init__(self, sql: Sql, threads: ThreadPoolExecutor) -> None:
        self.sql = sql
        self.threads = threads
        sql("CREATE SCHEMA gate")
        sql("""
            CREATE FUNCTION gate.wait() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                PERFORM pg_advisory_xact_lock_shared(4711);
                RETURN coalesce(NEW, OLD);
            END $$
        """)

    def hold(self, table: str, condition: str, event: str = "INSERT") -> None:
        """Let `event` on a row of `table` for which `condition` holds wait while the gate is closed."""
        when = f"BEFORE {event} ON {table} FOR EACH ROW WHEN ({condition})"
        self.sql(f"CREATE OR REPLACE TRIGGER gate {when} EXECUTE FUNCTION gate.wait()")

    @contextmanager
    def closed(self, database: Database) -> Iterator[None]:
        """Close the gate for the block."""
        with database.connect() as session, session.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(4711)")
            yield

    def start(self, task: Callable[..., Any], *arguments: Any, **named: Any) -> Future[Any]:
        """Start a task in a thread of its own."""
        return self.threads.submit(task, *arguments, **named)

    def waiting(self, count: int = 1) -> list[int]:
        """Return the sessions of tasks that wait for a lock, once there are `count`."""
        text = """
            SELECT pid FROM pg_stat_activity
            WHERE datname = current_database() AND application_name LIKE 'taskflow%' AND wait_event_type = 'Lock'
            ORDER BY backend_start
        """
        return until(lambda: [pid for (pid,) in self.sql(text)], lambda pids: len(pids) == count)

    def blocked(self, table: str) -> None:
        """Return once somebody waits for a lock on `table`."""
        text = "SELECT count(*) FROM pg_locks WHERE relation = %s::regclass AND NOT granted"
        until(lambda: self.sql(text, table), lambda counted: counted == [(1,)])

    def terminate(self, pid: int) -> None:
        """End a session as a crash of the server process would."""
        self.sql("SELECT pg_terminate_backend(%s, 10000)", pid)


def until(look: Callable[[], T], is_met: Callable[[T], bool], seconds: float = 30) -> T:
    """Return what `look` sees once it is as expected; fail after `seconds`."""
    pause, deadline = threading.Event(), dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds)
    while not is_met(seen := look()):
        assert dt.datetime.now(dt.UTC) < deadline, f"not met after {seconds} s; last seen: {seen}"
        pause.wait(0.01)
    return seen
