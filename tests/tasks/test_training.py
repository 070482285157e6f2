"""spark.train_classifier, on a real Spark and a real MLflow."""

from __future__ import annotations

import json
import logging
import socket
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient, pyfunc

from stack.objects import ObjectStore
from stack.tracking_server import Tracking
from tasks.contract import DataRejected, MissingResource, PermanentError, Run, TransientError
from tasks.models.preparation import Features
from tasks.models.training import Training
from tasks.models.training_run import RESULT, SUPERSEDED
from tasks.services.tracking import airflow_tags, nested_runs, runs_of, tracking
from tests.support.buckets import refusing_writes
from tests.support.customers import FEATURES
from tests.support.grids import FILE, classifier
from tests.support.training import EXPERIMENT, Trainer

COLUMNS = [*FEATURES["numeric"], *FEATURES["categorical"]]
PLOTS = ["calibration", "confusion", "pr", "roc", "shap_bar", "shap_summary"]


@pytest.fixture
def trainer(spark_connection: str, mlflow_server: Tracking, customers_folder: Path, run: Run) -> Trainer:
    """The step, on the made-up customers."""
    return Trainer(customers_folder, replace(run, dag_id="churn_training_dag", task_id="train_spark_model"))


@pytest.fixture
def client(mlflow_server: Tracking) -> MlflowClient:
    """A client of MLflow."""
    return tracking("mlflow_default")


def experiment(client: MlflowClient) -> str:
    found = client.get_experiment_by_name(EXPERIMENT)
    assert found is not None
    return str(found.experiment_id)


def test_run_has_everything(done: tuple[Trainer, Training], client: MlflowClient, tmp_path: Path) -> None:
    """The run has params, metrics, data, plots, SHAP values, the holdout, both models and the Airflow run."""
    trainer, output = done
    found = client.get_run(output.run_id)
    assert found.info.status == "FINISHED"
    assert airflow_tags(trainer.run).items() <= found.data.tags.items()
    assert {name: found.data.metrics[name] for name in ("roc_auc", "brier")} == {
        "roc_auc": output.roc_auc,
        "brier": output.brier,
    }
    assert found.data.params["label"] == "churned"
    assert f"reg_param={found.data.params['reg_param']} elastic_net_param=0.5" == output.best
    (data,) = found.inputs.dataset_inputs
    assert (data.dataset.name, len(data.dataset.digest), data.tags[0].value) == (FILE, 32, "training")
    files = {one.path for one in client.list_artifacts(output.run_id)}
    assert files == {"holdout.parquet", "plots", "shap", "spark_model"}
    plots = {one.path for one in client.list_artifacts(output.run_id, "plots")}
    assert plots == {f"plots/{name}.png" for name in PLOTS}
    values = json.loads(
        Path(client.download_artifacts(output.run_id, "shap/mean_absolute.json", str(tmp_path))).read_text()
    )
    assert set(values) == set(COLUMNS)
    assert list(values.values()) == sorted(values.values(), reverse=True)
    assert {"age", "amount_0", "count_0", "is_active"} <= set(list(values)[:6])
    assert output.run_page.endswith(f"/#/experiments/{found.info.experiment_id}/runs/{output.run_id}")
    assert output.train_rows + output.holdout_rows == 2_500


def test_candidates_are_nested(done: tuple[Trainer, Training], client: MlflowClient) -> None:
    """Each candidate is a finished run of its own with its params and metrics; the parent has the best's."""
    _, output = done
    found = nested_runs(client, experiment(client), output.run_id)
    by_param = {one.data.params["reg_param"]: one for one in found}
    assert set(by_param) == {"0.001", "0.1"}
    assert {one.info.status for one in found} == {"FINISHED"}
    metrics = {"roc_auc", "pr_auc", "log_loss", "brier", "accuracy", "threshold", "fit_seconds"}
    assert all(set(one.data.metrics) == metrics for one in found)
    assert max(one.data.metrics["roc_auc"] for one in found) == output.roc_auc


def test_logged_model_scores(done: tuple[Trainer, Training], client: MlflowClient, tmp_path: Path) -> None:
    """The logged model scores the logged holdout as Spark did, by its signature, and says what it needs."""
    _, output = done
    holdout = pd.read_parquet(client.download_artifacts(output.run_id, "holdout.parquet", str(tmp_path)))
    loaded: Any = pyfunc.load_model(output.model_uri)
    names = loaded.metadata.get_input_schema().input_names()
    probability = loaded.predict(holdout[names])["probability"].to_numpy()
    assert names == COLUMNS
    assert np.abs(probability - holdout["probability"].to_numpy()).max() < 1e-9
    assert holdout["churned"].isin([0, 1]).all()
    optional = [one.name for one in loaded.metadata.get_input_schema() if not one.required]
    assert optional == ["amount_1", "age", "city"]
    assert list(loaded.input_example) == COLUMNS
    by_run: Any = pyfunc.load_model(f"runs:/{output.run_id}/model")
    assert (by_run.predict(holdout[names])["probability"].to_numpy() == probability).all()


