"""`notify`: who is told what. Airflow's own calls of these callbacks are tried on the whole stack."""

from __future__ import annotations

import datetime as dt
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.listener import Listener, listening

PIPELINE = """\
dag_id: told
params: {who: {type: string, default: you}}
notify:
  on_failure: {connection: people, message: "call {{ params.who }}, the run of {{ run.date }} failed"}
  on_success: people
  on_retry: people
steps:
  first: {uses: messages.log, with: {message: hello}, notify: {on_success: people, on_failure: on_call}}
  quiet: {uses: messages.log, with: {message: hello}, notify: {on_retry: null}}
"""
RUN = "http://localhost:8080/dags/told/runs/manual__1"


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    """The service that the connections `people` and `on_call` list."""
    with listening() as found:
        for name in ("PEOPLE", "ON_CALL"):
            extra = {"config": {"path": found.address}}
            monkeypatch.setenv(f"AIRFLOW_CONN_{name}", json.dumps({"conn_type": "apprise", "extra": extra}))
        yield found


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with the pipeline."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "told.yaml").write_text(PIPELINE)
    return tmp_path


def built(project: Path) -> Any:
    """Return the DAG of the project's pipeline."""
    from factory.bridge.dag import build
    from factory.compiler import compile_file

    compiled = compile_file(project / "pipelines" / "told.yaml")
    assert compiled.plan is not None, compiled.errors
    return build(compiled.plan)


def told(owner: Any, event: str) -> list[str]:
    """Return the connections that a DAG or a task tells of an event."""
    callbacks = getattr(owner, f"{event}_callback") or []
    return [one.announcement.connection for one in callbacks]


class Instance(SimpleNamespace):
    """What a callback asks of a task instance."""

    dag_id, run_id, task_id, map_index, id, max_tries, try_number = "told", "manual__1", "first", -1, "", 2, 1
    log_url = f"{RUN}/tasks/first?try_number=1"

    def get_task_states(self, *, dag_id: str, run_ids: list[str]) -> dict[str, dict[str, str]]:
        assert (dag_id, run_ids) == ("told", ["manual__1"])
        return {"manual__1": self.states}

    def xcom_pull(self, *, task_ids: str, key: str = "return_value", map_indexes: int = -1) -> Any:
        return self.kept.get((task_ids, key) if map_indexes == -1 else (task_ids, key, map_indexes))


def context(dag: Any, *, kept: dict[tuple[Any, ...], Any], states: dict[str, str], **more: Any) -> dict[str, Any]:
    moment = dt.datetime(2026, 2, 3, tzinfo=dt.UTC)
    dag_run = SimpleNamespace(logical_date=moment, run_after=moment, data_interval_start=None, data_interval_end=None)
    ti = Instance(kept=kept, states=states)
    return {"dag": dag, "dag_run": dag_run, "ti": ti, "params": {"who": "me"}, "run_id": "manual__1", **more}


def test_airflow_is_given_callbacks(project: Path) -> None:
    """A pipeline tells of its end; its retries are told by each step that does not say otherwise."""
    dag = built(project)

    assert (told(dag, "on_failure"), told(dag, "on_success")) == (["people"], ["people"])
    first, quiet = dag.get_task("first"), dag.get_task("quiet")
    events = ("on_failure", "on_success", "on_retry")
    assert [told(first, event) for event in events] == [["on_call"], ["people"], ["people"]]
    assert [told(quiet, event) for event in events] == [[], [], []]


def test_spec_wins_over_defaults(project: Path) -> None:
    """What configs/ tell is told by a pipeline that says nothing of the event, and not by one that says null."""
    (project / "configs" / "defaults.yaml").write_text("notify: {on_failure: admins, on_success: admins}\n")
    spec = project / "pipelines" / "told.yaml"
    spec.write_text(PIPELINE.replace("on_success: people\n  on_retry", "on_retry"))
    assert told(built(project), "on_success") == ["admins"]

    spec.write_text(PIPELINE.replace("on_success: people\n  on_retry", "on_success: null\n  on_retry"))
    dag = built(project)
    assert (told(dag, "on_success"), told(dag, "on_failure")) == ([], ["people"])


def test_failed_step_is_told(project: Path, listener: Listener) -> None:
    """The date, the try, the first line of the reason, the counts that it left, and its log."""
    dag = built(project)
    (callback,) = dag.get_task("first").on_failure_callback

    error = ValueError("3 rules are broken\n  and this is the rest")
    output = {"rows": 10_000, "passed": False, "data_docs": "s3://…", "rejected": 30}
    callback(context(dag, kept={("first", "return_value"): output}, states={}, exception=error))

    (heard,) = listener.heard
    assert (heard["title"], heard["type"]) == ("told: step first failed", "failure")
    assert heard["message"].splitlines() == [
        "Date: 2026-02-03",
        "Try: 1 of 3",
        "Reason: 3 rules are broken",
        "rows 10,000, rejected 30",
        f"Log: {RUN}/tasks/first?try_number=1",
    ]


def test_failed_run_is_told(project: Path, listener: Listener) -> None:
    """The spec's own text, then each step that failed with its reason, and the address of the run."""
    dag = built(project)
    (callback,) = dag.on_failure_callback

    kept = {("first", "reason"): "3 rules are broken", ("each", "reason", 2): "the third is empty"}
    states = {"first": "failed", "quiet": "failed", "each_2": "failed", "third": "upstream_failed"}
    callback(context(dag, kept=kept, states=states))

    (heard,) = listener.heard
    assert heard["title"] == "told: the run failed"
    assert heard["message"].splitlines() == [
        "call me, the run of 2026-02-03 failed",
        "",
        "Date: 2026-02-03",
        "Failed: each_2: the third is empty",
        "Failed: first: 3 rules are broken",
        "Failed: quiet: its process ended without a reason; see its log",
        f"Run: {RUN}",
    ]


def test_run_without_steps_is_told(project: Path, listener: Listener) -> None:
    """Airflow may have no step to tell of: the message has the text as it is written, the run and Airflow's reason."""
    dag = built(project)
    (callback,) = dag.on_failure_callback

    callback({"dag": dag, "run_id": "manual__1", "reason": "timed_out"})

    written = "call {{ params.who }}, the run of {{ run.date }} failed"
    assert listener.heard[0]["message"].splitlines() == [written, "", "Run: manual__1", "Reason: timed_out"]


def test_text_without_values_is_told(project: Path, listener: Listener) -> None:
    """A text that cannot be filled in does not keep the facts from people."""
    dag = built(project)
    (callback,) = dag.on_failure_callback

    callback({**context(dag, kept={}, states={"first": "failed"}), "params": {}})

    first, _, *facts = listener.heard[0]["message"].splitlines()
    assert first.endswith('failed (the run was started without the param "who")')
    assert facts[0] == "Date: 2026-02-03"


def test_unreachable_people_change_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A service that does not answer, and a connection that does not exist, are errors in the log, with the remedy."""
    dag = built(project)
    monkeypatch.setenv(
        "AIRFLOW_CONN_PEOPLE", json.dumps({"conn_type": "apprise", "extra": {"config": {"path": "json://127.0.0.1:9"}}})
    )
    with caplog.at_level(logging.ERROR):
        for callback in (*dag.get_task("first").on_success_callback, *dag.get_task("first").on_failure_callback):
            callback(context(dag, kept={}, states={}))

    assert "nobody was told that step first succeeded" in caplog.messages[0]
    assert "connection 'on_call' does not exist in Airflow; create it" in caplog.messages[-1]
