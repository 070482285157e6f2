"""How well a candidate and the Production model rank the same people.

Knows MLflow models that return a column `probability`, and the rows that a training held out; knows nothing about the
registry or what follows from the comparison. No Java: both models score in this process.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tasks.contract import MissingResource, PermanentError
from tasks.models.digests import StoredModel
from tasks.models.training_run import HOLDOUT

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import Run as TrackedRun

METRIC = "roc_auc"
LABEL = "label"
"""The param of a training's run with the name of the label's column."""

ComparedOn = Literal["holdout", "recorded"]


@dataclass(frozen=True, slots=True)
class Holdout:
    """Rows that a candidate was not fitted on, and their label's column."""

    rows: pd.DataFrame
    label: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """The ROC AUC of a candidate and of Production, and what both were measured on."""

    candidate: float
    production: float | None
    on: ComparedOn
    why: str = ""
    """Why only the recorded metrics could be compared."""


@dataclass
class NotComparable(Exception):
    """A model cannot score these rows; the reason says what they lack."""

    reason: str

    def __str__(self) -> str:
        return self.reason


def holdout_of(client: MlflowClient, source: TrackedRun) -> Holdout:
    """Return the rows that a training held out; raise MissingResource or PermanentError."""
    import pandas as pd

    run_id = source.info.run_id
    remedy = "log it in the training step (spark.train_classifier does)"
    if HOLDOUT not in [artifact.path for artifact in client.list_artifacts(run_id)]:
        raise MissingResource("artifact", HOLDOUT, f"run {run_id!r} of MLflow", remedy)
    with tempfile.TemporaryDirectory(prefix="taskflow-") as folder:
        rows = pd.read_parquet(client.download_artifacts(run_id, HOLDOUT, folder))
    label = source.data.params.get(LABEL, "")
    if label not in rows.columns:
        there = ", ".join(rows.columns)
        raise PermanentError(
            f"{HOLDOUT} of run {run_id!r} has no column {label!r}, named by the run's param {LABEL!r}; it has {there}"
        )
    if (classes := rows[label].nunique()) != 2:
        raise PermanentError(
            f"{HOLDOUT} of run {run_id!r} has {len(rows)} rows with {classes} values of {label!r}; a ROC AUC needs 2"
        )
    return Holdout(rows, label)


def measured(model: StoredModel, holdout: Holdout) -> float:
    """Return the ROC AUC of a stored model on held-out rows; raise NotComparable."""
    with tempfile.TemporaryDirectory(prefix="taskflow-") as folder:  # MLflow itself would leave its copy behind
        return _measured(model.address, model.loaded(Path(folder)), holdout)


def _measured(model: str, loaded: Any, holdout: Holdout) -> float:
    from mlflow.exceptions import MlflowException
    from sklearn.metrics import roc_auc_score

    schema = loaded.metadata.get_input_schema()
    if schema is None:
        raise PermanentError(f"{model} has no signature to name its columns; log it with one")
    if missing := sorted(set(schema.input_names()) - set(holdout.rows.columns)):  # also those that may be null
        raise NotComparable(f"the candidate's data has no {', '.join(missing)}")
    try:
        scores = loaded.predict(holdout.rows[schema.input_names()])
    except MlflowException as error:  # a column has another type now
        raise NotComparable(" ".join(str(error).split())) from error
    if "probability" not in scores:
        raise PermanentError(f"{model} returns {', '.join(map(str, scores))}, but no column 'probability'")
    return float(roc_auc_score(holdout.rows[holdout.label], scores["probability"]))


def recorded(source: TrackedRun) -> float:
    """Return the ROC AUC that a training recorded."""
    if METRIC not in source.data.metrics:
        where, remedy = f"run {source.info.run_id!r} of MLflow", "record it in the training step"
        raise MissingResource("metric", METRIC, where, remedy)
    return float(source.data.metrics[METRIC])
