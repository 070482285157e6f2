"""The logins of MLflow's servers in this process, each used for requests to its own server only.

MLflow's client reads a login from the environment, one for all servers, where subprocesses see it, or from the address,
which it repeats in its errors. Instead it asks this module, by the entry point `taskflow` of
`mlflow.request_auth_provider`, while MLFLOW_TRACKING_AUTH names it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from requests import PreparedRequest

NAME = "taskflow"
_STANDARD_PORTS = {"http": 80, "https": 443}


class Login(NamedTuple):
    """A user and a password; never printed."""

    user: str
    password: str

    def __repr__(self) -> str:
        return f"Login({self.user!r}, ...)"


_logins: dict[tuple[str, str, int], Login | None] = {}
"""By scheme, host and port; None for a server without a login."""


def remember(address: str, login: Login | None) -> None:
    """Use a login for all requests to the server at `address` from now on."""
    _logins[_origin(address)] = login


class ConnectionLogins:
    """What MLflow's client asks for the login of a request."""

    def get_name(self) -> str:
        """Return the name for MLFLOW_TRACKING_AUTH."""
        return NAME

    def get_auth(self) -> ConnectionLogins:
        """Return what is called with each request before it is sent."""
        return self

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Add the login of the request's server; leave requests to unknown servers as they are."""
        from requests.auth import HTTPBasicAuth

        origin = _origin(request.url or "")
        if origin not in _logins:
            return request
        request.headers.pop("Authorization", None)
        login = _logins[origin]
        return request if login is None else HTTPBasicAuth(login.user.encode(), login.password.encode())(request)


def _origin(address: str) -> tuple[str, str, int]:
    parts = urlsplit(address)
    return parts.scheme, parts.hostname or "", parts.port or _STANDARD_PORTS.get(parts.scheme, 0)
