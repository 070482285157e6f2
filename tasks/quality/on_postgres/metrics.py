"""Replaces some of Great Expectations' own computations on Postgres.

Two expectations that it only knows on pandas get SQL; the uniqueness of a compound key is counted in one grouped scan
instead of joining the table with itself; and a query for failing rows is limited in the server, where the library
would fetch them all to show a few. The results stay the same; the tests check it.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable
from itertools import count
from typing import Any

from tasks.quality.on_postgres import limits
from tasks.quality.on_postgres.conditions import quoted
from tasks.quality.on_postgres.date_formats import matches_format

ADDED = frozenset({"expect_column_values_to_be_json_parseable", "expect_column_values_to_match_strftime_format"})
"""Expectations that run in a database only because of these metrics."""


@functools.cache
def install() -> None:
    """Register these metrics with the library, once per process."""
    registry = logging.getLogger("great_expectations.expectations.registry")
    level = registry.level
    registry.setLevel(logging.ERROR)  # it warns about each replaced metric
    try:
        _add_conditions()
        _count_compound_keys()
        _bound_queries()
        limits.install()
    finally:
        registry.setLevel(level)


def _add_conditions() -> None:
    import sqlalchemy as sa
    from great_expectations.execution_engine.sqlalchemy_execution_engine import SqlAlchemyExecutionEngine
    from great_expectations.expectations.metrics.map_metric_provider.column_condition_partial import (
        column_condition_partial,
    )
    from great_expectations.expectations.metrics.map_metric_provider.column_map_metric_provider import (
        ColumnMapMetricProvider,
    )

    class MatchesStrftimeFormat(ColumnMapMetricProvider):
        condition_metric_name = "column_values.match_strftime_format"
        condition_value_keys = ("strftime_format",)

        @column_condition_partial(engine=SqlAlchemyExecutionEngine)
        def _sqlalchemy(self, column: Any, strftime_format: str, **_: Any) -> Any:
            condition = matches_format(quoted(column.name), strftime_format)
            if condition is None:
                raise NotImplementedError(f"the format {strftime_format!r} cannot be checked in SQL")
            return sa.literal_column(f"({condition})", type_=sa.Boolean())

    class IsJson(ColumnMapMetricProvider):
        condition_metric_name = "column_values.json_parseable"

        @column_condition_partial(engine=SqlAlchemyExecutionEngine)
        def _sqlalchemy(self, column: Any, **_: Any) -> Any:
            return sa.literal_column(f"(CAST({quoted(column.name)} AS text) IS JSON)", type_=sa.Boolean())


def _count_compound_keys() -> None:
    import sqlalchemy as sa
    from great_expectations.core.metric_domain_types import MetricDomainTypes
    from great_expectations.execution_engine.sqlalchemy_execution_engine import SqlAlchemyExecutionEngine
    from great_expectations.expectations.metrics.metric_provider import MetricProvider, metric_value
    from great_expectations.util import get_sqlalchemy_selectable

    class RepeatedCompoundKeys(MetricProvider):
        metric_name = "compound_columns.unique.unexpected_count"
        domain_keys = ("batch_id", "table", "column_list", "row_condition", "condition_parser", "ignore_row_if")

        @metric_value(engine=SqlAlchemyExecutionEngine)
        def _sqlalchemy(cls, execution_engine: Any, metric_domain_kwargs: dict[str, Any], **_: Any) -> int:  # noqa: N805  the library calls it with the class
            rows, _, accessor = execution_engine.get_compute_domain(
                metric_domain_kwargs, domain_type=MetricDomainTypes.MULTICOLUMN
            )
            columns: list[Any] = [sa.column(name) for name in accessor["column_list"]]
            known = sa.and_(*(column.is_not(None) for column in columns))
            copies = sa.select(sa.func.count().label("copies")).select_from(get_sqlalchemy_selectable(rows))
            repeated = copies.where(known).group_by(*columns).having(sa.func.count() > 1).subquery()
            total = sa.select(sa.func.coalesce(sa.func.sum(repeated.c.copies), 0))
            return int(execution_engine.execute_query(total).scalar())


def _distinct(names: Iterable[str]) -> list[str]:
    """Return the names of a result's columns, with a number after those that repeat."""
    known: list[str] = []
    for name in names:
        numbered = (f"{name} {number}" for number in count(2))
        known.append(name if name not in known else next(one for one in numbered if one not in known))
    return known


def _bound_queries() -> None:
    import sqlalchemy as sa
    from great_expectations.constants import MAX_RESULT_RECORDS
    from great_expectations.execution_engine.sqlalchemy_execution_engine import SqlAlchemyExecutionEngine
    from great_expectations.expectations.metrics.metric_provider import metric_value
    from great_expectations.expectations.metrics.query_metrics.query_data_source_table import (
        comparison_query_data_source_table,
    )
    from great_expectations.expectations.metrics.query_metrics.query_table import (
        base_query_table,
        unexpected_rows_query_table,
    )

    def shown(substituted_batch_subquery: str, execution_engine: Any, **_: Any) -> list[dict[str, Any]]:
        rows = sa.text(f"{substituted_batch_subquery}\n").columns().subquery()
        few = sa.select(sa.text("*")).select_from(rows).limit(MAX_RESULT_RECORDS)
        found = execution_engine.execute_query(few)
        names = _distinct(found.keys())
        return [dict(zip(names, row, strict=True)) for row in found]

    def bound(metric: Any) -> None:
        def records(cls: Any, **arguments: Any) -> Any:
            return metric._sqlalchemy(cls, **arguments)  # noqa: SLF001  the library offers no other way in

        made: Any = type(metric)  # a metric is registered when its class is made
        made(
            f"Bounded{metric.__name__}",
            (metric,),
            {
                "_sqlalchemy": metric_value(engine=SqlAlchemyExecutionEngine)(records),
                "_get_sqlalchemy_records_from_substituted_batch_subquery": staticmethod(shown),
            },
        )

    bound(unexpected_rows_query_table.UnexpectedRowsQueryTable)
    bound(base_query_table.BaseQueryTable)
    bound(comparison_query_data_source_table.ComparisonQueryDataSourceTable)
