"""Cycles, order and what stops when a step fails or is skipped."""

from itertools import permutations

import pytest

from factory.planning.graph import cycle, order, stopped

LINE = {"a": (), "b": ("a",), "c": ("b",)}


@pytest.mark.parametrize("steps", list(permutations("abcd")), ids="".join)
def test_cycle_begins_with_smallest(steps: tuple[str, ...]) -> None:
    """The same cycle is always told the same way, in whatever order the steps are written."""
    waits = {"c": ("b",), "b": ("a",), "a": ("c",), "d": ()}

    assert cycle({step: waits[step] for step in steps}) == ["a", "b", "c"]


def test_line_is_no_cycle() -> None:
    """Steps that wait for each other in a line make no cycle."""
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
