"""The Spark cluster of the stack, and the applications that come to it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import psutil
import pytest

from stack.spark import APPLICATIONS
from tests.support.applications import SUM, application
from tests.support.processes import alive, below_worker
from tests.support.waiting import eventually
from tests.support.whole_stack import RunningStack

pytestmark = pytest.mark.stack


def applications(stack: RunningStack, name: str) -> list[tuple[str, str]]:
    """Return the list in which the master has applications of this name, and the state that it tells."""
    seen = stack.services.spark.told_by(stack.services.spark.master_page)
    lists = ("activeapps", "completedapps")
    return [(each, one["state"]) for each in lists for one in seen[each] if one["name"] == name]


def test_application_takes_turn(stack: RunningStack) -> None:
    """An application computes on its share of the cluster, is listed, and gives everything back when it ends."""
    with application(stack, "computes") as driver:
        assert driver.stdout.readline() == SUM
        assert applications(stack, "computes") == [("activeapps", "RUNNING")]
        (page,) = stack.services.spark.worker_pages
        worker = stack.services.spark.told_by(page)
        assert (worker["coresused"] * APPLICATIONS, worker["memoryused"] * APPLICATIONS) == (
            worker["cores"],
            worker["memory"],
        )
        driver.communicate("", timeout=60)
    ended = [("completedapps", "FINISHED")]
    eventually("the application to end", lambda: applications(stack, "computes"), lambda seen: seen == ended)
    eventually("the executors to end", lambda: below_worker(stack), lambda left: left == [])


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
