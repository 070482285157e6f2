"""What lint checks in a suite: its form, mistakes in expectations, whether rows that break one can be set aside.

The factory's only door to this family. It works without the library, which takes seconds to import.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.contract import TextKind
from tasks.quality import expectations
from tasks.quality.expectations import QUERIES, QUERY_HINT, ExpectationSchema, Problem, catalogue
from tasks.quality.on_postgres import conditions
from tasks.quality.on_postgres.row_queries import check_query
from tasks.quality.suites import Batch, Expectation, Quarantine, Suite

__all__ = [
    "QUERY_HINT",
    "Batch",
    "ExpectationSchema",
    "Quarantine",
    "Suite",
    "can_quarantine",
    "catalogue",
    "check_argument",
    "expectation_problems",
    "kind_of_argument",
]


def expectation_problems(name: str, arguments: Mapping[str, Any]) -> list[Problem]:
    """Return all mistakes in an expectation as it is written."""
    return expectations.problems(_expectation(name, arguments))


def can_quarantine(name: str, arguments: Mapping[str, Any]) -> bool:
    """Return whether a row can break an expectation by itself."""
    return conditions.can_quarantine(_expectation(name, arguments))


def kind_of_argument(name: str) -> TextKind | None:
    """Return what an argument of an expectation means, if it is more than a text."""
    return TextKind("query") if name in QUERIES else None


def check_argument(name: str, pieces: tuple[str, ...], functions: frozenset[str]) -> None:
    """Raise ValueError unless an argument that is a query, in pieces between its values, is one that may be asked."""
    check_query(pieces, QUERIES[name], functions=functions)


def _expectation(name: str, arguments: Mapping[str, Any]) -> Expectation:
    return Expectation.model_construct(type=name, arguments=dict(arguments))
