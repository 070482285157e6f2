"""Trainings as the pipeline has them, on the made-up customers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.contract import Run
from tasks.files.places import InFolder
from tasks.models.preparation import Features
from tasks.models.training import Training, train_classifier
from tests.support.customers import FEATURES
from tests.support.grids import FILE, LINEAR, classifier

EXPERIMENT = "training_tests"


@dataclass
class Trainer:
    """Runs the step as the pipeline does."""

    folder: Path
    run: Run

    def __call__(self, **changes: Any) -> Training:
        arguments: dict[str, Any] = {
            "spark": "spark_default",
            "mlflow": "mlflow_default",
            "experiment": EXPERIMENT,
            "files": InFolder(folder=str(self.folder)),
            "data": FILE,
            "key": "user_id",
            "label": "churned",
            "features": Features(**FEATURES),
            "classifier": classifier(LINEAR),
            "seed": 7,
            "run": self.run,
        }
        return train_classifier(**arguments | changes)
