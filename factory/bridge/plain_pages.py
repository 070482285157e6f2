"""The few words that a page of ours says when it cannot show what was asked for: no login, or a reason.

Knows Airflow's login page, and none of our pages.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException as AnyHTTPException

if TYPE_CHECKING:
    from fastapi import FastAPI, Request

EVERY_ANSWER = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # the address may hold a token
    "Cache-Control": "no-store",
}
NOTHING_RUNS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
_STYLE = "body {font: 16px/1.5 sans-serif; max-width: 44em; margin: 4em auto; padding: 0 1em}"


def explain_problems(app: FastAPI) -> None:
    """Let an application answer errors with a page for people."""
    app.add_exception_handler(AnyHTTPException, _problem_page)


def plain_page(status: int, text: str, address: str = "", label: str = "") -> HTMLResponse:
    """Return a page with a text and, if there is one, a link."""
    way_on = f' <a href="{escape(address)}">{escape(label)}</a>' if address else ""
    head = f"<meta charset=utf-8><title>Airflow</title><style>{_STYLE}</style>"
    html = f'<!doctype html><html lang="en">{head}<p>{escape(text)}{way_on}</p></html>\n'
    return HTMLResponse(html, status, headers=EVERY_ANSWER | NOTHING_RUNS)


def _problem_page(request: Request, error: Exception) -> HTMLResponse:
    assert isinstance(error, AnyHTTPException)
    if error.status_code != 401:
        return plain_page(error.status_code, str(error.detail))
    login = f"{request.scope.get('app_root_path', '')}/api/v2/auth/login?{urlencode({'next': request.url.path})}"
    return plain_page(401, "Only Airflow users can see this.", login, "Log in")
