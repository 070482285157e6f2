"""Say something: in the log of a run, or to people through the services that a connection lists."""

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
"""What Apprise calls the levels: services show them as a colour or a sign."""


class Logged(Output):
    """What was said."""

    message: str


class Sent(Output):
    """What was said, and to how many services it went."""

    message: str
    services: int
    """0 where it stands in the log only."""


@reusable("messages.log", role="notify")
def log(message: Text, level: Level = "info", *, run: Run) -> Logged:
    """Write `message` to the task's log.

    `level` is debug, info, warning or error; it marks the line in the log and nothing else: an error does not fail
    the step.
    """
    run.log.log(logging.getLevelNamesMapping()[level.upper()], "%s", message)
    return Logged(message=message)


@reusable("messages.notify", role="notify")
def notify(
    message: Text, title: str | None = None, level: Level = "info", connection: ConnectionId | None = None, *, run: Run
) -> Sent:
    """Write `message` to the task's log and send it to people: by mail, to a chat, to a pager.

    `connection` is an Airflow connection of type apprise, whose field `config` lists services as Apprise's addresses:
    `{"path": "slack://…"}`, or a list of such. Without a connection it is a line in the log. A service that does not
    take the message fails the step, which is then retried for all of them.
    """
    log(f"{title}: {message}" if title else message, level, run=run)
    services = [] if connection is None else _services(connection)
    failed = [_shown(one) for one in services if not _deliver(one, message, title, level)]
    if failed:
        raise TransientError(f"connection {connection!r}", f"the message was not taken by {', '.join(failed)}")
    return Sent(message=message, services=len(services))


def _services(connection: str) -> list[apprise.NotifyBase]:
    """Return the services that a connection lists, as Airflow's provider of Apprise reads it."""
    import apprise

    found = apprise.Apprise()
    for nth, path in enumerate(_addresses(connection), start=1):
        if not found.add(path):
            problem = f"the service {nth} of `config` is no address that Apprise knows"
            raise PermanentError(
                f"connection {connection!r}: {problem}; correct it in the UI under Admin > Connections"
            )
    return list(found)


def _addresses(connection: str) -> list[str]:
    import json

    config: Any = airflow_connection(connection, "apprise").extra_dejson.get("config")
    try:
        written = json.loads(config) if isinstance(config, str) else config
        listed = written if isinstance(written, list) else [written]
        paths = [str(one["path"]) for one in listed]
    except (ValueError, TypeError, KeyError):
        paths = []
    if not paths:
        form = '{"path": "mailto://…"} or a list of such'
        raise PermanentError(f"connection {connection!r} lists no service; its field `config` should be {form}")
    return paths


def _shown(service: Any) -> str:
    """Return a service's address without its secrets."""
    return str(service.url(privacy=True))


def _deliver(service: apprise.NotifyBase, message: str, title: str | None, level: Level) -> bool:
    return bool(service.notify(body=message, title=title or "", notify_type=_KINDS[level]))
