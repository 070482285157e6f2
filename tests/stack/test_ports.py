"""Which port each service gets."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from stack.ports import HOST, Move, PortTaken, Wish, choose, is_free, note, read_pins, recall

WISHES = (Wish("postgres", 5432), Wish("objects", 9000, 10_000))


def all_but(*taken: int) -> Callable[[int], bool]:
    return lambda port: port not in taken


def test_usual_ports_chosen() -> None:
    """Where everything is free, everybody gets what they are used to."""
    assert choose(WISHES, pins={}, kept={}, free=all_but()) == ({"postgres": 5432, "objects": 9000}, [])


def test_taken_port_moves() -> None:
    """A taken port moves to the next free one, and that is told."""
    chosen, moves = choose(WISHES, pins={}, kept={}, free=all_but(5432, 5433))
    assert chosen["postgres"] == 5434
    assert list(map(str, moves)) == ["port 5432 of postgres is taken; it moves to 5434"]


def test_twin_must_be_free() -> None:
    """A port is of no use where the one that belongs to it is taken."""
    chosen, moves = choose(WISHES, pins={}, kept={}, free=all_but(19_000))
    assert (chosen["objects"], moves) == (9001, [Move("objects", 9000, 9001)])


def test_kept_port_wins() -> None:
    """A service that moved stays where it moved to."""
    assert choose(WISHES, pins={}, kept={"postgres": 5440}, free=all_but())[0]["postgres"] == 5440


def test_kept_port_lost() -> None:
    """A service whose port was taken meanwhile starts looking from its usual place."""
    chosen, moves = choose(WISHES, pins={}, kept={"postgres": 5440}, free=all_but(5440))
    assert (chosen["postgres"], moves) == (5432, [Move("postgres", 5440, 5432)])


def test_neighbours_never_share() -> None:
    """Two services that want the same port get two."""
    wishes = (Wish("one", 7000), Wish("two", 7000))
    assert choose(wishes, pins={}, kept={}, free=all_but())[0] == {"one": 7000, "two": 7001}


def test_pin_goes_first() -> None:
    """A pinned port is not given to somebody who is used to it."""
    assert choose(WISHES, pins={"objects": 5432}, kept={}, free=all_but())[0] == {"objects": 5432, "postgres": 5433}


def test_pin_is_binding() -> None:
    """A pinned port that is taken is an error with the port, whose it is, and a way out."""
    with pytest.raises(PortTaken) as caught:
        choose(WISHES, pins={"postgres": 6000}, kept={}, free=all_but(6000, 6001))
    assert str(caught.value) == (
        "port 6000, which TASKFLOW_PORTS pins for postgres, is taken on 127.0.0.1; "
        "stop what listens there, or pin another: TASKFLOW_PORTS=postgres=6002"
    )


def test_pins_are_read() -> None:
    """The setting is a list of names and numbers."""
    assert read_pins(" postgres=5433, objects=9100 ,", ["postgres", "objects"]) == {"postgres": 5433, "objects": 9100}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("postgre=1", "TASKFLOW_PORTS names 'postgre', which has no port; it may name objects, postgres"),
        ("postgres", "TASKFLOW_PORTS gives postgres the port ''; a number from 1 to 65535 is expected"),
        ("postgres=70000", "TASKFLOW_PORTS gives postgres the port '70000'; a number from 1 to 65535 is expected"),
    ],
)
def test_bad_pins_refused(text: str, message: str) -> None:
    """What is wrong with the setting is said, and what would be right."""
    with pytest.raises(ValueError, match="TASKFLOW_PORTS") as caught:
        read_pins(text, ["postgres", "objects"])
    assert str(caught.value) == message


def test_listener_takes_port() -> None:
    """A port with a listener is taken, even one that listens on every address."""
    with socket.create_server(("0.0.0.0", 0)) as server:  # on every address on purpose
        assert not is_free(server.getsockname()[1])


def test_closed_port_free() -> None:
    """A port whose listener has just gone can be had."""
    with socket.create_server((HOST, 0)) as server:
        port = server.getsockname()[1]
    assert is_free(port)


def test_ports_are_remembered(tmp_path: Path) -> None:
    """What was noted is recalled; before, there is nothing."""
    assert recall(tmp_path / "ports.json") == {}
    note(tmp_path / "ports.json", {"postgres": 5434})
    assert recall(tmp_path / "ports.json") == {"postgres": 5434}
