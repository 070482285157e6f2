"""churn_training_dag on the scheduler, Spark and MLflow: the demo's runs, one of them once more, and bad exports."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import pytest

from stack.airflow_api import DagRun
from tests.support.pipeline import Pipeline
from tests.support.processes import below_worker, words
from tests.support.waiting import eventually
from tests.support.whole_stack import RunningStack

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

pytestmark = pytest.mark.stack

DAG = "churn_training_dag"
SPARK_STEPS = ("clean_raw_sources", "feature_engineering", "train_spark_model")
PROMOTED = {
    "generate_raw_sources": "success",
    "clean_raw_sources": "success",
    "feature_engineering": "success",
    "keep_reference_history": "success",
    "train_spark_model": "success",
    "evaluate_candidate": "success",
    "decide_promotion": "success",
    "promote_model": "success",
    "skip_promotion": "skipped",
    "notify_success": "success",
}


@dataclass(frozen=True, slots=True)
class Trained:
    """A run that promoted, as it ended for the first time."""

    run: DagRun
    states: dict[str, str]
    outputs: dict[str, Any]


@pytest.fixture(scope="module")
def data(stack: RunningStack) -> Path:
    """The folder in which the pipeline's files lie."""
    return stack.dags_folder.parent / "data" / "churn"


@pytest.fixture(scope="module")
def registry(stack: RunningStack) -> MlflowClient:
    """MLflow, as a person who looks at it."""
    from mlflow import MlflowClient

    return MlflowClient(stack.services.tracking.address, stack.services.tracking.address)


@pytest.fixture(scope="module")
def trained(stack: RunningStack, demo: str) -> Trained:
    """The demo's first run, which promoted its model."""
    api = stack.api
    found = api.request("GET", f"/dags/{DAG}/dagRuns", order_by="logical_date")["dag_runs"][0]
    run = DagRun(DAG, found["dag_run_id"], found["state"])
    states = api.task_states(DAG, run.run_id)
    done = [task for task, state in states.items() if state == "success" and task != "decide_promotion"]
    return Trained(run, states, {task: api.output(DAG, run.run_id, task) for task in done})


def versions(registry: MlflowClient) -> list[ModelVersion]:
    return list(registry.search_model_versions("name='churn-model'"))


def test_first_model_is_promoted(stack: RunningStack, trained: Trained, registry: MlflowClient) -> None:
    """Every step ends well, and the model is Production by its stage and by its alias."""
    assert trained.states == PROMOTED
    version, skipped = sorted(versions(registry), key=lambda one: int(one.version))
    assert skipped.current_stage == "None"
    assert version.current_stage == "Production"
    assert str(registry.get_model_version_by_alias("churn-model", "production").version) == str(version.version)
    assert 0.7 < trained.outputs["evaluate_candidate"]["roc_auc"] < 0.9


def test_dirt_is_told_of(trained: Trained, data: Path) -> None:
    """Each source lost some rows, none all; the report beside the files has the reasons."""
    cleaned = trained.outputs["clean_raw_sources"]
    for source, read in cleaned["rows_read"].items():
        assert 0 < cleaned["rows_dropped"][source] < 0.1 * read
    assert "not a date YYYY-MM-DD" in (data / "reports" / "clean.json").read_text()


