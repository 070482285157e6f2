"""What breaks in the distributed profile, and what is told of it: no task is lost, none done twice in effect."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from stack.paths import REPOSITORY
from stack.profiles import Profile
from stack.service import NotReady
from tests.support.buckets import refusing_writes
from tests.support.processes import LOOPBACK, LOOPBACK_IN_IPV6, everyone, kill, listening, pid, words
from tests.support.strangers import got_by_stranger
from tests.support.waiting import eventually
from tests.support.waiting_dag import DAG
from tests.support.whole_stack import RunningStack, command_line
from tests.support.workers import await_running, tries, workers

pytestmark = pytest.mark.distributed

FILES = """
dag_id: {dag_id}
schedule: null
start_date: 2026-01-01
default_args: {{retries: 3}}
steps:
  make:
    uses: synthetic.churn_sources
    with: {{users: 200, until: "2026-01-04", horizon_days: 30, folder: "{dag_id}"}}
"""
GREETING = """
dag_id: {dag_id}
schedule: null
start_date: 2026-01-01
default_args: {{retries: 0}}
steps:
  greet: {{uses: messages.log, queue: {queue}, with: {{message: hello}}}}
"""


SPECS = {
    "waits.py": textwrap.dedent(DAG).format(dag_id="waits"),
    "untaken.yaml": GREETING.format(dag_id="untaken", queue="old"),
    "greets.yaml": GREETING.format(dag_id="greets", queue="old"),
    "gpu.yaml": GREETING.format(dag_id="gpu", queue="gpu"),
    "dropped.yaml": FILES.format(dag_id="dropped"),
    "refused.yaml": FILES.format(dag_id="refused"),
}


@pytest.fixture(scope="module", autouse=True)
def specs(distributed: RunningStack) -> None:
    """A file for each DAG of these tests; together, since Airflow looks for new ones every few seconds."""
    for name, text in SPECS.items():
        (distributed.dags_folder / name).write_text(text)


def known(stack: RunningStack, dag_id: str) -> str:
    """Wait until Airflow knows a DAG, and let it run."""
    stack.api.await_dag(dag_id, seconds=180)
    stack.api.unpause(dag_id)
    return dag_id


def test_everything_is_up(distributed: RunningStack) -> None:
    """`status` finds all services ready, and names the profile's own among them."""
    told = command_line(distributed.environment, "status")
    rows = dict(line.split()[:2] for line in told.splitlines()[1 : len(distributed.services.services()) + 1])
    assert set(rows.values()) == {"ready"}
    assert {"redis", "worker-1", "worker-2", "spark-worker", "spark-worker-2"} <= set(rows)


def test_profile_is_kept(distributed: RunningStack) -> None:
    """Who asks for another profile while this one is up is refused; who names none gets this one."""
    told = command_line(distributed.environment, "up", "--profile", Profile.LOCAL, code=1)
    assert "the stack is running in the profile distributed; `make down` first, then start it as local" in told
    assert "redis          is up already" in command_line(distributed.environment, "up", "redis")


def test_nobody_else_gets_in(distributed: RunningStack) -> None:
    """Every port is one of loopback, the broker asks for its password, and no secret is in sight."""
    import redis

    assert {address for address, _ in listening(everyone(distributed))} == {LOOPBACK, LOOPBACK_IN_IPV6}
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(port=distributed.services.ports["redis"]).ping()
    secrets = distributed.services.credentials.model_dump().values()
    shown = [" ".join(words(process)) for process in everyone(distributed)]
    shown += [path.read_text(errors="replace") for path in distributed.home.logs.iterdir()]
    assert [text for text in shown if any(one in text for one in secrets)] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_stranger_gets_nothing(distributed: RunningStack) -> None:
    """Another user of the machine gets nothing from the broker and the second worker either."""
    assert got_by_stranger(distributed) == []


def test_killed_broker_is_survived(distributed: RunningStack, gate: Path) -> None:
    """A task goes on although the broker was killed with -9, and what follows it is handed over by the next."""
    run = distributed.api.trigger(known(distributed, "waits"), {"gate": str(gate)})
    await_running(distributed, run, "wait")
    kill(distributed, "redis")
    gate.touch()
    assert distributed.api.wait(run, seconds=300).state == "success"


def test_queued_task_outlives_broker(distributed: RunningStack) -> None:
    """A task that no worker has taken yet is on the broker's disk, and is done once one takes it."""
    import redis

    dag_id = known(distributed, "untaken")
    run = distributed.api.trigger(dag_id)
    with redis.Redis.from_url(workers(distributed).broker.url) as broker:
        eventually("the task in the queue", lambda: broker.llen("old"), lambda tasks: tasks == 1)
    kill(distributed, "redis")
    with taking(distributed, "worker-1", "old"):
        assert distributed.api.wait(run, seconds=300).state == "success"
    assert tries(distributed, run)["greet"] == ("worker-1", 1)


