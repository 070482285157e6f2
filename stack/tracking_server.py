"""The MLflow of the stack: runs and models in Postgres, artifacts in the object store, reachable only through it.

Its clients need a login, and no key of the object store. By default it starts ten processes that evaluate language
models; with the settings below it has one server process, and the one that starts it, and runs `stack.tracking_app`.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stack.objects import REGION
from stack.paths import private_folder, write_private
from stack.ports import Wish
from stack.service import NotReady, Service, client

if TYPE_CHECKING:
    from pathlib import Path

    from stack.database import Database
    from stack.objects import ObjectStore

HOST = "127.0.0.1"
BUCKET = "mlflow-artifacts"
PORTS = (Wish("mlflow", 5000),)
USER = "admin"
CACHED_SECONDS = 300
"""How long a login counts as checked: checking the password itself takes a third of a second."""
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_DISABLE_AGENT_HINT": "true", "GIT_PYTHON_REFRESH": "quiet"}
"""For the server and its clients: no usage reports, and no warning that git is not installed."""


@dataclass(frozen=True, slots=True)
class TrackingKeys:
    """The admin's password, and the key that protects the forms of MLflow's pages."""

    admin_password: str
    session: str


@dataclass(frozen=True, slots=True)
class Tracking:
    """An MLflow server: its folder, its port, the stores of its runs and artifacts, and its keys."""

    folder: Path
    port: int
    database: Database
    store: ObjectStore
    keys: TrackingKeys

    @property
    def address(self) -> str:
        """The address of the UI and of the API: the tracking URI of clients."""
        return f"http://{HOST}:{self.port}"

    @property
    def airflow_connection(self) -> str:
        """The value of an environment variable `AIRFLOW_CONN_…`."""
        place = {"conn_type": "http", "schema": "http", "host": HOST, "port": self.port}
        return json.dumps({**place, "login": USER, "password": self.keys.admin_password})

    @property
    def client_environment(self) -> dict[str, str]:
        """The address and the login, for a process whose only MLflow this is."""
        login = {"MLFLOW_TRACKING_USERNAME": USER, "MLFLOW_TRACKING_PASSWORD": self.keys.admin_password}
        return {"MLFLOW_TRACKING_URI": self.address, **login}

    @property
    def settings(self) -> Path:
        """The file with the settings of the login."""
        return self.folder / "login.ini"

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
        """Make the folder, and write the settings of the login."""
        private_folder(self.folder)
        write_private(self.settings, login_settings(self.database, self.keys))

    def probe(self) -> None:
        """Raise NotReady unless the server answers, and reaches its database and its bucket."""
        self._ask("GET", "/health")
        self._ask("POST", "/api/2.0/mlflow/experiments/search", {"max_results": 1})
        self._ask("GET", "/api/2.0/mlflow-artifacts/artifacts")

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> None:
        import httpx

        try:
            login = (USER, self.keys.admin_password)
            answer = client().request(method, f"{self.address}{path}", json=body, auth=login, timeout=10)
        except httpx.HTTPError as error:
            raise NotReady(f"{type(error).__name__}: {error}") from error
        if not answer.is_success:
            raise NotReady(f"{method} {path}: {answer.status_code} {answer.text[:200]}")

    def _flags(self) -> tuple[str, ...]:
        place = ("--host", HOST, "--port", str(self.port))
        return (*place, "--workers", "1", "--serve-artifacts", "--app-name", "taskflow")

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
            "MLFLOW_AUTH_CONFIG_PATH": str(self.settings),
            "MLFLOW_BASIC_AUTH_FAIL_CLOSED": "true",
            "MLFLOW_FLASK_SERVER_SECRET_KEY": self.keys.session,
            "MLFLOW_ENABLE_AI_GATEWAY": "false",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "PYTHONUNBUFFERED": "1",
            **QUIET,
        }


def login_settings(database: Database, keys: TrackingKeys) -> str:
    """Return the settings of the login, in MLflow's format; its tables are in the database of the runs."""
    settings = {
        "default_permission": "READ",
        "database_uri": database.url("postgresql+psycopg2"),
        "admin_username": USER,
        "admin_password": keys.admin_password,
        "authorization_function": "mlflow.server.auth:authenticate_request_basic_auth",
        "auth_cache_ttl_seconds": str(CACHED_SECONDS),
    }
    lines = (f"{name} = {value.replace('%', '%%')}\n" for name, value in settings.items())
    return "[mlflow]\n" + "".join(lines)
