"""The processes of a running stack, and applications that use its Spark."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.conftest import RunningStack

APPLICATION = """
    import json, os, sys
    from pyspark.sql import SparkSession
    wanted = json.loads(os.environ["AIRFLOW_CONN_SPARK_DEFAULT"])
    builder = SparkSession.builder.appName(sys.argv[1]).master(f'{wanted["host"]}:{wanted["port"]}')
    for name, value in wanted["extra"]["conf"].items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    print("total", spark.range(1000).selectExpr("sum(id) AS total").first()["total"], flush=True)
    sys.stdin.read()  # until whoever started it has seen enough
    spark.stop()
"""
LOOPBACK, LOOPBACK_IN_IPV6 = "0100007F", "0000000000000000FFFF00000100007F"
"""127.0.0.1 as the kernel writes it; the second for Java, whose sockets take both families."""

DAG = '''
    """A dag of two tasks, the first of which waits for a file."""
    import pathlib
    import time
    from airflow.sdk import dag, task

    @dag(dag_id="{dag_id}", schedule=None, params={{"gate": "", "greeting": "hello"}})
    def made():
        @task(retries=2, retry_delay=1)
        def wait(params=None):
            while params["gate"] and not pathlib.Path(params["gate"]).exists():
                time.sleep(0.1)
            return params["greeting"]

        @task
        def tell(greeting):
            print("it said", greeting)

        tell(wait())

    made()
'''

SUM = "total 499500\n"
"""What the application prints when the cluster has computed for it."""


def pid(stack: RunningStack, service: str) -> int:
    """Return the process id of a service, or of the supervisor."""
    return int(json.loads(stack.home.pid_file(service).read_text())["pid"])


def kill(stack: RunningStack, service: str) -> None:
    """Kill a service with -9, and wait until another process has taken its place."""
    killed = pid(stack, service)
    psutil.Process(killed).kill()
    await_that(lambda: pid(stack, service) != killed)


def everyone(stack: RunningStack) -> list[psutil.Process]:
    """Return every process of the stack."""
    supervisor = psutil.Process(pid(stack, "supervisor"))
    return [supervisor, *alive(supervisor.children(recursive=True))]


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Return those that run: below a JVM, the script that started it stays as an entry without a process."""
    return [one for one in processes if lives(one)]


def below_worker(stack: RunningStack) -> list[psutil.Process]:
    """Return the executors of the Spark cluster, and what is below them."""
    return alive(psutil.Process(pid(stack, "spark-worker")).children(recursive=True))


def lives(process: psutil.Process) -> bool:
    """Return whether there is more of a process than its entry."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def words(process: psutil.Process) -> list[str]:
    """Return the command line of a process; of one that has ended since it was listed, none."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def await_that(condition: Callable[[], bool], *, seconds: float = 60) -> None:
    """Wait until `condition` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come to hold"
        time.sleep(0.1)


def listening(processes: list[psutil.Process]) -> set[tuple[str, int]]:
    """Return the addresses on which these processes listen, as the kernel has them in /proc."""
    sockets = {
        link.removeprefix("socket:[").removesuffix("]")
        for process in processes
        for link in (str(path.readlink()) for path in Path(f"/proc/{process.pid}/fd").iterdir() if path.is_symlink())
        if link.startswith("socket:[")
    }
    found: set[tuple[str, int]] = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state == "0A" and rest[5] in sockets:  # 0A is LISTEN, the field is the inode
                address, _, port = local.partition(":")
                found.add((address, int(port, 16)))
    return found


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    """A file that does not exist yet; afterwards it does, so that no task waits for ever."""
    path = tmp_path / "gate"
    yield path
    path.touch()


@contextmanager
def application(stack: RunningStack, name: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """Start an application on the stack's cluster; it computes one sum and stays until its standard input ends."""
    command = [sys.executable, "-c", textwrap.dedent(APPLICATION), name]
    environment = {**os.environ, **stack.services.exports(), **variables}
    driver = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield driver
    finally:
        driver.kill()
        driver.communicate()
