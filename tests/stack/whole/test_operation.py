"""The whole stack, as an operator and a stranger find it."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from pydantic import JsonValue

from stack.airflow_api import AirflowApi, ApiError, DagRun, RunTimeout
from stack.metadata import MANAGED
from tests.support.applications import SUM, application
from tests.support.listener import Listener
from tests.support.listener import listening as hearing
from tests.support.processes import LOOPBACK, LOOPBACK_IN_IPV6, everyone, kill, listening, words
from tests.support.waiting import eventually
from tests.support.waiting_dag import DAG
from tests.support.whole_stack import RunningStack, command_line

pytestmark = pytest.mark.stack


TOLD = """\
dag_id: told
notify: {on_failure: people}
default_args: {retries: 0}
steps:
  bad: {uses: postgres.vacuum, with: {connection: nowhere, table: s.t}, notify: {on_failure: people}}
"""

LATE = """\
dag_id: late
deadline: 1s
notify: {on_deadline: late_people}
steps:
  quick: {uses: messages.log, with: {message: hello}}
  patient: {uses: wait.until, with: {moment: "2100-01-01T00:00+00:00", timeout: 3600}, deadline: 2s}
"""

ASKED = """\
dag_id: asked
steps:
  sure: {uses: people.approve, with: {subject: "Load {{ run.dag_id }}?", body: "**3** rows"}}
  load: {uses: messages.log, needs: sure, with: {message: "approved by {{ steps.sure.by }}"}}
"""


def started(stack: RunningStack, spec: str) -> DagRun:
    """Give Airflow a pipeline, and start a run of it."""
    dag_id = spec.partition("\n")[0].removeprefix("dag_id: ")
    (stack.dags_folder / f"{dag_id}.yaml").write_text(spec)
    stack.api.await_dag(dag_id, seconds=180)
    stack.api.unpause(dag_id)
    return stack.api.trigger(dag_id, {})


@contextmanager
def heard_by(stack: RunningStack, connection: str) -> Iterator[Listener]:
    """A service that hears what Airflow sends by a connection."""
    with hearing() as listener:
        config = json.dumps({"config": {"path": listener.address}})
        people: JsonValue = {"connection_id": connection, "conn_type": "apprise", "extra": config}
        stack.api.request("POST", "/connections", people)
        yield listener


def begun(stack: RunningStack, run: DagRun) -> None:
    """Wait until the first task of a run is at work."""
    states = partial(stack.api.task_states, run.dag_id, run.run_id)
    eventually("the first task to be at work", states, lambda seen: seen.get("wait") == "running")


@pytest.fixture(scope="module")
def dag_id(stack: RunningStack) -> str:
    """A DAG that waits until a file exists."""
    (stack.dags_folder / "waits.py").write_text(textwrap.dedent(DAG).format(dag_id="waits"))
    stack.api.await_dag("waits", seconds=180)
    stack.api.unpause("waits")
    return "waits"


def test_every_service_ready(stack: RunningStack) -> None:
    """`status` finds all services ready."""
    told = command_line(stack.environment, "status")
    names = {service.name for service in stack.services.services()}
    rows = [line.split()[:2] for line in told.splitlines()[1 : len(names) + 1]]
    assert dict(rows) == dict.fromkeys(names, "ready")


def test_listens_on_loopback_only(stack: RunningStack) -> None:
    """No process of the stack can be reached from another machine."""
    found: set[tuple[str, int]] = set()

    def look() -> bool:
        try:
            found.update(listening(everyone(stack)))
        except (PermissionError, FileNotFoundError):  # Airflow hides the process of a task from its own user
            return False
        return True

    eventually("a moment without a task", look)
    assert set(stack.services.ports.values()) <= {port for _, port in found}
    assert {address for address, _ in found} == {LOOPBACK, LOOPBACK_IN_IPV6}


def test_no_secret_in_sight(stack: RunningStack) -> None:
    """No password stands on a command line or in a log."""
    secrets = stack.services.credentials.model_dump().values()
    lines = [" ".join(words(process)) for process in everyone(stack)]
    logs = [path.read_text(errors="replace") for path in stack.home.logs.iterdir()]
    assert [text for text in lines + logs if any(one in text for one in secrets)] == []


def test_run_is_told(stack: RunningStack, dag_id: str) -> None:
    """`dag-run` triggers a run with params, shows its tasks and waits for its end; its output and log can be read."""
    told = command_line(stack.environment, "dag-run", dag_id, "--conf", '{"greeting": "good day"}')
    assert told.splitlines()[-1].startswith("success  http://127.0.0.1:")
    assert {"success          wait", "success          tell"} <= {line.strip() for line in told.splitlines()}
    (run_id,) = re.findall(rf"^{dag_id} run (\S+)$", told, re.MULTILINE)
    assert stack.api.output(dag_id, run_id, "wait") == "good day"
    assert "it said good day" in stack.api.task_log(dag_id, run_id, "tell")


def test_unknown_dag_is_named(stack: RunningStack) -> None:
    """A run of a DAG that does not exist is refused at once, with the name that was meant."""
    told = command_line(stack.environment, "dag-run", "Crypto_event_dag", code=1)
    assert "there is no pipeline 'Crypto_event_dag'; did you mean 'crypto_events_dag'?" in told
    with pytest.raises(ApiError, match="Airflow answered 404 to POST /dags/nothing/dagRuns"):
        stack.api.trigger("nothing")


def test_unknown_param_is_named(stack: RunningStack, dag_id: str) -> None:
    """A run is not started with a name that is no param."""
    told = command_line(stack.environment, "dag-run", dag_id, "--conf", '{"Greetings": 1}', code=1)
    assert f"'Greetings' is not a param of {dag_id}; did you mean 'greeting'?" in " ".join(told.split())


def test_run_of_a_day_is_told(stack: RunningStack, dag_id: str) -> None:
    """A run may be given its day; that day's second run is refused, and says what to do."""
    told = command_line(stack.environment, "dag-run", dag_id, "--date", "2026-02-03")
    (run_id,) = re.findall(rf"^{dag_id} run (\S+)$", told, re.MULTILINE)
    assert stack.api.request("GET", f"/dags/{dag_id}/dagRuns/{run_id}")["logical_date"] == "2026-02-03T00:00:00Z"
    again = command_line(stack.environment, "dag-run", dag_id, "--date", "2026-02-03", code=1)
    assert f"{dag_id} has a run for 2026-02-03 already; clear that one" in " ".join(again.split())


