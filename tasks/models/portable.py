"""Turns a fitted Spark model into one that scores without Java, and proves that both give the same scores.

Knows how Spark's models store their numbers and how MLflow stores a model written as code (`served/scorer.py`); knows
nothing about runs or registries.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.contract import PermanentError

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.models import ModelSignature
    from numpy.typing import NDArray
    from pyspark.ml.classification import ProbabilisticClassificationModel

    from tasks.models.preparation import Input

SCORER = Path(__file__).with_name("served") / "scorer.py"
TOLERANCE = 1e-9
_EXAMPLE_ROWS = 3

Nodes = dict[str, "NDArray[Any]"]


@dataclass(frozen=True, slots=True)
class Portable:
    """A model as numbers: the content of `parameters.json` and, for trees, of `trees.npz`."""

    parameters: Mapping[str, object]
    nodes: Nodes | None


def portable(model: ProbabilisticClassificationModel, saved: Path, inputs: list[Input], threshold: float) -> Portable:
    """Return the numbers of a fitted model, which was saved to the folder `saved`."""
    from pyspark.ml.classification import LogisticRegressionModel

    parameters: dict[str, object] = {
        "threshold": threshold,
        "inputs": [_described(column) for column in inputs],
        "background": [share for column in inputs for share in column.background],
    }
    if isinstance(model, LogisticRegressionModel):
        linear = {"coefficients": model.coefficients.toArray().tolist(), "intercept": model.intercept}
        return Portable({**parameters, "linear": linear}, None)
    nodes, link = _nodes(saved)
    return Portable({**parameters, "trees": {"link": link}}, nodes)


def _described(column: Input) -> dict[str, object]:
    shared: dict[str, object] = {"name": column.name, "kind": column.kind, "nullable": column.nullable}
    if column.kind == "numeric":
        return {**shared, "mean": column.mean, "scale": column.scale}
    return {**shared, "levels": list(column.levels)}


def _nodes(saved: Path) -> tuple[Nodes, str]:
    """Read the trees of a saved model of Spark 4.3: rows of nodes, in one table for all trees."""
    import pyarrow.parquet as pq

    kind = _saved_class(saved)
    rows = pq.read_table(saved / "data").to_pylist()
    trees: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        trees.setdefault(row.get("treeID", 0), []).append(row.get("nodeData", row))
    weights = _tree_weights(saved)
    if kind == "GBTClassificationModel":
        scale = {number: 2 * weights[number] for number in trees}  # Spark's loss uses 2·label - 1
        return _flat(trees, lambda number, node: scale[number] * float(node["prediction"])), "logit"
    share = 1 / len(trees)
    return _flat(trees, lambda _, node: share * _positive(node["impurityStats"])), "identity"


def _saved_class(saved: Path) -> str:
    (metadata,) = (saved / "metadata").glob("part-*")
    name: str = json.loads(metadata.read_text())["class"]
    return name.rpartition(".")[2]


def _tree_weights(saved: Path) -> dict[int, float]:
    import pyarrow.parquet as pq

    if not (saved / "treesMetadata").exists():
        return {0: 1.0}
    return {int(tree): float(weight) for tree, _, weight in _rows(pq.read_table(saved / "treesMetadata"))}


def _rows(table: Any) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in table.to_pylist()]


def _positive(stats: list[float]) -> float:
    return stats[1] / sum(stats)


def _flat(trees: dict[int, list[dict[str, Any]]], value: Any) -> Nodes:
    """Return the nodes of all trees in one sequence, each tree's in the order of their ids, parents first."""
    import numpy as np

    columns: dict[str, list[Any]] = {name: [] for name in ("feature", "threshold", "left", "right", "value", "cover")}
    roots: list[int] = []
    for number in sorted(trees):
        start = len(columns["value"])
        roots.append(start)
        for node in sorted(trees[number], key=lambda node: int(node["id"])):
            inner = node["leftChild"] >= 0
            columns["feature"].append(node["split"]["featureIndex"] if inner else -1)
            columns["threshold"].append(node["split"]["leftCategoriesOrThreshold"][0] if inner else 0.0)
            columns["left"].append(start + node["leftChild"] if inner else -1)
            columns["right"].append(start + node["rightChild"] if inner else -1)
            columns["value"].append(value(number, node))
            columns["cover"].append(float(node["rawCount"]))
    flat = {name: np.array(values) for name, values in columns.items()}
    return _averaged(flat) | {"roots": np.array(roots)}


