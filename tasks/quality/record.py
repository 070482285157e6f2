"""The details of a validation as JSON, for its record in Postgres and its result in the bucket."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tasks.quality.suites import Suite
    from tasks.quality.verdicts import Verdict


def account(verdict: Verdict, suite: Suite, rejected: Mapping[str, int]) -> dict[str, Any]:
    """Return the details for the record, as JSON that Postgres accepts."""
    rules = [
        {
            "type": outcome.expectation.type,
            "arguments": outcome.expectation.arguments,
            "reason": outcome.expectation.reason,
            "passed": outcome.passed,
            **outcome.found,
        }
        for outcome in verdict.outcomes
    ]
    batch = suite.batch.model_dump(mode="json")
    details: dict[str, Any] = {"batch": batch, "rows": verdict.rows, "expectations": rules, "rejected": dict(rejected)}
    return {name: plain(part) for name, part in details.items()}


def plain(value: Any) -> Any:
    """Return a value as JSON that Postgres accepts: without NaN, infinities and the character NUL."""
    if isinstance(value, dict):
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if hasattr(value, "item"):  # a numpy number
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value.replace("\0", "") if isinstance(value, str) else value
