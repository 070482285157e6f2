"""The health check of containers, against a server of its own."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from stack.ports import HOST, next_free

PAGES = {
    "/health": (200, "ok"),
    "/json": (200, '{"status": "ALIVE", "scheduler": {"status": "unhealthy"}}'),
    "/error": (503, "starting"),
}


class Pages(BaseHTTPRequestHandler):
    """Answers with the pages above."""

    def do_GET(self) -> None:
        status, text = PAGES[self.path]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The address of a server with these pages."""
    with ThreadingHTTPServer((HOST, 0), Pages) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{HOST}:{server.server_address[1]}"
        server.shutdown()


def probe(url: str, *wanted: str) -> tuple[int, str]:
    """Return the exit code of the check, and what it says."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "stack.probe", url, *wanted], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stderr.strip()


@pytest.mark.parametrize(
    ("page", "wanted", "fault"),
    [
        ("/health", [], None),
        ("/json", ["status=ALIVE"], None),
        ("/json", ["status=ALIVE", "scheduler.status=healthy"], "scheduler.status is 'unhealthy', not 'healthy'"),
        ("/json", ["triggerer.status=healthy"], "triggerer.status is None, not 'healthy'"),
        ("/json", ["status.deeper=x"], "status.deeper is None, not 'x'"),
        ("/health", ["status=ALIVE"], "Expecting value: line 1 column 1 (char 0)"),
        ("/error", [], "HTTP Error 503: Service Unavailable"),
    ],
)
def test_pages_are_judged(address: str, page: str, wanted: list[str], fault: str | None) -> None:
    """A page that answers as wanted is healthy; of any other it is said what was seen."""
    expected = (0, "") if fault is None else (1, f"{address}{page}: {fault}")
    assert probe(address + page, *wanted) == expected


def test_nobody_listens() -> None:
    """A service that is not up yet is not healthy."""
    code, said = probe(f"http://{HOST}:{next_free(23_000)}/health")
    assert code == 1
    assert "Connection refused" in said
