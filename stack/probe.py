"""The health check of a container: `python -m stack.probe URL [KEY.KEY=VALUE…]` exits with 0 if all is as expected.

The page must answer, and each named value of its JSON must match. It runs every few seconds next to each service, so it
imports little, and nothing from the service.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any
from urllib.error import URLError
from urllib.request import ProxyHandler, Request, build_opener

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SECONDS = 8
"""How long an answer may take."""


def fault(url: str, wanted: Sequence[str], headers: Mapping[str, str] | None = None) -> str | None:
    """Return what is wrong with the page, or None."""
    try:
        asked = Request(url, headers=dict(headers or {}))  # noqa: S310 - from the command that checks the container
        with build_opener(ProxyHandler({})).open(asked, timeout=SECONDS) as answer:
            page = json.load(answer) if wanted else {}
    except (URLError, TimeoutError, ValueError) as error:
        return f"{url}: {error}"
    for condition in wanted:
        path, _, value = condition.partition("=")
        if (seen := _value(page, path)) != value:
            return f"{url}: {path} is {seen!r}, not {value!r}"
    return None


def _value(page: Any, path: str) -> Any:
    for key in path.split("."):
        page = page.get(key) if isinstance(page, dict) else None
    return page


def main() -> None:
    """Exit with 1 and say why, unless all is as expected."""
    url, *wanted = sys.argv[1:]
    sys.exit(fault(url, wanted))


if __name__ == "__main__":
    main()
