"""What a training leaves in MLflow: one run with its candidates nested in it, identified by what it was made from.

Knows MLflow's runs, datasets and logged models; knows nothing about Spark. A run is found by the Airflow run that made
it and by its fingerprint, so a retry replaces an attempt that was killed, and a rerun finds the existing run.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.models.digests import DIGEST, digest_of
from tasks.services.tracking import PARENT, airflow_tags, check_store, delete_run, experiment_id, runs_of

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow import MlflowClient
    from mlflow.entities import Run as TrackedRun

    from tasks.contract import Run

FINGERPRINT = "taskflow.fingerprint"
RESULT = "taskflow.result"
"""The tag with the step's output, so a rerun returns the same."""
SUPERSEDED = "taskflow.superseded_by"
LOGGED_AS = "model"
HOLDOUT = "holdout.parquet"
"""The names of the logged model and of the sample of the holdout; `models.evaluate` looks for them."""
_NAME = "mlflow.runName"


@dataclass(frozen=True, slots=True)
class Dataset:
    """What a run was trained on."""

    name: str
    digest: str
    source: str
    """Where it is: a path, or s3://…"""
    schema: Mapping[str, str]
    rows: int


@dataclass(frozen=True, slots=True)
class Recorder:
    """The experiment that a step records its trainings in, for one Airflow run."""

    client: MlflowClient
    experiment: str
    """Its id."""
    run: Run
    fingerprint: str

    def finished(self) -> TrackedRun | None:
        """Return an earlier run with the same fingerprint that finished."""
        earlier = runs_of(self.client, self.experiment, self.run, {FINGERPRINT: self.fingerprint})
        return next((run for run in earlier if run.info.status == "FINISHED" and RESULT in run.data.tags), None)

    def clear(self) -> None:
        """Delete what unfinished attempts left behind, nested runs and models included."""
        for attempt in runs_of(self.client, self.experiment, self.run):
            if attempt.info.status != "FINISHED":
                self._delete_models(attempt.info.run_id)
                delete_run(self.client, self.experiment, attempt.info.run_id)

    def begin(self, params: Mapping[str, object], dataset: Dataset) -> str:
        """Create the run, with its params and its training data; return its id."""
        from mlflow.entities import Dataset as TrackedDataset
        from mlflow.entities import DatasetInput, InputTag

        tags = airflow_tags(self.run) | {FINGERPRINT: self.fingerprint, _NAME: f"{self.run.dag_id} {self.run.run_id}"}
        run_id = str(self.client.create_run(self.experiment, tags=tags).info.run_id)
        tracked = TrackedDataset(
            name=dataset.name,
            digest=dataset.digest,
            source_type="s3" if dataset.source.startswith("s3://") else "local",
            source=json.dumps({"uri": dataset.source}),
            schema=json.dumps({"mlflow_colspec": [{"name": n, "type": t} for n, t in dataset.schema.items()]}),
            profile=json.dumps({"num_rows": dataset.rows}),
        )
        self.client.log_inputs(run_id, [DatasetInput(tracked, [InputTag("mlflow.data.context", "training")])])
        self._log(run_id, params, {})
        return run_id

    def check_store(self, run_id: str) -> None:
        """Raise unless the server's artifact store answers: otherwise it would fail only after fitting."""
        check_store(self.client, run_id)

    def nested(self, parent: str, name: str, params: Mapping[str, object], metrics: Mapping[str, float]) -> None:
        """Record one complete candidate under its parent."""
        tags = {PARENT: parent, _NAME: name}
        run_id = str(self.client.create_run(self.experiment, tags=tags).info.run_id)
        self._log(run_id, params, metrics)
        self.client.set_terminated(run_id)

    def log(self, run_id: str, params: Mapping[str, object], metrics: Mapping[str, float], artifacts: Path) -> None:
        """Record the best candidate in the run, and upload the files of a folder."""
        self._log(run_id, params, metrics)
        self.client.log_artifacts(run_id, str(artifacts))

    def log_model(self, run_id: str, folder: Path, params: Mapping[str, object], metrics: Mapping[str, float]) -> str:
        """Log the saved model in `folder` as a model of the run; return its address.

        Uploads the very bytes that were checked: MLflow's own log_model would save the model again. Their digest
        becomes a tag of the run.
        """
        from mlflow.entities import LoggedModelOutput, LoggedModelStatus, Metric
        from mlflow.models import Model

        made = self.client.create_logged_model(
            self.experiment, LOGGED_AS, source_run_id=run_id, params=_texts(params), model_type="classifier"
        )
        stored = Model.load(str(folder))
        stored.run_id, stored.model_id = run_id, made.model_id
        stored.artifact_path = made.artifact_location
        stored.save(str(folder / "MLmodel"))
        self.client.set_tag(run_id, DIGEST, digest_of(folder))
        self.client.log_model_artifacts(made.model_id, str(folder))
        self.client.finalize_logged_model(made.model_id, LoggedModelStatus.READY)
        self.client.log_outputs(run_id, [LoggedModelOutput(made.model_id, 0)])
        now = int(time.time() * 1000)
        measured = [Metric(n, v, now, 0, made.model_id, run_id=run_id) for n, v in metrics.items()]
        self.client.log_batch(run_id, metrics=measured)
        return f"models:/{made.model_id}"

    def finish(self, run_id: str, result: str) -> None:
        """End the run as finished, so reruns find it; mark runs made from something else as superseded."""
        self.client.set_tag(run_id, RESULT, result)
        self.client.set_terminated(run_id)
        for other in runs_of(self.client, self.experiment, self.run):
            if other.info.run_id != run_id and SUPERSEDED not in other.data.tags:
                self.client.set_tag(other.info.run_id, SUPERSEDED, run_id)

    def fail(self, run_id: str) -> None:
        """End the run as failed, if MLflow still answers; the next attempt deletes it either way."""
        from contextlib import suppress

        from mlflow.exceptions import MlflowException

        with suppress(MlflowException):
            self.client.set_terminated(run_id, "FAILED")

    def _delete_models(self, run_id: str) -> None:
        for model in self.client.search_logged_models([self.experiment], f"source_run_id = '{run_id}'"):
            self.client.delete_logged_model(model.model_id)

    def _log(self, run_id: str, params: Mapping[str, object], metrics: Mapping[str, float]) -> None:
        from mlflow.entities import Metric, Param

        now = int(time.time() * 1000)
        self.client.log_batch(
            run_id,
            metrics=[Metric(name, value, now, 0) for name, value in metrics.items()],
            params=[Param(name, text) for name, text in _texts(params).items()],
        )


def recorder(client: MlflowClient, experiment: str, run: Run, fingerprint: str) -> Recorder:
    """Return the recorder of the experiment with this name, creating it if needed."""
    return Recorder(client, experiment_id(client, experiment), run, fingerprint)


def _texts(params: Mapping[str, object]) -> dict[str, str]:
    return {name: str(value) for name, value in params.items()}
