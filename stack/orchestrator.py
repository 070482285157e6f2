"""Airflow, as four processes of the stack: the API server with the UI, the scheduler, the DAG processor, the triggerer.

The distributed profile adds its workers (`stack.workers`).
Not `airflow standalone`, which listens on every address and leaves processes behind.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import importlib.metadata
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from stack.paths import private_folder, write_private
from stack.ports import Wish
from stack.service import NotReady, Service, StartFailed, fetch_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from stack.credentials import Credentials
    from stack.database import Database
    from stack.paths import Home
    from stack.workers import Workers

HOST = "127.0.0.1"
GROUP = "airflow"
PORTS = (Wish("airflow", 8080, service="api-server"),)
USERS = {"admin": "ADMIN", "viewer": "VIEWER"}
INHERITED = (
    *("PATH", "LANG", "LC_ALL", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"),
    *("TASKFLOW_ENVIRONMENT", "TASKFLOW_ARTIFACT_BUCKETS"),
)

DEPLOYMENT = "TASKFLOW_DEPLOYMENT"
"""What tells the runs of this Airflow from those of another one that writes to the same database."""
PARTNERS = ("objects", "spark-master", "spark-worker", "spark-worker-2", "mlflow", "redis")
"""The services that tasks use; Airflow starts without them."""
STOP_SECONDS = {"scheduler": 20}
"""How long a process may take to stop: the scheduler lets running tasks finish, the others have nothing to lose."""

TUNING = {
    "AIRFLOW__CORE__PARALLELISM": "4",  # each is an idle process; the default is 32
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__API__WORKERS": "1",
    "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",  # new specs show up soon; edited ones do anyway
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.3",  # the pause between two tasks; the default is 1
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",  # a task whose exit was missed keeps its slot this long
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "30",  # a killed scheduler's tasks are picked up soon
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "60",
    "AIRFLOW__AWS__SESSION_FACTORY": "stack.bucket_sessions.SharingSessions",  # clients of S3 are made in half the time
}
"""Settings that users may override in the environment of `make up`."""


@dataclass(frozen=True, slots=True)
class Airflow:
    """An Airflow: its folders, its port, its metadata database and its keys."""

    home: Home
    pipelines: Path
    port: int
    metadata: Database
    credentials: Credentials
    connections: Mapping[str, str]
    """The connections of the stack's own services, by id, as JSON."""
    clients: Mapping[str, str]
    """The environment variables for the libraries of tasks."""
    workers: Workers | None = None
    """What runs the tasks; without workers, the scheduler does."""

    @property
    def address(self) -> str:
        """The address of the UI and of the API."""
        return f"http://{HOST}:{self.port}"

    @property
    def passwords_file(self) -> Path:
        """The users' passwords, for the API server."""
        return self.home.airflow / "passwords.json"

    def services(self) -> list[Service]:
        """Return how the four processes are run."""
        commands = {
            "api-server": ("api-server",),
            "scheduler": ("scheduler", "--skip-serve-logs"),  # the log server would listen on every address
            "dag-processor": ("dag-processor",),
            "triggerer": ("triggerer", "--skip-serve-logs"),
        }
        environment = self.environment()
        made = {name: self._service(name, arguments, environment) for name, arguments in commands.items()}
        # The scheduler runs tasks, and none of them outlives it.
        scheduler = replace(made["scheduler"], emptied=(self.home.scratch,))
        own = list({**made, "scheduler": scheduler}.values())
        if self.workers is None:
            return own
        return [*own, *self.workers.services(environment, group=GROUP, uses=("api-server", *PARTNERS))]

    def environment(self) -> dict[str, str]:
        """Return the environment of every Airflow process."""
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        overrides = {name: value for name, value in os.environ.items() if name.startswith("AIRFLOW__")}
        workers = self.workers.settings if self.workers else {"AIRFLOW__CORE__EXECUTOR": "stack.executor.LocalExecutor"}
        fixed = {**self._addresses(), **self._keys(), **_quiet(), **workers}
        named = {DEPLOYMENT: os.environ.get(DEPLOYMENT) or f"the stack in {self.home.root}"}
        return {**inherited, **TUNING, **overrides, **named, **self.clients, **fixed}

    def prepare_metadata(self) -> bool:
        """Bring the metadata database up to date and write the connections into it; return whether that was needed."""
        private_folder(self.home.airflow)
        write_private(self.passwords_file, json.dumps(self.passwords()))
        stamp = self.home.airflow / "metadata.json"
        wanted = self._fingerprint()
        if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted and self._has_connections():
            return False
        self._migrate()
        write_private(stamp, wanted)
        return True

    def _migrate(self) -> None:
        log, started = self.home.log("metadata"), time.monotonic()
        with log.open("ab") as output:
            done = subprocess.run(
                (sys.executable, "-P", "-m", "stack.metadata"),
                input=json.dumps(dict(self.connections)).encode(),
                env=self.environment(),
                cwd=self.home.airflow,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if done.returncode != 0:
            reason, seconds = f"it ended with code {done.returncode}", time.monotonic() - started
            raise StartFailed("metadata", "Airflow's metadata database to be migrated", seconds, reason, log)

    def health(self) -> dict[str, dict[str, str | None]]:
        """Return the health of the components from the API server; raises NotReady while it does not answer."""
        return fetch_json(f"{self.address}/api/v2/monitor/health")

    def probe(self, name: str) -> None:
        """Raise NotReady unless the process `name` is healthy, with a heartbeat since it started."""
        part = "metadatabase" if name == "api-server" else name.replace("-", "_")
        seen = self.health()[part]
        if seen["status"] != "healthy":
            raise NotReady(f"{part} is {seen['status']}")
        if (beat := seen.get(f"latest_{part}_heartbeat")) and not self._is_newer(beat, name):
            raise NotReady(f"the last heartbeat of {part}, {beat}, is from an earlier process")

    def _service(self, name: str, arguments: tuple[str, ...], environment: Mapping[str, str]) -> Service:
        return Service(
            name=name,
            command=(sys.executable, "-P", "-m", "airflow", *arguments),
            environment=environment,
            directory=self.home.airflow,
            awaited=f"its health at {self.address}/api/v2/monitor/health",
            probe=lambda: self.probe(name),
            group=GROUP,
            needs=("postgres", "metadata", "java"),
            uses=PARTNERS,
            stop_seconds=STOP_SECONDS.get(name, 10),
        )

    def _addresses(self) -> dict[str, str]:
        return {
            "HOME": str(self.home.airflow),  # libraries keep caches there; the user's home may be read-only
            "AIRFLOW_HOME": str(self.home.airflow),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.pipelines),
            "AIRFLOW__DAG_PROCESSOR__DAG_IMPORTER_CONFIGS": '["factory.importer.YamlImporter"]',  # read by 3.4 only
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.address}/execution/",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{name}:{role}" for name, role in USERS.items()),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self.passwords_file),
            "AIRFLOW__API__HOST": HOST,
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__BASE_URL": self.address,
            "AIRFLOW__API__EXPOSE_CONFIG": "False",
        }

    def _keys(self) -> dict[str, str]:
        return {
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": self.metadata.url("postgresql+psycopg2"),
            "AIRFLOW__CORE__FERNET_KEY": self.credentials.airflow_fernet,
            "AIRFLOW__API__SECRET_KEY": self.credentials.airflow_session,
            "AIRFLOW__API_AUTH__JWT_SECRET": self.credentials.airflow_jwt,
        }

    def passwords(self) -> dict[str, str]:
        """Return the password of each user."""
        return {"admin": self.credentials.airflow_admin, "viewer": self.credentials.airflow_viewer}

    def _fingerprint(self) -> str:
        text = json.dumps([importlib.metadata.version("apache-airflow-core"), dict(self.connections)])
        return json.dumps({"sha256": hashlib.sha256(text.encode()).hexdigest()})

    def _has_connections(self) -> bool:
        import psycopg2

        try:
            with self.metadata.connect() as opened, opened.cursor() as cursor:
                cursor.execute("SELECT conn_id FROM connection WHERE conn_id = ANY(%s)", (list(self.connections),))
                return {row[0] for row in cursor} == set(self.connections)
        except psycopg2.Error:
            return False

    def _is_newer(self, heartbeat: str, name: str) -> bool:
        try:
            started = self.home.pid_file(name).stat().st_mtime
        except FileNotFoundError:
            return False
        return dt.datetime.fromisoformat(heartbeat).timestamp() > started


def _quiet() -> dict[str, str]:
    """Return the settings that turn off usage reports, and the buffering of output."""
    return {
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "SCARF_ANALYTICS": "false",
        "GX_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",  # to Evidently
        "PYTHONUNBUFFERED": "1",
    }