def test_candidates_are_nested(trained: Trained, registry: MlflowClient) -> None:
    """MLflow has the nine candidates below the run, and knows which Airflow run made it; XCom leads back."""
    training = trained.outputs["train_spark_model"]
    parent = registry.get_run(training["run_id"])
    children = registry.search_runs([parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    assert (len(children), training["candidates"]) == (9, 9)
    assert {"roc_auc", "pr_auc", "log_loss", "brier", "accuracy"} <= set(children[0].data.metrics)
    assert parent.data.tags["airflow.run_id"] == trained.run.run_id
    assert [one.dataset.name for one in parent.inputs.dataset_inputs] == ["churn/churn_features.parquet"]
    assert training["run_page"].endswith(parent.info.run_id)


def test_plots_are_kept(trained: Trained, registry: MlflowClient) -> None:
    """The run has the curves, the confusion matrix and what SHAP says."""
    run_id = trained.outputs["train_spark_model"]["run_id"]
    plots = {one.path for one in registry.list_artifacts(run_id, "plots")}
    names = ("roc", "pr", "calibration", "confusion", "shap_summary", "shap_bar")
    assert {f"plots/{name}.png" for name in names} <= plots
    assert [one.path for one in registry.list_artifacts(run_id, "shap")] == ["shap/mean_absolute.json"]


def test_history_has_snapshot(trained: Trained, data: Path) -> None:
    """The features of the week are kept for the monitor of drift."""
    assert [one.name for one in (data / "reference_history.parquet").iterdir()] == [
        f"snapshot_date={trained.outputs['keep_reference_history']['dates'][0]}.parquet"
    ]


def test_killed_rerun_changes_nothing(
    stack: RunningStack, trained: Trained, registry: MlflowClient, data: Path
) -> None:
    """The same run, run again and killed in the middle of each step on Spark, leaves its files and its model.

    An attempt whose executor is killed goes on: Spark replaces it.
    """
    before = [(one.version, one.current_stage, one.run_id) for one in versions(registry)]
    files = contents(data)
    pipeline = Pipeline(DAG, stack.api, stack.services.crypto)
    stack.api.clear(DAG, trained.run.run_id)
    for step in SPARK_STEPS:
        look = partial(at_work, stack, pipeline, trained.run, step)
        second = eventually(f"{step} on Spark", look)
        psutil.Process(second.instance["pid"]).kill()
        if step == "feature_engineering":
            third = eventually(f"{step} on Spark again", partial(look, other_than=second.application))
            for executor in third.executors:
                executor.kill()
    ended = stack.api.wait(stack.api.run(DAG, trained.run.run_id), seconds=900)

    assert ended.state == "success"
    assert [pipeline.instance(trained.run, step)["try_number"] for step in SPARK_STEPS] == [3, 3, 3]
    assert [(one.version, one.current_stage, one.run_id) for one in versions(registry)] == before
    again = stack.api.output(DAG, trained.run.run_id, "evaluate_candidate")
    assert again == trained.outputs["evaluate_candidate"]
    after = contents(data)
    assert {name for name in files | after if files.get(name) != after.get(name)} == set()


@dataclass(frozen=True, slots=True)
class AtWork:
    """An attempt of a step that has the cluster work for it."""

    instance: dict[str, Any]
    application: str
    executors: list[psutil.Process]


def at_work(stack: RunningStack, pipeline: Pipeline, run: DagRun, step: str, other_than: str = "") -> AtWork | None:
    """Return the attempt of a step for which executors are at work now, in an application `other_than` this one."""
    page = httpx.get(f"{stack.services.spark.master_page}/json/", trust_env=False).json()
    own = {one["id"] for one in page["activeapps"] if one["name"] == f"{DAG}.{step}"} - {other_than}
    application = own.pop() if own else ""
    told = {one: words(one) for one in below_worker(stack)}
    executors = [one for one, line in told.items() if application in line and line[0].endswith("/java")]
    instance = pipeline.instance(run, step)
    return AtWork(instance, application, executors) if executors and instance["state"] == "running" else None


def contents(folder: Path) -> dict[str, bytes]:
    """Return every table that the pipeline's steps hand on."""
    files = [path for path in folder.rglob("*.parquet") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_renamed_column_stops_run(stack: RunningStack, trained: Trained, registry: MlflowClient, data: Path) -> None:
    """Somebody's own export with a column that has another name is told of by file and column; Production stands."""
    before = [(one.version, one.current_stage) for one in versions(registry)]
    features = (data / "churn_features.parquet").read_bytes()
    payments = data / "raw" / "PAYMENTS.csv"
    payments.write_text(payments.read_text().replace("DESCUENTO", "DESCUENTOS", 1))
    try:
        run = stack.api.trigger(DAG)
        ended = stack.api.wait(run, seconds=600)
        log = json.dumps(stack.api.task_events(DAG, run.run_id, "clean_raw_sources"))
    finally:
        shutil.rmtree(data / "raw")

    assert ended.state == "failed"
    assert "PAYMENTS.csv" in log
    assert "DESCUENTO" in log
    assert stack.api.task_states(DAG, run.run_id)["train_spark_model"] == "upstream_failed"
    assert (data / "churn_features.parquet").read_bytes() == features
    assert [(one.version, one.current_stage) for one in versions(registry)] == before
