"""Cycles, order and what stops when a step fails or is skipped."""

import pytest

from factory.planning.graph import cycle, order, stopped

LINE = {"a": (), "b": ("a",), "c": ("b",)}


def test_cycle_begins_with_smallest() -> None:
    """The same cycle is always told the same way."""
    assert cycle({"c": ("b",), "b": ("a",), "a": ("c",), "d": ()}) in (["a", "b", "c"], ["a", "c", "b"])
    assert cycle(LINE) is None


def test_order_follows_edges() -> None:
    """A step comes after what it waits for."""
    assert order(LINE) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("rule", "failed", "skipped"),
    [
        ("all_success", {"a", "b", "c"}, {"a", "b", "c"}),
        ("none_failed", {"a", "b", "c"}, {"a"}),
        ("none_failed_min_one_success", {"a", "b", "c"}, {"a", "b", "c"}),
        ("one_success", {"a", "b", "c"}, {"a", "b", "c"}),
        ("all_done", {"a"}, {"a"}),
        ("always", {"a"}, {"a"}),
    ],
)
def test_trigger_rules_stop(rule: str, failed: set[str], skipped: set[str]) -> None:
    """A failure or a skip goes on as far as Airflow's rules let it."""
    rules = dict.fromkeys(LINE, rule)

    assert stopped(LINE, rules, ["a"], skipped=False) == failed
    assert stopped(LINE, rules, ["a"], skipped=True) == skipped
