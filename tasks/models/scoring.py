"""How good fitted candidates are, measured inside Spark: the driver sees histograms of scores, never the scores.

The bins are equally wide in log-odds, from -20 to 20: 2**-20 each if that gives few cells, else 1/4096. Log loss,
Brier score and the counts at the threshold are exact sums. The areas under the ROC and the precision-recall curve
treat the rows of one bin as ties: with fine bins they are those of the scores themselves, with coarse ones they differ
by less than 1e-5 if scores are spread out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pyspark.ml.classification import ProbabilisticClassificationModel
    from pyspark.sql import Column, DataFrame

    Floats = NDArray[np.float64]

Threshold = Annotated[float, Field(gt=0, lt=1)] | Literal["max_f1", "max_youden"]
"""The decision threshold: a number, or the best by F1 or by Youden's J on the training rows."""

_FINE, _COARSE = 2**20, 4096
"""Bins for each unit of log-odds."""
_FEW_CELLS = 300_000
"""Sums that fit easily into the driver's memory."""
_ALMOST_ZERO = 2e-9
"""A probability with log-odds of about -20: everything beyond is in one bin."""
_SMALLEST = 1e-15
"""A prediction that was certain and wrong gets the log loss of this probability, not infinity."""
_AT_ONCE = 10
"""Candidates scored in one job: with more, planning costs Spark more than it saves."""


@dataclass(frozen=True, slots=True)
class Curve:
    """The scores of one candidate, summed by bin, the highest scores first."""

    rows: Floats
    positives: Floats
    scores: Floats
    """The sum of the probabilities in each bin."""
    lowest: Floats
    """The smallest probability in each bin."""

    @property
    def negatives(self) -> Floats:
        """Rows of each bin whose label is 0."""
        return self.rows - self.positives

    def rates(self) -> tuple[Floats, Floats, Floats]:
        """Return false positive rate, recall and precision if all bins down to each count as positive."""
        hits, alarms = self.positives.cumsum(), self.negatives.cumsum()
        return alarms / alarms[-1], hits / hits[-1], hits / (hits + alarms)

    def roc_auc(self) -> float:
        """Return the area under the ROC curve: ties count one half."""
        below = self.negatives.sum() - self.negatives.cumsum()
        ordered = (self.positives * (below + self.negatives / 2)).sum()
        return float(ordered / (self.positives.sum() * self.negatives.sum()))

    def pr_auc(self) -> float:
        """Return the average precision: precision weighted by the recall that each bin adds."""
        _, _, precision = self.rates()
        return float((precision * self.positives).sum() / self.positives.sum())

    def best_threshold(self, by: str) -> float:
        """Return the threshold with the highest F1 (`max_f1`) or recall minus false positive rate (`max_youden`)."""
        alarm, recall, precision = self.rates()
        if by == "max_youden":
            gain = recall - alarm
        else:
            total = precision + recall
            gain = 2 * precision * recall / (total + (total == 0))
        return float(self.lowest[gain.argmax()])


@dataclass(frozen=True, slots=True)
class Confusion:
    """The counts of right and wrong predictions at the threshold."""

    true_positives: int
    false_positives: int
    true_negatives: int
    false_negatives: int


@dataclass(frozen=True, slots=True)
class Scores:
    """How good one candidate is on rows that it was not fitted on."""

    curve: Curve
    confusion: Confusion
    metrics: Mapping[str, float]


def score_candidates(
    rows: DataFrame,
    held_out: str,
    models: Sequence[ProbabilisticClassificationModel],
    label: str,
    threshold: Threshold,
) -> list[Scores]:
    """Return the scores of each model on the rows whose column `held_out` is true.

    A threshold that must be searched for is searched for on the others.
    """
    from pyspark.sql import functions as sql

    test, train = rows.where(sql.col(held_out)), rows.where(~sql.col(held_out))
    bins = _FINE if test.count() * min(len(models), _AT_ONCE) <= _FEW_CELLS else _COARSE
    scores: list[Scores] = []
    for start in range(0, len(models), _AT_ONCE):
        some = models[start : start + _AT_ONCE]
        thresholds = _thresholds(train, some, label, threshold)
        scores += _scores(test, some, label, thresholds, bins)
    return scores


