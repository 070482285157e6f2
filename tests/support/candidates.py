"""Trained candidates made by hand: MLflow runs as the training leaves them, around a small model."""

from __future__ import annotations

import json
import math
import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import RestException
from mlflow.models import infer_signature
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score, roc_curve

from tasks.models.digests import DIGEST, StoredModel, digest_of, fetched

mpl.use("Agg")

MODEL_FILE = Path(__file__).with_name("hand_made_model.py")
EXPERIMENT = "churn_retention"
KEY, LABEL = "user_id", "churned"
THRESHOLD = 0.4

TRUTH: dict[str, Any] = {
    "days_since_last_payment": 0.05,
    "payments": -0.12,
    "balance": -0.0004,
    "logged_in": -0.8,
    "card_type": {"credit": 0.0, "debit": 0.3, "prepaid": 0.9},
}
"""What makes people of the invented data leave: a candidate with these weights is the best there can be."""
WEAK: dict[str, Any] = TRUTH | {"days_since_last_payment": 0.0, "payments": -0.02}
"""A candidate that overlooks the strongest sign."""


@dataclass(frozen=True)
class Recipe:
    """What to make a candidate of."""

    weights: dict[str, Any] = field(default_factory=lambda: TRUTH)
    rows: int = 2_000
    seed: int = 7
    dag_id: str = "churn_training_dag"
    run_id: str = "manual__1"
    without: frozenset[str] = frozenset()
    """Which of "model", "digest", "holdout", "shap", "plots" and the metrics is left out."""

    def lacking(self, *parts: str) -> Recipe:
        """Return the recipe without some parts."""
        return replace(self, without=self.without | set(parts))


def people(rows: int, seed: int) -> pd.DataFrame:
    """Return invented people with their label."""
    draw = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            KEY: np.arange(1, rows + 1),
            "days_since_last_payment": draw.exponential(25, rows).round(),
            "payments": draw.poisson(8, rows).astype("int64"),
            "balance": draw.gamma(2, 600, rows).round(2),
            "logged_in": draw.random(rows) < 0.7,
            "card_type": draw.choice(["credit", "debit", "prepaid"], rows),
        }
    )
    log_odds = sum(_part(frame[name], weight) for name, weight in TRUTH.items())
    frame[LABEL] = (draw.random(rows) < 1 / (1 + np.exp(-log_odds))).astype("int64")
    return frame


def _part(values: pd.Series, weight: Any) -> pd.Series:
    return values.map(weight) if isinstance(weight, dict) else weight * values.astype("float64")


def log_candidate(address: str, recipe: Recipe) -> str:
    """Log a candidate to the MLflow server at `address` and return its run's id."""
    os.environ["MLFLOW_LOG_UV_FILES"] = os.environ["MLFLOW_UV_AUTO_DETECT"] = "false"  # not the repository's own
    mlflow.set_tracking_uri(address)
    mlflow.set_experiment(EXPERIMENT)
    frame = people(recipe.rows, recipe.seed)
    inputs = list(recipe.weights)
    tags = {"airflow.dag_id": recipe.dag_id, "airflow.run_id": recipe.run_id}
    with (
        mlflow.start_run(run_name=f"{recipe.dag_id} {recipe.run_id}", tags=tags) as run,
        tempfile.TemporaryDirectory() as made,
    ):
        folder = Path(made)
        mlflow.log_params({"key": KEY, "label": LABEL})
        scored = _logged_model(frame[inputs], recipe, folder)
        if "model" not in recipe.without and "digest" not in recipe.without:
            mlflow.set_tag(DIGEST, _digest(run.info.run_id, folder / "copy"))
        metrics = _metrics(frame[LABEL], scored)
        mlflow.log_metrics({name: value for name, value in metrics.items() if name not in recipe.without})
        if "holdout" not in recipe.without:
            frame[[KEY, LABEL, *inputs]].assign(probability=scored).to_parquet(folder / "holdout.parquet")
            mlflow.log_artifact(str(folder / "holdout.parquet"))
        if "shap" not in recipe.without:
            mlflow.log_dict(_importance(frame, recipe.weights), "shap/mean_absolute.json")
        if "plots" not in recipe.without:
            _log_plots(frame[LABEL], scored)
    return str(run.info.run_id)


