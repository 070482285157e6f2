"""Statements in a test's database, and a place in it where a task can be held up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from stack.database import Database
from tests.support.waiting import eventually

Sql = Callable[..., list[tuple[Any, ...]]]


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
        seen = eventually(f"{count} to wait for a lock", lambda: self.sql(text), lambda rows: len(rows) == count)
        return [pid for (pid,) in seen]

    def blocked(self, table: str) -> None:
        """Return once somebody waits for a lock on `table`."""
        text = "SELECT count(*) FROM pg_locks WHERE relation = %s::regclass AND NOT granted"
        eventually(f"somebody to wait for {table}", lambda: self.sql(text, table), lambda counted: counted == [(1,)])

    def seen(self, what: str, look: Callable[[], Any], wanted: Any) -> None:
        """Return once `look` returns what is wanted."""
        eventually(what, look, lambda found: found == wanted)

    def terminate(self, pid: int) -> None:
        """End a session as a crash of the server process would."""
        self.sql("SELECT pg_terminate_backend(%s, 10000)", pid)
