"""Free loopback ports for services that sessions start side by side."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace

from stack.ports import Wish, choose, next_free

FIRST, LAST = 10_000, 22_000
"""With the twins 10,000 above, below the ports that the kernel gives to clients of its own choice."""


def free_port() -> int:
    """Return a free port; sessions that run side by side start looking at different places."""
    return next_free(random.randrange(FIRST, LAST))


def free_ports(wishes: Iterable[Wish]) -> dict[str, int]:
    """Return a free port for each wish."""
    anywhere = [replace(wish, usual=random.randrange(FIRST, LAST)) for wish in wishes]
    return choose(anywhere, pins={}, kept={})[0]