def test_database_opens(stack: RunningStack) -> None:
    """`psql` runs statements in the database of the pipelines, as its owner, or in another one."""
    assert "crypto" in command_line(stack.environment, "psql", "--sql", "SELECT current_user")
    assert "mlflow" in command_line(stack.environment, "psql", "--database", "mlflow", "--sql", "SELECT current_user")


def test_endless_run_is_told(stack: RunningStack, dag_id: str, gate: Path) -> None:
    """Who waits too long for a run hears how far it came."""
    run = stack.api.trigger(dag_id, {"gate": str(gate)})
    begun(stack, run)
    with pytest.raises(RunTimeout, match=r"is running after 0 s \(tell: waiting, wait: running\)"):
        stack.api.wait(run, seconds=0)


def test_viewer_may_not_trigger(stack: RunningStack, dag_id: str) -> None:
    """The viewer sees runs and starts none."""
    viewer = stack.services.api("viewer")
    assert viewer.request("GET", f"/dags/{dag_id}")["dag_id"] == dag_id
    with pytest.raises(ApiError, match="Airflow answered 403"):
        viewer.trigger(dag_id)


def test_wrong_password_refused(stack: RunningStack, dag_id: str) -> None:
    """Nobody sees anything without a password."""
    with pytest.raises(ApiError, match="Airflow answered 401 to POST /auth/token"):
        AirflowApi(stack.api.address, "admin", "wrong").run(dag_id, "any")


def test_configuration_is_hidden(stack: RunningStack) -> None:
    """Even the admin does not see the configuration, which holds keys."""
    with pytest.raises(ApiError, match="Airflow answered 403 to GET /config"):
        stack.api.request("GET", "/config")


def test_edited_connection_is_kept(stack: RunningStack) -> None:
    """A connection whose description a user changed is theirs; the others follow the stack."""
    edited: JsonValue = {
        "connection_id": "object_store",
        "conn_type": "aws",
        "description": "mine",
        "login": "somebody",
    }
    stack.api.request("PATCH", "/connections/object_store", edited)
    stack.api.request("DELETE", "/connections/crypto_postgres")
    assert stack.services.airflow.prepare_metadata()
    found = {one["connection_id"]: one for one in stack.api.request("GET", "/connections")["connections"]}
    assert found["object_store"]["login"] == "somebody"
    assert found["crypto_postgres"]["description"] == MANAGED
    assert not stack.services.airflow.prepare_metadata()
    own = json.loads(stack.services.connections["object_store"])
    restored = {**own, "extra": json.dumps(own["extra"]), "description": MANAGED}
    stack.api.request("PATCH", "/connections/object_store", {"connection_id": "object_store", **restored})


