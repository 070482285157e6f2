"""Whom a pipeline or a step tells of its end: the form of `notify`.

Knows neither which connections exist nor how a message is sent.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from factory.language.document import Value
from factory.language.errors import Path

ON_DEADLINE = "on_deadline"
EVENTS = ("on_failure", "on_success", "on_retry", ON_DEADLINE)
"""When people are told: Airflow's own words for its callbacks, and when a deadline has passed."""
KEYS = ("connection", "message")
_CONNECTION = re.compile(r"[A-Za-z0-9_.\-]+\Z")
_FORM = "write on_failure: <connection>, or on_failure: {connection: …, message: …}"


@dataclass(frozen=True, slots=True)
class Notice:
    """A message to the services that a connection lists; without a text of its own it is the facts alone."""

    connection: str
    message: str | None = None


Notices = Mapping[str, Notice | None]
"""What to tell, by event; None switches off what a file of configs/ sets."""


def read_notice(value: Value, report: Callable[[Path, str, str], None]) -> Notice | None:
    """Read what to tell at one event; report a wrong form, with its place below it."""
    given = {"connection": value} if isinstance(value, str) else value
    if given is None:
        return None
    if not isinstance(given, dict):
        report((), "it should name a connection", _FORM)
        return None
    for key in given.keys() - set(KEYS):
        report((key,), f'"{key}" is not a key of a notice', f"its keys are {' and '.join(KEYS)}")
    connection, message = given.get("connection"), given.get("message")
    if not isinstance(connection, str) or not _CONNECTION.match(connection):
        problem = "it names no connection" if not connection else "that cannot be the id of a connection"
        report(("connection",) if "connection" in given and isinstance(value, dict) else (), problem, _FORM)
        return None
    if message is not None and (not isinstance(message, str) or not message.strip()):
        report(("message",), "message should be a text", "leave it out to send the facts alone")
        message = None
    return Notice(connection, message)
