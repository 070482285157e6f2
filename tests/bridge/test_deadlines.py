"""`deadline`: what Airflow is given."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from factory import load_dag

SPEC = """\
dag_id: late
timezone: Asia/Tokyo
start_date: 2026-01-01
deadline: 2h
notify: {on_deadline: people}
steps:
  slow: {uses: messages.log, with: {message: hello}, deadline: {interval: 30m, reference: logical_date}}
  other:
    uses: messages.log
    with: {message: hello}
    deadline: 1h
    notify: {on_deadline: {connection: on_call, message: look at it}}
  free: {uses: messages.log, with: {message: hello}}
"""


@pytest.fixture
def deadlines(tmp_path: Path) -> list[Any]:
    """The deadlines of the pipeline, as Airflow has them."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "pipelines").mkdir()
    spec = tmp_path / "pipelines" / "late.yaml"
    spec.write_text(SPEC)
    return list(load_dag(spec).deadline)


def test_airflow_is_given_deadlines(deadlines: list[Any]) -> None:
    """The pipeline and each step with a deadline have one; who is told is the step's own, or the pipeline's."""
    shown = [(one.name, one.interval, type(one.reference).__name__) for one in deadlines]
    assert shown == [
        (None, dt.timedelta(hours=2), "DagRunQueuedAtDeadline"),
        ("step slow", dt.timedelta(minutes=30), "DagRunLogicalDateDeadline"),
        ("step other", dt.timedelta(hours=1), "DagRunQueuedAtDeadline"),
    ]
    told = [
        (late["connection"], late["message"], late["timezone"])
        for late in (one.callback.kwargs["late"] for one in deadlines)
    ]
    assert told == [
        ("people", "", "Asia/Tokyo"),
        ("people", "", "Asia/Tokyo"),
        ("on_call", "look at it", "Asia/Tokyo"),
    ]


def test_null_switches_a_default_off(tmp_path: Path) -> None:
    """A pipeline may be without the deadline of `configs/`; that of its step stays."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "defaults.yaml").write_text("dag: {deadline: 2h}\n")
    (tmp_path / "pipelines").mkdir()
    spec = tmp_path / "pipelines" / "calm.yaml"
    step = "slow: {uses: messages.log, with: {message: hello}, deadline: 1h}"
    spec.write_text(f"dag_id: calm\ndeadline: null\nsteps: {{{step}}}\n")
    assert [one.name for one in load_dag(spec).deadline] == ["step slow"]
