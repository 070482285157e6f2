"""The Spark of the stack: a standalone cluster of a master and its workers, from the pip package.

Anyone who can start an application on a cluster runs code as its owner, so the master requires a secret. Drivers with
`spark.authenticate` read it from the folder that SPARK_CONF_DIR names; it is never on a command line. There they also
find what closes their pages (`stack.page_tokens`).
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from stack.java import refuse_nameless
from stack.page_tokens import SETTINGS, page_settings, token
from stack.paths import private_folder, write_private
from stack.ports import Wish
from stack.service import NotReady, Service, fetch_json

if TYPE_CHECKING:
    from stack.java import Java

HOST = "127.0.0.1"
GROUP = "spark"
PORTS = (
    Wish("spark", 7077, service="spark-master"),
    Wish("spark-ui", 8082, service="spark-master"),
    Wish("spark-worker", 7078, service="spark-worker"),
    Wish("spark-worker-ui", 8083, service="spark-worker"),
)
SECOND_WORKER_PORTS = (
    Wish("spark-worker-2", 7079, service="spark-worker-2"),
    Wish("spark-worker-2-ui", 8084, service="spark-worker-2"),
)
MEMORY_SETTING = "TASKFLOW_SPARK_MEMORY"
APPLICATIONS = 2
"""How many run at the same time; others wait. Each may use every processor, and has its own memory."""
LEAST_MEMORY = 512
"""In MiB: with less, Spark's own reserve leaves an executor no room."""
LOG = Path(__file__).with_name("spark_log.properties")
DAEMON_OPTIONS = f"-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dlog4j2.configurationFile={LOG.as_uri()}"
"""Master and worker compute nothing: this halves their memory, and they start sooner."""
COMMON = {"spark.authenticate": "true", "spark.port.maxRetries": "0", "spark.ui.killEnabled": "false"}
"""A taken port is an error instead of another port, and no web page can kill an application."""
MASTER = {"spark.master.rest.enabled": "false"}
WORKER = {"spark.worker.cleanup.enabled": "true"}


@dataclass(frozen=True, slots=True)
class WorkerPorts:
    """A worker's name, its port and the port of its page."""

    name: str
    """The name of its service."""
    worker: int
    ui: int

    @property
    def page(self) -> str:
        """Its page, which lists executors and their logs."""
        return f"http://{HOST}:{self.ui}"


@dataclass(frozen=True, slots=True)
class SparkPorts:
    """The ports of the master and its page, and of the workers."""

    master: int
    master_ui: int
    workers: tuple[WorkerPorts, ...]


@dataclass(frozen=True, slots=True)
class SparkKeys:
    """What lets an application in, and what opens the pages."""

    secret: str
    pages: str
    """In base64, at least 32 bytes."""


