"""How each column affects the scores of a sample of rows: SHAP values, their means and their plots."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

_ROWS = 2_000
"""Enough for means with two reliable digits, and for a plot; with more dots, they would hide each other."""


@dataclass(frozen=True, slots=True)
class Explained:
    """The SHAP values of some rows."""

    contributions: pd.DataFrame
    rows: pd.DataFrame
    """The values of the columns."""
    base_value: float
    unit: str

    def mean_absolute(self) -> dict[str, float]:
        """Return how much each column moves a score on average, most important first."""
        means = self.contributions.abs().mean().sort_values(ascending=False, kind="stable")
        return {str(name): float(value) for name, value in means.items()}


def explained(model: Path, sample: pd.DataFrame, columns: list[str]) -> Explained:
    """Return the SHAP values of some rows of `sample`, computed by the saved model in the folder `model`."""
    from mlflow import pyfunc

    loaded: Any = pyfunc.load_model(str(model))
    scorer = loaded.unwrap_python_model()
    rows = sample[columns].sample(min(_ROWS, len(sample)), random_state=0)  # the sample is in the order of its keys
    return Explained(scorer.contributions(rows), rows, scorer.base_value, scorer.contribution_unit)
