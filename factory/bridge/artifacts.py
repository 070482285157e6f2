"""The objects that tasks put into the object store, shown to the people who are logged in to Airflow.

An HTML report is a program that somebody wrote, so it is never let near the Airflow session: it runs in a sandbox, as
an origin of its own. From there the browser sends no login for the report's pictures and pages. So the first request,
which has the login, is led to an address that holds a token, and the token opens the report's folder for an hour.

Knows Airflow's login and how the object store is reached; nothing of what the objects are.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from airflow.api_fastapi.core_api.security import GetUserDep
from airflow.configuration import conf
from airflow.sdk import Connection
from airflow.sdk.exceptions import AirflowNotFoundException
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, StreamingResponse
from itsdangerous import BadSignature, SignatureExpired, URLSafeTimedSerializer
from starlette.exceptions import HTTPException as AnyHTTPException

from tasks.contract import MissingResource, PermanentError, TransientError
from tasks.services.objects import bucket_errors, object_store

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef

BUCKETS = "TASKFLOW_ARTIFACT_BUCKETS"
"""The environment variable that lists the buckets of which objects may be shown, with commas between."""

TOKEN_SECONDS = 3600

_DEFAULT_BUCKETS = "ge-artifacts,mlflow-artifacts"
_SALT = "taskflow.artifacts"
_CHUNK_BYTES = 64 * 1024
_VIEW = "_view"
"""The address with the token; no bucket can have this name."""

_EVERY_ANSWER = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # the address may hold a token
    "Cache-Control": "no-store",
}
_SANDBOX = {"Content-Security-Policy": "sandbox allow-scripts allow-popups"}
_NOTHING_RUNS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
_STYLE = "body {font: 16px/1.5 sans-serif; max-width: 44em; margin: 4em auto; padding: 0 1em}"


@dataclass
class LinkExpired(Exception):
    """The token of an address is too old; `path` is where a new one is to be had."""

    path: str


@dataclass(frozen=True, slots=True)
class Source:
    """What may be shown, where it lies, and the key that signs tokens."""

    buckets: frozenset[str]
    secret_key: str
    connection: str = "object_store"

    @property
    def tokens(self) -> URLSafeTimedSerializer:
        """What signs and reads the scope of a token."""
        return URLSafeTimedSerializer(self.secret_key, salt=_SALT)

    def open(self, bucket: str, key: str, request: Request, _user: GetUserDep) -> RedirectResponse:
        """Lead a user who is logged in to the address that needs no login."""
        self.require_known(bucket, key)
        token = self.tokens.dumps(_scope(bucket, key))
        path = f"{request.scope['root_path']}/{_VIEW}/{token}/{_path(bucket, key)}"
        return RedirectResponse(path, status_code=303, headers=_EVERY_ANSWER)

    def view(self, token: str, bucket: str, key: str, request: Request) -> StreamingResponse:
        """Send an object to whoever has a token for it, and let it run nowhere but in a sandbox."""
        # Airflow's access log prints this path when the request has ended.
        request.scope["path"] = request.scope["path"].replace(token, "token")
        self.require_token(token, bucket, key, request)
        self.require_known(bucket, key)
        found = self.fetched(bucket, key)
        return StreamingResponse(_chunks(found["Body"]), headers=_headers(found))

    def require_known(self, bucket: str, key: str) -> None:
        """Raise where the bucket is not to be shown, or the key could mean an object of another one."""
        if bucket not in self.buckets:
            shown = ", ".join(sorted(self.buckets)) or "none"
            raise HTTPException(404, f"Bucket {bucket!r} is not shown here; {BUCKETS} names those that are: {shown}.")
        if {"", ".", ".."} & set(key.split("/")):
            raise HTTPException(404, f"{key!r} is not the key of an object.")

    def require_token(self, token: str, bucket: str, key: str, request: Request) -> None:
        """Raise where the token is forged, too old, or was given for another folder."""
        try:
            scope = self.tokens.loads(token, max_age=TOKEN_SECONDS)
        except SignatureExpired:
            raise LinkExpired(f"{request.scope['root_path']}/{_path(bucket, key)}") from None
        except BadSignature:
            raise HTTPException(403, "Airflow gave out no such address; open the link on the task again.") from None
        if not _covers(scope, bucket, key):
            raise HTTPException(403, f"This address opens {scope} only, and {bucket}/{key} lies elsewhere.")

    def fetched(self, bucket: str, key: str) -> GetObjectOutputTypeDef:
        """Return an object, its body still to be read; raise with what is wrong with the object store."""
        try:
            client = _client(self.connection, _written(self.connection))
            with bucket_errors(self.connection, bucket):
                return _get(client, bucket, key)
        except MissingResource as error:
            raise HTTPException(404 if error.kind == "bucket" else 502, str(error)) from error
        except (PermanentError, TransientError) as error:
            raise HTTPException(502, str(error)) from error


def artifacts_app(source: Source) -> FastAPI:
    """Return the application that the API server mounts."""
    app = FastAPI(openapi_url=None)
    app.add_api_route(f"/{_VIEW}/{{token}}/{{bucket}}/{{key:path}}", source.view, response_model=None)
    app.add_api_route("/{bucket}/{key:path}", source.open, response_model=None)
    app.add_exception_handler(AnyHTTPException, _problem_page)
    app.add_exception_handler(LinkExpired, _expired_page)
    return app


def configured_source() -> Source:
    """Return the source that Airflow's configuration and the environment describe."""
    names = (name.strip() for name in os.environ.get(BUCKETS, _DEFAULT_BUCKETS).split(","))
    return Source(frozenset(filter(None, names)), conf.get_mandatory_value("api", "secret_key"))