@contextmanager
def taking(stack: RunningStack, worker: str, queue: str) -> Iterator[None]:
    """Let a worker take tasks from one more queue meanwhile."""
    from celery import Celery

    whom = {"destination": [f"{worker}@{worker}"], "reply": True, "timeout": 2}
    with Celery(broker=workers(stack).broker.url) as app:
        eventually(f"{worker} to answer", lambda: app.control.add_consumer(queue, **whom))  # it may yet be connecting
        try:
            yield
        finally:
            app.control.cancel_consumer(queue, **whom)


def test_stopped_worker_is_not_ready(distributed: RunningStack) -> None:
    """`status` tells of a worker that does not answer, by name."""
    stopped = psutil.Process(pid(distributed, "worker-1"))
    stopped.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(NotReady, match="it does not answer"):
            workers(distributed).probe("worker-1")
        assert "worker-1        not ready" in command_line(distributed.environment, "status", code=3)
    finally:
        stopped.send_signal(signal.SIGCONT)


def test_missing_queue_is_import_error(distributed: RunningStack) -> None:
    """A queue that no worker takes tasks from keeps the spec out, with its line; nothing waits for ever."""
    told = eventually("an import error", distributed.api.import_errors, lambda seen: "gpu.yaml" in seen)["gpu.yaml"]
    assert 'gpu.yaml:7:38: error: "gpu" is not in the `queues` of configs/' in told
    assert "hint: queues: default, old, spark" in told
    (distributed.dags_folder / "gpu.yaml").unlink()
    eventually("the import error to go with its file", distributed.api.import_errors, lambda seen: seen == {})


def test_dropped_connection_is_survived(distributed: RunningStack) -> None:
    """An object store that hangs, drops its connections and comes back costs a try at most."""
    dag_id = known(distributed, "dropped")
    store = psutil.Process(pid(distributed, "objects"))
    store.send_signal(signal.SIGSTOP)
    run = distributed.api.trigger(dag_id)
    await_running(distributed, run, "make")
    eventually("a connection", lambda: [one for one in store.net_connections() if one.status == "ESTABLISHED"])
    kill(distributed, "objects")
    assert distributed.api.wait(run, seconds=240).state == "success"
    found = distributed.services.store.client().list_objects_v2(Bucket="pipeline-files", Prefix="dropped/")
    assert {one["Key"] for one in found["Contents"]} >= {"dropped/PAYMENTS.csv", "dropped/DEMOGRAFICOS.csv"}


def test_refusing_bucket_is_named(distributed: RunningStack) -> None:
    """A bucket that takes nothing fails the step at once, by the names of store, connection and bucket."""
    dag_id = known(distributed, "refused")
    with refusing_writes(distributed.services.store, "pipeline-files"):
        run = distributed.api.wait(distributed.api.trigger(dag_id), seconds=300)
    assert (run.state, tries(distributed, run)["make"][1]) == ("failed", 1)
    told = json.dumps(distributed.api.task_events(dag_id, run.run_id, "make"))
    assert "(connection 'object_store') refused access to bucket 'pipeline-files' (AccessDenied)" in told


@contextmanager
def old_worker(stack: RunningStack, folder: Path) -> Iterator[None]:
    """Run a worker of an older release beside the others: its code has no module `messages`."""
    for package in ("factory", "tasks"):
        shutil.copytree(REPOSITORY / package, folder / "code" / package, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "code" / "tasks" / "messages.py").unlink()
    service = next(one for one in stack.services.services() if one.name == "worker-1")
    command = [word.replace("worker-1", "worker-old") for word in service.command]
    command[command.index("--queues") + 1] = "old"
    environment = {name: value.replace("worker-1", "worker-old") for name, value in service.environment.items()}
    environment |= {"PYTHONPATH": str(folder / "code"), "AIRFLOW_HOME": str(folder), "TMPDIR": str(folder)}
    environment["AIRFLOW__WORKERS__MISSING_DAG_RETRY_DELAY"] = "1"  # Airflow asks again: the code may be on its way
    with (folder / "log").open("wb") as log:
        worker = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log, start_new_session=True)
        try:
            yield
        finally:
            worker.terminate()
            worker.wait(60)


def test_lacking_task_is_named(distributed: RunningStack, tmp_path: Path) -> None:
    """A worker whose code lacks a task that the spec names fails it, naming task, spec and line, and itself."""
    dag_id = known(distributed, "greets")
    with old_worker(distributed, tmp_path):
        run = distributed.api.wait(distributed.api.trigger(dag_id), seconds=300)
    assert run.state == "failed"
    assert tries(distributed, run)["greet"][0] == "worker-old"
    told = distributed.api.task_log(dag_id, run.run_id, "greet")
    assert 'greets.yaml:7:17: error: there is no task "messages.log" [unknown-task]' in told
