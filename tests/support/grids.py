"""What the tests of training share: the arguments of a small training on made-up customers."""

from __future__ import annotations

from typing import Any

from tasks.contract import Run
from tasks.models.classifiers import Classifier
from tasks.models.preparation import Features, Layout
from tasks.models.training import Job
from tests.support.customers import FEATURES

FILE = "churn/features.parquet"
LINEAR = {"logistic_regression": {"reg_param": [0.001, 0.1], "elastic_net_param": [0.5]}}
ALL = {
    "logistic_regression": {"reg_param": [0.001], "elastic_net_param": [0.5]},
    "decision_tree": {"max_depth": [4]},
    "random_forest": {"num_trees": [4], "max_depth": [4]},
    "gradient_boosted_trees": {"max_iter": [4], "max_depth": [3]},
}


def classifier(written: dict[str, Any]) -> Classifier:
    """Return a classifier as a step writes it."""
    return Classifier.model_validate(written)


def layout(seed: int = 7, **features: list[str]) -> Layout:
    """Return the layout of the made-up customers, or one with other features."""
    return Layout(FILE, "user_id", "churned", Features(**(features or FEATURES)), 0.2, seed)


def job(run: Run, written: dict[str, Any] = LINEAR, **changes: Any) -> Job:
    """Return a training of the made-up customers."""
    settings = {"layout": layout(), "threshold": 0.5, "parallelism": 2, **changes}
    return Job(candidates=classifier(written).candidates(), run=run, **settings)
