"""Where the stack keeps its state, and where the repository's own folders are."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Home:
    """The one folder that holds everything the stack writes."""

    root: Path

    @property
    def secrets(self) -> Path:
        """Every generated password and key, as JSON."""
        return self.root / "secrets.json"

    @property
    def ports(self) -> Path:
        """The ports chosen at the first start, as JSON."""
        return self.root / "ports.json"

    @property
    def logs(self) -> Path:
        """What the services print, a file each."""
        return self.root / "logs"

    @property
    def database(self) -> Path:
        """The data of Postgres."""
        return self.root / "postgres"

    @property
    def objects(self) -> Path:
        """The data of the object store."""
        return self.root / "objects"

    @property
    def airflow(self) -> Path:
        """AIRFLOW_HOME: task logs and the passwords of the users."""
        return self.root / "airflow"


def home() -> Home:
    """Return the state folder: `TASKFLOW_HOME` where it is set, else `.taskflow` beside the code."""
    return Home(Path(os.environ.get("TASKFLOW_HOME") or REPOSITORY / ".taskflow").absolute())


def private_folder(path: Path) -> Path:
    """Make `path` a folder that only its owner may enter, and return it."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)
    return path


def write_private(path: Path, text: str) -> None:
    """Write `text` so that only its owner may read it, and nobody ever sees half of it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    draft.replace(path)
