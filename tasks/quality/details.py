"""The details of a validation as JSON, for its record in Postgres and its result in the bucket."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tasks.quality.suites import Expectation, Suite
    from tasks.quality.verdicts import Verdict


def asked(suite: Suite) -> dict[str, Any]:
    """Return what is known before the verdict: the batch, and the rules with their thresholds."""
    return _details(suite, [_rule(expectation) for expectation in suite.expectations])


def account(verdict: Verdict, suite: Suite, rejected: Mapping[str, int]) -> dict[str, Any]:
    """Return what is known after it: also which rules the batch broke, and how many rows did."""
    rules = [_rule(one.expectation) | {"passed": one.passed, **one.found} for one in verdict.outcomes]
    return _details(suite, rules, rows=verdict.rows, rejected=dict(rejected))


def _details(suite: Suite, rules: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    details = {"batch": suite.batch.model_dump(mode="json"), "expectations": rules, **more}
    return {name: plain(part) for name, part in details.items()}


def _rule(expectation: Expectation) -> dict[str, Any]:
    return {"type": expectation.type, "arguments": expectation.arguments, "reason": expectation.reason}


def plain(value: Any) -> Any:
    """Return a value as JSON that Postgres accepts: without NaN, infinities and the character NUL."""
    if isinstance(value, dict):
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if hasattr(value, "item"):  # a numpy number
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return json.dumps(value)  # the word: NaN, Infinity
    return value.replace("\0", "") if isinstance(value, str) else value
