"""Steps that need one another."""

from __future__ import annotations

import threading
from collections.abc import Callable

from stack.steps import Done, Step, chosen_with_needs, do_all


def step(name: str, *needs: str, action: Callable[[], str] = lambda: "") -> Step:
    return Step(name, needs, "", action)


def fail() -> str:
    raise OSError("no luck")


def run(*steps: Step) -> tuple[list[str], list[Done]]:
    order: list[str] = []
    failed = do_all(steps, begun=lambda step: None, ended=lambda done: order.append(done.step.name))
    return order, failed


def test_needs_come_first() -> None:
    """A step waits for all that it needs."""
    assert run(step("c", "a", "b"), step("b", "a"), step("a")) == (["a", "b", "c"], [])


def test_independent_steps_overlap() -> None:
    """Steps that need nothing of each other run at the same time."""
    meeting = threading.Barrier(2, timeout=10)
    assert run(*(step(name, action=lambda: str(meeting.wait())) for name in "ab"))[1] == []


def test_failure_stops_dependants() -> None:
    """What needs a failed step is not tried; the rest is."""
    order, failed = run(step("a", action=fail), step("b", "a"), step("c"))
    assert sorted(order) == ["a", "c"]
    assert [(done.step.name, str(done.error)) for done in failed] == [("a", "no luck")]


def test_choice_brings_needs() -> None:
    """Who asks for one step gets what it needs too, and no more."""
    steps = [step("a"), step("b", "a"), step("c", "b"), step("d")]
    assert [one.name for one in chosen_with_needs(steps, ["c"])] == ["a", "b", "c"]
