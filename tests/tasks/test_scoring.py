"""Candidates: measured as scikit-learn measures them, and scored without Java as Spark scores them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import shap
from mlflow import pyfunc
from pydantic import ValidationError
from pyspark.ml.functions import vector_to_array
from sklearn import metrics as reference

from stack.paths import REPOSITORY
from tasks.contract import PermanentError, Run
from tasks.models.portable import check_same, portable, save_model
from tasks.models.preparation import HELD_OUT, LABEL, VECTOR, assembled
from tasks.models.scoring import score_candidates
from tasks.models.training import Fit, Prepared, _pipeline, _sample, fit_grid, prepared
from tasks.spark.session import spark_session
from tests.support.customers import FEATURES, write_customers
from tests.support.grids import ALL, classifier, job, layout

ROWS = 3_000
COLUMNS = [*FEATURES["numeric"], *FEATURES["categorical"]]


@dataclass(frozen=True)
class Trained:
    """One small candidate of each classifier, and the rows that all were fitted on."""

    given: Prepared
    fits: dict[str, Fit]


@pytest.fixture(scope="module")
def trained(spark_connection: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    """All classifiers, fitted once in one Spark session."""
    run = Run("churn_training_dag", "manual__1", "train", dt.date(2026, 1, 5), configs=REPOSITORY)
    path = write_customers(tmp_path_factory.mktemp("data") / "c.parquet", ROWS)
    with spark_session(spark_connection, run) as session:
        frame = session.read.parquet(path.as_uri())
        with prepared(frame, job(run)) as given:
            yield Trained(given, {name: fit_grid(given, job(run, {name: grid})) for name, grid in ALL.items()})


def saved(trained: Trained, name: str, folder: Path) -> tuple[Path, pd.DataFrame]:
    """Return the folder of a candidate as MLflow stores it, and the sample of the holdout with Spark's scores."""
    fit = trained.fits[name]
    model = fit.best.fitted.model
    pipeline = _pipeline(model.copy(), fit.stages)
    sample = _sample(trained.given, layout(), fit.inputs, pipeline)
    pipeline.stages[-1].write().overwrite().save((folder / "native").as_uri())
    return save_model(portable(model, folder / "native", fit.inputs, 0.4), fit.inputs, sample, folder), sample


@pytest.mark.parametrize("name", ALL)
def test_scores_without_java(name: str, trained: Trained, tmp_path: Path) -> None:
    """Each classifier's probabilities are Spark's to 1e-9, whatever is null, and its contributions add up to them."""
    model, sample = saved(trained, name, tmp_path)
    assert len(sample) == trained.given.profile.held_out.rows
    assert sample[COLUMNS].isna().to_numpy().any()
    assert check_same(model, sample, trained.fits[name].inputs, "user_id") < 1e-9
    scorer = pyfunc.load_model(str(model)).unwrap_python_model()
    total = scorer.base_value + scorer.contributions(sample).sum(axis=1).to_numpy()
    expected = sample["probability"].to_numpy()
    if scorer.contribution_unit == "log-odds":
        expected = np.log(expected / (1 - expected))
    assert np.allclose(total, expected, atol=1e-6 if name != "logistic_regression" else 1e-9)
    assert list(scorer.contributions(sample)) == COLUMNS


def test_linear_contributions_are_shap(trained: Trained, tmp_path: Path) -> None:
    """A linear model's contributions are those of shap's own explainer against the rows that it was fitted on."""
    model, sample = saved(trained, "logistic_regression", tmp_path)
    fit = trained.fits["logistic_regression"]
    scorer: Any = pyfunc.load_model(str(model)).unwrap_python_model()
    vectors = assembled(trained.given.rows, fit.stages).where(f"NOT {HELD_OUT}").select(vector_to_array(VECTOR))
    train = np.array([row[0] for row in vectors.collect()])
    linear = (fit.best.fitted.model.coefficients.toArray(), fit.best.fitted.model.intercept)
    explainer = shap.LinearExplainer(linear, shap.maskers.Independent(train, max_samples=len(train)))
    parts = explainer.shap_values(scorer.features(sample))
    starts = np.cumsum([0, *(one.width for one in fit.inputs)])[:-1]
    assert np.allclose(np.add.reduceat(parts, starts, axis=1), scorer.contributions(sample).to_numpy(), atol=1e-9)
    assert scorer.base_value == pytest.approx(explainer.expected_value, abs=1e-9)


def test_strange_rows_are_scored(trained: Trained, tmp_path: Path) -> None:
    """An unknown level counts as other, a null number as the mean, and a text that is no number is named."""
    model, sample = saved(trained, "logistic_regression", tmp_path)
    loaded: Any = pyfunc.load_model(str(model))
    rows = sample[COLUMNS].head(2).copy()
    rows["city"] = ["Atlantis", None]
    rows["age"] = [np.nan, 40.0]
    rows.loc[1, COLUMNS[:3]] = rows.loc[0, COLUMNS[:3]].to_numpy()
    found = loaded.predict(rows)
    assert list(found) == ["probability", "prediction"]
    assert found["probability"].between(0, 1).all()
    scorer = loaded.unwrap_python_model()
    assert scorer.contributions(rows)["age"].iloc[0] == pytest.approx(0, abs=1e-12)
    assert scorer.levels["card"] == ["credit", "debit", "none"]
    with pytest.raises(ValueError, match="column 'amount_0' has a value that is not a number"):
        scorer.features(rows.astype({"amount_0": object}).assign(amount_0=["a", "b"]))


