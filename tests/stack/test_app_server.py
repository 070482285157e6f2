"""The server of the app, and its login."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from itsdangerous import TimestampSigner

from stack.app.served import COOKIE, COOKIE_SECONDS
from stack.app_login import PASSWORD as PASSWORD_NAME
from stack.app_login import USER, login
from stack.app_server import AppServer
from stack.ports import HOST, next_free
from stack.service import StartFailed, running

PASSWORD = "the password of these tests"
PAGE = "import streamlit\nstreamlit.title('a page')\n"
SOCKET = "/_stcore/stream"
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Protocol": "streamlit",
}


def server(folder: Path, script: Path, password: str = PASSWORD) -> AppServer:
    return AppServer(folder / "app", next_free(22_700), password, {"MLFLOW_TRACKING_URI": "http://127.0.0.1:1"}, script)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[AppServer, psutil.Process]]:
    """A running server with a page."""
    folder = tmp_path_factory.mktemp("served")
    script = folder / "page.py"
    script.write_text(PAGE)
    made = server(folder, script)
    with running(made.service(), folder) as process:
        yield made, psutil.Process(process.pid)


@pytest.fixture
def address(app: tuple[AppServer, psutil.Process]) -> str:
    """The address of the running server."""
    return app[0].address


def asked(address: str, path: str, headers: dict[str, str], method: str = "GET") -> int:
    """Return the status of an answer, of a websocket's handshake too."""
    with httpx.stream(method, f"{address}{path}", headers=headers, trust_env=False) as answer:
        return answer.status_code


def test_script_is_served(app: tuple[AppServer, psutil.Process]) -> None:
    """A page is served on loopback, by one process that knows where MLflow is."""
    made, own = app
    assert "<title>Streamlit</title>" in httpx.get(made.address, headers=login(PASSWORD), trust_env=False).text
    listening = [one.laddr for one in own.net_connections() if one.status == psutil.CONN_LISTEN]
    assert listening == [(HOST, made.port)]
    assert own.environ()["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:1"
    assert PASSWORD not in own.cmdline()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/nothing"),
        ("GET", "/index.html"),
        ("GET", "/favicon.png"),
        ("GET", "/static/js/index.js"),
        ("GET", "/_stcore/health"),
        ("GET", "/_stcore/host-config"),
        ("GET", "/_stcore/metrics"),
        ("PUT", "/_stcore/upload_file/session/file"),
        ("POST", "/_stcore/upload_file/session/file"),
        ("DELETE", "/_stcore/upload_file/session/file"),
        ("OPTIONS", "/_stcore/upload_file/session/file"),
        ("GET", "/media/file.png"),
        ("GET", "/component/x/index.html"),
        ("GET", "/auth/login"),
        ("GET", "//_stcore/health"),
        ("GET", "/%2e%2e/_stcore/health"),
        ("GET", SOCKET),
    ],
)
def test_nothing_answers_without_login(address: str, method: str, path: str) -> None:
    """Whatever the path and the method, a request without the login is asked for it."""
    assert asked(address, path, {}, method) == 401


def basic(text: str) -> dict[str, str]:
    """Return the header of a login."""
    return {"Authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}


@pytest.mark.parametrize(
    "headers",
    [
        basic(f"{USER}:"),
        basic(f"{USER}:another password"),
        basic(f"admin:{PASSWORD}"),
        {"Authorization": "Basic"},
        {"Authorization": "Basic \u00e9".encode("latin-1")},
        {"Authorization": login(PASSWORD)["Authorization"].replace("Basic", "Bearer")},
    ],
)
def test_wrong_login_is_refused(address: str, headers: dict[str, str]) -> None:
    """Neither a page nor the websocket opens with another login, another scheme or a broken one."""
    assert asked(address, "/", headers) == 401
    assert asked(address, SOCKET, headers | UPGRADE) == 403


def test_websocket_needs_login(address: str) -> None:
    """The websocket, through which everything on the page comes, opens with the login only."""
    assert asked(address, SOCKET, UPGRADE) == 403
    assert asked(address, SOCKET, UPGRADE | login(PASSWORD)) == 101


def test_cookie_opens_websocket_only(address: str) -> None:
    """Safari sends no login with a websocket, but the cookie that it got with the page; this opens no page."""
    answer = httpx.get(address, headers=login(PASSWORD), trust_env=False)
    (told,) = (text for text in answer.headers.get_list("set-cookie") if text.startswith(COOKIE))
    assert told.partition("; ")[2] == f"Path=/_stcore; Max-Age={COOKIE_SECONDS}; HttpOnly; SameSite=Strict"
    cookie = {"Cookie": f"another service's={{1}}; {told.partition(';')[0]}"}
    assert asked(address, SOCKET, UPGRADE | cookie) == 101
    assert asked(address, "/_stcore/health", cookie) == 401


class Old(TimestampSigner):
    """Signs as it did before the life of a cookie."""

    def get_timestamp(self) -> int:
        return super().get_timestamp() - COOKIE_SECONDS - 1


@pytest.mark.parametrize(
    "value",
    [
        USER,
        TimestampSigner("another password", salt="taskflow.app").sign(USER).decode(),
        TimestampSigner(PASSWORD, salt="another use").sign(USER).decode(),
        Old(PASSWORD, salt="taskflow.app").sign(USER).decode(),
    ],
    ids=["unsigned", "another key", "another use", "too old"],
)
def test_forged_cookie_is_refused(address: str, value: str) -> None:
    """A cookie that this server did not sign in the last hours opens nothing."""
    assert asked(address, SOCKET, UPGRADE | {"Cookie": f"{COOKIE}={value}"}) == 403


def test_containers_ask_with_login(address: str) -> None:
    """The health check of the container opens the page with the password in its environment."""
    command = [sys.executable, "-P", "-m", "stack.app_login", f"{address}/_stcore/health"]
    for password, code in ((PASSWORD, 0), ("another", 1)):
        assert subprocess.run(command, check=False, env={**os.environ, PASSWORD_NAME: password}).returncode == code


def test_no_password_no_server(tmp_path: Path) -> None:
    """Without a password the server does not start, and says which variable holds it."""
    (tmp_path / "page.py").write_text(PAGE)
    with (
        pytest.raises(StartFailed, match="TASKFLOW_APP_PASSWORD is not set: it holds the password of the app"),
        running(server(tmp_path, tmp_path / "page.py", "").service(), tmp_path),
    ):
        pytest.fail("it started")


def test_missing_script_is_told(tmp_path: Path) -> None:
    """Without a script the server does not start, and says what is missing."""
    made = server(tmp_path, tmp_path / "nothing.py")
    with (
        pytest.raises(FileNotFoundError, match=r"the app is not there: no .*/nothing\.py"),
        running(made.service(), tmp_path),
    ):
        pytest.fail("it started")
