"""Cycles, order and what stops when a step fails or is skipped."""

from itertools import permutations

import pytest

from factory.planning.graph import ancestor_bits, bits_of, cycle, halted_in, order, stopped

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


def test_cases_are_walked_at_once() -> None:
    """Many questions have the answers that each would have alone."""
    waits = {"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c"), "e": ("b", "c")}
    rules = dict.fromkeys(waits, "all_success") | {"e": "none_failed_min_one_success"}
    starts = {name: 1 << index for index, name in enumerate(waits)}

    for skipped in (False, True):
        together = halted_in(waits, rules, starts, skipped=skipped)
        for index, name in enumerate(waits):
            alone = stopped(waits, rules, [name], skipped=skipped)
            assert {one for one, cases in together.items() if cases >> index & 1} == alone


def test_ancestors_are_bits() -> None:
    """The ancestors of a name are the positions of their bits."""
    names = list(LINE)

    assert {name: [names[bit] for bit in bits_of(bits)] for name, bits in ancestor_bits(LINE).items()} == {
        "a": [],
        "b": ["a"],
        "c": ["a", "b"],
    }