def _logged_model(inputs: pd.DataFrame, recipe: Recipe, folder: Path) -> np.ndarray:
    numbers = [name for name, weight in recipe.weights.items() if not isinstance(weight, dict)]
    means = {name: float(inputs[name].mean()) for name in numbers}
    stored = {"weights": recipe.weights, "means": means, "intercept": 0.0, "threshold": THRESHOLD}
    (folder / "weights.json").write_text(json.dumps(stored))
    log_odds = sum(_part(inputs[name], weight) for name, weight in recipe.weights.items())
    probability = (1 / (1 + np.exp(-log_odds))).to_numpy()
    if "model" not in recipe.without:
        outputs = pd.DataFrame({"probability": probability, "prediction": (probability >= THRESHOLD).astype("int64")})
        mlflow.pyfunc.log_model(
            name="model",
            python_model=str(MODEL_FILE),
            artifacts={"weights": str(folder / "weights.json")},
            signature=infer_signature(inputs, outputs),
            input_example=inputs.head(1),
            pip_requirements=["mlflow"],
        )
    return probability


def _digest(run_id: str, folder: Path) -> str:
    (model,) = mlflow.MlflowClient().get_run(run_id).outputs.model_outputs
    location = mlflow.MlflowClient().get_logged_model(model.model_id).artifact_location
    return digest_of(fetched(StoredModel(model.model_id, location, None, "", ""), folder))


def _metrics(label: pd.Series, probability: np.ndarray) -> dict[str, float]:
    return {
        "roc_auc": roc_auc_score(label, probability),
        "pr_auc": average_precision_score(label, probability),
        "log_loss": log_loss(label, probability),
        "brier": brier_score_loss(label, probability),
        "accuracy": float(((probability >= THRESHOLD) == label).mean()),
        "threshold": THRESHOLD,
    }


def _importance(frame: pd.DataFrame, weights: dict[str, Any]) -> dict[str, float]:
    parts = {name: _part(frame[name], weight) for name, weight in weights.items()}
    return {name: float((part - part.mean()).abs().mean()) for name, part in parts.items()}


def _log_plots(label: pd.Series, probability: np.ndarray) -> None:
    from matplotlib.figure import Figure

    for name in ("roc", "pr", "calibration", "confusion", "shap_summary", "shap_bar"):
        figure = Figure(figsize=(5, 4))
        axes = figure.subplots()
        false_positives, true_positives, _ = roc_curve(label, probability)
        axes.plot(false_positives, true_positives)
        axes.set_title(name)
        mlflow.log_figure(figure, f"plots/{name}.png")


def auc(weights: dict[str, Any], rows: int = 2_000, seed: int = 7) -> float:
    """Return the ROC AUC of `weights` on the people of a candidate, worked out with neither MLflow nor its model."""
    frame = people(rows, seed)
    value = roc_auc_score(frame[LABEL], sum(_part(frame[name], weight) for name, weight in weights.items()))
    assert not math.isnan(value)
    return float(value)


def promote_candidate(address: str, run_id: str, model: str) -> int:
    """Register a candidate's model and give its version the alias `production`, with the client alone."""
    client = mlflow.MlflowClient(address, address)
    with suppress(RestException):  # it is there already
        client.create_registered_model(model)
    run = client.get_run(run_id)
    (logged,) = run.outputs.model_outputs
    tags = {name: value for name, value in run.data.tags.items() if name == DIGEST}
    source = {"source": f"models:/{logged.model_id}", "model_id": logged.model_id, "run_id": run_id, "tags": tags}
    version = client.create_model_version(model, **source, await_creation_for=0)
    client.set_registered_model_alias(model, "production", version.version)
    return int(version.version)