def test_bad_params_refused(stack: RunningStack, dag_id: str) -> None:
    """Params that are no JSON object are shown, with an example of one."""
    told = command_line(stack.environment, "dag-run", dag_id, "--conf", "[1]", code=2)
    assert "--conf holds '[1]'; a JSON object is expected" in " ".join(told.replace("│", "").split())


def test_people_are_told(stack: RunningStack) -> None:
    """Airflow itself calls who is to be told: of the step that failed, and of its run, with the reason."""
    with heard_by(stack, "people") as listener:
        run = stack.api.wait(started(stack, TOLD), seconds=300)
        assert run.state == "failed"
        eventually("both messages", lambda: len(listener.heard), lambda heard: heard == 2, seconds=120)
    by_title = {one["title"]: one["message"] for one in listener.heard}
    reason = "connection 'nowhere' does not exist in Airflow"
    assert f"Reason: {reason}" in by_title["told: step bad failed"]
    assert f"Failed: bad: {reason}" in by_title["told: the run failed"]
    assert f"/dags/told/runs/{run.run_id[:8]}" in by_title["told: the run failed"]


def test_people_approve(stack: RunningStack) -> None:
    """A run waits for the answer of somebody who may edit it, shows the question, and goes on with who gave it."""
    run = started(stack, ASKED)
    states = partial(stack.api.task_states, "asked", run.run_id)
    seen = eventually(
        "the question", states, lambda seen: seen.get("sure") not in (None, "waiting", "queued", "scheduled", "running")
    )
    assert seen["sure"] == "awaiting_input", stack.api.task_log("asked", run.run_id, "sure")
    details = f"/dags/asked/dagRuns/{run.run_id}/taskInstances/sure/-1/hitlDetails"
    asked = stack.api.request("GET", details)
    assert (asked["subject"], asked["body"], asked["options"]) == ("Load asked?", "**3** rows", ["Approve", "Reject"])
    answer: JsonValue = {"chosen_options": ["Approve"], "params_input": {}}
    with pytest.raises(ApiError, match="Airflow answered 403"):
        stack.services.api("viewer").request("PATCH", details, answer)

    def approved() -> bool:
        """Answer whenever there is a question: a try that was killed after its answer asks again in the next."""
        if states()["sure"] == "awaiting_input" and not stack.api.request("GET", details)["response_received"]:
            stack.api.request("PATCH", details, answer)
        return stack.api.run("asked", run.run_id).is_finished

    eventually("the run to end", approved)
    assert stack.api.run("asked", run.run_id).state == "success"
    assert "approved by admin" in stack.api.task_log("asked", run.run_id, "load")


def test_late_run_is_told(stack: RunningStack) -> None:
    """Airflow itself sees that a deadline has passed: of the run, and of a step that still waits."""
    with heard_by(stack, "late_people") as listener:
        run = started(stack, LATE)
        eventually("both messages", lambda: len(listener.heard), lambda heard: heard == 2, seconds=120)
        stack.api.request("PATCH", f"/dags/late/dagRuns/{run.run_id}", {"state": "failed"})
    by_title = {one["title"]: one["message"] for one in listener.heard}
    assert set(by_title) == {
        "late: the run has not ended 0:00:01 after the run was queued",
        "late: step patient has not ended 0:00:02 after the run was queued",
    }
    assert "Not ended: patient" in by_title["late: the run has not ended 0:00:01 after the run was queued"]


def test_killed_database_is_survived(stack: RunningStack, dag_id: str, gate: Path) -> None:
    """A run goes on to its end although Postgres was killed with -9 meanwhile."""
    run = stack.api.trigger(dag_id, {"gate": str(gate)})
    begun(stack, run)
    kill(stack, "postgres")
    gate.touch()
    assert stack.api.wait(run, seconds=300).state == "success"


def test_down_ends_running_task(used_stack: RunningStack, dag_id: str, gate: Path) -> None:
    """`down` leaves no process although a task, which has a process group of its own, and Spark were at work.

    Airflow alone, up again, ends the run.
    """
    run = used_stack.api.trigger(dag_id, {"gate": str(gate)})
    begun(used_stack, run)
    with application(used_stack, "interrupted") as driver:
        assert driver.stdout.readline() == SUM
        before = everyone(used_stack)
        assert "org.apache.spark.executor" in " ".join(word for one in before for word in words(one))
        command_line(used_stack.environment, "down")
    assert [process for process in before if process.is_running()] == []
    gate.touch()
    command_line(used_stack.environment, "up", "airflow")
    assert used_stack.api.wait(run, seconds=300).state == "success"