@dataclass(frozen=True, slots=True)
class Spark:
    """A standalone cluster: its folder, its ports, its keys, and how much of the machine it offers."""

    folder: Path
    ports: SparkPorts
    keys: SparkKeys
    java: Java
    memory: int
    """The memory of an application, in MiB; the worker has room for two."""

    @property
    def master(self) -> str:
        """The master's address for drivers."""
        return f"spark://{HOST}:{self.ports.master}"

    @property
    def master_page(self) -> str:
        """The page of the master, which lists workers and applications."""
        return f"http://{HOST}:{self.ports.master_ui}"

    @property
    def worker_pages(self) -> list[str]:
        """The pages of the workers, which list executors and their logs."""
        return [ports.page for ports in self.ports.workers]

    @property
    def executor_memory(self) -> int:
        """The memory of an executor, in MiB: an application has one on each worker."""
        return max(self.memory // len(self.ports.workers), LEAST_MEMORY)

    @property
    def settings(self) -> Path:
        """The value of SPARK_CONF_DIR, for the cluster and its drivers."""
        return self.folder / "conf"

    @property
    def airflow_connection(self) -> str:
        """The value of an environment variable `AIRFLOW_CONN_…`, with the share of one application."""
        conf = {
            "spark.authenticate": "true",
            "spark.driver.host": HOST,
            "spark.driver.bindAddress": HOST,
            "spark.driver.memory": f"{driver_memory(self.memory)}m",
            "spark.executor.memory": f"{self.executor_memory}m",
            "spark.cores.max": str(cores()),
        }
        place = {"host": f"spark://{HOST}", "port": self.ports.master}
        return json.dumps({"conn_type": "spark", **place, "extra": {"conf": conf}})

    @property
    def pages_connection(self) -> str:
        """The value of an environment variable `AIRFLOW_CONN_…`, by which Airflow shows the pages to its users."""
        place = {"conn_type": "http", "schema": "http", "host": HOST, "port": self.ports.master_ui}
        return json.dumps({**place, "password": self.keys.pages})

    def driver_environment(self, scratch: Path) -> dict[str, str]:
        """Return the environment variables for a driver, which spills to `scratch`."""
        return {
            "JAVA_HOME": str(self.java.home),
            "PYSPARK_PYTHON": sys.executable,
            "SPARK_CONF_DIR": str(self.settings),
            "SPARK_LOCAL_DIRS": str(scratch),
            "SPARK_LOCAL_IP": HOST,
        }

    def services(self) -> list[Service]:
        """Return how master and worker are run."""
        master = ("--host", HOST, "--port", str(self.ports.master), "--webui-port", str(self.ports.master_ui))
        return [
            Service(
                name="spark-master",
                command=(*_spark_class("master.Master"), *master),
                environment=self._environment("SPARK_MASTER_OPTS", COMMON | MASTER),
                directory=self.folder,
                awaited=f"its page at {self.master_page}",
                probe=self.probe_master,
                prepare=self.prepare,
                group=GROUP,
                needs=("java",),
            ),
            *(self._worker(ports) for ports in self.ports.workers),
        ]

    def _worker(self, ports: WorkerPorts) -> Service:
        flags = (
            *("--host", HOST, "--port", str(ports.worker), "--webui-port", str(ports.ui)),
            *("--cores", str(APPLICATIONS * cores()), "--memory", f"{APPLICATIONS * self.executor_memory}m"),
            *("--work-dir", str(self.folder / ports.name.replace("spark-worker", "work")), self.master),
        )
        return Service(
            name=ports.name,
            command=(*_spark_class("worker.Worker"), *flags),
            environment=self._environment("SPARK_WORKER_OPTS", COMMON | WORKER),
            directory=self.folder,
            awaited=f"itself among the workers at {self.master_page}",
            probe=partial(self.probe_worker, ports.page),
            group=GROUP,
            needs=("java", "spark-master"),
        )

    def prepare(self) -> None:
        """Make the folder and the settings; raise OSError for a user that Spark refuses."""
        refuse_nameless(os.geteuid())
        self.write_settings()

    def write_settings(self) -> None:
        """Write the keys where master, worker and drivers look for them."""
        private_folder(self.folder)
        private_folder(self.settings)
        settings = {"spark.authenticate.secret": self.keys.secret, **page_settings(self.keys.pages)}
        write_private(self.settings / SETTINGS, "".join(f"{name} {value}\n" for name, value in settings.items()))

    def probe_master(self) -> None:
        """Raise NotReady unless the master is alive."""
        seen = self.told_by(self.master_page)
        if seen.get("status") != "ALIVE":
            raise NotReady(f"the master is {seen.get('status')}")

    def probe_worker(self, page: str) -> None:
        """Raise NotReady unless the master knows this process of the worker, and lists it as alive."""
        worker = self.told_by(page).get("id")
        states = {known["id"]: known["state"] for known in self.told_by(self.master_page)["workers"]}
        if states.get(worker) != "ALIVE":
            raise NotReady(f"the master lists {worker} as {states.get(worker, 'unknown')}")

    def told_by(self, page: str) -> dict[str, Any]:
        """Return what the page of the master, or of a worker, tells about itself; raise NotReady if it does not."""
        return fetch_json(f"{page}/json/", token(self.keys.pages))

    def _environment(self, name: str, properties: dict[str, str]) -> dict[str, str]:
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.folder),
            "SPARK_HOME": str(spark_home()),
            "SPARK_PUBLIC_DNS": HOST,
            "SPARK_DAEMON_MEMORY": "256m",
            "SPARK_DAEMON_JAVA_OPTS": DAEMON_OPTIONS,
            name: " ".join(f"-D{key}={value}" for key, value in properties.items()),
            **self.driver_environment(self.folder / "local"),  # executors have the worker's environment
        }


def spark_home() -> Path:
    """Return the folder of the pip package, without importing it, which would load half of it."""
    package = importlib.util.find_spec("pyspark")
    if package is None or not package.submodule_search_locations:
        raise FileNotFoundError("the package pyspark is not installed; run `make init`")
    return Path(package.submodule_search_locations[0])


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def memory() -> int:
    """Return the memory of an application, in MiB: TASKFLOW_SPARK_MEMORY, else a sixth of the machine's."""
    wanted = os.environ.get(MEMORY_SETTING)
    return read_memory(wanted) if wanted else share(psutil.virtual_memory().total // 2**20)


def share(total: int) -> int:
    """Return a sixth of `total` in MiB, but at least 1 GiB and at most 8."""
    return min(max(total // 6, 1024), 8192)


def driver_memory(executor: int) -> int:
    """Return the memory of a driver for executors of this size, in MiB: it holds results, not rows."""
    return min(max(executor // 2, 1024), 2048)


def read_memory(text: str) -> int:
    """Return a size such as `900m` or `4g` in MiB; raises ValueError for one that is malformed or too small."""
    match = re.fullmatch(r"(\d+)([mg])", text.strip().lower())
    size = int(match[1]) * {"m": 1, "g": 1024}[match[2]] if match else 0
    if size < LEAST_MEMORY:
        raise ValueError(
            f"{MEMORY_SETTING} is {text!r}; a size of at least {LEAST_MEMORY}m is expected, such as 2048m or 4g"
        )
    return size


def _spark_class(name: str) -> tuple[str, str]:
    return str(spark_home() / "bin" / "spark-class"), f"org.apache.spark.deploy.{name}"
