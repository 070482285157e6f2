"""A small client for Airflow's REST API: log in, trigger a run, wait for it, read its results."""

from __future__ import annotations

import contextlib
import datetime as dt
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx
from pydantic import JsonValue

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


_STALE_SECONDS = 5
"""For how long a report of Airflow's may be about a spec as it was before."""
FINISHED = frozenset({"success", "failed"})


@dataclass
class ApiError(Exception):
    """Airflow refused a request."""

    method: str
    path: str
    status: int
    detail: str

    def __str__(self) -> str:
        return f"Airflow answered {self.status} to {self.method} {self.path}: {self.detail}"


class AirflowInTrouble(ApiError):
    """Airflow could not handle a request because of a problem of its own, such as a lost database."""


@dataclass
class AirflowAway(Exception):
    """Airflow does not answer."""

    address: str
    reason: str

    def __str__(self) -> str:
        return f"Airflow does not answer at {self.address}: {self.reason}; `make status` shows its state"


@dataclass
class RunTimeout(Exception):
    """A run did not end in time."""

    run: DagRun
    seconds: float
    states: Mapping[str, str]

    def __str__(self) -> str:
        tasks = ", ".join(f"{task}: {state}" for task, state in sorted(self.states.items()))
        return f"{self.run.dag_id} run {self.run.run_id} is {self.run.state} after {self.seconds:.0f} s ({tasks})"


@dataclass(frozen=True, slots=True)
class DagRun:
    """A run of a DAG, with its state at the time of the request."""

    dag_id: str
    run_id: str
    state: str

    @property
    def is_finished(self) -> bool:
        """Whether it has ended, successfully or not."""
        return self.state in FINISHED


