"""A logistic model of a few numbers, as MLflow stores models written as code: what `tests.support.candidates` logs."""

import json
import math

import mlflow
import numpy as np
import pandas as pd
from mlflow.pyfunc import PythonModel


class HandMade(PythonModel):
    """Scores `intercept + Σ weight × value`; a text's weight is that of its level."""

    def load_context(self, context):
        with open(context.artifacts["weights"]) as file:  # noqa: PTH123
            stored = json.load(file)
        self.weights = stored["weights"]
        self.means = stored["means"]
        self.threshold = stored["threshold"]
        self.base_value = stored["intercept"] + math.fsum(
            weight * self.means[name] for name, weight in self.weights.items() if not isinstance(weight, dict)
        )
        self.levels = {name: sorted(weight) for name, weight in self.weights.items() if isinstance(weight, dict)}

    def contributions(self, frame):
        """Return each column's part of the log-odds; they and `base_value` add up to the score."""
        return pd.DataFrame({name: self._part(name, frame[name]) for name in self.weights}, index=frame.index)

    def predict(self, context, model_input: pd.DataFrame, params=None):
        log_odds = self.base_value + self.contributions(model_input).sum(axis=1).to_numpy()
        probability = 1 / (1 + np.exp(-log_odds))
        return pd.DataFrame(
            {"probability": probability, "prediction": (probability >= self.threshold).astype("int64")},
            index=model_input.index,
        )

    def _part(self, name, values):
        weight = self.weights[name]
        if isinstance(weight, dict):
            return values.map(weight).fillna(0.0).astype("float64")
        return weight * (values.astype("float64") - self.means[name])


mlflow.models.set_model(HandMade())
