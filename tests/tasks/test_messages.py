"""messages.log, and messages.notify with services that listen."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, get_args

import pytest

from tasks.contract import MissingResource, PermanentError, Run, TransientError
from tasks.messages import Level, Logged, Sent, log, notify
from tests.support.listener import Listener, listening

Connect = Callable[[Any], str]


@pytest.fixture
def listener() -> Iterator[Listener]:
    """A service, up for this test."""
    with listening() as found:
        yield found


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Connect:
    """A function that sets the connection `people` to what its field `config` holds."""

    def set_connection(config: Any) -> str:
        connection = {"conn_type": "apprise", "extra": {"config": config}}
        monkeypatch.setenv("AIRFLOW_CONN_PEOPLE", json.dumps(connection))
        return "people"

    return set_connection


@pytest.mark.parametrize("level", get_args(Level))
def test_message_is_logged(run: Run, caplog: pytest.LogCaptureFixture, level: Level) -> None:
    """The message stands in the run's log as it was given, percent signs and all, at the level asked for."""
    run = replace(run, log=logging.getLogger("test.messages"))
    with caplog.at_level(logging.DEBUG, logger="test.messages"):
        assert log("100 %s done", level, run=run) == Logged(message="100 %s done")
    assert caplog.record_tuples == [("test.messages", logging.getLevelName(level.upper()), "100 %s done")]


def test_no_connection_only_logs(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """Without a connection a notice is a line in the log."""
    run = replace(run, log=logging.getLogger("test.messages"))
    with caplog.at_level(logging.INFO, logger="test.messages"):
        assert notify("it moved", "Drift", "warning", run=run) == Sent(message="it moved", services=0)
    assert caplog.record_tuples == [("test.messages", logging.WARNING, "Drift: it moved")]


@pytest.mark.parametrize("as_text", [True, False], ids=["from the form", "from the environment"])
def test_services_hear_it(run: Run, listener: Listener, connect: Connect, *, as_text: bool) -> None:
    """Every service of the connection gets title, text and level; the form of Airflow's UI keeps the list as text."""
    config = [{"path": f"{listener.address}/one"}, {"path": f"{listener.address}/two", "tag": "alert"}]
    sent = notify("it moved", "Drift", "error", connect(json.dumps(config) if as_text else config), run=run)
    assert sent == Sent(message="it moved", services=2)
    told = [(one["title"], one["message"], one["type"]) for one in listener.heard]
    assert told == [("Drift", "it moved", "failure")] * 2


@pytest.mark.parametrize(
    ("form", "title", "message"),
    [
        ("text", "<b>1</b> X-To: a", "<img src=x> & {{ params.x }} %s\n*b*"),
        ("html", "<b>1</b> X-To: a", "&lt;img&nbsp;src=x&gt;&nbsp;&amp;&nbsp;{{&nbsp;params.x&nbsp;}}&nbsp;%s<br/>*b*"),
    ],
)
def test_message_is_no_markup(
    run: Run, listener: Listener, connect: Connect, form: str, title: str, message: str
) -> None:
    """Names of files and values of rows get into messages: a service that takes HTML shows them, and renders none."""
    address = connect([{"path": f"{listener.address}/?format={form}"}])
    notify("<img src=x> & {{ params.x }} %s\n*b*", "<b>1</b>\r\nX-To:\ta", connection=address, run=run)

    assert [(one["title"], one["message"]) for one in listener.heard] == [(title, message)]


def test_refusing_service_is_named(run: Run, listener: Listener, connect: Connect) -> None:
    """A service that does not take the message is named without its secrets, and the step can be retried."""
    address = listener.address.replace("://", "://user:secret@")
    config = [{"path": f"{address}/broken"}, {"path": f"{listener.address}/fine"}]
    with pytest.raises(TransientError) as caught:
        notify("it moved", connection=connect(config), run=run)
    told = str(caught.value)
    assert told.startswith("connection 'people': the message was not accepted by json://user:****@127.0.0.1")
    assert "secret" not in told
    assert len(listener.heard) == 2


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "connection 'people' lists no service; its field `config` should be"),
        ([], "connection 'people' lists no service"),
        ("{", "connection 'people' lists no service"),
        ({"tag": "x"}, "connection 'people' lists no service"),
        ({"path": "carrier-pigeon://secret"}, "service 1 of `config` is not an address that Apprise knows; correct it"),
    ],
)
def test_unusable_connection_is_told(run: Run, connect: Connect, config: Any, message: str) -> None:
    """A connection that lists nothing, or what nobody understands, says so, and keeps its secrets."""
    with pytest.raises(PermanentError) as caught:
        notify("it moved", connection=connect(config), run=run)
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)


def test_missing_connection_is_named(run: Run) -> None:
    """A connection that Airflow does not have is named."""
    with pytest.raises(MissingResource, match="connection 'nobody' does not exist"):
        notify("it moved", connection="nobody", run=run)
