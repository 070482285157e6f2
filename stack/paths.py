"""Where the stack keeps its state, and where the repository's own folders are."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
SOCKET_FOLDER_LIMIT = 80
"""The address of a Unix socket holds 107 bytes; the supervisor adds a suffix to the name while it makes one."""


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
    def profile(self) -> Path:
        """The name of the profile that was started last."""
        return self.root / "profile"

    @property
    def logs(self) -> Path:
        """What the services print, a file each."""
        return self.root / "logs"

    @property
    def plans(self) -> Path:
        """What the supervisor and the launched processes read and write while the stack is up."""
        return self.root / "run"

    @property
    def lock(self) -> Path:
        """Held while the stack is being started or stopped."""
        return self.root / "lock"

    @property
    def sockets(self) -> Path:
        """A private folder for sockets: in the state folder, or in /tmp where the path would be too long for them."""
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
        """A JAVA_HOME for Spark, where the user's own does not serve."""
        return self.root / "java"

    @property
    def spark(self) -> Path:
        """What the Spark master, its worker and the executors write."""
        return self.root / "spark"

    @property
    def scratch(self) -> Path:
        """What the Spark drivers of tasks spill; empty whenever Airflow is down."""
        return self.root / "scratch"

    @property
    def tracking(self) -> Path:
        """What MLflow keeps on disk: nothing that matters."""
        return self.root / "mlflow"

    @property
    def app(self) -> Path:
        """What the app keeps on disk: nothing that matters."""
        return self.root / "app"

    @property
    def broker(self) -> Path:
        """What the message broker of the distributed profile holds."""
        return self.root / "redis"

    @property
    def workers(self) -> Path:
        """A folder for each Celery worker of the distributed profile."""
        return self.root / "workers"

    def everything(self) -> list[Path]:
        """Return all that the stack may have written; nothing else is ever removed."""
        data = (self.database, self.objects, self.airflow, self.java, self.spark, self.scratch, self.tracking, self.app)
        distributed = (self.broker, self.workers, self.profile)
        return [self.plans, self.sockets, self.logs, *data, *distributed, self.ports, self.secrets, self.lock]

    def log(self, service: str) -> Path:
        """Return what `service` prints."""
        return self.logs / f"{service}.log"

    def pid_file(self, service: str) -> Path:
        """Return where the process id of `service` is noted when it starts."""
        return self.plans / f"{service}.pid"


def home() -> Home:
    """Return the state folder: `TASKFLOW_HOME` where it is set, else `.taskflow` beside the code."""
    return Home(Path(os.environ.get("TASKFLOW_HOME") or REPOSITORY / ".taskflow").absolute())


def pipelines() -> Path:
    """Return the folder of the specs: `TASKFLOW_PIPELINES` where it is set, else the repository's own."""
    return Path(os.environ.get("TASKFLOW_PIPELINES") or REPOSITORY / "pipelines").absolute()


def private_folder(path: Path) -> Path:
    """Make `path` a folder that only its owner may enter, and return it."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.is_symlink() or path.stat().st_uid != os.geteuid():
        raise PermissionError(f"{path} is not a folder of user {os.geteuid()}'s own; remove it, or set TASKFLOW_HOME")
    path.chmod(0o700)
    return path


def write_private(path: Path, text: str) -> None:
    """Write `text`, if it is not there already, so that only its owner may read it and nobody ever sees half of it."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    draft.replace(path)
