"""Write to the log of a run, or to people through the services that a connection lists."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from tasks.contract import ConnectionId, Output, PermanentError, Run, TransientError, reusable
from tasks.services.connection import airflow_connection

if TYPE_CHECKING:
    import apprise

Level = Literal["debug", "info", "warning", "error"]
Text = Annotated[str, Field(min_length=1)]
_KINDS = {"debug": "info", "info": "info", "warning": "warning", "error": "failure"}
"""Apprise's names for the levels; services show them as a colour or an icon."""


class Logged(Output):
    """What was logged."""

    message: str


class Sent(Output):
    """What was sent, and to how many services."""

    message: str
    services: int
    """0 if it was only logged."""


@reusable("messages.log", role="notify")
def log(message: Text, level: Level = "info", *, run: Run) -> Logged:
    """Write `message` to the task's log.

    `level` is debug, info, warning or error; it only marks the line in the log: an error does not fail the step.
    """
    run.log.log(logging.getLevelNamesMapping()[level.upper()], "%s", message)
    return Logged(message=message)


@reusable("messages.notify", role="notify")
def notify(
    message: Text, title: str | None = None, level: Level = "info", connection: ConnectionId | None = None, *, run: Run
) -> Sent:
    """Write `message` to the task's log and send it to people: by mail, to a chat, to a pager.

    `connection` is an Airflow connection of type apprise; its field `config` lists services by Apprise address:
    `{"path": "slack://…"}`, or a list of these. Without a connection the message is only logged. If a service does
    not accept the message, the step fails, and a retry sends it to all of them again.
    """
    log(f"{title}: {message}" if title else message, level, run=run)
    return Sent(message=message, services=0 if connection is None else send(connection, message, title, level))


def send(connection: str, message: str, title: str | None, level: Level) -> int:
    """Send a message to every service that an Airflow connection lists; return how many there are.

    Raises TransientError if a service does not accept it, PermanentError or MissingResource for the connection.
    """
    services = _services(connection)
    failed = [_shown(service) for service in services if not _deliver(service, message, title, level)]
    if failed:
        raise TransientError(f"connection {connection!r}", f"the message was not accepted by {', '.join(failed)}")
    return len(services)


def _services(connection: str) -> list[apprise.NotifyBase]:
    """Return the services that a connection lists, read as Airflow's Apprise provider does."""
    import apprise

    services = apprise.Apprise()
    for nth, path in enumerate(_addresses(connection), start=1):
        if not services.add(path):
            problem = f"service {nth} of `config` is not an address that Apprise knows"
            raise PermanentError(
                f"connection {connection!r}: {problem}; correct it in the UI under Admin > Connections"
            )
    return list(services)


def _addresses(connection: str) -> list[str]:
    import json

    config: Any = airflow_connection(connection, "apprise").extra_dejson.get("config")
    try:
        written = json.loads(config) if isinstance(config, str) else config
        listed = written if isinstance(written, list) else [written]
        paths = [str(service["path"]) for service in listed]
    except (ValueError, TypeError, KeyError):
        paths = []
    if not paths:
        form = '{"path": "mailto://…"} or a list of these'
        raise PermanentError(f"connection {connection!r} lists no service; its field `config` should be {form}")
    return paths


def _shown(service: Any) -> str:
    """Return a service's address without its secrets."""
    return str(service.url(privacy=True))


def _deliver(service: apprise.NotifyBase, message: str, title: str | None, level: Level) -> bool:
    """Let a service send the message as text: what is in it is data, and no markup of the service's own."""
    import apprise

    alone = apprise.Apprise()
    alone.add(service)
    return bool(
        alone.notify(
            body=message,
            title=" ".join((title or "").split()),
            notify_type=_KINDS[level],
            body_format=apprise.NotifyFormat.TEXT,
        )
    )
