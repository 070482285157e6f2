"""What Evidently makes of two samples: a score for each column, which of them drifted, and a page to look at.

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

if TYPE_CHECKING:
    from evidently.core.report import Snapshot

    from tasks.drift.reading import Side


@dataclass(frozen=True, slots=True)
class Judgement:
    """How far the current rows are from the reference."""

    share: float
    """Of the columns, those that drifted."""
    scores: Mapping[str, float]
    """By column: a distance or a p-value, as its method gives it."""
    drifted: list[str]
    page: str
    """The report, as HTML that needs nothing from elsewhere."""


def judge(current: Side, reference: Side, columns: Columns, max_share: float) -> Judgement:
    """Compare two samples; raise PermanentError where a method cannot compare a column.

    The page says that the whole has drifted where the share is above `max_share`.
    """
    asked = tests(columns)
    found = _run(current, reference, columns, asked, max_share)
    results: dict[str, Any] = found.dict()
    values = {one["config"].get("column"): one["value"] for one in results["metrics"]}
    scores = {name: float(values[name]) for name in asked}
    for name, score in scores.items():
        if not math.isfinite(score):
            raise PermanentError(
                f"the method {asked[name].method} gives {score} for {name}; let its step compare it by another method"
            )
    verdicts = {one["metric_config"]["params"].get("column"): one["status"].value for one in results["tests"]}
    drifted = [name for name in asked if verdicts[name] == "FAIL"]
    return Judgement(float(values[None]["share"]), scores, drifted, _page(found, max_share))


def _page(found: Snapshot, max_share: float) -> str:
    """Return the report as HTML, with the share that was asked for where Evidently shows the one that it was handed."""
    page: str = found.get_html_str(as_iframe=False)
    return page.replace(f"threshold is {_just_above(max_share)}", f"threshold is {max_share}")


def _just_above(max_share: float) -> float:
    """Return the share for Evidently, whose drift begins at it: ours is above it."""
    return math.nextafter(max_share, 2)


def _run(current: Side, reference: Side, columns: Columns, asked: Mapping[str, Test], max_share: float) -> Snapshot:
    os.environ["DO_NOT_TRACK"] = "1"  # before the import: it reports to its makers otherwise
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
