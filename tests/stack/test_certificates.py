"""Certificates for the inside of a service."""

from __future__ import annotations

import socket
import ssl
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stack.certificates import HOST, Certificates


@pytest.fixture
def issued(tmp_path: Path) -> Certificates:
    """Certificates that were issued twice, as at the second start."""
    made = Certificates(tmp_path / "own")
    made.issue()
    before = made.certificate.read_text()
    made.issue()
    assert made.certificate.read_text() != before
    return made


def spoken(server: Certificates, client: Certificates | None, *, trusting: Certificates) -> str:
    """Return what a client reads from a server that requires a certificate, or the name of the refusal."""
    inside = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=server.authority)
    inside.load_cert_chain(server.certificate, server.key)
    inside.verify_mode = ssl.CERT_REQUIRED
    outside = ssl.create_default_context(cafile=trusting.authority)
    if client is not None:
        outside.load_cert_chain(client.certificate, client.key)
    with socket.create_server((HOST, 0)) as listener, ThreadPoolExecutor(1) as threads:
        threads.submit(answer, listener, inside)
        try:
            with (
                socket.create_connection(listener.getsockname(), timeout=10) as plain,
                outside.wrap_socket(plain, server_hostname=HOST) as session,
            ):
                return session.recv(10).decode() or "nothing"
        except (ssl.SSLError, ConnectionError) as error:
            return type(error).__name__


def answer(listener: socket.socket, context: ssl.SSLContext) -> None:
    """Greet one client."""
    session, _ = listener.accept()
    with session, context.wrap_socket(session, server_side=True) as protected:
        protected.sendall(b"hello")


def test_both_ends_know_each_other(issued: Certificates) -> None:
    """The one certificate serves as the server's and as the client's, by the address of loopback."""
    assert spoken(issued, issued, trusting=issued) == "hello"


def test_others_are_refused(issued: Certificates, tmp_path: Path) -> None:
    """A client without a certificate, or with one of another authority, reads nothing; nor does it trust another's."""
    other = Certificates(tmp_path / "other")
    other.issue()
    assert spoken(issued, None, trusting=issued) in {"SSLError", "ConnectionResetError", "nothing"}
    assert spoken(issued, other, trusting=issued) in {"SSLError", "ConnectionResetError", "nothing"}
    assert spoken(issued, issued, trusting=other) == "SSLCertVerificationError"


def test_files_are_private(issued: Certificates) -> None:
    """Only their owner may read the files; the authority's key is none of them."""
    files = list(issued.folder.iterdir())
    assert set(files) == {issued.authority, issued.certificate, issued.key}
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
