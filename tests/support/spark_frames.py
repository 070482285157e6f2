"""Spark's own protocol, and that between Python and its JVM, as somebody without their secrets speaks them."""

from __future__ import annotations

import socket
import struct

HOST = "127.0.0.1"
SECONDS = 3
_ERRORS_OF_PYTHON = (b"!x", b"!z")
REFUSALS = {2: "no such chunk", 5: "no call without the secret", 8: "no such file"}
"""By the number of an answer's kind: that nothing was given."""


_CALL = b"c\nz:java.lang.System\ngetenv\ne\n"
"""Python's call of Java's `System.getenv()`."""


def _file(name: str) -> bytes:
    return struct.pack(">i", len(name)) + name.encode()


MESSAGES = {
    "a call": (3, struct.pack(">qi", 7, 5) + b"hello"),
    "an upload": (10, struct.pack(">qiq", 3, 0, 0)),
    "a block": (0, struct.pack(">qi", 5, 0)),
    "a file": (6, _file("/files/secrets.json")),
    "a jar": (6, _file("/jars/x.jar")),
    "a way out of a folder": (6, _file("/artifacts/" + "../" * 20 + "etc/hostname")),
}
"""By what it asks for: the number of a message's kind, and its content."""


def answered(port: int, kind: int, content: bytes) -> str:
    """Return what a port gives for a message: "" for a refusal, a closed connection or nothing."""
    seen = _told(port, struct.pack(">qB", 9 + len(content), kind) + content)
    is_refusal = seen.startswith((b"HTTP/1.1 400", *_ERRORS_OF_PYTHON)) or (len(seen) > 8 and seen[8] in REFUSALS)
    return "" if is_refusal or not seen else repr(seen[:100])


def called(port: int) -> str:
    """Return what a port gives for Python's call of a method in its JVM: "" for a refusal or nothing."""
    seen = _told(port, _CALL)
    return repr(seen[:100]) if seen.startswith(b"!y") else ""


def _told(port: int, message: bytes) -> bytes:
    try:
        with socket.create_connection((HOST, port), timeout=SECONDS) as session:
            session.sendall(message)
            return session.recv(1000)
    except (TimeoutError, ConnectionError):
        return b""
