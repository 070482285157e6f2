"""The one way to wait: for a condition, until a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import psycopg2

from stack.airflow_api import AirflowAway, AirflowInTrouble

T = TypeVar("T")
MOST = 0.25
"""The longest pause between two looks, in seconds: who looks all the time keeps a processor from what is awaited."""


def eventually(awaited: str, look: Callable[[], T], is_met: Callable[[T], object] = bool, *, seconds: float = 300) -> T:
    """Return what `look` sees once it is as expected; an Airflow or Postgres that is away for a while is waited for."""
    deadline, pause = time.monotonic() + seconds, 0.02
    while True:
        try:
            if is_met(seen := look()):
                return seen
            last = repr(seen)
        except (AirflowAway, AirflowInTrouble, psycopg2.OperationalError) as error:
            last = str(error)
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {awaited}; last seen: {last}"
        time.sleep(pause)
        pause = min(pause * 1.5, MOST)
