"""A server for tests: it answers as a test says, right or wrong, and remembers what it was asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True)
class Asked:
    """A request."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    """By names in lower case."""
    body: bytes


@dataclass(frozen=True)
class Said:
    """An answer, whose length may be a lie; it is sent in pieces, and the last of them when the server is told to."""

    body: bytes | str = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None
    holds_back: bool = False

    @classmethod
    def of(cls, value: object, **rest: Any) -> Said:
        return cls(json.dumps(value), headers={"Content-Type": "application/json"}, **rest)


class Web:
    """The server; `pages` answers each path."""

    def __init__(self) -> None:
        self.pages: dict[str, Said | Callable[[Asked], Said]] = {}
        self.asked: list[Asked] = []
        self.go_on = Event()
        web = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                parts = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                asked = Asked(self.command, parts.path, dict(parse_qsl(parts.query)), headers, body)
                web.asked.append(asked)
                page = web.pages.get(parts.path, Said("no such page", 404))
                self.say(page if isinstance(page, Said) else page(asked))

            def say(self, said: Said) -> None:
                body = said.body.encode() if isinstance(said.body, str) else said.body
                self.send_response(said.status)
                for name, value in said.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body) if said.length is None else said.length))
                self.end_headers()
                self.wfile.write(body[:-1] if said.holds_back else body)
                if said.holds_back:
                    web.go_on.wait()

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815  the library's names

            def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002  the library's signature
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server.server_port}"

    def connection(self, **more: Any) -> str:
        """Return the Airflow connection to it, as JSON."""
        return json.dumps({"conn_type": "http", "host": "127.0.0.1", "port": self.server.server_port, **more})


@contextmanager
def serving() -> Iterator[Web]:
    """A server, up in this block."""
    web = Web()
    thread = Thread(target=lambda: web.server.serve_forever(0.01), daemon=True)
    thread.start()
    try:
        yield web
    finally:
        web.go_on.set()
        web.server.shutdown()
        web.server.server_close()
        thread.join()
