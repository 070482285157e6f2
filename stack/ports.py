"""Which port each service gets: the wanted one, or the next that is free.

Knows the operating system's ports, not who uses them.
"""

from __future__ import annotations

import errno
import socket

HOST = "127.0.0.1"
LAST = 65_535


def is_free(port: int) -> bool:
    """Return whether a server could listen on `port` of the loopback address now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


def next_free(wanted: int, *, twin: int = 0, taken: frozenset[int] = frozenset()) -> int:
    """Return the first port from `wanted` on that is free and not in `taken`, as is the one `twin` above it."""
    for port in range(wanted, LAST - twin + 1):
        both = {port, port + twin}
        if not both & taken and all(is_free(one) for one in both):
            return port
    raise OSError(errno.EADDRINUSE, f"no port from {wanted} to {LAST - twin} is free on {HOST}")