def _averaged(nodes: Nodes) -> Nodes:
    """Return the nodes, with each inner node's value set to the mean of its children, weighted by their rows."""
    values, cover = nodes["value"].copy(), nodes["cover"]
    for node in reversed(range(len(values))):
        if nodes["feature"][node] >= 0:
            left, right = int(nodes["left"][node]), int(nodes["right"][node])
            below = cover[left] + cover[right]
            values[node] = (cover[left] * values[left] + cover[right] * values[right]) / below
    return nodes | {"value": values}


def save_model(numbers: Portable, inputs: list[Input], sample: pd.DataFrame, folder: Path) -> Path:
    """Save the model in MLflow's format, with signature and example, and return its folder."""
    import numpy as np
    from mlflow import pyfunc

    parameters = folder / "parameters.json"
    parameters.write_text(json.dumps(numbers.parameters, ensure_ascii=False, indent=1), encoding="utf-8")
    artifacts = {"parameters": str(parameters)}
    if numbers.nodes is not None:
        artifacts["trees"] = str(folder / "trees.npz")
        np.savez_compressed(folder / "trees.npz", allow_pickle=False, **numbers.nodes)
    target = folder / "model"
    pyfunc.save_model(
        path=str(target),
        python_model=str(SCORER),
        artifacts=artifacts,
        signature=_signature(inputs),
        input_example=sample[[column.name for column in inputs]].head(_EXAMPLE_ROWS),
        pip_requirements=_requirements(trees=numbers.nodes is not None),
    )
    return target


def _signature(inputs: list[Input]) -> ModelSignature:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec

    columns: list[ColSpec | TensorSpec] = [
        ColSpec(column.type, column.name, required=not column.nullable) for column in inputs
    ]
    outputs: list[ColSpec | TensorSpec] = [ColSpec("double", "probability"), ColSpec("long", "prediction")]
    return ModelSignature(inputs=Schema(columns), outputs=Schema(outputs))


def _requirements(*, trees: bool) -> list[str]:
    """Return the packages that scoring needs, in the versions checked here; shap explains the scores of trees."""
    from importlib.metadata import version

    names = ["mlflow", "numpy", "pandas", *(["shap"] if trees else [])]
    return [f"{name}=={version(name)}" for name in names]


def check_same(model: Path, sample: pd.DataFrame, inputs: list[Input], key: str) -> float:
    """Return the largest difference between the saved model's probabilities and Spark's.

    `sample` has the inputs and Spark's `probability`. Raises PermanentError if it is more than TOLERANCE.
    """
    from mlflow import pyfunc

    loaded = pyfunc.load_model(str(model))
    probability = loaded.predict(sample[[column.name for column in inputs]])["probability"].to_numpy()
    expected = sample["probability"].to_numpy()
    difference = abs(probability - expected)
    worst = int(difference.argmax())
    if not difference[worst] <= TOLERANCE:  # a NaN does not agree
        raise PermanentError(_disagreement(sample, worst, key, float(probability[worst]), float(expected[worst])))
    return float(difference[worst])


def _disagreement(sample: pd.DataFrame, row: int, key: str, ours: float, spark: float) -> str:
    pair = f"{key}={sample[key].iloc[row]}: probability {ours!r}, Spark's is {spark!r}"
    return f"the model that scores without Java does not agree with Spark's to {TOLERANCE:g}: {pair}; nothing is logged"
