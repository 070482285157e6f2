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


@pytest.mark.parametrize(
    ("uses", "name", "values", "twice"),
    [
        ("postgres.rebuild_table", "target", ["s.a", "s.b", "s.a"], "s.a"),
        ("postgres.run_sql", "builds", [["s.a"], ["s.c", "s.b"], ["s.b", "s.c"]], "s.b, s.c"),
    ],
)
def test_no_two_items_build_a_table(uses: str, name: str, values: list[object], twice: str) -> None:
    """A list that only the run knows names each table that the items build once."""
    with pytest.raises(PermanentError) as refused:
        runtime.items(uses, name, values)

    assert str(refused.value) == f"expand.{name} has {twice} more than once: its items would empty it for each other"
    assert runtime.items(uses, name, values[:2]) == values[:2]
    assert runtime.items("postgres.vacuum", "table", ["s.a", "s.a"]) == ["s.a", "s.a"]
