"""`retry_policy`: whether a step is retried, by the kind of its error. Airflow asks it where the task has failed."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from factory import load_dag
from tasks.contract import Locked, TransientError

SPEC = """\
dag_id: retried
default_args: {retries: 4, retry_policy: {unexpected: {retries: 0}}}
steps:
  plain: {uses: messages.log, with: {message: hello}}
  always: {uses: messages.log, with: {message: hello}, retry_policy: null}
  mapped: {uses: messages.log, expand: {message: [a, b]}, retry_policy: null}
  own:
    uses: messages.log
    with: {message: hello}
    retry_policy: {locked: {retry_delay: 10m}, unavailable: {retries: 2, retry_delay: 5s}, timed_out: {retries: 1}}
"""
CONTEXT = {"ti": SimpleNamespace(task_id="own"), "task": SimpleNamespace(retries=4)}


@pytest.fixture
def policies(tmp_path: Path) -> dict[str, Any]:
    """The policies of the two steps."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "pipelines").mkdir()
    spec = tmp_path / "pipelines" / "retried.yaml"
    spec.write_text(SPEC)
    return {task.task_id: task.retry_policy for task in load_dag(spec).tasks}


def told(error: TransientError) -> BaseException:
    """Return the exception that Airflow sees for an error of a task."""
    from factory.bridge.failures import StepInterrupted, interrupt

    with pytest.raises(StepInterrupted) as raised:
        interrupt(error, CONTEXT)
    return raised.value


@pytest.mark.parametrize(
    ("error", "tries", "most", "action", "delay"),
    [
        (Locked("orders", "session 7 holds it"), 4, 4, "retry", dt.timedelta(minutes=10)),
        (TransientError("orders", "no answer"), 2, 4, "retry", dt.timedelta(seconds=5)),
        (TransientError("orders", "no answer"), 3, 4, "fail", None),
        # cleared after its third try: Airflow counts on, and allows it four retries from there
        (TransientError("orders", "no answer"), 5, 7, "retry", dt.timedelta(seconds=5)),
        (TransientError("orders", "no answer"), 6, 7, "fail", None),
    ],
)
def test_error_decides(
    policies: dict[str, Any], error: TransientError, tries: int, most: int, action: str, delay: dt.timedelta | None
) -> None:
    """A step is retried after a delay of its own, or not at all, by what went wrong."""
    decision = policies["own"].evaluate(told(error), tries, most, CONTEXT)
    assert (decision.action.value, decision.retry_delay) == (action, delay)


def test_time_limit_is_a_kind(policies: dict[str, Any]) -> None:
    """A step that ran into its execution_timeout is retried once."""
    from airflow.sdk.exceptions import AirflowTaskTimeout

    decisions = [policies["own"].evaluate(AirflowTaskTimeout(), tries, 4, CONTEXT) for tries in (1, 2)]
    assert [one.action.value for one in decisions] == ["retry", "fail"]


def test_bug_is_a_kind(policies: dict[str, Any]) -> None:
    """An error that nobody foresaw fails a step at once if the policy says so; others are retried as always.

    A step that sets null has no policy, whatever default_args says.
    """
    assert (policies.pop("always"), policies.pop("mapped")) == (None, None)
    decided = {name: policies[name].evaluate(KeyError("x"), 1, 4, CONTEXT).action.value for name in policies}
    assert decided == {"plain": "fail", "own": "default"}
    assert (
        policies["plain"].evaluate(told(TransientError("orders", "no answer")), 1, 4, CONTEXT).action.value == "default"
    )
