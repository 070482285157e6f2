"""Run steps that need one another, each as soon as possible.

Knows names and functions, not services.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do, after the steps that it needs."""

    name: str
    needs: tuple[str, ...]
    awaited: str
    """What it waits for, in words."""
    action: Callable[[], str]
    """Does it and returns what to show; raises if it cannot be done."""


@dataclass(frozen=True, slots=True)
class Done:
    """A step that was tried: how long it took and how it ended."""

    step: Step
    seconds: float
    text: str = ""
    error: Exception | None = None


def chosen_with_needs(steps: Sequence[Step], names: Iterable[str]) -> list[Step]:
    """Return the steps with these names and everything they need, in the order given."""
    by_name = {step.name: step for step in steps}
    wanted: set[str] = set()
    pending = list(names)
    while pending:
        name = pending.pop()
        if name not in wanted:
            wanted.add(name)
            pending.extend(by_name[name].needs)
    return [step for step in steps if step.name in wanted]


def do_all(steps: Sequence[Step], *, begun: Callable[[Step], None], ended: Callable[[Done], None]) -> list[Done]:
    """Run every step whose needs are met, in parallel; return the steps that failed.

    `begun` and `ended` are called from this thread. Steps that need a failed step are not tried. Threads that are still
    running when this one is interrupted do not keep the program from ending.
    """
    waiting = {step.name: step for step in steps}
    met: set[str] = set()
    failed: list[Done] = []
    results: SimpleQueue[Done] = SimpleQueue()
    running = 0
    while True:
        for step in [step for step in waiting.values() if met.issuperset(step.needs)]:
            del waiting[step.name]
            begun(step)
            Thread(target=_do, args=(step, results.put), name=step.name, daemon=True).start()
            running += 1
        if running == 0:
            return failed
        done = results.get()
        running -= 1
        ended(done)
        if done.error is None:
            met.add(done.step.name)
        else:
            failed.append(done)


def _do(step: Step, tell: Callable[[Done], None]) -> None:
    started = time.monotonic()
    text, failure = "", None
    try:
        text = step.action()
    except Exception as error:  # noqa: BLE001 - reported to the caller
        failure = error
    tell(Done(step, time.monotonic() - started, text, failure))
