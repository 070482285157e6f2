"""How to reach Postgres, and which errors are worth a retry. Knows nothing about tables, suites or tasks."""

from __future__ import annotations

import re
from contextlib import closing, contextmanager, suppress
from threading import Event, Thread
from typing import TYPE_CHECKING

from tasks.contract import Locked, MissingResource, PermanentError, TransientError
from tasks.services.connection import airflow_connection

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterator

    import psycopg2
    from airflow.sdk import Connection
    from psycopg2.extensions import connection as PostgresSession  # noqa: N812  psycopg2 spells its class in lower case
    from sqlalchemy import URL

    from tasks.contract import Run

_SESSION_OPTIONS = "-c timezone=UTC -c client_connection_check_interval=5s"
"""UTC, so a day means the same everywhere; and the server notices within seconds that a client was killed."""

_CONNECT_TIMEOUT_SECONDS = 10

_MISSING = {
    "3D000": "create it, or correct the connection's schema",
    "3F000": "create it, or correct the name in the step",
    "42P01": "create it (postgres.run_sql runs a file of configs/sql/), or correct the name in the step",
    "42703": "add it to the table, or correct the name in the step",
    "42883": "correct the expression in the step",
    "42704": "create it, or correct the name in the step",
}
"""What to do about each SQLSTATE for something missing."""

_REMEDIES = {
    "42804": "cast it in the expression that makes it, here or in the step that builds the source",
    "42883": "cast its arguments in the expression",
}
"""What to do about each SQLSTATE of a statement that does not fit the types."""

_PERMANENT_CLASSES = {"0A", "21", "22", "23", "2F", "42", "44"}
"""SQLSTATE classes caused by the statement or its data: a retry would fail the same way."""

_REFUSED_LOGIN = re.compile(r"authentication failed|no password supplied|no pg_hba\.conf entry|role .* does not exist")
_MISSING_DATABASE = re.compile(r'database "(?P<name>.*)" does not exist')
_MISSING_OBJECT = re.compile(
    r"^(?P<kind>(?!operator)[a-z]+( [a-z]+)*?) \"?(?P<name>[^ \"].*?)\"?"
    r"( of relation \"(?P<table>.*)\")? does not exist$"
)


@contextmanager
def postgres(
    connection: str, *, run: Run | None = None, autocommit: bool = False, lock_timeout: float | None = None
) -> Iterator[PostgresSession]:
    """Open one transaction: committed at the end of the block, rolled back on an exception, closed in any case.

    `run` names the session in `pg_stat_activity`. With `autocommit` every statement is its own transaction, as VACUUM
    requires. `lock_timeout` is how many seconds a statement waits for a lock that no task holds. Raises MissingResource
    or PermanentError if a retry cannot help, otherwise TransientError.
    """
    conn = airflow_connection(connection, "postgres")
    with _translated(_address(conn)):
        session = _connected(conn, run)
        try:
            session.autocommit = autocommit
            with _lock_watch(conn, session, lock_timeout):
                yield session
                session.commit()
        finally:
            session.close()  # an open transaction is rolled back by the server


def _connected(conn: Connection, run: Run | None = None) -> PostgresSession:
    import psycopg2
    from psycopg2.extensions import make_dsn

    return psycopg2.connect(make_dsn("", **_libpq_arguments(conn, _application_name(run))))


_held: dict[tuple[str, str], PostgresSession] = {}


def held_open(connection: str, name: str) -> None:
    """Hold a session open until this process ends, with the advisory lock of `name`: others see that it lives.

    Raises PermanentError if a session that was held has ended.
    """
    require_held(name)
    if (connection, name) in _held:
        return
    conn = airflow_connection(connection, "postgres")
    with _translated(_address(conn)):
        session = _connected(conn)
        session.autocommit = True
        with session.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock_shared(hashtextextended(%s, 0))", [name])
    _held[connection, name] = session


