"""Do steps that need one another, each as soon as it can be done.

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
    """One thing to do, after those that it needs."""

    name: str
    needs: tuple[str, ...]
    awaited: str
    """What it waits for, in words."""
    action: Callable[[], str]
    """Does it and returns what to tell of it; raises where it cannot be done."""


@dataclass(frozen=True, slots=True)
class Done:
    """A step that was tried: how long it took and what came of it."""

    step: Step
    seconds: float
    text: str = ""
    error: Exception | None = None


def chosen_with_needs(steps: Sequence[Step], names: Iterable[str]) -> list[Step]:
    """Return the steps of these names and all that they need, in the order given."""
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
    """Do every step whose needs were met, side by side; return the steps that failed.

    `begun` and `ended` are called from this thread. What needs a failed step is not tried. Threads that are still at
    work when this one is interrupted do not keep the program from ending.
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
    except Exception as error:  # noqa: BLE001 - told to whoever asked for the steps
        failure = error
    tell(Done(step, time.monotonic() - started, text, failure))
