"""Replaces how Great Expectations compares a number about a column with its limits.

The library makes JSON of what the server answers before it compares: NaN becomes null, a large number loses digits, a
date becomes text, and a date cannot be compared with a time.
"""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from operator import ge, gt, le, lt
from typing import TYPE_CHECKING, Any

from tasks.quality.on_postgres.values import Moment, as_utc, exact

if TYPE_CHECKING:
    from collections.abc import Mapping


def install() -> None:
    """Let the library keep what the server answers, and compare it as the server would."""
    from great_expectations.execution_engine import sqlalchemy_execution_engine
    from great_expectations.expectations.expectation import BatchExpectation

    engine: Any = sqlalchemy_execution_engine
    converted = engine.convert_to_json_serializable

    def kept(data: Any) -> Any:
        if isinstance(data, Decimal):
            return exact(data)
        return data if isinstance(data, Moment | float) else converted(data=data)

    def judged(self: Any, metric_name: str, metrics: Mapping[str, Any], *_: Any, **__: Any) -> dict[str, Any]:
        value, limits = metrics.get(metric_name), self._get_success_kwargs()  # the library offers no other way in
        return {"success": is_within(value, limits), "result": {"observed_value": value}}

    engine.convert_to_json_serializable = kept
    BatchExpectation._validate_metric_value_between = judged  # type: ignore[method-assign]  # noqa: SLF001
    _leave_out_undefined_scores()


def is_within(value: Any, limits: Mapping[str, Any]) -> bool:
    """Return whether a number about a column keeps its limits; null and NaN keep none."""
    if value is None or value != value:  # noqa: PLR0124  # NaN
        return False
    low, high = limits.get("min_value"), limits.get("max_value")
    return (low is None or _holds(gt if limits.get("strict_min") else ge, value, low)) and (
        high is None or _holds(lt if limits.get("strict_max") else le, value, high)
    )


def _holds(compares: Any, value: Any, limit: Any) -> bool:
    try:
        return bool(compares(*_alike(value, limit)))
    except (TypeError, ValueError):
        raise ValueError(f"its value is {_written(value)}, which cannot be compared with {_written(limit)}") from None


def _alike(value: Any, limit: Any) -> tuple[Any, Any]:
    """Return both as times if the limit is one: the column may hold times as text."""
    from dateutil.parser import parse  # type: ignore[import-untyped]  # what the library reads them with

    if isinstance(limit, str):
        limit = parse(limit)
    if not isinstance(limit, dt.date):
        return value, limit
    return (as_utc(parse(value)) if isinstance(value, str) else value), as_utc(limit)


def _written(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else f'"{value}"'


def _leave_out_undefined_scores() -> None:
    """Let no row have a z-score if the deviation is NaN, as in the library, which takes that for null."""
    import sqlalchemy as sa
    from great_expectations.execution_engine.sqlalchemy_execution_engine import SqlAlchemyExecutionEngine
    from great_expectations.expectations.metrics.column_map_metrics.column_values_z_score import ColumnValuesZScore
    from great_expectations.expectations.metrics.map_metric_provider.column_function_partial import (
        column_function_partial,
    )

    class DefinedZScore(ColumnValuesZScore):
        @column_function_partial(engine=SqlAlchemyExecutionEngine)  # type: ignore[untyped-decorator]
        def _sqlalchemy_function(self, column: Any, _metrics: Mapping[str, Any], **_: Any) -> Any:
            mean, deviation = _metrics["column.mean"], _metrics["column.standard_deviation"]
            if not deviation or deviation != deviation:  # noqa: PLR0124  # NaN
                return sa.cast(sa.null(), sa.Float)
            return (column - mean) / deviation
