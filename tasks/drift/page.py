"""The page of a drift report: Evidently's, with a head that says what was compared.

Knows HTML; knows nothing about the comparison.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from html import escape

_DATA = re.compile(r"<script>\s+var \w+ = ")
_MORE_DATA = re.compile(r";\s+var \w+ = ")
_BODY = "<body>"
_STYLE = (
    "font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 1.5rem auto 0; padding: 0 1.5rem; color: #20242c"
)


def inert(page: str) -> str:
    """Return the page with its data unable to end the script that holds it, as a value `</script>` would.

    The data are JSON, in which a `<` can also be written as an escape.
    """
    before = _DATA.search(page)
    if before is None:
        raise ValueError("the page has no data: this release of Evidently writes pages in another form")
    parts, end = [page[: before.end()]], before.end()
    while True:
        start = end
        _, end = json.JSONDecoder().raw_decode(page, start)
        parts.append(page[start:end].replace("<", "\\u003c"))
        more = _MORE_DATA.match(page, end)
        if more is None:
            return "".join([*parts, page[end:]])
        parts.append(more[0])
        end = more.end()


def headed(page: str, title: str, facts: Mapping[str, str]) -> str:
    """Return the page with a title and a list of facts at its head."""
    before, body, after = page.partition(_BODY)
    if not body:
        raise ValueError("the page has no <body>: this release of Evidently writes pages in another form")
    rows = "".join(
        f'<tr><th style="text-align: left; padding-right: 1.5rem; vertical-align: top; font-weight: 600">{escape(name)}'
        f"</th><td>{escape(fact)}</td></tr>"
        for name, fact in facts.items()
    )
    head = f'<h1 style="font-size: 1.5rem; margin: 0 0 .5rem">{escape(title)}</h1><table>{rows}</table>'
    return f'{before}{body}<section style="{_STYLE}">{head}</section>{after}'
