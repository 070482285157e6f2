"""The Spark cluster of the stack, and the applications that come to it."""

from __future__ import annotations

import base64
import os
import re
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import jwt
import psutil
import pytest

from stack.credentials import key
from stack.java import Java
from stack.page_tokens import SETTINGS, key_in, token
from stack.ports import HOST, next_free
from stack.service import StartFailed, running
from stack.spark import Spark, SparkKeys, SparkPorts, WorkerPorts, driver_memory, read_memory, share
from tests.support.spark_frames import MESSAGES, answered


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
    master, _ = Spark(state / "spark", ports, SparkKeys("secret", key()), java, 512).services()
    with (
        socket.create_server((HOST, ports.master_ui)),
        pytest.raises(StartFailed) as caught,
        running(master, state),
    ):
        pytest.fail("the master started")
    assert "spark-master did not start: waited" in str(caught.value)
    assert f"Failed to bind to /{HOST}:{ports.master_ui}" in str(caught.value)


# The pages


@pytest.fixture(scope="module")
def pages(java: Java, state: Path) -> Iterator[tuple[Spark, psutil.Process]]:
    """A master and its worker, both up by their own probes, and the process of the master."""
    worker = WorkerPorts("spark-worker", next_free(22_940), next_free(22_960))
    ports = SparkPorts(next_free(22_900), next_free(22_920), (worker,))
    spark = Spark(state / "spark-closed", ports, SparkKeys(key(), key()), java, 512)
    master, worker_service = spark.services()
    with running(master, state, seconds=180) as process, running(worker_service, state, seconds=180):
        yield spark, psutil.Process(process.pid)


def signed(secret: str, claims: dict[str, int]) -> dict[str, str]:
    """Return the header of a token."""
    return {"Authorization": f"Bearer {jwt.encode(claims, base64.urlsafe_b64decode(secret), 'HS256')}"}


@pytest.mark.parametrize("path", ["/", "/json/", "/static/webui.css", "/logPage/", "/metrics/json/", "/proxy/x/"])
def test_pages_need_token(pages: tuple[Spark, psutil.Process], path: str) -> None:
    """Neither master nor worker answers without a token of the last minute, whatever the path; with one they do."""
    spark, _ = pages
    in_a_minute = int(time.time()) + 60
    refused = {
        "none": {},
        "another key": signed(key(), {"exp": in_a_minute}),
        "no end": signed(spark.keys.pages, {}),
        "too old": signed(spark.keys.pages, {"exp": in_a_minute - 120}),
        "the secret itself": {"Authorization": f"Bearer {spark.keys.pages}"},
    }
    for page in (spark.master_page, *spark.worker_pages):
        seen = {name: httpx.get(f"{page}{path}", headers=one, trust_env=False) for name, one in refused.items()}
        assert {name: answer.status_code for name, answer in seen.items()} == dict.fromkeys(refused, 403)
        assert httpx.get(f"{page}/json/", headers=token(spark.keys.pages), trust_env=False).status_code == 200


def test_keys_are_in_a_private_file(pages: tuple[Spark, psutil.Process]) -> None:
    """Secret and key are in a file that only its owner reads, and on no command line."""
    spark, master = pages
    settings = spark.settings / SETTINGS
    assert (stat.S_IMODE(settings.stat().st_mode), key_in(settings)) == (0o600, spark.keys.pages)
    told = " ".join([*master.cmdline(), *master.environ().values()])
    assert [one for one in (spark.keys.pages, spark.keys.secret) if one in told] == []


def test_containers_ask_with_token(pages: tuple[Spark, psutil.Process]) -> None:
    """The health check of a container opens the page with the key in the settings."""
    spark, _ = pages
    command = [sys.executable, "-P", "-m", "stack.page_tokens", f"{spark.master_page}/json/", "status=ALIVE"]
    subprocess.run(command, check=True, env={**os.environ, "SPARK_CONF_DIR": str(spark.settings)})


def test_calls_need_secret(pages: tuple[Spark, psutil.Process]) -> None:
    """In Spark's own protocol, too, nothing is given without the secret."""
    spark, _ = pages
    ports = (spark.ports.master, *(worker.worker for worker in spark.ports.workers))
    assert [answer for port in ports for message in MESSAGES.values() if (answer := answered(port, *message))] == []