def test_rerun_returns_same(
    done: tuple[Trainer, Training], client: MlflowClient, caplog: pytest.LogCaptureFixture
) -> None:
    """A rerun of the same run on the same data fits nothing and returns what was returned."""
    trainer, output = done
    with caplog.at_level(logging.INFO):
        again = Trainer(trainer.folder, replace(trainer.run, try_number=2))()
    assert again == output
    assert "already trained on the same data" in caplog.text
    assert len(runs_of(client, experiment(client), trainer.run)) == 1


def test_what_attempts_left_is_replaced(done: tuple[Trainer, Training], client: MlflowClient) -> None:
    """What killed and failed attempts left is gone after the retry; another grid makes a new run and marks the old."""
    trainer, output = done
    tags = airflow_tags(trainer.run)
    killed, failed = (client.create_run(experiment(client), tags=tags).info.run_id for _ in range(2))
    client.set_terminated(failed, "FAILED")
    nested = client.create_run(experiment(client), tags={"mlflow.parentRunId": killed}).info.run_id
    model = client.create_logged_model(experiment(client), "model", source_run_id=killed)
    other = trainer(classifier=classifier({"logistic_regression": {}}))
    left = runs_of(client, experiment(client), trainer.run)
    assert {one.info.run_id for one in left} == {output.run_id, other.run_id}
    assert client.get_run(output.run_id).data.tags[SUPERSEDED] == other.run_id
    assert RESULT in client.get_run(other.run_id).data.tags
    assert {client.get_run(one).info.lifecycle_stage for one in (killed, failed, nested)} == {"deleted"}
    listed = client.search_logged_models([experiment(client)], f"source_run_id = '{killed}'")
    assert model.model_id not in [one.model_id for one in listed]


def test_bad_data_records_nothing(trainer: Trainer, client: MlflowClient) -> None:
    """Data that is refused leaves no run behind, not even a failed one."""
    bad = replace(trainer.run, run_id="bad_data")
    with pytest.raises(DataRejected, match="are not 0 or 1"):
        Trainer(trainer.folder, bad)(label="count_0", features=Features(numeric=["amount_0"]))
    with pytest.raises(MissingResource, match=r"file 'churn/nothing\.parquet' does not exist"):
        Trainer(trainer.folder, bad)(data="churn/nothing.parquet")
    found = client.get_experiment_by_name(EXPERIMENT)
    assert found is None or runs_of(client, found.experiment_id, bad) == []


def test_mlflow_down_comes_first(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where MLflow does not answer, Spark is not even started."""
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", json.dumps({"conn_type": "http", "host": "127.0.0.1", "port": 1}))
    with pytest.raises(TransientError, match=r"MLflow at http://127.0.0.1:1 \(connection 'mlflow_default'\)"):
        trainer(spark="spark_nowhere")


def test_bucket_that_takes_no_more(trainer: Trainer, client: MlflowClient, object_store: ObjectStore) -> None:
    """A bucket that may be read but not written leaves a failed run without a model, which a retry replaces."""
    told, one = replace(trainer.run, run_id="read_only"), classifier({"logistic_regression": {}})
    refusal = pytest.raises((PermanentError, TransientError), match=r"artifact.*store.*keys")
    with refusing_writes(object_store, "mlflow-artifacts"), refusal as refused:
        Trainer(trainer.folder, told)(classifier=one)
    assert "MLflow at http://127.0.0.1" in str(refused.value)
    (left,) = runs_of(client, experiment(client), told)
    assert left.info.status == "FAILED"
    assert client.search_logged_models([experiment(client)], f"source_run_id = '{left.info.run_id}'") == []


class Wire:
    """A way to MLflow that can be cut: a port that passes on what it gets, until then."""

    def __init__(self, port: int) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.target = port
        self.open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Refuse and end all connections from now on."""
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for one in self.open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                far = socket.create_connection(("127.0.0.1", self.target))
                self.open += [near, far]
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


class Cut(logging.Handler):
    """Cuts the wire when the first candidate is fitted."""

    def __init__(self, wire: Wire) -> None:
        super().__init__()
        self.wire = wire

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith("fitted"):
            self.wire.cut()


def test_mlflow_lost_midway(
    trainer: Trainer, mlflow_server: Tracking, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow going away while candidates are fitted is transient and logs no model; a retry replaces what was begun."""
    wire, log = Wire(mlflow_server.port), logging.getLogger("midway")
    log.setLevel(logging.INFO)
    log.addHandler(Cut(wire))
    before = json.loads(mlflow_server.airflow_connection)
    lost = replace(trainer.run, run_id="lost", log=log)
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", json.dumps({**before, "port": wire.port}))
    with pytest.raises(TransientError, match=rf"MLflow at http://127\.0\.0\.1:{wire.port}.*does not answer"):
        Trainer(trainer.folder, lost)(classifier=classifier({"logistic_regression": {}}))
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", mlflow_server.airflow_connection)
    (left,) = runs_of(client, experiment(client), lost)
    assert left.info.status == "RUNNING"
    assert client.search_logged_models([experiment(client)], f"source_run_id = '{left.info.run_id}'") == []
