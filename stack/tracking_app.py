"""The application that the MLflow server runs: MLflow with its basic-auth login, closed where that login is not enough.

With a login alone, any user of MLflow could have the server read files of its own machine, by naming them as the place
of artifacts, or open other buckets with its keys; and some pages run command lines on the server or send requests
elsewhere. MLflow finds this module by the entry point `taskflow` of `mlflow.app`.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from flask import Response
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repo import ArtifactRepository
    from starlette.types import ASGIApp, Receive, Scope, Send

_PROXIED = frozenset({"mlflow-artifacts", "models", "runs"})
"""Schemes that lead to the server's own artifact store."""
_LOCATIONS = {
    "/mlflow/experiments/create": ("artifact_location", "artifactLocation"),
    "/mlflow/model-versions/create": ("source",),
}
"""Requests that name a place for artifacts, by the end of their path, and the fields that hold it."""
_CLOSED = re.compile(
    r"/gateway(/|$)"
    r"|/(ajax-)?api/\d+\.\d+/(mlflow/)?(assistant|gateway|gateway-proxy|jobs|prompt-optimization|scorer|webhooks)(/|$)"
)
"""The assistant runs command lines; the others call services elsewhere. Nothing here uses them."""


def create_app() -> ASGIApp:
    """Return MLflow's application with a login, and without what a login does not close."""
    from mlflow.server import app, auth
    from mlflow.server.constants import ARTIFACTS_DESTINATION_ENV_VAR

    close_repositories(os.environ[ARTIFACTS_DESTINATION_ENV_VAR])
    protected = auth.create_app(app)
    _follow_password(auth)
    app.before_request(_refuse_location)  # after the login's own check
    return without_closed(protected)


def close_repositories(destination: str) -> None:
    """Let this process open no artifacts but those that the server is started for: every way to a file leads here."""
    from mlflow.store.artifact.artifact_repository_registry import get_registered_artifact_repositories

    known: dict[str, Any] = get_registered_artifact_repositories()
    scheme = destination.partition(":")[0]
    opened = known[scheme]

    def only_destination(artifact_uri: str, **place: str | None) -> ArtifactRepository:
        if artifact_uri != destination:
            raise _refusal(artifact_uri)
        repository: ArtifactRepository = opened(artifact_uri, **place)
        return repository

    def none(artifact_uri: str, **_: str | None) -> NoReturn:
        raise _refusal(artifact_uri)

    for name in set(known) - _PROXIED:
        known[name] = none
    known[scheme] = only_destination


def without_closed(application: ASGIApp) -> ASGIApp:
    """Return an application that answers 404 where the server is closed, and else is `application`."""
    from starlette.responses import PlainTextResponse

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        is_closed = scope["type"] != "lifespan" and _CLOSED.match(scope["path"])
        await (PlainTextResponse("Not found", 404) if is_closed else application)(scope, receive, send)

    return answer


def _follow_password(auth: Any) -> None:
    """Give the admin the password of the settings, which may have changed since the first start."""
    name, password = auth.auth_config.admin_username, auth.auth_config.admin_password
    if not auth.store.authenticate_user(name, password):
        auth.store.update_user(name, password=password)


def _refuse_location() -> Response | None:
    """Refuse a request that names a place outside the server's artifact store, before anything is recorded."""
    from flask import Response, request

    fields = next((fields for end, fields in _LOCATIONS.items() if request.path.endswith(end)), ())
    body = request.get_json(force=True, silent=True) if fields else None
    places = [body.get(field) for field in fields] if isinstance(body, dict) else []
    for place in filter(None, places):
        if str(place).partition(":")[0] not in _PROXIED:
            refused: str = _refusal(str(place)).serialize_as_json()  # type: ignore[no-untyped-call]  # by MLflow
            return Response(refused, 400, mimetype="application/json")
    return None


def _refusal(artifact_uri: str) -> MlflowException:
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

    return MlflowException(
        f"This server keeps artifacts in its own store only, so it does not open {artifact_uri!r}; "
        "leave the location out, or name one that begins with mlflow-artifacts:/, models:/ or runs:/",
        error_code=INVALID_PARAMETER_VALUE,
    )
