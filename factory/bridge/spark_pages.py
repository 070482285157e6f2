"""The pages of a Spark cluster, shown to people who are logged in to Airflow.

Spark answers only requests that have a token in a header, which no browser sends. So Airflow's API server asks for
them, through the page of the master, which leads to those of its workers and of running applications
(`spark.ui.reverseProxy`). It passes on no login and no cookie, and only reads. Spark names the scripts that may run in
its pages; where it does not, none may.

Knows Airflow's login and how the master is reached, but not what its pages show.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

import httpx
import jwt
from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import StreamingResponse

from factory.bridge.plain_pages import EVERY_ANSWER, NOTHING_RUNS, explain_problems
from tasks.contract import PermanentError
from tasks.services.connection import airflow_connection

TOKEN_SECONDS = 60
_PASSED_ON = ("content-type", "content-length", "content-disposition", "content-security-policy")


@dataclass(frozen=True, slots=True)
class Cluster:
    """The connection to the master's page: of type http, with the tokens' key, in base64, as its password."""

    connection: str = "spark_pages"
    client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=30, trust_env=False))

    def show(self, request: Request, _user: GetUserDep, path: str = "") -> StreamingResponse:
        """Send what the cluster answers to a user who is logged in; raise HTTPException if it cannot be asked."""
        page, login = self.place()
        address = httpx.URL(f"{page}/{quote(path)}", query=request.scope["query_string"] or None)
        asked = self.client.build_request("GET", address, headers={**login, "Accept-Encoding": "identity"})
        try:
            answer = self.client.send(asked, stream=True)
        except httpx.HTTPError as error:
            said = f"The Spark master at {page} does not answer ({type(error).__name__}: {error}); is it running?"
            raise HTTPException(502, said) from error
        return StreamingResponse(_chunks(answer), answer.status_code, _headers(answer, request.scope["root_path"]))

    def place(self) -> tuple[str, dict[str, str]]:
        """Return the address of the master's page and a header that opens it; raise HTTPException if there is none."""
        try:
            conn = airflow_connection(self.connection, "http")
            return f"{conn.schema or 'http'}://{conn.host}:{conn.port}", _token(conn.password or "")
        except PermanentError as error:
            raise HTTPException(502, str(error)) from error
        except ValueError as error:
            said = f"The password of connection {self.connection!r} is not a key in URL-safe base64 ({error})."
            raise HTTPException(502, said) from error


def spark_app(cluster: Cluster) -> FastAPI:
    """Return the application that the API server mounts."""
    app = FastAPI(openapi_url=None)
    app.add_api_route("/{path:path}", cluster.show, response_model=None)
    explain_problems(app)
    return app


def _token(key: str) -> dict[str, str]:
    """Return the header of a token for a minute; without a key, that of a cluster which asks for none."""
    if not key:
        return {}
    signed = jwt.encode({"exp": int(time.time()) + TOKEN_SECONDS}, base64.urlsafe_b64decode(key), "HS256")
    return {"Authorization": f"Bearer {signed}"}


def _headers(answer: httpx.Response, root: str) -> dict[str, str]:
    ours = {name.lower(): value for name, value in (NOTHING_RUNS | EVERY_ANSWER).items()}
    passed = {name: answer.headers[name] for name in _PASSED_ON if name in answer.headers}
    moved = {"location": _below(root, answer.headers["location"])} if "location" in answer.headers else {}
    return ours | passed | moved


def _below(root: str, location: str) -> str:
    """Return where the browser finds a page that the master sends it to, which names its own address."""
    parts = urlsplit(location)
    path = parts.path if parts.path.startswith(f"{root}/") else f"{root}{parts.path}"
    return f"{path}?{parts.query}" if parts.query else path


def _chunks(answer: httpx.Response) -> Iterator[bytes]:
    try:
        yield from answer.iter_raw()
    finally:
        answer.close()
