"""The objects that tasks put into the object store, shown to people who are logged in to Airflow.

An HTML report is a program that somebody wrote, so it must not reach the Airflow session: it runs in a sandbox with its
own origin. From there the browser sends no login for the report's pictures and pages. So the first request, which has
the login, is redirected to an address with a token, and the token opens the report's folder for an hour.

Knows Airflow's login and how the object store is reached, but not what the objects are.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import quote

from airflow.api_fastapi.core_api.security import GetUserDep
from airflow.configuration import conf
from airflow.sdk import Connection
from airflow.sdk.exceptions import AirflowNotFoundException
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, StreamingResponse
from itsdangerous import BadSignature, SignatureExpired, URLSafeTimedSerializer

from factory.bridge.plain_pages import EVERY_ANSWER, explain_problems, plain_page
from tasks.contract import MissingResource, PermanentError, TransientError
from tasks.services.objects import bucket_errors, object_store

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef

BUCKETS = "TASKFLOW_ARTIFACT_BUCKETS"
"""The environment variable that lists the buckets whose objects may be shown, separated by commas."""

TOKEN_SECONDS = 3600

_DEFAULT_BUCKETS = "ge-artifacts,mlflow-artifacts"
_SALT = "taskflow.artifacts"
_CHUNK_BYTES = 64 * 1024
_VIEW = "_view"
"""The first part of an address with a token; no bucket can have this name."""

_SANDBOX = {"Content-Security-Policy": "sandbox allow-scripts allow-popups"}


@dataclass
class LinkExpired(Exception):
    """The token of an address is too old; `path` gives a new one."""

    path: str


@dataclass(frozen=True, slots=True)
class Source:
    """What may be shown, the connection to its store, and the key that signs tokens."""

    buckets: frozenset[str]
    secret_key: str
    connection: str = "object_store"

    @property
    def tokens(self) -> URLSafeTimedSerializer:
        """The serializer that signs and reads the scope of a token."""
        return URLSafeTimedSerializer(self.secret_key, salt=_SALT)

    def open(self, bucket: str, key: str, request: Request, _user: GetUserDep) -> RedirectResponse:
        """Redirect a user who is logged in to an address that needs no login."""
        self.require_known(bucket, key)
        token = self.tokens.dumps(_scope(bucket, key))
        path = f"{request.scope['root_path']}/{_VIEW}/{token}/{_path(bucket, key)}"
        return RedirectResponse(path, status_code=303, headers=EVERY_ANSWER)

    def view(self, token: str, bucket: str, key: str, request: Request) -> StreamingResponse:
        """Send an object to anyone with a token for it, and let it run only in a sandbox."""
        # Airflow's access log prints this path when the request ends.
        request.scope["path"] = request.scope["path"].replace(token, "token")
        self.require_token(token, bucket, key, request)
        self.require_known(bucket, key)
        stored = self.fetched(bucket, key)
        return StreamingResponse(_chunks(stored["Body"]), headers=_headers(stored))

    def require_known(self, bucket: str, key: str) -> None:
        """Raise if the bucket may not be shown, or the key could mean an object in another bucket."""
        if bucket not in self.buckets:
            shown = ", ".join(sorted(self.buckets)) or "none"
            raise HTTPException(404, f"Bucket {bucket!r} is not shown here; {BUCKETS} lists those that are: {shown}.")
        if {"", ".", ".."} & set(key.split("/")):
            raise HTTPException(404, f"{key!r} is not the key of an object.")

    def require_token(self, token: str, bucket: str, key: str, request: Request) -> None:
        """Raise if the token is forged, too old, or was issued for another folder."""
        try:
            scope = self.tokens.loads(token, max_age=TOKEN_SECONDS)
        except SignatureExpired:
            raise LinkExpired(f"{request.scope['root_path']}/{_path(bucket, key)}") from None
        except BadSignature:
            raise HTTPException(403, "Airflow did not issue this address; open the link on the task again.") from None
        if not _covers(scope, bucket, key):
            raise HTTPException(403, f"This address opens {scope} only, not {bucket}/{key}.")

    def fetched(self, bucket: str, key: str) -> GetObjectOutputTypeDef:
        """Return an object, its body not yet read; raise the object store's error if there is one."""
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
    explain_problems(app)
    app.add_exception_handler(LinkExpired, _expired_page)
    return app


def configured_source() -> Source:
    """Return the source described by Airflow's configuration and the environment."""
    names = (name.strip() for name in os.environ.get(BUCKETS, _DEFAULT_BUCKETS).split(","))
    return Source(frozenset(filter(None, names)), conf.get_mandatory_value("api", "secret_key"))


def _path(bucket: str, key: str) -> str:
    return f"{bucket}/{quote(key)}"


def _scope(bucket: str, key: str) -> str:
    """Return what a token for an object opens: its folder, or only the object if it is not in a folder."""
    folder, _, _ = key.rpartition("/")
    return f"{bucket}/{folder}/" if folder else f"{bucket}/{key}"


def _covers(scope: str, bucket: str, key: str) -> bool:
    wanted = f"{bucket}/{key}"
    return wanted.startswith(scope) if scope.endswith("/") else wanted == scope


@lru_cache(maxsize=1)
def _client(connection: str, _written: str) -> S3Client:
    """Return a client, cached until the connection changes: making one takes fifty times as long as a request."""
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
        raise HTTPException(404, f"Bucket {bucket!r} has no object {key!r}; it may have been removed.") from None


def _headers(stored: GetObjectOutputTypeDef) -> dict[str, str]:
    headers = {"Content-Type": stored["ContentType"], "Content-Length": str(stored["ContentLength"])}
    if stored.get("ContentEncoding"):
        headers["Content-Encoding"] = stored["ContentEncoding"]
    return headers | EVERY_ANSWER | _SANDBOX


def _chunks(body: StreamingBody) -> Iterator[bytes]:
    try:
        yield from body.iter_chunks(_CHUNK_BYTES)
    finally:
        body.close()


def _expired_page(_request: Request, error: Exception) -> HTMLResponse:
    assert isinstance(error, LinkExpired)
    text = f"This address was valid for {TOKEN_SECONDS // 60} minutes. Open the link on the task in Airflow again, or"
    return plain_page(403, text, error.path, "open it from here")
