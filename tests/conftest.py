"""The real services of the tests: Postgres and an object store, started once a session on free loopback ports.

Their state is a temporary folder; each test that asks for `database` gets an empty one of its own.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from stack.database import Cluster, Database
from stack.objects import GRPC_OFFSET, ObjectKeys, ObjectPorts, ObjectStore
from stack.ports import next_free
from stack.service import running

if TYPE_CHECKING:
    from collections.abc import Iterator

FIRST_PORT, LAST_PORT = 20_000, 44_000
STATE = pytest.StashKey[Path]()


def pytest_configure(config: pytest.Config) -> None:
    """Give Airflow an empty home before any test module imports it."""
    state = Path(tempfile.mkdtemp(prefix="tf-"))  # short: it holds sockets, whose paths are limited to 107 bytes
    config.stash[STATE] = state
    os.environ["AIRFLOW_HOME"] = str(state / "airflow")
    os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
    os.environ["GX_ANALYTICS_ENABLED"] = "false"


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove what the session left behind."""
    shutil.rmtree(config.stash[STATE], ignore_errors=True)


@pytest.fixture(scope="session")
def state(pytestconfig: pytest.Config) -> Path:
    """The session's folder for the state of services: private, and with a short path."""
    return pytestconfig.stash[STATE]


@pytest.fixture(scope="session")
def cluster(state: Path) -> Iterator[Cluster]:
    """A running Postgres server, with the superuser's rights: for tests that make roles and databases."""
    server = Cluster(state / "postgres", _port(), secret())
    with running(server.service(), state):
        yield server


@pytest.fixture(scope="session")
def postgres(cluster: Cluster) -> Iterator[Database]:
    """The database `crypto` with its ordinary owner, as the connection `crypto_postgres` for the session."""
    account = cluster.account("crypto", secret())
    cluster.create(account)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AIRFLOW_CONN_CRYPTO_POSTGRES", account.airflow_connection)
        yield account


@pytest.fixture
def database(cluster: Cluster, postgres: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """An empty database for this test alone, as the connection `crypto_postgres`."""
    fresh = postgres.named(f"test_{uuid.uuid4().hex[:12]}")
    cluster.create(fresh)
    monkeypatch.setenv("AIRFLOW_CONN_CRYPTO_POSTGRES", fresh.airflow_connection)
    yield fresh
    cluster.drop(fresh)


@pytest.fixture(scope="session")
def object_store(state: Path) -> Iterator[ObjectStore]:
    """A running object store with the bucket `ge-artifacts`, as the connection `object_store` for the session."""
    ports = ObjectPorts(*(_port(twin=GRPC_OFFSET) for _ in range(5)))
    store = ObjectStore(state / "objects", state, ports, ObjectKeys(*(secret() for _ in range(7))))
    with running(store.service(), state), pytest.MonkeyPatch.context() as environment:
        environment.setenv("AIRFLOW_CONN_OBJECT_STORE", store.airflow_connection)
        yield store


def secret() -> str:
    """Return a password for one session."""
    return uuid.uuid4().hex


def _port(*, twin: int = 0) -> int:
    """Return a free port; sessions that run side by side start looking at different places."""
    return next_free(random.randrange(FIRST_PORT, LAST_PORT), twin=twin)
