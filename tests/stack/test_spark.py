"""The Spark cluster of the stack, and the applications that come to it."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from stack.java import Java
from stack.ports import HOST, next_free
from stack.service import StartFailed, running
from stack.spark import Spark, SparkPorts, WorkerPorts, driver_memory, read_memory, share


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
