"""The Celery workers of the distributed profile: each in its own directory, as if on its own machine.

They read the code and the specs, which would be installed on each machine, and write only to their own directory; files
passed from step to step go through the object store, and so do the logs of tasks.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock

from stack.broker import NAME as BROKER
from stack.broker import Broker
from stack.paths import private_folder
from stack.service import NotReady, Service

QUEUES = {"worker-1": ("default",), "worker-2": ("default", "spark")}
"""The queues that each worker takes tasks from; a step chooses its queue with `queue`, else it is `default`."""
CONCURRENCY = 2
"""How many tasks a worker runs at the same time."""
ENVIRONMENT = "distributed"
"""The file of `configs/environments/` that makes steps pass files through the object store."""
LOGS = "airflow-logs"
"""The bucket for the logs of tasks: workers do not serve their own."""
PRELOADED = "stack.preloaded"
"""The module that a worker imports before it forks its pool."""
WORKER = "TASKFLOW_WORKER"
_LOADING = Lock()
"""Celery replaces its own module while it loads; a second thread would see it half loaded."""


@dataclass(frozen=True, slots=True)
class Workers:
    """The workers: the parent of their directories, and the broker that sends them tasks."""

    folder: Path
    broker: Broker

    @property
    def settings(self) -> dict[str, str]:
        """The environment variables of every process of this Airflow."""
        return {
            "TASKFLOW_ENVIRONMENT": os.environ.get("TASKFLOW_ENVIRONMENT") or ENVIRONMENT,
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__CORE__HOSTNAME_CALLABLE": "stack.workers.name",
            "AIRFLOW__CELERY__BROKER_URL": self.broker.url,
            "AIRFLOW__CELERY__WORKER_CONCURRENCY": str(CONCURRENCY),
            "AIRFLOW__CELERY__EXTRA_CELERY_CONFIG": json.dumps({"imports": [PRELOADED]}),
            "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT": "86400",  # unless it is set, Airflow warns
            "AIRFLOW__LOGGING__REMOTE_LOGGING": "True",
            "AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER": f"s3://{LOGS}",
            "AIRFLOW__LOGGING__REMOTE_LOG_CONN_ID": "object_store",
            "AIRFLOW__LOGGING__DELETE_LOCAL_LOGS": "True",
        }

    def services(self, environment: Mapping[str, str], *, group: str, uses: tuple[str, ...]) -> list[Service]:
        """Return how the workers are run, given the environment of Airflow's processes."""
        return [self._service(name, environment, group, uses) for name in QUEUES]

    def directory(self, name: str) -> Path:
        """Return the only folder that a worker writes to."""
        return self.folder / name

    def prepare(self, name: str) -> None:
        """Make the worker's directory."""
        private_folder(self.directory(name))

    def probe(self, name: str) -> None:
        """Raise NotReady unless the worker answers, and takes tasks from its queues."""
        with _LOADING:
            from celery import Celery
            from kombu.exceptions import KombuError
        asked = f"{name}@{name}"
        app = Celery(broker=self.broker.url, broker_connection_retry=False)
        try:
            answers = app.control.inspect(destination=[asked], timeout=2, limit=1).active_queues() or {}
        except (OSError, KombuError) as error:
            raise NotReady(f"the broker does not answer: {error}") from error
        finally:
            app.close()
        taken = {queue["name"] for queue in answers.get(asked, [])}
        if missing := set(QUEUES[name]) - taken:
            raise NotReady(f"it takes no tasks from {', '.join(sorted(missing))}" if taken else "it does not answer")

    def _service(self, name: str, environment: Mapping[str, str], group: str, uses: tuple[str, ...]) -> Service:
        own = self.directory(name)
        flags = ("--queues", ",".join(QUEUES[name]), "--celery-hostname", f"{name}@{name}")
        quiet = ("--skip-serve-logs", "--without-mingle", "--without-gossip")  # it would listen on every address
        places = {
            "HOME": str(own),
            "AIRFLOW_HOME": str(own),
            "SPARK_LOCAL_DIRS": str(own / "scratch"),
            "TMPDIR": str(own / "tmp"),
        }
        return Service(
            name=name,
            command=(sys.executable, "-P", "-m", "airflow", "celery", "worker", *flags, *quiet),
            environment={**environment, **places, WORKER: name},
            directory=own,
            awaited=f"itself taking tasks from {' and '.join(QUEUES[name])}",
            probe=partial(self.probe, name),
            prepare=partial(self.prepare, name),
            emptied=(own / "scratch", own / "tmp"),  # of what killed tasks left there: no task outlives its worker
            group=group,
            needs=("metadata", "java", BROKER),
            uses=uses,
            signal_group=False,  # the worker lets its tasks finish; a signal to them would stop them
        )


def name() -> str:
    """Return the name of this process in Airflow: the UI shows it next to the tasks that it ran."""
    import socket

    return os.environ.get(WORKER) or socket.getfqdn()
