"""What opens Spark's pages: a signed token in each request, which Spark's own filter requires and no browser sends.

Airflow shows the pages to its users (`factory.bridge.spark_pages`); like every holder of the key, it makes such tokens.
`python -m stack.page_tokens URL [KEY.KEY=VALUE…]` is the health check of a container of Spark.
"""

from __future__ import annotations

import base64
import os
import sys
import time
from pathlib import Path

from stack.probe import fault

PREFIX = "/spark"
"""Where Airflow shows the pages: Spark's links lead there."""
SETTINGS = "spark-defaults.conf"
"""The file in the folder that SPARK_CONF_DIR names, from which master, workers and drivers have the key."""
SECONDS = 60
"""How long a token opens a page."""
_FILTER = "org.apache.spark.ui.JWSFilter"
_KEY = f"spark.{_FILTER}.param.secretKey"


def page_settings(key: str) -> dict[str, str]:
    """Return the settings that close the pages of master, workers and drivers, and lead all of them through one."""
    return {
        "spark.ui.filters": _FILTER,
        _KEY: key,
        f"spark.{_FILTER}.param.requireExpiration": "true",
        "spark.ui.reverseProxy": "true",
        "spark.ui.reverseProxyUrl": PREFIX,
    }


def token(key: str) -> dict[str, str]:
    """Return the header that opens a page for a minute."""
    import jwt

    signed = jwt.encode({"exp": int(time.time()) + SECONDS}, base64.urlsafe_b64decode(key), "HS256")
    return {"Authorization": f"Bearer {signed}"}


def key_in(settings: Path) -> str:
    """Return the key in a file of Spark's settings; raises KeyError without one."""
    lines = settings.read_text(encoding="utf-8").splitlines()
    return dict(line.split(" ", 1) for line in lines if " " in line)[_KEY]


def main() -> None:
    """Exit with 1 and say why, unless a page is as expected."""
    url, *wanted = sys.argv[1:]
    sys.exit(fault(url, wanted, token(key_in(Path(os.environ["SPARK_CONF_DIR"]) / SETTINGS))))


if __name__ == "__main__":
    main()