def require_held(name: str) -> None:
    """Raise PermanentError if a session that `held_open` holds for `name` has ended: others take the run for dead."""
    import psycopg2

    for connection, session in [(one, session) for (one, of), session in _held.items() if of == name]:
        try:
            with session.cursor() as cursor:
                cursor.execute("SELECT 1")
        except psycopg2.Error as error:
            del _held[connection, name]
            problem = (
                f"{_address(airflow_connection(connection, 'postgres'))} ended the session that kept this run's tables"
            )
            raise PermanentError(
                f"{problem}, so another run may have built them since; run the pipeline again"
            ) from error


@contextmanager
def _lock_watch(conn: Connection, session: PostgresSession, lock_timeout: float | None) -> Iterator[None]:
    """Cancel a statement in the block that has waited `lock_timeout` seconds for a lock that no task holds.

    The server's own lock_timeout would end a wait for another task too, and say nothing of the holder.
    """
    if lock_timeout is None:
        yield
        return
    ended, held_by = Event(), list[str]()
    watch = Thread(target=_watch, args=(conn, session, lock_timeout, ended, held_by), daemon=True)
    watch.start()
    try:
        yield
    except Exception as error:
        if held_by:
            raise Locked(_address(conn), held_by[0]) from error
        raise
    finally:
        ended.set()
        watch.join()


_LOOK_AGAIN_SECONDS = 5.0
_FOREIGN_HOLDER = """
    SELECT extract(epoch FROM now() - waiting.waitstart)::float, holder.pid, application_name, xact_start
    FROM pg_locks AS waiting
    CROSS JOIN LATERAL unnest(pg_blocking_pids(waiting.pid)) AS holder (pid)
    LEFT JOIN pg_stat_activity AS activity ON activity.pid = holder.pid
    WHERE waiting.pid = %(pid)s AND NOT waiting.granted AND waiting.waitstart IS NOT NULL
        AND coalesce(application_name, '') NOT LIKE %(ours)s
    ORDER BY xact_start LIMIT 1
"""


def _watch(conn: Connection, session: PostgresSession, lock_timeout: float, ended: Event, held_by: list[str]) -> None:
    import psycopg2

    wanted = {"pid": session.info.backend_pid, "ours": _OURS + "%"}
    pause = lock_timeout
    while not ended.wait(pause):
        pause = min(lock_timeout, _LOOK_AGAIN_SECONDS)
        with suppress(psycopg2.OperationalError), closing(_connected(conn)) as looking, looking.cursor() as cursor:
            cursor.execute(_FOREIGN_HOLDER, wanted)
            row = cursor.fetchone()
            if row and row[0] >= lock_timeout:
                held_by.append(_held_for_too_long(*row))
                session.cancel()
                return


def _held_for_too_long(waited: float, pid: int, application: str | None, since: dt.datetime | None) -> str:
    known = [f"application {application!r}"] if application else []
    known += [f"in a transaction since {since:%Y-%m-%d %H:%M:%S %Z}"] if since else []
    about = f" ({', '.join(known)})" if known else ""
    remedy = "end it, or set a longer lock_timeout"
    return f"waited {waited:.0f} s for a lock that the session with pid {pid} holds{about}; {remedy}"


@contextmanager
def statement_errors(connection: str) -> Iterator[None]:
    """Translate psycopg2's errors in the block as `postgres` does, for errors that a library caught first."""
    with _translated(_address(airflow_connection(connection, "postgres"))):
        yield


def postgres_url(connection: str, *, run: Run | None = None) -> URL:
    """Return the connection as a SQLAlchemy URL on psycopg2, with the same session options as `postgres`."""
    from sqlalchemy import URL

    conn = airflow_connection(connection, "postgres")
    arguments = _libpq_arguments(conn, _application_name(run))
    for part in ("host", "port", "user", "password", "dbname"):
        arguments.pop(part)
    return URL.create(
        "postgresql+psycopg2",
        username=conn.login,
        password=conn.password,
        host=conn.host,
        port=conn.port,
        database=conn.schema,
        query={name: str(value) for name, value in arguments.items()},
    )


