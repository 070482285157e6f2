"""The app as people open it, behind its login: `python -m stack.app.served SCRIPT --host HOST --port PORT`.

Streamlit itself knows no login with a password, so one stands in front of all that it answers.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from typing import TYPE_CHECKING

from itsdangerous import BadSignature, TimestampSigner
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.websockets import WebSocketClose
from streamlit.starlette import App

from stack.app_login import PASSWORD, USER, encoded

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "taskflow_app"
SOCKET = "/_stcore"
"""Below this path are Streamlit's own addresses, its websocket among them; the cookie is sent nowhere else."""
COOKIE_SECONDS = 12 * 3600
_ASK = {"WWW-Authenticate": 'Basic realm="the app", charset="UTF-8"', "Cache-Control": "no-store"}


class Login:
    """An ASGI application that requires the login of each request, whatever its path, before `application` sees it.

    Safari sends the login with every request except a websocket's. So each answer sets a signed cookie, and this opens
    a websocket, and nothing else.
    """

    def __init__(self, application: ASGIApp, password: str) -> None:
        self._application = application
        self._expected = encoded(password)
        self._signer = TimestampSigner(password, salt="taskflow.app")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] == "lifespan":
            await self._application(scope, receive, send)
            return
        asked = HTTPConnection(scope)
        if scope["type"] == "websocket":
            may_pass = self._has_login(asked) or self._has_cookie(asked)
            await (self._application if may_pass else WebSocketClose(1008))(scope, receive, send)
        elif self._has_login(asked):
            await self._application(scope, receive, self._with_cookie(send))
        else:
            await PlainTextResponse("Log in to see the app.\n", 401, _ASK)(scope, receive, send)

    def _has_login(self, asked: HTTPConnection) -> bool:
        scheme, _, given = asked.headers.get("authorization", "").partition(" ")
        return scheme.lower() == "basic" and secrets.compare_digest(given.strip().encode(), self._expected.encode())

    def _has_cookie(self, asked: HTTPConnection) -> bool:
        try:
            return self._signer.unsign(asked.cookies.get(COOKIE, ""), COOKIE_SECONDS) == USER.encode()
        except BadSignature:
            return False

    def _with_cookie(self, send: Send) -> Send:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                signed = self._signer.sign(USER).decode("ascii")
                cookie = f"{COOKIE}={signed}; Path={SOCKET}; Max-Age={COOKIE_SECONDS}; HttpOnly; SameSite=Strict"
                MutableHeaders(scope=message).append("Set-Cookie", cookie)
            await send(message)

        return sending


def main() -> None:
    """Serve a script until the process ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("script")
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", required=True, type=int)
    wanted = parser.parse_args()
    if not (password := os.environ.get(PASSWORD)):
        sys.exit(f"{PASSWORD} is not set: it holds the password of the app, which nobody may open without one")
    sys.argv[1:] = []  # Streamlit would hand them to the script
    settings = {
        "server.address": wanted.host,
        "server.port": wanted.port,
        "server.headless": True,
        "server.fileWatcherType": "none",  # a watcher would read every file of every library, every second
        "browser.gatherUsageStats": False,
        "browser.serverAddress": "127.0.0.1",
    }
    App(wanted.script, middleware=[Middleware(Login, password=password)]).run(config=settings)


if __name__ == "__main__":
    main()
