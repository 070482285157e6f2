"""A trained model outside Spark: plain numbers, evaluated by numpy.

MLflow stores this file with the model and runs it where the model is loaded; it imports nothing from this project. The
numbers are in two artifacts: `parameters.json`, and for models of trees also `trees.npz`. The arithmetic repeats
Spark's, operation by operation, so probabilities agree to the last digits.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.pyfunc.model import PythonModel
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Scorer(PythonModel):
    """Scores rows of the input columns, and says how each column affects a score."""

    parameters: dict[str, Any]
    evaluator: Linear | Trees

    def load_context(self, context: Any) -> None:
        """Read the numbers of the model."""
        self.load(**{name: Path(path) for name, path in context.artifacts.items()})

    def load(self, parameters: Path, trees: Path | None = None) -> None:
        """Read the numbers of the model from their files."""
        self.parameters = json.loads(parameters.read_text(encoding="utf-8"))
        if trees is None:
            self.evaluator = Linear(self.parameters["linear"], np.array(self.parameters["background"]))
        else:
            with np.load(trees, allow_pickle=False) as stored:
                self.evaluator = Trees(dict(stored), self.parameters["trees"])

    @property
    def levels(self) -> dict[str, list[str]]:
        """The known values of each text column; all others count as one."""
        inputs = self.parameters["inputs"]
        return {column["name"]: column["levels"] for column in inputs if column["kind"] == "categorical"}

    @property
    def threshold(self) -> float:
        """The decision threshold: from this probability up, the prediction is 1."""
        return float(self.parameters["threshold"])

    @property
    def base_value(self) -> float:
        """The score that a row's contributions are added to, in `contribution_unit`."""
        return self.evaluator.base_value

    @property
    def contribution_unit(self) -> str:
        """`log-odds`, or `probability` for forests and single trees, whose scores are averages of probabilities."""
        return self.evaluator.unit

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:  # noqa: ARG002
        """Return the columns `probability` and `prediction`."""
        probability = self.evaluator.probability(self.features(model_input))
        prediction = (probability >= self.threshold).astype("int64")
        return pd.DataFrame({"probability": probability, "prediction": prediction}, index=model_input.index)

    def contributions(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the SHAP value of each input column for each row.

        With `base_value` they add up to the log-odds of the probability, or to the probability itself
        (`contribution_unit`). A linear model's are exact relative to the training's mean row; those of trees are exact
        too, along the paths of the trees, and need the package shap.
        """
        values = self.evaluator.shap_values(self.features(frame))
        inputs = self.parameters["inputs"]
        starts = np.cumsum([0, *(len(_columns_of(column)) for column in inputs)])
        parts = np.add.reduceat(values, starts[:-1], axis=1)
        return pd.DataFrame(parts, columns=[column["name"] for column in inputs], index=frame.index)

    def features(self, frame: pd.DataFrame) -> Floats:
        """Return the vectors that the model scores: one row each."""
        blocks = [part for column in self.parameters["inputs"] for part in _block(column, frame)]
        return np.column_stack(blocks) if blocks else np.empty((len(frame), 0))


def _columns_of(column: dict[str, Any]) -> list[str]:
    return [column["name"]] if column["kind"] == "numeric" else [*column["levels"], "other"]


def _block(column: dict[str, Any], frame: pd.DataFrame) -> list[Floats]:
    name = column["name"]
    if name not in frame and not column["nullable"]:
        raise ValueError(f"there is no column {name!r}, which the model needs")
    values = frame[name] if name in frame else pd.Series(np.nan, index=frame.index, dtype="float64")
    if column["kind"] == "numeric":
        return [_standardised(_numbers(name, values), column["mean"], column["scale"])]
    texts = values.map(_text).to_numpy(dtype=object)
    known = [(texts == level).astype("float64") for level in column["levels"]]
    return [*known, 1.0 - np.sum(known, axis=0)] if known else [np.ones(len(frame))]


def _numbers(name: str, values: pd.Series) -> Floats:
    try:
        numbers: Floats = pd.to_numeric(values, errors="raise").to_numpy(dtype="float64", na_value=np.nan)
    except (ValueError, TypeError) as error:
        raise ValueError(f"column {name!r} has a value that is not a number: {error}") from error
    return numbers


def _standardised(values: Floats, mean: float, scale: float) -> Floats:
    scaled = (values - mean) / scale
    scaled[np.isnan(values)] = 0.0  # the mean, in place of an unknown value
    return scaled


def _text(value: Any) -> str | None:
    """Return a level as Spark writes it."""
    if pd.isna(value):
        return None
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))  # in pandas, integers with gaps are floats
    return str(value)


def _logistic(margin: Floats) -> Floats:
    with np.errstate(over="ignore"):
        odds: Floats = 1.0 / (1.0 + np.exp(-margin))
    return odds


class Linear:
    """A logistic regression; `background` is the mean of the vectors it was fitted on."""

    unit = "log-odds"

    def __init__(self, stored: dict[str, Any], background: Floats) -> None:
        self.coefficients = np.array(stored["coefficients"], dtype="float64")
        self.intercept = float(stored["intercept"])
        self.background = background

    @property
    def base_value(self) -> float:
        """The log-odds of the mean row."""
        return float(self.intercept + self.coefficients @ self.background)

    def probability(self, rows: Floats) -> Floats:
        """Return the probability of each row."""
        return _logistic(rows @ self.coefficients + self.intercept)

    def shap_values(self, rows: Floats) -> Floats:
        """Return what each feature adds to the log-odds of the mean row."""
        values: Floats = self.coefficients * (rows - self.background)
        return values


class Trees:
    """Binary trees, their nodes in flat arrays, with `roots` where each tree begins.

    `stored` has for each node `feature` (-1 in a leaf), `threshold`, `left`, `right`, `cover` (rows of the training)
    and `value` (of an inner node: the mean of those below). A row goes left if its feature is at most the threshold.
    The score is the sum of the leaves' values: the probability itself (link `identity`), or its log-odds (link
    `logit`).
    """

    def __init__(self, stored: dict[str, NDArray[Any]], described: dict[str, Any]) -> None:
        self.nodes = stored
        self.link: str = described["link"]
        self.unit = "log-odds" if self.link == "logit" else "probability"
        self._explainer: Any = None

    @property
    def base_value(self) -> float:
        """The mean score of the rows that the trees were fitted on."""
        return float(np.sum(self.nodes["value"][self.nodes["roots"]]))

    def probability(self, rows: Floats) -> Floats:
        """Return the probability of each row."""
        score = self.score(rows)
        return _logistic(score) if self.link == "logit" else score

    def score(self, rows: Floats) -> Floats:
        """Return the sum of the leaves that each row ends in."""
        total = np.zeros(len(rows))
        for root in self.nodes["roots"]:
            total += self.nodes["value"][self._leaves(rows, int(root))]
        return total

    def _leaves(self, rows: Floats, root: int) -> NDArray[np.int64]:
        at, every = np.full(len(rows), root), np.arange(len(rows))
        while (inner := self.nodes["feature"][at] >= 0).any():
            node, row = at[inner], every[inner]
            left = rows[row, self.nodes["feature"][node]] <= self.nodes["threshold"][node]
            at[inner] = np.where(left, self.nodes["left"][node], self.nodes["right"][node])
        return at

    def shap_values(self, rows: Floats) -> Floats:
        """Return what each feature adds to the score, by the exact algorithm for trees."""
        if self._explainer is None:
            import shap  # only here: scores need no shap, and it takes seconds to import

            described = [_described(self.nodes, number) for number in range(len(self.nodes["roots"]))]
            self._explainer = shap.TreeExplainer({"trees": described}, feature_perturbation="tree_path_dependent")
        values: Floats = np.asarray(self._explainer.shap_values(rows, check_additivity=False), dtype="float64")
        return values.reshape(rows.shape)


def _described(nodes: dict[str, NDArray[Any]], number: int) -> dict[str, NDArray[Any]]:
    """Return one tree in shap's form, with children counted from the tree's root."""
    start = int(nodes["roots"][number])
    end = int(nodes["roots"][number + 1]) if number + 1 < len(nodes["roots"]) else len(nodes["value"])
    tree = {name: nodes[name][start:end] for name in ("feature", "threshold", "left", "right", "value", "cover")}
    inner = tree["feature"] >= 0
    return {
        "children_left": np.where(inner, tree["left"] - start, -1),
        "children_right": np.where(inner, tree["right"] - start, -1),
        "children_default": np.where(inner, tree["left"] - start, -1),
        "features": np.where(inner, tree["feature"], -1),
        "thresholds": tree["threshold"],
        "values": tree["value"].reshape(-1, 1),
        "node_sample_weight": tree["cover"],
    }


mlflow.models.set_model(Scorer())
