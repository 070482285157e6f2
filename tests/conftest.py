"""The real services of the tests: Postgres and an object store, started once a session on free loopback ports.

Their state is a temporary folder; each test that asks for `database` gets an empty one of its own.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from stack import java as javas
from stack.assembly import Stack, existing, wishes
from stack.database import Cluster, Database
from stack.objects import GRPC_OFFSET, ObjectKeys, ObjectPorts, ObjectStore
from stack.paths import REPOSITORY, Home
from stack.ports import HOST, Wish, choose, next_free
from stack.profiles import Profile
from stack.service import running
from stack.tracking_server import QUIET, Tracking
from tasks.spark.session import COMPILE_LESS, JAVA_OPTIONS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from stack.airflow_api import AirflowApi

FIRST_PORT, LAST_PORT = 10_000, 22_000
"""With the twins 10,000 above, below the ports that the kernel gives to clients of its own choice."""
IMPATIENT = {
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "8",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "2",
}
"""Steps follow each other sooner, and the tasks of a killed scheduler are taken up within seconds: tests kill many."""
IMPATIENT_DEFAULTS = "default_args: {retry_delay: 1s}"
"""An environment of its own: a retry follows at once."""
STATE = pytest.StashKey[Path]()


def pytest_configure(config: pytest.Config) -> None:
    """Give Airflow an empty home before any test module imports it."""
    state = Path(tempfile.mkdtemp(prefix="tf-"))  # short: it holds sockets, whose paths are limited to 107 bytes
    config.stash[STATE] = state
    os.environ["AIRFLOW_HOME"] = str(state / "airflow")
    os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
    os.environ["GX_ANALYTICS_ENABLED"] = "false"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests that need the whole stack last, so that it is up for no others; after them those of the demo.

    The demo leaves rows, runs and models behind: what wants an empty database comes before it.
    """
    items.sort(key=lambda item: [name in getattr(item, "fixturenames", ()) for name in ("demo", "stack")])


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
    server = Cluster(state / "postgres", next_free(random.randrange(FIRST_PORT, LAST_PORT)), secret())
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
    """A running object store with the stack's buckets, as the connection `object_store` for the session."""
    ports = ObjectPorts(**free_ports([Wish(part.name, 0, GRPC_OFFSET) for part in fields(ObjectPorts)]))
    store = ObjectStore(state / "objects", state, ports, ObjectKeys(*(secret() for _ in range(7))))
    with running(store.service(), state), pytest.MonkeyPatch.context() as environment:
        environment.setenv("AIRFLOW_CONN_OBJECT_STORE", store.airflow_connection)
        yield store


@contextmanager
def refusing_writes(store: ObjectStore, bucket: str) -> Iterator[None]:
    """Let a bucket be read, but not written, for the block."""
    no_writes = {"Effect": "Deny", "Principal": "*", "Action": ["s3:PutObject"], "Resource": f"arn:aws:s3:::{bucket}/*"}
    store.client().put_bucket_policy(
        Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [no_writes]})
    )
    try:
        yield
    finally:
        store.client().delete_bucket_policy(Bucket=bucket)


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
    account = cluster.account("mlflow", secret())
    cluster.create(account)
    server = Tracking(state / "mlflow", next_free(random.randrange(FIRST_PORT, LAST_PORT)), account, object_store)
    with running(server.service(), state, seconds=180), pytest.MonkeyPatch.context() as environment:
        environment.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", server.airflow_connection)
        for name, value in QUIET.items():
            environment.setenv(name, value)
        yield server


@dataclass(frozen=True, slots=True)
class RunningStack:
    """The whole stack, up, on a copy of the repository's specs."""

    services: Stack
    environment: dict[str, str]
    """What `python -m stack` needs in its environment to mean this stack."""

    @property
    def home(self) -> Home:
        """The state folder."""
        return self.services.home

    @property
    def dags_folder(self) -> Path:
        """The folder of the specs; a test may add some."""
        return self.services.pipelines

    @property
    def api(self) -> AirflowApi:
        """Airflow's API, as the admin."""
        return self.services.api()


@pytest.fixture(scope="session")
def stack(state: Path) -> Iterator[RunningStack]:
    """The whole stack, brought up by its own command line in a folder of its own, on a copy of the specs."""
    with whole_stack(state, Profile.LOCAL, IMPATIENT, IMPATIENT_DEFAULTS) as running_stack:
        yield running_stack


@contextmanager
def whole_stack(
    state: Path, profile: Profile, settings: Mapping[str, str], defaults: str, *services: str
) -> Iterator[RunningStack]:
    """Bring the stack, or some services, up for the block; `defaults` is the YAML of an environment of its own."""
    workspace = state / "workspace"
    for folder in ("pipelines", "configs"):
        shutil.copytree(REPOSITORY / folder, workspace / folder)
    home, environment = Home(state / "stack"), stack_environment(state / "stack", workspace / "pipelines")
    environment |= {**settings, "TASKFLOW_ENVIRONMENT": "tests"}
    (workspace / "configs" / "environments" / "tests.yaml").write_text(defaults)
    try:
        command_line(environment, "up", "--profile", profile, *services)
        with pytest.MonkeyPatch.context() as variables:
            variables.setenv("TASKFLOW_PIPELINES", environment["TASKFLOW_PIPELINES"])
            services = existing(home)
        yield RunningStack(services, environment)
    finally:
        command_line(environment, "destroy")


@pytest.fixture(scope="session")
def demo(stack: RunningStack) -> str:
    """What `make demo` printed, as the README has it, on the running stack: it starts what is not up yet."""
    done = subprocess.run(
        ["make", "demo"], cwd=REPOSITORY, env=stack.environment, capture_output=True, text=True, check=False
    )
    printed = done.stdout + done.stderr
    assert done.returncode == 0, printed
    return printed


def stack_environment(home: Path, pipelines: Path) -> dict[str, str]:
    """Return an environment in which `python -m stack` works in `home`, on ports that nobody uses now."""
    pins = ",".join(f"{name}={port}" for name, port in free_ports(wishes(Profile.DISTRIBUTED)).items())
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    return kept | {"TASKFLOW_HOME": str(home), "TASKFLOW_PIPELINES": str(pipelines), "TASKFLOW_PORTS": pins}


def command_line(environment: dict[str, str], *arguments: str, code: int = 0) -> str:
    """Run `python -m stack`, expect it to exit with `code`, and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "stack", *arguments], env=environment, capture_output=True, text=True, check=False
    )
    printed = done.stdout + done.stderr
    assert done.returncode == code, printed
    return printed


def secret() -> str:
    """Return a password for one session."""
    return uuid.uuid4().hex


def free_ports(wishes: Iterable[Wish]) -> dict[str, int]:
    """Return a free port for each wish; sessions that run side by side start looking at different places."""
    anywhere = [replace(wish, usual=random.randrange(FIRST_PORT, LAST_PORT)) for wish in wishes]
    return choose(anywhere, pins={}, kept={})[0]
