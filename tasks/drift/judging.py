"""Evidently's comparison of two samples: a score for each column, which of them drifted, and a page to read.

The only module that knows Evidently.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.contract import PermanentError
from tasks.drift.columns import Columns, Test, names, tests
from tasks.drift.page import inert

if TYPE_CHECKING:
    from evidently.core.report import Snapshot

    from tasks.drift.reading import Side


@dataclass(frozen=True, slots=True)
class Judgement:
    """How far the current rows are from the reference."""

    share: float
    """The share of columns that drifted."""
    scores: Mapping[str, float]
    """By column: a distance or a p-value, as its method gives it."""
    drifted: list[str]
    page: str
    """The report, as self-contained HTML."""


def judge(current: Side, reference: Side, columns: Columns, max_share: float) -> Judgement:
    """Compare two samples; raise PermanentError if a method cannot compare a column.

    The page reports drift as a whole if the share is above `max_share`.
    """
    asked = tests(columns)
    comparison = _run(current, reference, columns, asked, max_share)
    results: dict[str, Any] = comparison.dict()
    values = {metric["config"].get("column"): metric["value"] for metric in results["metrics"]}
    scores = {name: float(values[name]) for name in asked}
    for name, score in scores.items():
        if not math.isfinite(score):
            raise PermanentError(
                f"the method {asked[name].method} gives {score} for {name}; use another method for it in the step"
            )
    verdicts = {test["metric_config"]["params"].get("column"): test["status"].value for test in results["tests"]}
    drifted = [name for name in asked if verdicts[name] == "FAIL"]
    return Judgement(float(values[None]["share"]), scores, drifted, _page(comparison, max_share))


def _page(comparison: Snapshot, max_share: float) -> str:
    """Return the report as HTML, showing the real maximum share instead of the one that Evidently was given."""
    page = inert(comparison.get_html_str(as_iframe=False))
    return page.replace(f"threshold is {_just_above(max_share)}", f"threshold is {max_share}")


def _just_above(max_share: float) -> float:
    """Return the share for Evidently: it reports drift at the share, we only above it."""
    return math.nextafter(max_share, 2)


def _run(current: Side, reference: Side, columns: Columns, asked: Mapping[str, Test], max_share: float) -> Snapshot:
    os.environ["DO_NOT_TRACK"] = "1"  # before the import, else it reports to its makers
    logging.getLogger("evidently").setLevel(logging.WARNING)
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    preset = DataDriftPreset(
        columns=list(asked),
        drift_share=_just_above(max_share),
        per_column_method={name: test.method for name, test in asked.items()},
        per_column_threshold={name: test.threshold for name, test in asked.items()},
    )
    kinds = DataDefinition(numerical_columns=names(columns.numeric), categorical_columns=names(columns.categorical))
    sides = [Dataset.from_pandas(side.rows, data_definition=kinds) for side in (current, reference)]
    return Report([preset], include_tests=True).run(*sides)
