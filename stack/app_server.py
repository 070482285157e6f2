"""The server of the app: Streamlit, running `stack/app/app.py` behind a login, in its own process."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stack.app_login import PASSWORD, login
from stack.paths import REPOSITORY, private_folder
from stack.ports import Wish
from stack.service import Service, fetch
from stack.tracking_server import QUIET

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

HOST = "127.0.0.1"
PORTS = (Wish("app", 8601),)
SCRIPT = REPOSITORY / "stack" / "app" / "app.py"
INHERITED = ("LANG", "LC_ALL", "TMPDIR", "TASKFLOW_MODEL", "TASKFLOW_DRIFT")


@dataclass(frozen=True, slots=True)
class AppServer:
    """A Streamlit server: its folder, its port, its password, its script, and how this reaches the other services."""

    folder: Path
    port: int
    password: str
    others: Mapping[str, str]
    """Addresses and logins, by environment variable."""
    script: Path = SCRIPT

    @property
    def address(self) -> str:
        """Where people open the app."""
        return f"http://{HOST}:{self.port}"

    def service(self) -> Service:
        """Return how the server is run."""
        place = ("--host", HOST, "--port", str(self.port))
        return Service(
            name="app",
            command=(sys.executable, "-P", "-m", "stack.app.served", str(self.script), *place),
            environment=self._environment(),
            directory=self.folder,
            awaited=f"its health at {self.address}/_stcore/health",
            probe=self.probe,
            prepare=self.prepare,
            needs=("mlflow",),
            stop_seconds=10,
        )

    def prepare(self) -> None:
        """Make the folder; raise FileNotFoundError if the script is missing: Streamlit looks healthy without it."""
        if not self.script.exists():
            raise FileNotFoundError(f"the app is not there: no {self.script}")
        private_folder(self.folder)

    def probe(self) -> None:
        """Raise NotReady unless the server is healthy."""
        fetch(f"{self.address}/_stcore/health", login(self.password))

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.folder),
            **{name: os.environ[name] for name in INHERITED if name in os.environ},
            "PYTHONUNBUFFERED": "1",
            **QUIET,
            **self.others,
            PASSWORD: self.password,
        }
