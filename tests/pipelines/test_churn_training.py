"""churn_training_dag on the scheduler, Spark and MLflow: the demo's runs, one of them killed, and bad exports."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from stack.airflow_api import DagRun
from tests.support.demo import DAG, SPARK_STEPS, Demo, data, tables, trainings
from tests.support.pipeline import Pipeline
from tests.support.tracking_clients import client_of
from tests.support.whole_stack import RunningStack

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

pytestmark = pytest.mark.stack

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
    """A run as it ended."""

    run: DagRun
    states: dict[str, str]
    outputs: dict[str, Any]

    @classmethod
    def of(cls, stack: RunningStack, run: DagRun) -> Trained:
        states = stack.api.task_states(DAG, run.run_id)
        done = [task for task, state in states.items() if state == "success" and task != "decide_promotion"]
        return cls(run, states, {task: stack.api.output(DAG, run.run_id, task) for task in done})


@pytest.fixture(scope="module")
def registry(stack: RunningStack) -> MlflowClient:
    """MLflow, as a person who looks at it."""
    return client_of(stack.services.tracking)


@pytest.fixture(scope="module")
def trained(stack: RunningStack, demo: Demo) -> Trained:
    """The demo's first run, which promoted its model."""
    return Trained.of(stack, trainings(stack)[0])


@pytest.fixture(scope="module")
def killed(stack: RunningStack, demo: Demo) -> Trained:
    """The demo's second run, on the same data, of which each step on Spark was killed."""
    return Trained.of(stack, trainings(stack)[1])


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


def test_dirt_is_told_of(stack: RunningStack, trained: Trained) -> None:
    """Each source lost some rows, none all; the report beside the files has the reasons."""
    cleaned = trained.outputs["clean_raw_sources"]
    for source, read in cleaned["rows_read"].items():
        assert 0 < cleaned["rows_dropped"][source] < 0.1 * read
    assert "not a date YYYY-MM-DD" in (data(stack) / "reports" / "clean.json").read_text()


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


def test_history_has_snapshot(stack: RunningStack, trained: Trained) -> None:
    """The features of the week are kept for the monitor of drift."""
    assert [one.name for one in (data(stack) / "reference_history.parquet").iterdir()] == [
        f"snapshot_date={trained.outputs['keep_reference_history']['dates'][0]}.parquet"
    ]


def test_killed_run_leaves_same(
    stack: RunningStack, demo: Demo, trained: Trained, killed: Trained, registry: MlflowClient
) -> None:
    """A run on the same data, killed in the middle of each step on Spark, leaves the same tables and as good a model.

    An attempt whose executor is killed goes on: Spark replaces it.
    """
    pipeline = Pipeline(DAG, stack.api, stack.services.crypto)
    assert [pipeline.instance(killed.run, step)["try_number"] for step in SPARK_STEPS] == [2, 2, 2]
    assert killed.states == PROMOTED | {"promote_model": "skipped", "skip_promotion": "success"}
    judged, again = (one.outputs["evaluate_candidate"] for one in (trained, killed))
    assert (again["promote"], again["roc_auc"]) == (False, judged["roc_auc"])
    assert [one.run_id for one in sorted(versions(registry), key=lambda one: int(one.version))] == [
        one.outputs["train_spark_model"]["run_id"] for one in (trained, killed)
    ]
    after = tables(stack)
    changed = {name for name in demo.tables | after if demo.tables.get(name) != after.get(name)}
    assert {name for name in changed if not name.startswith("current_snapshot/")} == set()  # of the drift monitor


def test_renamed_column_stops_run(stack: RunningStack, trained: Trained, registry: MlflowClient) -> None:
    """Somebody's own export with a column that has another name is told of by file and column; Production stands."""
    before = [(one.version, one.current_stage) for one in versions(registry)]
    left, raw = tables(stack), data(stack) / "raw"
    payments = raw / "PAYMENTS.csv"
    payments.write_text(payments.read_text().replace("DESCUENTO", "DESCUENTOS", 1))
    try:
        run = stack.api.trigger(DAG)
        ended = stack.api.wait(run, seconds=600)
        log = json.dumps(stack.api.task_events(DAG, run.run_id, "clean_raw_sources"))
    finally:
        shutil.rmtree(raw)

    assert ended.state == "failed"
    assert "PAYMENTS.csv" in log
    assert "DESCUENTO" in log
    assert stack.api.task_states(DAG, run.run_id)["train_spark_model"] == "upstream_failed"
    assert tables(stack) == left
    assert [(one.version, one.current_stage) for one in versions(registry)] == before