def _libpq_arguments(conn: Connection, application_name: str) -> dict[str, str | int | None]:
    # Not Airflow's PostgresHook: it uses psycopg 3 if that is installed, and COPY is different there.
    extra: dict[str, str] = dict(conn.extra_dejson)
    options = f"{extra.pop('options', '')} {_SESSION_OPTIONS}".strip()
    return {
        "connect_timeout": _CONNECT_TIMEOUT_SECONDS,
        **extra,
        "host": conn.host,
        "port": conn.port,
        "user": conn.login,
        "password": conn.password,
        "dbname": conn.schema,
        "application_name": application_name,
        "options": options,
    }


_OURS = "taskflow"
"""The application name of a task's session begins with it."""


def _application_name(run: Run | None) -> str:
    return _OURS if run is None else f"{_OURS} {run.dag_id}.{run.task_id}"


def _address(conn: Connection) -> str:
    return f"Postgres at {conn.host}:{conn.port}, database {conn.schema!r} (connection {conn.conn_id!r})"


@contextmanager
def _translated(address: str) -> Iterator[None]:
    import psycopg2

    try:
        yield
    except psycopg2.Error as error:
        if error.pgcode is None:
            raise _connection_error(error, address) from error
        raise _statement_error(error, address) from error


def _connection_error(error: psycopg2.Error, address: str) -> Exception:
    """Translate an error without SQLSTATE: libpq sets none for a refused or broken connection."""
    import psycopg2

    problem = str(error).strip()
    if missing := _MISSING_DATABASE.search(problem):
        return MissingResource("database", missing["name"], address, _MISSING["3D000"])
    if _REFUSED_LOGIN.search(problem):
        return PermanentError(f"{address} refused the login; correct the connection's login and password: {problem}")
    if isinstance(error, psycopg2.ProgrammingError | psycopg2.DataError | psycopg2.NotSupportedError):
        return PermanentError(f"{address}: {problem}")
    return TransientError(address, problem)


def _statement_error(error: psycopg2.Error, address: str) -> Exception:
    code, problem = error.pgcode or "", error.diag.message_primary or str(error).strip()
    if code in _MISSING and (missing := _MISSING_OBJECT.match(problem)):
        kind = "table" if missing["kind"] == "relation" else missing["kind"]
        where = f"table {missing['table']!r} of {address}" if missing["table"] else address
        return MissingResource(kind, missing["name"], where, _hinted(error, _MISSING[code]))
    if code[:2] in _PERMANENT_CLASSES:
        return PermanentError(f"{address}: {_hinted(error, problem)}{_place(error)}")
    return TransientError(address, problem)


def _hinted(error: psycopg2.Error, text: str) -> str:
    """Add what to do: a hint of the server is about a statement, and whoever wrote a spec can follow only few."""
    hint = error.diag.message_hint or ""
    if hint.startswith("Perhaps you meant"):
        return f"{text}. {hint}"
    remedy = _REMEDIES.get(error.pgcode or "")
    return f"{text}; {remedy}" if remedy else text


def _place(error: psycopg2.Error) -> str:
    """Return where the server saw the error: table, column, constraint, and the row or text at fault."""
    diag = error.diag
    named = {"table": diag.table_name, "column": diag.column_name, "constraint": diag.constraint_name}
    if diag.schema_name and diag.table_name:
        named["table"] = f"{diag.schema_name}.{diag.table_name}"
    places = [f"{kind} {name}" for kind, name in named.items() if name]
    copied = diag.context if (diag.context or "").startswith("COPY") else None  # the line and column of the input
    places += [text for text in (diag.message_detail, copied, _near(error)) if text]
    return f" ({'; '.join(places)})" if places else ""


def _near(error: psycopg2.Error) -> str:
    statement = getattr(error.cursor, "query", None)
    if not statement or not error.diag.statement_position:
        return ""
    start = int(error.diag.statement_position) - 1
    text = statement.decode("utf-8", "replace")[start : start + 60]
    return f"near {' '.join(text.split())!r}"