def test_disagreement_is_refused(trained: Trained, tmp_path: Path) -> None:
    """A model that scores one row otherwise than Spark is not logged; the row and both numbers are told."""
    model, sample = saved(trained, "logistic_regression", tmp_path)
    sample.loc[17, "probability"] += 1e-8
    with pytest.raises(PermanentError) as caught:
        check_same(model, sample, trained.fits["logistic_regression"].inputs, "user_id")
    assert f"user_id={sample.loc[17, 'user_id']}: probability" in str(caught.value)
    assert repr(float(sample.loc[17, "probability"])) in str(caught.value)


@pytest.mark.parametrize("name", ALL)
def test_metrics_are_exact(name: str, trained: Trained) -> None:
    """Log loss, Brier and accuracy are scikit-learn's; the areas are within 1e-4 of its."""
    fit = trained.fits[name]
    scored = fit.best.fitted.model.transform(assembled(trained.given.rows, fit.stages).where(HELD_OUT))
    rows = scored.select(LABEL, vector_to_array(fit.best.fitted.model.getProbabilityCol())[1].alias("p")).toPandas()
    y, p = rows[LABEL], rows["p"]
    found = fit.best.scores.metrics
    assert found["log_loss"] == pytest.approx(reference.log_loss(y, p), abs=1e-9)
    assert found["brier"] == pytest.approx(reference.brier_score_loss(y, p), abs=1e-9)
    assert found["accuracy"] == pytest.approx(((p >= 0.5) == y).mean(), abs=1e-12)
    assert found["roc_auc"] == pytest.approx(reference.roc_auc_score(y, p), abs=1e-4)
    assert found["pr_auc"] == pytest.approx(reference.average_precision_score(y, p), abs=1e-4)
    told = fit.best.scores.confusion
    counted = reference.confusion_matrix(y, p >= 0.5).ravel().tolist()
    assert [told.true_negatives, told.false_positives, told.false_negatives, told.true_positives] == counted


@pytest.mark.parametrize("rule", ["max_f1", "max_youden"])
def test_threshold_comes_from_training(rule: Any, trained: Trained) -> None:
    """A threshold that is to be found is the best one on the training rows, not on those held out."""
    fit = trained.fits["logistic_regression"]
    model = fit.best.fitted.model
    vectors = assembled(trained.given.rows, fit.stages)
    (scores,) = score_candidates(vectors, HELD_OUT, [model], LABEL, rule)
    train = model.transform(vectors.where(f"NOT {HELD_OUT}"))
    rows = train.select(LABEL, vector_to_array(model.getProbabilityCol())[1].alias("p")).toPandas()
    y, p, threshold = rows[LABEL], rows["p"], scores.metrics["threshold"]

    def gain(at: float) -> float:
        if rule == "max_f1":
            return float(reference.f1_score(y, p >= at))
        recall = reference.recall_score(y, p >= at)
        return float(recall + reference.recall_score(1 - y, p < at) - 1)

    best = max(gain(at) for at in np.quantile(p, np.linspace(0.01, 0.99, 99)))
    assert gain(threshold) >= best - 1e-3
    assert 0.05 < threshold < 0.95


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({}, "name one classifier: logistic_regression, decision_tree"),
        ({"decision_tree": {}, "random_forest": {}}, "name one classifier"),
        ({"logistic_regression": {"reg_param": [-1]}}, "greater than or equal to 0"),
        ({"logistic_regression": {"reg_param": []}}, "at least 1 item"),
        ({"logistic_regression": {"depth": [1]}}, "Extra inputs are not permitted"),
        (
            {"random_forest": {"num_trees": list(range(1, 12)), "max_depth": list(range(1, 11))}},
            "the grid has 110 candidates; 100 are allowed",
        ),
    ],
)
def test_classifier_is_checked(written: dict[str, Any], message: str) -> None:
    """A classifier is one of the four, with lists within bounds: what lint tells before anything runs."""
    with pytest.raises(ValidationError, match=message):
        classifier(written)


def test_grid_is_product() -> None:
    """Candidates are the product of the lists, in their order."""
    grid = {"logistic_regression": {"reg_param": [0.1, 1], "elastic_net_param": [0, 0.5]}}
    found = classifier(grid).candidates()
    assert [str(one) for one in found] == [
        "reg_param=0.1 elastic_net_param=0",
        "reg_param=0.1 elastic_net_param=0.5",
        "reg_param=1 elastic_net_param=0",
        "reg_param=1 elastic_net_param=0.5",
    ]
    assert found[0].params == {
        "classifier": "logistic_regression",
        "reg_param": 0.1,
        "elastic_net_param": 0,
        "max_iter": 100,
    }
