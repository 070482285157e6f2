"""What lint checks in a suite: its form, mistakes in expectations, whether rows that break one can be set aside.

The factory's only door to this family. It works without the library, which takes seconds to import.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.quality import expectations
from tasks.quality.expectations import ExpectationSchema, Problem, catalogue
from tasks.quality.on_postgres import conditions
from tasks.quality.suites import Batch, Expectation, Quarantine, Suite

__all__ = ["Batch", "ExpectationSchema", "Quarantine", "Suite", "can_quarantine", "catalogue", "expectation_problems"]


def expectation_problems(name: str, arguments: Mapping[str, Any]) -> list[Problem]:
    """Return all mistakes in an expectation as it is written."""
    return expectations.problems(_expectation(name, arguments))


def can_quarantine(name: str, arguments: Mapping[str, Any]) -> bool:
    """Return whether a row can break an expectation by itself."""
    return conditions.can_quarantine(_expectation(name, arguments))


def _expectation(name: str, arguments: Mapping[str, Any]) -> Expectation:
    return Expectation.model_construct(type=name, arguments=dict(arguments))