def _thresholds(
    train: DataFrame, models: Sequence[ProbabilisticClassificationModel], label: str, threshold: Threshold
) -> list[float]:
    if not isinstance(threshold, str):
        return [threshold] * len(models)
    columns, sums = _binned(train, models, label, None, _COARSE)
    return [_curve(columns, candidate, sums).best_threshold(threshold) for candidate in range(len(models))]


def _scores(
    test: DataFrame,
    models: Sequence[ProbabilisticClassificationModel],
    label: str,
    thresholds: list[float],
    bins: int,
) -> Iterator[Scores]:
    columns, sums = _binned(test, models, label, thresholds, bins)
    for candidate, threshold in enumerate(thresholds):
        totals = {name: float(columns[name][columns["candidate"] == candidate].sum()) for name in sums}
        confusion = Confusion(
            true_positives=round(totals["hits"]),
            false_positives=round(totals["called"] - totals["hits"]),
            true_negatives=round(totals["rows"] - totals["positives"] - totals["called"] + totals["hits"]),
            false_negatives=round(totals["positives"] - totals["hits"]),
        )
        curve = _curve(columns, candidate, sums)
        metrics = {
            "roc_auc": curve.roc_auc(),
            "pr_auc": curve.pr_auc(),
            "log_loss": totals["losses"] / totals["rows"],
            "brier": totals["squares"] / totals["rows"],
            "accuracy": (confusion.true_positives + confusion.true_negatives) / totals["rows"],
            "threshold": threshold,
        }
        yield Scores(curve, confusion, metrics)


def _curve(columns: Mapping[str, Floats], candidate: int, sums: Sequence[str]) -> Curve:
    mine = columns["candidate"] == candidate
    order = (-columns["bin"][mine]).argsort(kind="stable")
    picked = {name: columns[name][mine][order] for name in (*sums, "lowest")}
    return Curve(picked["rows"], picked["positives"], picked["scores"], picked["lowest"])


def _binned(
    rows: DataFrame,
    models: Sequence[ProbabilisticClassificationModel],
    label: str,
    thresholds: Sequence[float] | None,
    bins: int,
) -> tuple[dict[str, Floats], list[str]]:
    """Return the sums over each bin of each candidate, from one job, and the names of those that can be added up."""
    from pyspark.ml.functions import vector_to_array
    from pyspark.sql import functions as sql

    scored = rows
    for model in models:
        scored = model.transform(scored)
    cells = [
        sql.struct(
            sql.lit(number).alias("candidate"),
            vector_to_array(sql.col(model.getProbabilityCol()))[1].alias("p"),
            sql.lit(0.5 if thresholds is None else thresholds[number]).alias("threshold"),
        )
        for number, model in enumerate(models)
    ]
    exploded = scored.select(sql.col(label).alias("y"), sql.explode(sql.array(*cells)).alias("cell"))
    measures = _measures(exact=thresholds is not None)
    counted = (
        exploded.select("y", "cell.*")
        .groupBy("candidate", _bin(sql.col("p"), bins).alias("bin"))
        .agg(sql.min("p").alias("lowest"), *[measure.alias(name) for name, measure in measures.items()])
    )
    table = counted.toArrow()
    return {name: table[name].to_numpy().astype("float64") for name in table.column_names}, list(measures)


def _bin(probability: Column, bins: int) -> Column:
    from pyspark.sql import functions as sql

    inner = sql.least(sql.greatest(probability, sql.lit(_ALMOST_ZERO)), sql.lit(1 - _ALMOST_ZERO))
    return sql.floor(sql.log(inner / (1 - inner)) * bins)


def _measures(*, exact: bool) -> dict[str, Column]:
    from pyspark.sql import functions as sql

    y, p = sql.col("y"), sql.col("p")
    measures = {"rows": sql.count(sql.lit(1)), "positives": sql.sum(y), "scores": sql.sum(p)}
    if exact:
        chance = sql.when(y == 1.0, p).otherwise(1 - p)
        called = p >= sql.col("threshold")
        measures["losses"] = sql.sum(-sql.log(sql.greatest(chance, sql.lit(_SMALLEST))))
        measures["squares"] = sql.sum((p - y) * (p - y))
        measures["called"] = sql.count_if(called)
        measures["hits"] = sql.count_if(called & (y == 1.0))
    return measures