def _path(bucket: str, key: str) -> str:
    return f"{bucket}/{quote(key)}"


def _scope(bucket: str, key: str) -> str:
    """Return what a token for an object opens: its folder, or the object alone where it lies in none."""
    folder, _, _ = key.rpartition("/")
    return f"{bucket}/{folder}/" if folder else f"{bucket}/{key}"


def _covers(scope: str, bucket: str, key: str) -> bool:
    wanted = f"{bucket}/{key}"
    return wanted.startswith(scope) if scope.endswith("/") else wanted == scope


@lru_cache(maxsize=1)
def _client(connection: str, _written: str) -> S3Client:
    """Return a client, kept while the connection reads the same: to make one takes fifty times as long as a request."""
    return object_store(connection)


def _written(connection: str) -> str:
    try:
        return str(Connection.get(connection).get_uri())
    except AirflowNotFoundException:
        return ""  # object_store says what to do about it


def _get(client: S3Client, bucket: str, key: str) -> GetObjectOutputTypeDef:
    try:
        return client.get_object(Bucket=bucket, Key=key)
    except client.exceptions.NoSuchKey:
        raise HTTPException(404, f"Bucket {bucket!r} holds no {key!r}; it may have been removed.") from None


def _headers(found: GetObjectOutputTypeDef) -> dict[str, str]:
    headers = {"Content-Type": found["ContentType"], "Content-Length": str(found["ContentLength"])}
    if found.get("ContentEncoding"):
        headers["Content-Encoding"] = found["ContentEncoding"]
    return headers | _EVERY_ANSWER | _SANDBOX


def _chunks(body: StreamingBody) -> Iterator[bytes]:
    try:
        yield from body.iter_chunks(_CHUNK_BYTES)
    finally:
        body.close()


def _problem_page(request: Request, error: Exception) -> HTMLResponse:
    assert isinstance(error, AnyHTTPException)
    if error.status_code != 401:
        return _page(error.status_code, str(error.detail))
    login = f"{request.scope.get('app_root_path', '')}/api/v2/auth/login?{urlencode({'next': request.url.path})}"
    return _page(401, "Only users of Airflow see this.", login, "Log in")


def _expired_page(_request: Request, error: Exception) -> HTMLResponse:
    assert isinstance(error, LinkExpired)
    text = f"This address was good for {TOKEN_SECONDS // 60} minutes. Open the link on the task in Airflow again, or"
    return _page(403, text, error.path, "open it from here")


def _page(status: int, text: str, address: str = "", label: str = "") -> HTMLResponse:
    way_on = f' <a href="{escape(address)}">{escape(label)}</a>' if address else ""
    head = f"<meta charset=utf-8><title>Airflow artifacts</title><style>{_STYLE}</style>"
    html = f'<!doctype html><html lang="en">{head}<p>{escape(text)}{way_on}</p></html>\n'
    return HTMLResponse(html, status, headers=_EVERY_ANSWER | _NOTHING_RUNS)
