"""The Spark cluster of the stack, and the applications that come to it."""

from __future__ import annotations

import re
import socket
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest

from stack.java import Java
from stack.ports import HOST, next_free
from stack.service import StartFailed, running
from stack.spark import APPLICATIONS, Spark, SparkPorts, WorkerPorts, driver_memory, read_memory, share
from tests.support.applications import SUM, application
from tests.support.processes import alive, below_worker
from tests.support.waiting import eventually
from tests.support.whole_stack import RunningStack


@pytest.mark.parametrize(("text", "size"), [("900m", 900), ("4g", 4096), (" 2G ", 2048), ("512m", 512)])
def test_memory_is_read(text: str, size: int) -> None:
    """A size is written as Spark writes it."""
    assert read_memory(text) == size


@pytest.mark.parametrize("text", ["4", "4gb", "100m", "-1g", "much"])
def test_bad_memory_refused(text: str) -> None:
    """What is no size, or too small a one, is shown, with what would be right."""
    expected = f"TASKFLOW_SPARK_MEMORY is {text!r}; a size of at least 512m is expected, such as 2048m or 4g"
    with pytest.raises(ValueError, match=re.escape(expected)):
        read_memory(text)


@pytest.mark.parametrize(
    ("machine", "executor", "driver"),
    [(2_000, 1024, 1024), (8_192, 1365, 1024), (24_000, 4000, 2000), (256_000, 8192, 2048)],
)
def test_share_is_sensible(machine: int, executor: int, driver: int) -> None:
    """Spark leaves most of the machine to the others, and takes enough of a small one to work."""
    assert (share(machine), driver_memory(share(machine))) == (executor, driver)


def test_taken_page_is_error(java: Java, state: Path) -> None:
    """A master whose page's port was taken meanwhile does not move: it ends, and its log says why."""
    master_port, page, worker_port, worker_page = (next_free(first) for first in (22_600, 22_620, 22_640, 22_660))
    ports = SparkPorts(master_port, page, (WorkerPorts("spark-worker", worker_port, worker_page),))
    master, _ = Spark(state / "spark", ports, "secret", java, 512).services()
    with (
        socket.create_server((HOST, ports.master_ui)),
        pytest.raises(StartFailed) as caught,
        running(master, state),
    ):
        pytest.fail("the master started")
    assert "spark-master did not start: waited" in str(caught.value)
    assert f"Failed to bind to /{HOST}:{ports.master_ui}" in str(caught.value)


def applications(stack: RunningStack, name: str) -> list[tuple[str, str]]:
    """Return the list in which the master has applications of this name, and the state that it tells."""
    seen = httpx.get(f"{stack.services.spark.master_page}/json/", trust_env=False).json()
    lists = ("activeapps", "completedapps")
    return [(each, one["state"]) for each in lists for one in seen[each] if one["name"] == name]


@pytest.mark.stack
def test_application_takes_turn(stack: RunningStack) -> None:
    """An application computes on its share of the cluster, is listed, and gives everything back when it ends."""
    with application(stack, "computes") as driver:
        assert driver.stdout.readline() == SUM
        assert applications(stack, "computes") == [("activeapps", "RUNNING")]
        (page,) = stack.services.spark.worker_pages
        worker = httpx.get(f"{page}/json/", trust_env=False).json()
        assert (worker["coresused"] * APPLICATIONS, worker["memoryused"] * APPLICATIONS) == (
            worker["cores"],
            worker["memory"],
        )
        driver.communicate("", timeout=60)
    ended = [("completedapps", "FINISHED")]
    eventually("the application to end", lambda: applications(stack, "computes"), lambda seen: seen == ended)
    eventually("the executors to end", lambda: below_worker(stack), lambda left: left == [])


@pytest.mark.stack
def test_killed_driver_leaves_nothing(stack: RunningStack) -> None:
    """A driver killed with -9 leaves no JVM, no executor and no claim on the cluster."""
    with application(stack, "killed") as driver:
        assert driver.stdout.readline() == SUM
        left = [*alive(psutil.Process(driver.pid).children(recursive=True)), *below_worker(stack)]
        assert [one.name() for one in left].count("java") == 2
        driver.kill()
        psutil.wait_procs(left, timeout=15)
        assert [one for one in left if one.is_running()] == []
        look = partial(applications, stack, "killed")
        eventually("the claim to end", look, lambda seen: seen[0][0] == "completedapps", seconds=15)


@pytest.mark.stack
def test_stranger_is_refused(stack: RunningStack, tmp_path: Path) -> None:
    """An application without the secret gets nothing from the cluster."""
    (tmp_path / "spark-defaults.conf").write_text("spark.authenticate.secret guessed\n")
    log = stack.home.log("spark-master")
    before = log.stat().st_size

    def refused() -> bool:
        return "Error while invoking RpcHandler" in log.read_bytes()[before:].decode()

    with application(stack, "stranger", SPARK_CONF_DIR=str(tmp_path)):
        eventually("a refusal", refused)
        assert applications(stack, "stranger") == []
