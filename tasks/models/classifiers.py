"""The classifiers that a training can fit, and their grids: what a person writes, and the Spark estimators it gives.

Knows Spark's classifiers by name; knows nothing about the data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Annotated, Self, TypeVar

from pydantic import Field, model_validator

from tasks.contract import Model

if TYPE_CHECKING:
    from pyspark.ml.classification import ProbabilisticClassifier

T = TypeVar("T")

_LARGEST_GRID = 100

Grid = Annotated[list[T], Field(min_length=1, max_length=20)]
"""The values to try; a grid is the product of its lists."""
Share = Annotated[float, Field(ge=0, le=1)]
PositiveShare = Annotated[float, Field(gt=0, le=1)]
Depth = Annotated[int, Field(ge=1, le=15)]
Count = Annotated[int, Field(ge=1, le=500)]
Rows = Annotated[int, Field(ge=1, le=1_000_000)]


class LogisticRegression(Model):
    """A linear model of the log-odds; its penalty mixes squares (elastic net 0) and absolute values (1)."""

    reg_param: Grid[Annotated[float, Field(ge=0, le=1000)]] = Field(default=[0.01])
    elastic_net_param: Grid[Share] = Field(default=[0.0])
    max_iter: Annotated[int, Field(ge=1, le=1000)] = 100


class DecisionTree(Model):
    """One tree."""

    max_depth: Grid[Depth] = Field(default=[5])
    min_instances_per_node: Grid[Rows] = Field(default=[20])


class RandomForest(Model):
    """The mean of many trees, each fitted on a sample of rows and columns."""

    num_trees: Grid[Count] = Field(default=[50])
    max_depth: Grid[Depth] = Field(default=[8])
    min_instances_per_node: Grid[Rows] = Field(default=[20])
    subsampling_rate: Grid[PositiveShare] = Field(default=[1.0])


class GradientBoostedTrees(Model):
    """Trees that each correct the errors of those before; `max_iter` is their number."""

    max_iter: Grid[Count] = Field(default=[30])
    max_depth: Grid[Depth] = Field(default=[4])
    step_size: Grid[PositiveShare] = Field(default=[0.1])
    min_instances_per_node: Grid[Rows] = Field(default=[20])
    subsampling_rate: Grid[PositiveShare] = Field(default=[1.0])


class Classifier(Model):
    """The classifier to fit, and its grid: one of the four, by name."""

    logistic_regression: LogisticRegression | None = None
    decision_tree: DecisionTree | None = None
    random_forest: RandomForest | None = None
    gradient_boosted_trees: GradientBoostedTrees | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if len(self.model_fields_set) != 1 or self._grid() is None:
            raise ValueError(f"name one classifier: {', '.join(type(self).model_fields)}")
        size = prod(len(values) for values in self._axes().values())
        if size > _LARGEST_GRID:
            raise ValueError(f"the grid has {size} candidates; {_LARGEST_GRID} are allowed: shorten its lists")
        return self

    @property
    def kind(self) -> str:
        """The name of the classifier."""
        return next(iter(self.model_fields_set))

    def candidates(self) -> list[Candidate]:
        """Return the candidates to fit, in the order of the grid."""
        fixed = {name: value for name, value in self._settings().items() if not isinstance(value, list)}
        axes = self._axes()
        tried = (dict(zip(axes, values, strict=True)) for values in product(*axes.values()))
        return [Candidate(number, self.kind, point, fixed) for number, point in enumerate(tried)]

    def _grid(self) -> Model | None:
        grid: Model | None = getattr(self, self.kind)
        return grid

    def _settings(self) -> dict[str, object]:
        grid = self._grid()
        return {} if grid is None else {name: getattr(grid, name) for name in type(grid).model_fields}

    def _axes(self) -> dict[str, list[float]]:
        return {name: value for name, value in self._settings().items() if isinstance(value, list)}


@dataclass(frozen=True, slots=True)
class Candidate:
    """One point of the grid."""

    number: int
    """Its place in the grid, from 0."""
    kind: str
    tried: Mapping[str, float]
    fixed: Mapping[str, object]

    def __str__(self) -> str:
        return " ".join(f"{name}={value:g}" for name, value in self.tried.items())

    @property
    def params(self) -> dict[str, object]:
        """All of its settings, by Spark's names in snake case."""
        return {"classifier": self.kind, **self.tried, **self.fixed}


def estimator(candidate: Candidate, *, label: str, features: str, seed: int) -> ProbabilisticClassifier:
    """Return a candidate's Spark estimator; its only output column is the probability, named by its number."""
    from pyspark.ml import classification

    kinds = {
        "logistic_regression": classification.LogisticRegression,
        "decision_tree": classification.DecisionTreeClassifier,
        "random_forest": classification.RandomForestClassifier,
        "gradient_boosted_trees": classification.GBTClassifier,
    }
    made: ProbabilisticClassifier = kinds[candidate.kind]()
    settings: dict[str, object] = {"label_col": label, "features_col": features, **candidate.tried, **candidate.fixed}
    # Without the other columns, Spark computes the probability from the vector in one step.
    settings |= {"raw_prediction_col": "", "prediction_col": "", "probability_col": f"_probability_{candidate.number}"}
    if made.hasParam("seed"):
        settings["seed"] = seed
    if made.hasParam("standardization"):
        settings["standardization"] = False  # numbers are standardised already; indicators of levels stay 0 and 1
    for name, value in settings.items():
        made.set(made.getParam(_camel(name)), value)
    return made


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.title() for word in rest)
