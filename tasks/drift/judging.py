"""Evidently's comparison of two samples: a score for each column, which of them drifted, and a page to read.

The only module that knows Evidently.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tasks.contract import PermanentError
from tasks.drift.columns import Categorical, Columns, Numeric, Test, names, tests
from tasks.drift.page import inert

if TYPE_CHECKING:
    from evidently.core.report import Snapshot

    from tasks.drift.reading import Side

_FAILURES = (ValueError, ArithmeticError, LookupError, TypeError, RuntimeError)
"""What a method raises that cannot compare two samples: each as the library below it does."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """How far the current rows are from the reference."""

    scores: Mapping[str, float]
    """By column: a distance or a p-value, as its method gives it."""
    drifted: list[str]
    by_nulls: list[str]
    """Those whose share of rows without a value has changed, whatever their values."""
    page: str
    """The report, as self-contained HTML."""

    @property
    def share(self) -> float:
        """The share of columns that drifted."""
        return len(self.drifted) / len(self.scores)


def judge(current: Side, reference: Side, columns: Columns, max_share: float) -> Judgement:
    """Compare two samples; raise PermanentError if a method cannot compare a column.

    The page reports drift as a whole if the share is above `max_share`; it knows values only, and no nulls.
    """
    asked = tests(columns)
    comparison = _compared(current, reference, columns, asked, max_share)
    results: dict[str, Any] = comparison.dict()
    scores = _scores(results, asked)
    verdicts = {test["metric_config"]["params"].get("column"): test["status"].value for test in results["tests"]}
    by_nulls = [name for name, test in asked.items() if _nulls_moved(current, reference, name) >= test.null_threshold]
    drifted = [name for name in asked if verdicts[name] == "FAIL" or name in by_nulls]
    return Judgement(scores, drifted, by_nulls, _page(comparison, max_share))


def _nulls_moved(current: Side, reference: Side, name: str) -> float:
    return round(abs(current.nulls[name] - reference.nulls[name]), 9)  # 0.3 - 0.2 is 0.1


def _scores(results: Mapping[str, Any], asked: Iterable[str]) -> dict[str, float]:
    values = {metric["config"].get("column"): metric["value"] for metric in results["metrics"]}
    return {name: float(values[name]) for name in asked}


def _compared(
    current: Side, reference: Side, columns: Columns, asked: Mapping[str, Test], max_share: float
) -> Snapshot:
    """Return the comparison of all columns; raise PermanentError, naming each that its method cannot compare."""
    try:
        comparison = _run(current, reference, columns, asked, max_share)
        if all(map(math.isfinite, _scores(comparison.dict(), asked).values())):
            return comparison
        known: Exception | None = None
    except _FAILURES as error:
        known = error
    problems = [problem for name in asked if (problem := _problem(current, reference, columns, name, asked[name]))]
    if not problems:
        assert known is not None
        raise known
    raise PermanentError("; ".join(problems)) from None


def _problem(current: Side, reference: Side, columns: Columns, name: str, test: Test) -> str | None:
    """Return why a column's method cannot compare it, and which ones can; None if it can."""
    reason = _refusal(current, reference, columns, name, test)
    if reason is None:
        return None
    others = [other for other in test.methods if other != test.method]
    able = [other for other in others if not _refusal(current, reference, columns, name, replace(test, method=other))]
    remedy = f"use another in the step ({', '.join(able)} can)" if able else "leave it out, as no other method can"
    counts = f"{current.values[name]:,} values now, {reference.values[name]:,} in the reference"
    return f"the method {test.method} cannot compare {name} ({reason}; {counts}); {remedy}"


def _refusal(current: Side, reference: Side, columns: Columns, name: str, test: Test) -> str | None:
    try:
        score = _scores(_run(current, reference, columns, {name: test}, 0).dict(), [name])[name]
    except _FAILURES as error:
        return " ".join(str(error).split())[:200] or type(error).__name__
    return None if math.isfinite(score) else f"it gives {score}"


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
    numbers, categories = ([name for name in names(group) if name in asked] for group in _groups(columns))
    kinds = DataDefinition(numerical_columns=numbers, categorical_columns=categories)
    sides = [Dataset.from_pandas(side.rows[list(asked)], data_definition=kinds) for side in (current, reference)]
    return Report([preset], include_tests=True).run(*sides)


def _groups(columns: Columns) -> tuple[Numeric | None, Categorical | None]:
    return columns.numeric, columns.categorical
