"""Where the stack keeps its state, and where the repository's own folders are."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
SOCKET_FOLDER_LIMIT = 80
"""A Unix socket's path may have 107 bytes, and the supervisor adds a suffix while it creates one."""


@dataclass(frozen=True, slots=True)
class Home:
    """The folder of everything the stack writes."""

    root: Path

    def make(self) -> None:
        """Make the folder, and let only its owner in, also if something else made it before."""
        private_folder(self.root.resolve())

    @property
    def secrets(self) -> Path:
        """Every generated password and key, as JSON."""
        return self.root / "secrets.json"

    @property
    def ports(self) -> Path:
        """The ports chosen at the first start, as JSON."""
        return self.root / "ports.json"

    @property
    def profile(self) -> Path:
        """The name of the profile last started."""
        return self.root / "profile"

    @property
    def logs(self) -> Path:
        """The output of the services, one file each."""
        return self.root / "logs"

    @property
    def plans(self) -> Path:
        """What the supervisor and the launched processes read and write while the stack is up."""
        return self.root / "run"

    @property
    def lock(self) -> Path:
        """Locked while the stack is being started or stopped."""
        return self.root / "lock"

    @property
    def sockets(self) -> Path:
        """A private folder for sockets: in the state folder, or in /tmp if that path would be too long."""
        if len(os.fsencode(self.plans)) <= SOCKET_FOLDER_LIMIT:
            return self.plans
        digest = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"taskflow-{os.geteuid()}-{digest}"

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

    @property
    def java(self) -> Path:
        """A JAVA_HOME for Spark, if the user's own is not suitable."""
        return self.root / "java"

    @property
    def spark(self) -> Path:
        """What the Spark master, its worker and the executors write."""
        return self.root / "spark"

    @property
    def scratch(self) -> Path:
        """Where the Spark drivers of tasks spill; empty whenever Airflow is down."""
        return self.root / "scratch"

    @property
    def tracking(self) -> Path:
        """What MLflow keeps on disk: nothing important."""
        return self.root / "mlflow"

    @property
    def app(self) -> Path:
        """What the app keeps on disk: nothing important."""
        return self.root / "app"

    @property
    def broker(self) -> Path:
        """The data of the distributed profile's message broker."""
        return self.root / "redis"

    @property
    def workers(self) -> Path:
        """A folder for each Celery worker of the distributed profile."""
        return self.root / "workers"

    def everything(self) -> list[Path]:
        """Return everything that the stack may have written; nothing else is ever removed."""
        data = (self.database, self.objects, self.airflow, self.java, self.spark, self.scratch, self.tracking, self.app)
        distributed = (self.broker, self.workers, self.profile)
        return [self.plans, self.sockets, self.logs, *data, *distributed, self.ports, self.secrets, self.lock]

    def log(self, service: str) -> Path:
        """Return the file of what `service` prints."""
        return self.logs / f"{service}.log"

    def pid_file(self, service: str) -> Path:
        """Return the file where `service` writes its process id when it starts."""
        return self.plans / f"{service}.pid"


def home() -> Home:
    """Return the state folder: `TASKFLOW_HOME` if set, else `.taskflow` in the repository."""
    return Home(Path(os.environ.get("TASKFLOW_HOME") or REPOSITORY / ".taskflow").absolute())


def pipelines() -> Path:
    """Return the folder of the specs: `TASKFLOW_PIPELINES` if set, else the repository's own."""
    return Path(os.environ.get("TASKFLOW_PIPELINES") or REPOSITORY / "pipelines").absolute()


def private_folder(path: Path) -> Path:
    """Make `path` a folder that only its owner can access, and return it."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.is_symlink() or path.stat().st_uid != os.geteuid():
        raise PermissionError(f"{path} is not a folder owned by user {os.geteuid()}; remove it, or set TASKFLOW_HOME")
    path.chmod(0o700)
    return path


def write_private(path: Path, text: str) -> None:
    """Write `text` atomically to a file that only its owner may read, unless it is there already."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    draft.replace(path)
