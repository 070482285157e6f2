"""Which port each service gets: the pinned one, the one it had, or the first free one from its usual port on."""

from __future__ import annotations

import errno
import json
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stack.paths import write_private

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

HOST = "127.0.0.1"
LAST = 65_535
SETTING = "TASKFLOW_PORTS"


@dataclass(frozen=True, slots=True)
class Wish:
    """The port that a service would like."""

    name: str
    usual: int
    twin: int = 0
    """How far above this port the service also listens; 0 if it does not."""
    service: str = ""
    """The service of this port, if it is not the name up to the first hyphen."""

    @property
    def owner(self) -> str:
        """The service that listens there."""
        return self.service or self.name.partition("-")[0]


@dataclass
class PortTaken(Exception):
    """A pinned port is not available."""

    name: str
    port: int
    free: int

    def __str__(self) -> str:
        return (
            f"port {self.port}, which {SETTING} pins for {self.name}, is taken on {HOST}; "
            f"stop what listens there, or pin another: {SETTING}={self.name}={self.free}"
        )


@dataclass(frozen=True, slots=True)
class Move:
    """A service that did not get its usual port."""

    name: str
    usual: int
    port: int

    def __str__(self) -> str:
        return f"port {self.usual} of {self.name} is taken; it moves to {self.port}"


def read_pins(text: str, names: Iterable[str]) -> dict[str, int]:
    """Return the ports pinned by a setting like `postgres=5433,airflow=8090`; raises ValueError if it is malformed."""
    known = sorted(names)
    pins: dict[str, int] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, _, number = item.partition("=")
        if name not in known:
            raise ValueError(f"{SETTING} names {name!r}, which has no port; it may name {', '.join(known)}")
        if not number.isdecimal() or not 0 < int(number) <= LAST:
            raise ValueError(f"{SETTING} gives {name} the port {number!r}; a number from 1 to {LAST} is expected")
        pins[name] = int(number)
    return pins


def choose(
    wishes: Iterable[Wish],
    *,
    pins: Mapping[str, int],
    kept: Mapping[str, int],
    free: Callable[[int], bool] | None = None,
) -> tuple[dict[str, int], list[Move]]:
    """Return a port for each wish, and those that moved from the expected port.

    `kept` are the ports of an earlier start. Raises PortTaken for a pin that is not free.
    """
    is_open = free or is_free
    chosen: dict[str, int] = {}
    moves: list[Move] = []
    taken: set[int] = set()
    for wish in sorted(wishes, key=lambda wish: wish.name not in pins):
        expected = pins.get(wish.name) or kept.get(wish.name) or wish.usual
        if _fits(wish, expected, taken, is_open):
            port = expected
        elif wish.name in pins:
            raise PortTaken(wish.name, expected, _search(wish, expected + 1, taken, is_open))
        else:
            port = _search(wish, wish.usual, taken, is_open)
            moves.append(Move(wish.name, expected, port))
        chosen[wish.name] = port
        taken |= {port, port + wish.twin}
    return chosen, moves


def is_free(port: int) -> bool:
    """Return whether a server could listen on `port` of the loopback address right now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


def next_free(first: int) -> int:
    """Return the first free port from `first` on."""
    return _search(Wish("a service", first), first, set(), is_free)


def recall(path: Path) -> dict[str, int]:
    """Return the ports that an earlier start wrote to `path`."""
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def note(path: Path, ports: Mapping[str, int]) -> None:
    """Write the chosen ports to `path`."""
    write_private(path, json.dumps(dict(ports), indent=2))


def pinned(names: Iterable[str]) -> dict[str, int]:
    """Return the ports pinned in the environment."""
    return read_pins(os.environ.get(SETTING, ""), names)


def _fits(wish: Wish, port: int, taken: set[int], is_open: Callable[[int], bool]) -> bool:
    both = {port, port + wish.twin}
    return not both & taken and max(both) <= LAST and all(map(is_open, both))


def _search(wish: Wish, first: int, taken: set[int], is_open: Callable[[int], bool]) -> int:
    for port in range(first, LAST + 1):
        if _fits(wish, port, taken, is_open):
            return port
    raise OSError(errno.EADDRINUSE, f"no free port for {wish.name} from {first} on at {HOST}")
