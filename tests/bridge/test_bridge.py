"""A spec in Airflow's DAGs folder, from the dag-processor to the worker."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from importlib.util import find_spec
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import structlog
from airflow.dag_processing.dagbag import BundleDagBag

from factory.compiler import compile_file
from tests.support.airflow import BUNDLE

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.airflow import Airflow

SPECS = {
    "churn_drift_monitor_w": "churn_drift_monitor.yaml",
    "churn_training_dag": "churn_training.yaml",
    "crypto_events_dag": "crypto_events.yaml",
    "hello": "hello.yaml",
}
REPORT = (
    'pipelines/broken.yaml:3:15: error: there is no task "messages.lag" [unknown-task]\n'
    "3 |   say: {uses: messages.lag, with: {message: hello}}\n"
    "  |               ^^^^^^^^^^^^\n"
    '  hint: did you mean "messages.log"?'
)
TAKEN = (
    'pipelines/twin.yaml:3:9: error: the dag_id "hello" is taken by pipelines/hello.yaml '
    "[duplicate-dag-id]\n"
    "3 | dag_id: hello\n"
    "  |         ^^^^^\n"
    "  hint: give each pipeline its own dag_id"
)
UNUSED = (
    'line 5: nothing uses the param "unused" (refer to it as "{{ params.unused }}", or remove it)\n'
    'line 6: nothing uses the param "idle" (refer to it as "{{ params.idle }}", or remove it)'
)

only_3_4 = pytest.mark.skipif(not find_spec("airflow.sdk.importers"), reason="Airflow 3.3 does not keep it")


def bag(airflow: Airflow, path: Path | None = None) -> BundleDagBag:
    return BundleDagBag(dag_folder=str(path or airflow.specs), bundle_path=airflow.specs, bundle_name=BUNDLE)


def test_spec_is_dag_file(airflow: Airflow) -> None:
    """The dag-processor made one DAG of each spec, under the spec's own name."""
    found = airflow.rows("SELECT dag_id, relative_fileloc FROM dag")

    assert dict(found) == SPECS


def test_broken_spec_stays_alone(airflow: Airflow) -> None:
    """The import error is the whole report, under the broken spec's name."""
    errors = dict(airflow.rows("SELECT filename, stacktrace FROM import_error"))
    assert errors == {"broken.yaml": REPORT, "twin.yaml": TAKEN}


def test_second_spec_with_a_dag_id_is_an_error(airflow: Airflow) -> None:
    """The spec that comes later is refused, and the first one keeps its DAG: Airflow would let them take turns."""
    assert airflow.rows("SELECT stacktrace FROM import_error WHERE filename = 'twin.yaml'") == [(TAKEN,)]
    assert airflow.rows("SELECT relative_fileloc FROM dag WHERE dag_id = 'hello'") == [("hello.yaml",)]


def test_errors_are_listed(airflow: Airflow) -> None:
    """Airflow's command shows the file, the line and the column; its exit code tells that there is an error."""
    listed = airflow.run("dags", "list-import-errors", "--output", "json", code=1)

    errors = json.loads(listed[listed.index("[{") :])
    assert sorted(errors, key=lambda error: error["filepath"]) == [
        {"bundle_name": BUNDLE, "filepath": "broken.yaml", "error": REPORT},
        {"bundle_name": BUNDLE, "filepath": "twin.yaml", "error": TAKEN},
    ]


def test_code_tab_shows_spec(airflow: Airflow) -> None:
    """What Airflow keeps as a DAG's code is its YAML."""
    kept = dict(airflow.rows("SELECT dag_id, source_code FROM dag_code"))

    assert kept == {dag_id: (airflow.specs / name).read_text() for dag_id, name in SPECS.items()}


@pytest.mark.filterwarnings("ignore:line 5:UserWarning")
def test_dag_is_plan(airflow: Airflow) -> None:
    """The tasks and what each waits for are those of the plan, which knows no Airflow."""
    dags = bag(airflow).dags

    assert set(dags) == set(SPECS)
    for dag_id, dag in dags.items():
        plan = compile_file(airflow.specs / SPECS[dag_id]).plan
        assert plan is not None
        assert {one.task_id: one.upstream_task_ids for one in dag.tasks} == {
            node.task_id: set(node.upstream) for node in plan.nodes
        }


@pytest.mark.filterwarnings("ignore:line 5:UserWarning")
def test_worker_reads_one_spec(airflow: Airflow) -> None:
    """A worker finds its task by reading the task's spec alone."""
    from airflow.sdk.api.datamodels._generated import BundleInfo, TaskInstance
    from airflow.sdk.execution_time.comms import StartupDetails
    from airflow.sdk.execution_time.task_runner import parse

    instance = TaskInstance(
        id=uuid.uuid4(), task_id="greet", dag_id="hello", run_id="x", try_number=1, dag_version_id=uuid.uuid4()
    )
    details = StartupDetails.model_construct(
        ti=instance,
        dag_rel_path="hello.yaml",
        bundle_info=BundleInfo(name=BUNDLE),
        start_date=dt.datetime.now(dt.UTC),
        ti_context=SimpleNamespace(max_tries=1),  # of it, nothing else is read here
        sentry_integration="",
    )

    task = parse(details, structlog.get_logger()).task

    assert (task.task_id, task.dag.fileloc) == ("greet", str(airflow.specs / "hello.yaml"))
    assert list(bag(airflow, airflow.specs / "hello.yaml").dags) == ["hello"]


def test_run_succeeds(airflow: Airflow) -> None:
    """A run takes the branch that its params choose, for each item of the mapped step; an arm may lead nowhere."""
    airflow.run("dags", "test", "hello", "2026-02-03")

    states = airflow.rows("SELECT task_id, state FROM task_instance WHERE dag_id = 'hello'")
    assert sorted(states) == [
        ("again", "success"),
        ("choose", "success"),
        ("greet", "success"),
        ("repeat", "skipped"),
        ("shout", "success"),
        ("shout", "success"),
        ("whisper", "skipped"),
    ]
    assert airflow.rows("SELECT state FROM dag_run WHERE dag_id = 'hello'") == [("success",)]
    labels = airflow.rows("SELECT rendered_map_index FROM task_instance WHERE task_id = 'shout'")
    assert sorted(labels) == [("AGAIN",), ("HELLO",)]


@pytest.mark.filterwarnings("ignore:line 5:UserWarning")
def test_warnings_keep_dag(airflow: Airflow) -> None:
    """A warning is told with its kind, all of a kind at once, and the DAG is there."""
    found = bag(airflow)

    assert "hello" in found.dags
    assert found.captured_warnings[str(airflow.specs / "hello.yaml")] == (
        f"hello.yaml:5: taskflow:unused-param: {UNUSED}",
    )


@only_3_4
def test_warnings_reach_ui(airflow: Airflow) -> None:
    """Airflow keeps the warnings for the DAG's page."""
    kept = airflow.rows("SELECT dag_id, warning_type, message FROM dag_warning")

    assert kept == [("hello", "taskflow:unused-param", UNUSED)]


@only_3_4
def test_code_is_known_as_yaml(airflow: Airflow) -> None:
    """Airflow keeps the language of a DAG's code."""
    assert airflow.rows("SELECT DISTINCT language FROM dag_code") == [("yaml",)]
