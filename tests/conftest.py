"""The real services of the tests: Postgres and an object store, started once a session on free loopback ports.

Their state is a temporary folder; each test that asks for `database` gets an empty one of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest

from stack import java as javas
from stack.database import Cluster, Database
from stack.objects import GRPC_OFFSET, ObjectKeys, ObjectPorts, ObjectStore
from stack.ports import HOST, Wish
from stack.profiles import Profile
from stack.service import running
from stack.tracking_server import QUIET, Tracking, TrackingKeys
from tasks.spark.session import COMPILE_LESS, JAVA_OPTIONS
from tests.support.demo import Demo, made
from tests.support.ports import free_port, free_ports
from tests.support.side_by_side import WholeFiles, is_long, is_misplaced, rank
from tests.support.warm_taskflow import Warm, warmed_up
from tests.support.whole_stack import IMPATIENT, IMPATIENT_DEFAULTS, RunningStack, whole_stack

STATE = pytest.StashKey[Path]()
FORGETFUL = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "scram_iterations": "1"}
"""Settings of a server whose data nobody needs after a crash, and whose logins are made for a test."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a longer search for faults be asked for."""
    parser.addoption("--interleavings", type=int, default=2000, help="how many interleavings of runs are played")
    parser.addoption("--seed", type=int, default=0, help="the first of them")
    parser.addoption("--csv-files", type=int, default=15, help="how many CSV files are generated")
    parser.addoption("--tables", type=int, default=25, help="how many generated tables are merged")
    parser.addoption("--fuzz", type=int, default=5000, help="how many fuzzed specs are compiled")


def pytest_configure(config: pytest.Config) -> None:
    """Give Airflow an empty home before any test module imports it, and forget the make that may run the tests.

    A make that a test starts would otherwise be a part of it, and say so among its output.
    """
    state = Path(tempfile.mkdtemp(prefix="tf-"))  # short: it holds sockets, whose paths are limited to 107 bytes
    config.stash[STATE] = state
    os.environ["AIRFLOW_HOME"] = str(state / "airflow")
    os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    for outer in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
        os.environ.pop(outer, None)


@pytest.hookimpl(tryfirst=True)  # before pytest leaves out what `-m` does not ask for
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first, and the tests that need the whole stack last, so that it is up for no others.

    After them come those of the demo, which leaves rows, runs and models behind: what wants an empty database is before
    it. Last is the one that stops it.
    """
    for item in items:
        if is_long(item.nodeid):
            item.add_marker("long")
    late = ("used_stack", "demo", "stack")
    items.sort(key=lambda item: (*(name in fixtures(item) for name in late), place(item)))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let Java and MLflow start in one process only."""
    assert not is_misplaced(item.nodeid, fixtures(item)), "name the file in tests/support/side_by_side.py"


def fixtures(item: pytest.Item) -> tuple[str, ...]:
    """Return the names of the fixtures that a test needs."""
    return tuple(getattr(item, "fixturenames", ()))


def place(item: pytest.Item) -> int:
    """Return when a test that needs no whole stack is begun; the others keep their order."""
    return 0 if "stack" in fixtures(item) else rank(item.nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> WholeFiles:
    """Let tests that share services share a process."""
    return WholeFiles(config, log)


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
    server = Cluster(state / "postgres", free_port(), token_hex(16))
    with running(server.service(), state):
        with server.superuser.connect() as session, session.cursor() as cursor:
            for setting, value in FORGETFUL.items():
                cursor.execute(f"ALTER SYSTEM SET {setting} = {value}")
            cursor.execute("SELECT pg_reload_conf()")
        yield server


@pytest.fixture(scope="session")
def postgres(cluster: Cluster) -> Iterator[Database]:
    """The database `crypto` with its ordinary owner, as the connection `crypto_postgres` for the session."""
    account = cluster.account("crypto", token_hex(16))
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
def warm_taskflow() -> Iterator[Warm]:
    """The command `taskflow`, with Airflow already imported."""
    with warmed_up() as taskflow:
        yield taskflow


@pytest.fixture(scope="session")
def object_store(state: Path) -> Iterator[ObjectStore]:
    """A running object store with the stack's buckets, as the connection `object_store` for the session."""
    ports = ObjectPorts(**free_ports([Wish(part.name, 0, GRPC_OFFSET) for part in fields(ObjectPorts)]))
    store = ObjectStore(state / "objects", state, ports, ObjectKeys(*(token_hex(16) for _ in range(7))))
    with running(store.service(), state), pytest.MonkeyPatch.context() as environment:
        environment.setenv("AIRFLOW_CONN_OBJECT_STORE", store.airflow_connection)
        yield store


@pytest.fixture(scope="session")
def java(state: Path) -> Iterator[javas.Java]:
    """A Java that Spark accepts, as JAVA_HOME for the session; Spark keeps to loopback and to the session's folder."""
    chosen = javas.choose(state / "java", os.environ.get("JAVA_HOME"))
    chosen.prepare()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("JAVA_HOME", str(chosen.home))
        environment.setenv("SPARK_LOCAL_IP", HOST)
        environment.setenv("SPARK_LOCAL_DIRS", str(state / "scratch"))
        yield chosen


@pytest.fixture(scope="session")
def spark_connection(java: javas.Java, state: Path) -> Iterator[str]:
    """The connection `spark_default` for the session: Spark in the test's own process tree, on two threads."""
    conf = {
        "spark.driver.host": HOST,
        "spark.driver.bindAddress": HOST,
        "spark.driver.memory": "1g",
        "spark.driver.extraJavaOptions": f"{JAVA_OPTIONS} {COMPILE_LESS}",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.warehouse.dir": str(state / "warehouse"),
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
    }
    with pytest.MonkeyPatch.context() as environment:
        connection = {"conn_type": "spark", "host": "local[2]", "extra": {"conf": conf}}
        environment.setenv("AIRFLOW_CONN_SPARK_DEFAULT", json.dumps(connection))
        yield "spark_default"


@pytest.fixture(scope="session")
def mlflow_server(state: Path, cluster: Cluster, object_store: ObjectStore) -> Iterator[Tracking]:
    """A running MLflow server on the session's Postgres and object store, as `mlflow_default` for the session."""
    account = cluster.account("mlflow", token_hex(16))
    cluster.create(account)
    keys = TrackingKeys(token_hex(16), token_hex(16))
    server = Tracking(state / "mlflow", free_port(), account, object_store, keys)
    with running(server.service(), state, seconds=180), pytest.MonkeyPatch.context() as environment:
        environment.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", server.airflow_connection)
        for name, value in QUIET.items():
            environment.setenv(name, value)
        yield server


@pytest.fixture(scope="session")
def stack(state: Path) -> Iterator[RunningStack]:
    """The whole stack, brought up by its own command line in a folder of its own, on a copy of the specs."""
    with whole_stack(state, Profile.LOCAL, IMPATIENT, IMPATIENT_DEFAULTS) as running_stack:
        yield running_stack


@pytest.fixture(scope="session")
def demo(stack: RunningStack) -> Demo:
    """`make demo` on the running stack: it starts what is not up yet."""
    return made(stack)


@pytest.fixture(scope="session")
def used_stack(stack: RunningStack) -> RunningStack:
    """The stack when all else is done with it: for what stops it."""
    return stack
