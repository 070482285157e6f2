"""Whether and when a step is retried, by the kind of its error. A step is never retried beyond its `retries`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.sdk.definitions.retry_policy import RetryDecision, RetryPolicy
from airflow.sdk.exceptions import AirflowTaskTimeout

from factory.bridge.failures import StepInterrupted
from factory.language.arguments import RetryRule


class ByError(RetryPolicy):
    """Airflow asks it in the process of the task; never about an error that a retry cannot help."""

    def __init__(self, rules: Mapping[str, RetryRule]) -> None:
        self.rules = rules

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,
        max_tries: int,
        context: Any = None,
    ) -> RetryDecision:
        """Return what the rule for this kind of error says: to fail, or to retry after its delay."""
        rule = self.rules.get(error_of(exception))
        if rule is None:
            return RetryDecision.default()
        if rule.retries is not None and _retried(try_number, max_tries, context) >= rule.retries:
            return RetryDecision.fail(f"retry_policy: retries is {rule.retries} for the error {rule.error}")
        return RetryDecision.retry(rule.retry_delay, f"retry_policy: the error is {rule.error}")

    def serialize(self) -> dict[str, Any]:
        """Return the rules as JSON."""
        return {
            name: {"retries": rule.retries, "retry_delay": rule.retry_delay and rule.retry_delay.total_seconds()}
            for name, rule in self.rules.items()
        }


def _retried(try_number: int, max_tries: int, context: Any) -> int:
    """Return how often the step was retried since it was cleared: Airflow then counts on, and allows as many more."""
    before = max_tries - context["task"].retries if context else 0
    return try_number - 1 - max(before, 0)


def error_of(exception: BaseException) -> str:
    """Return the kind of an error, of those of `RETRIED`."""
    if isinstance(exception, StepInterrupted):
        return "locked" if exception.is_locked else "unavailable"
    return "timed_out" if isinstance(exception, AirflowTaskTimeout) else "unexpected"
