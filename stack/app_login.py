"""The login of the app: who opens it, and what a request needs (`stack.app.served` requires it).

`python -m stack.app_login URL` is the health check of the app's container.
"""

from __future__ import annotations

import base64
import os
import sys

from stack.probe import fault

USER = "app"
PASSWORD = "TASKFLOW_APP_PASSWORD"  # noqa: S105 - the name of a variable
"""The environment variable that holds the password; the server does not start without it."""


def encoded(password: str) -> str:
    """Return user and password as HTTP's basic scheme writes them."""
    return base64.b64encode(f"{USER}:{password}".encode()).decode("ascii")


def login(password: str) -> dict[str, str]:
    """Return the header that a request needs."""
    return {"Authorization": f"Basic {encoded(password)}"}


def main() -> None:
    """Exit with 1 and say why, unless the app's page answers whoever has the login."""
    sys.exit(fault(sys.argv[1], (), login(os.environ[PASSWORD])))


if __name__ == "__main__":
    main()
