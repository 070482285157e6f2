"""What a worker checks before it calls a task."""

from __future__ import annotations

import datetime as dt

import pytest

from factory.bridge import runtime
from tasks.contract import PermanentError, Run

RUN = Run("dag", "run", "step", dt.date(2026, 1, 1))
MERGE = {"connection": "nowhere", "source": "s.a", "target": "s.b", "keys": ["id"]}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"target": "s.a"}, r"^source: a table cannot be merged into itself"),
        ({"keys": ["id", "id"]}, r'^keys\.1: "id" is a key already'),
        ({"columns": ["v", "id"]}, r'^columns\.1: "id" is a key already'),
        ({"columns": ["gone"], "deactivate": {"window": "true", "flag": "gone"}}, r'^columns\.0: "gone" is the flag'),
        ({"keys": ["is_active"], "deactivate": {"window": "true"}}, r'^deactivate: "is_active" is a key already'),
        ({"timestamps": {"created": "at", "updated": "at"}}, r'^timestamps\.updated: "at" is the column of'),
    ],
)
def test_conflicting_values_are_refused(change: dict[str, object], problem: str) -> None:
    """Values that only the run knows are held to what lint checks, before the task connects to anything."""
    with pytest.raises(PermanentError, match=problem):
        runtime.call("postgres.merge", MERGE | change, RUN, {})


def test_templates_conflict_with_nothing() -> None:
    """A list that a template gives is not read letter by letter."""
    conflicts = runtime.find("postgres.merge").conflicts
    assert conflicts is not None
    assert not list(conflicts({"source": "a", "target": "b", "keys": "{{ params.keys }}", "deactivate": "{{ x }}"}))