@dataclass(frozen=True, slots=True)
class AirflowApi:
    """Airflow at one address, as one user."""

    address: str
    username: str
    password: str
    _client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=30, trust_env=False), repr=False)
    """Uses no proxy: the address is on this machine."""

    def request(self, method: str, path: str, body: JsonValue = None, **query: str | int) -> Any:
        """Send a request below `/api/v2` and return the JSON answer; raises ApiError. Logs in when asked to."""
        answer = self._send(method, f"/api/v2{path}", body, query)
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            self._log_in()
            answer = self._send(method, f"/api/v2{path}", body, query)
        _check(answer, method, path)
        return answer.json() if answer.content else None

    def unpause(self, dag_id: str) -> None:
        """Let the scheduler run `dag_id`."""
        self.request("PATCH", f"/dags/{dag_id}", {"is_paused": False})

    def pause(self, dag_id: str) -> None:
        """Keep the scheduler from starting runs of `dag_id`."""
        self.request("PATCH", f"/dags/{dag_id}", {"is_paused": True})

    def due(self, dag_id: str) -> dt.datetime | None:
        """Return the logical date of the run that is due now, which starts as soon as the DAG is not paused.

        None if a run was triggered for that date: Airflow keeps listing the date as next while the DAG is paused.
        """
        next_date = self.request("GET", f"/dags/{dag_id}")["next_dagrun_logical_date"]
        if not next_date or dt.datetime.fromisoformat(next_date) > dt.datetime.now(dt.UTC):
            return None
        same = {"logical_date_gte": next_date, "logical_date_lte": next_date}
        runs = self.request("GET", f"/dags/{dag_id}/dagRuns", **same)["dag_runs"]
        return None if runs else dt.datetime.fromisoformat(next_date)

    def trigger(
        self, dag_id: str, conf: Mapping[str, JsonValue] | None = None, *, logical_date: str | None = None
    ) -> DagRun:
        """Start a run with these params; like a manual run in the UI, it may have no logical date."""
        body: JsonValue = {"logical_date": logical_date, "conf": dict(conf or {})}
        return _run(self.request("POST", f"/dags/{dag_id}/dagRuns", body))

    def run(self, dag_id: str, run_id: str) -> DagRun:
        """Return a run with its current state."""
        return _run(self.request("GET", f"/dags/{dag_id}/dagRuns/{run_id}"))

    def run_page(self, run: DagRun) -> str:
        """Return the address of a run's page in the UI."""
        return f"{self.address}/dags/{run.dag_id}/runs/{quote(run.run_id)}"

    def clear(self, dag_id: str, run_id: str, *, task_ids: list[str] | None = None) -> None:
        """Run tasks of a run again: these and all after them, or the whole run."""
        body: dict[str, JsonValue] = {"dry_run": False, "dag_run_id": run_id, "only_failed": False}
        if task_ids:
            body |= {"task_ids": list[JsonValue](task_ids), "include_downstream": True}
        self.request("POST", f"/dags/{dag_id}/clearTaskInstances", body)

    def task_states(self, dag_id: str, run_id: str) -> dict[str, str]:
        """Return the state of each task of a run; a mapped task is listed as `task[index]`."""
        instances = self.request("GET", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances", limit=1000)["task_instances"]
        return {_name(instance): instance["state"] or "waiting" for instance in instances}

    def task_log(self, dag_id: str, run_id: str, task_id: str, *, try_number: int = 1) -> str:
        """Return what one try of a task logged, one line per event."""
        events = self.task_events(dag_id, run_id, task_id, try_number=try_number)
        return "\n".join(event if isinstance(event, str) else str(event.get("event", "")) for event in events)

    def task_events(self, dag_id: str, run_id: str, task_id: str, *, try_number: int = 1) -> list[Any]:
        """Return what one try of a task logged, with everything that Airflow returns for each event."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{try_number}"
        events: list[Any] = self.request("GET", path, full_content="true")["content"]
        return events

    def output(self, dag_id: str, run_id: str, task_id: str) -> JsonValue:
        """Return what a task returned."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/return_value"
        value: JsonValue = self.request("GET", path)["value"]
        return value

    def import_errors(self) -> dict[str, str]:
        """Return the report of each file that Airflow could not read, by file name."""
        errors = self.request("GET", "/importErrors", limit=1000)["import_errors"]
        return {error["filename"]: error["stack_trace"] for error in errors}

    def await_dag(self, dag_id: str, *, spec: Path | None = None, seconds: float = 60) -> None:
        """Wait until Airflow knows `dag_id`; raises TimeoutError with the import errors, or with that of its `spec`."""
        deadline = time.monotonic() + seconds
        while not self.knows(dag_id):
            reports = self.import_errors()
            own = [report for file, report in reports.items() if spec and _is_end_of(Path(file), spec)]
            if own and time.monotonic() > deadline - seconds + _STALE_SECONDS:
                raise TimeoutError(f"Airflow cannot read {spec}:\n{own[0]}")
            if time.monotonic() > deadline:
                told = "\n".join(reports.values()) or "it reports no import error"
                raise TimeoutError(f"Airflow does not know the DAG {dag_id} after {seconds:.0f} s; {told}")
            time.sleep(0.5)

    def wait(
        self, run: DagRun, *, seconds: float = 600, told: Callable[[dict[str, str]], None] | None = None
    ) -> DagRun:
        """Wait until a run ends and return it; `told` gets the states of the tasks whenever they change.

        Keeps waiting while Airflow is down or in trouble.
        """
        deadline = time.monotonic() + seconds
        states: dict[str, str] = {}
        seen = run
        while True:
            with contextlib.suppress(AirflowAway, AirflowInTrouble):
                seen = self.run(run.dag_id, run.run_id)
                fresh = self.task_states(run.dag_id, run.run_id)
                if told and fresh != states:
                    told(fresh)
                states = fresh
                if seen.is_finished:
                    return seen
            if time.monotonic() > deadline:
                raise RunTimeout(seen, seconds, states)
            time.sleep(0.5)

    def knows(self, dag_id: str) -> bool:
        """Return whether Airflow has read a DAG of this name."""
        try:
            self.request("GET", f"/dags/{dag_id}")
        except ApiError as error:
            if error.status == httpx.codes.NOT_FOUND:
                return False
            raise
        return True

    def _send(self, method: str, path: str, body: JsonValue, query: Mapping[str, str | int]) -> httpx.Response:
        try:
            return self._client.request(method, f"{self.address}{path}", json=body, params=dict(query))
        except httpx.TransportError as error:
            raise AirflowAway(self.address, f"{type(error).__name__}: {error}") from error

    def _log_in(self) -> None:
        answer = self._send("POST", "/auth/token", {"username": self.username, "password": self.password}, {})
        _check(answer, "POST", "/auth/token")
        self._client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"


def _check(answer: httpx.Response, method: str, path: str) -> None:
    if answer.is_error:
        kind = AirflowInTrouble if answer.is_server_error else ApiError
        raise kind(method, path, answer.status_code, _detail(answer))


def _detail(answer: httpx.Response) -> str:
    try:
        detail = answer.json()["detail"]
    except (ValueError, KeyError, TypeError):
        return answer.text[:500]
    return detail if isinstance(detail, str) else str(detail)


def _run(described: Mapping[str, str]) -> DagRun:
    return DagRun(described["dag_id"], described["dag_run_id"], described["state"])


def _name(instance: Mapping[str, Any]) -> str:
    index = instance["map_index"]
    return str(instance["task_id"]) if index < 0 else f"{instance['task_id']}[{index}]"


def _is_end_of(file: Path, spec: Path) -> bool:
    """Return whether Airflow's name of a file, from its folder on, is that of `spec`."""
    return spec.absolute().parts[-len(file.parts) :] == file.parts or file == spec.absolute()
