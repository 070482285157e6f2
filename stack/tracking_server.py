"""The MLflow of the stack: runs and models in Postgres, artifacts in the object store, reachable only through it.

Its clients need no key of the object store. By default it starts ten processes that evaluate language models; with the
settings below it has one server process, and the one that starts it.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stack.objects import REGION
from stack.paths import private_folder
from stack.ports import Wish
from stack.service import NotReady, Service, client

if TYPE_CHECKING:
    from pathlib import Path

    from stack.database import Database
    from stack.objects import ObjectStore

HOST = "127.0.0.1"
BUCKET = "mlflow-artifacts"
PORTS = (Wish("mlflow", 5000),)
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_DISABLE_AGENT_HINT": "true", "GIT_PYTHON_REFRESH": "quiet"}
"""For the server and its clients: no usage reports, and no warning that git is not installed."""


@dataclass(frozen=True, slots=True)
class Tracking:
    """An MLflow server: its folder, its port, and the stores of its runs and artifacts."""

    folder: Path
    port: int
    database: Database
    store: ObjectStore

    @property
    def address(self) -> str:
        """The address of the UI and of the API: the tracking URI of clients."""
        return f"http://{HOST}:{self.port}"

    @property
    def airflow_connection(self) -> str:
        """The value of an environment variable `AIRFLOW_CONN_…`."""
        return json.dumps({"conn_type": "http", "schema": "http", "host": HOST, "port": self.port})

    def service(self) -> Service:
        """Return how the server is run."""
        return Service(
            name="mlflow",
            command=(sys.executable, "-P", "-m", "mlflow", "server", *self._flags()),
            environment=self._environment(),
            directory=self.folder,
            awaited=f"its experiments at {self.address}",
            probe=self.probe,
            prepare=self.prepare,
            needs=("postgres", "objects"),
        )

    def prepare(self) -> None:
        """Make the folder."""
        private_folder(self.folder)

    def probe(self) -> None:
        """Raise NotReady unless the server answers, and reaches its database and its bucket."""
        self._ask("GET", "/health")
        self._ask("POST", "/api/2.0/mlflow/experiments/search", {"max_results": 1})
        self._ask("GET", "/api/2.0/mlflow-artifacts/artifacts")

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> None:
        import httpx

        try:
            answer = client().request(method, f"{self.address}{path}", json=body, timeout=10)
        except httpx.HTTPError as error:
            raise NotReady(f"{type(error).__name__}: {error}") from error
        if not answer.is_success:
            raise NotReady(f"{method} {path}: {answer.status_code} {answer.text[:200]}")

    def _flags(self) -> tuple[str, ...]:
        return ("--host", HOST, "--port", str(self.port), "--workers", "1", "--serve-artifacts")

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.folder),
            "MLFLOW_BACKEND_STORE_URI": self.database.url("postgresql+psycopg2"),
            "MLFLOW_ARTIFACTS_DESTINATION": f"s3://{BUCKET}",
            "MLFLOW_S3_ENDPOINT_URL": self.store.endpoint,
            "AWS_ACCESS_KEY_ID": self.store.keys.access,
            "AWS_SECRET_ACCESS_KEY": self.store.keys.secret,
            "AWS_DEFAULT_REGION": REGION,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "PYTHONUNBUFFERED": "1",
            **QUIET,
        }
