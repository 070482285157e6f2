"""How to reach MLflow, which errors are worth a retry, and which MLflow run belongs to which Airflow run.

Knows the Airflow connection, MLflow's client and its settings for the process; knows nothing about what is trained.
The global state of MLflow's fluent API (its tracking address, its environment variables) is set only here.
"""

from __future__ import annotations

import os
import re
import socket
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, NoReturn

from pydantic import Field

from tasks.contract import PermanentError, TransientError
from tasks.services.connection import airflow_connection
from tasks.services.logins import NAME, Login, remember

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mlflow import MlflowClient
    from mlflow.entities import Run as TrackedRun
    from mlflow.exceptions import MlflowException

    from tasks.contract import Run

ExperimentName = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^'/\x00-\x1f][^'\x00-\x1f]*$")]
"""The name of an MLflow experiment; no quotes, as MLflow could not search for it."""

_CONNECT_SECONDS = 5
_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # the default of 7 takes minutes; Airflow retries the step anyway
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_UV_AUTO_DETECT": "false",  # a model does not need the project's packages
    "MLFLOW_TRACKING_AUTH": NAME,
    "GIT_PYTHON_REFRESH": "quiet",
}
"""Read by MLflow's client at each request."""

_RUN_TAGS = {"airflow.dag_id": "dag_id", "airflow.run_id": "run_id", "airflow.task_id": "task_id"}
_MAP_INDEX = "airflow.map_index"
_TRY = "airflow.try_number"
PARENT = "mlflow.parentRunId"

_ARTIFACT = re.compile(r"/mlflow-artifacts/artifacts/(?P<path>[^\s?)'\"]+)")
_STORE_REFUSAL = re.compile(r'"message": "(?P<message>Failed to [^"]* in [a-z0-9]+://[^"]*)"')
"""What the server says about its bucket when artifacts are listed; about a failed upload it says nothing."""
_NO_ANSWER = re.compile(r"Connection refused|timed out|timeout|NameResolution|Connection reset|Connection aborted|EOF")
_FEW_RESULTS = 200


@dataclass(frozen=True, slots=True)
class Server:
    """Where a connection's MLflow is."""

    uri: str
    connection: str

    def __str__(self) -> str:
        return f"MLflow at {self.uri} (connection {self.connection!r})"


def tracking(connection: str) -> MlflowClient:
    """Return a client for an Airflow connection of type http, and make it MLflow's default in this process.

    The connection's schema is the protocol (http or https), its login and password are optional. Raises
    TransientError within seconds if nothing is listening; `tracking_errors` translates errors of later calls.
    """
    server = _server(connection)
    os.environ.update(_SETTINGS)  # before the import: telemetry begins with it
    remember(server.uri, _login(connection))
    _check_reachable(server)
    import mlflow

    mlflow.set_tracking_uri(server.uri)
    mlflow.set_registry_uri(server.uri)
    return mlflow.MlflowClient(tracking_uri=server.uri, registry_uri=server.uri)


@contextmanager
def tracking_errors(connection: str) -> Iterator[None]:
    """Translate the errors of MLflow's client in the block.

    A refused request becomes a PermanentError. A server that does not answer or breaks down becomes a TransientError,
    and so does an artifact that the server could not store or fetch: the message names it.
    """
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException

    try:
        yield
    except MlflowException as error:
        _raise_translated(error, _server(connection))
    except RequestException as error:
        _raise_for_request(error, _server(connection))


def run_page(connection: str, run_id: str, experiment_id: str) -> str:
    """Return the address of a run's page in MLflow's UI."""
    return f"{_server(connection).uri}/#/experiments/{experiment_id}/runs/{run_id}"


def version_page(connection: str, model: str, version: str) -> str:
    """Return the address of the page of a registered model's version in MLflow's UI."""
    return f"{_server(connection).uri}/#/models/{model}/versions/{version}"


def experiment_id(client: MlflowClient, name: str) -> str:
    """Return the id of the experiment `name`, creating it if needed."""
    from mlflow.exceptions import MlflowException

    known = client.get_experiment_by_name(name)
    if known is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException as error:  # someone else was faster
            known = client.get_experiment_by_name(name)
            if known is None:
                raise PermanentError(f"experiment {name!r} can be neither found nor created: {error}") from error
    if known.lifecycle_stage == "deleted":
        remedy = f"restore it (`mlflow experiments restore -x {known.experiment_id}`), or name another in the step"
        raise PermanentError(f"experiment {name!r} of MLflow is deleted; {remedy}")
    return str(known.experiment_id)


def airflow_tags(run: Run) -> dict[str, str]:
    """Return the tags that link an MLflow run to the Airflow run that makes it."""
    return _own_tags(run) | {_TRY: str(run.try_number)}


def runs_of(client: MlflowClient, experiment: str, run: Run, tags: Mapping[str, str] | None = None) -> list[TrackedRun]:
    """Return the runs that this step made for this Airflow run, in any try, newest first.

    `experiment` is an id; `tags` narrows the search. Nested runs do not have the tags and are not returned.
    """
    wanted = _own_tags(run) | dict(tags or {})
    return list(client.search_runs([experiment], _condition(wanted), order_by=["attributes.start_time DESC"]))


def nested_runs(client: MlflowClient, experiment: str, parent: str) -> list[TrackedRun]:
    """Return the runs nested in the run `parent`."""
    return list(client.search_runs([experiment], _condition({PARENT: parent}), max_results=_FEW_RESULTS))


def delete_run(client: MlflowClient, experiment: str, run_id: str) -> None:
    """Delete a run and those nested in it."""
    for nested in nested_runs(client, experiment, run_id):
        client.delete_run(nested.info.run_id)
    client.delete_run(run_id)  # last: while it is there, the next attempt finds what is left


def check_store(client: MlflowClient, run_id: str) -> None:
    """Have the server list its artifact store, so a bucket that refuses it is reported before it is needed."""
    client.list_artifacts(run_id)


def _own_tags(run: Run) -> dict[str, str]:
    tags = {tag: str(getattr(run, field)) for tag, field in _RUN_TAGS.items()}
    return tags | {_MAP_INDEX: str(run.map_index)}


def _condition(tags: Mapping[str, str]) -> str:
    for name, value in tags.items():
        if "'" in value:
            raise PermanentError(f"{name} {value!r} has a quote in it, so MLflow cannot search for it; rename it")
    return " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())


def _server(connection: str) -> Server:
    conn = airflow_connection(connection, "http")
    if not conn.host:
        raise PermanentError(f"connection {connection!r} has no host; enter that of the MLflow server")
    host = conn.host.rstrip("/")
    if "://" not in host:
        host = f"{conn.schema or 'http'}://{host}"
    return Server(f"{host}:{conn.port}" if conn.port else host, connection)


def _login(connection: str) -> Login | None:
    conn = airflow_connection(connection, "http")
    return Login(conn.login, conn.password or "") if conn.login else None


def _check_reachable(server: Server) -> None:
    """Raise TransientError unless something is listening: MLflow's client would say so late, and at length."""
    from urllib.parse import urlsplit

    address = urlsplit(server.uri)
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        socket.create_connection((address.hostname or "", port), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        remedy = "is it up (`make status`), and is the connection right?"
        raise TransientError(str(server), f"it does not answer ({error.strerror or error}); {remedy}") from error


def _raise_translated(error: MlflowException, server: Server) -> NoReturn:
    from mlflow.exceptions import RestException

    problem = " ".join(str(error).split())[:1000]
    if lost := _ARTIFACT.search(problem):
        _raise_for_artifact(lost["path"], problem, server, error)
    if not isinstance(error, RestException) and _NO_ANSWER.search(problem):
        raise TransientError(str(server), f"it does not answer: {problem}") from error
    status: int = error.get_http_status_code()  # type: ignore[no-untyped-call]  # not annotated by MLflow
    if status in (401, 403):
        raise PermanentError(f"{server} refused the login; correct the connection's login and password: {problem}")
    if 400 <= status < 500 and status != 429:
        raise PermanentError(f"{server} refused a request: {problem}") from error
    raise TransientError(str(server), problem) from error


def _raise_for_request(error: Exception, server: Server) -> NoReturn:
    """Translate an error of the HTTP library, which MLflow lets through when it uploads or downloads artifacts."""
    problem, answer = " ".join(str(error).split())[:1000], getattr(error, "response", None)
    if answer is not None and 400 <= answer.status_code < 500 and (refusal := _STORE_REFUSAL.search(answer.text)):
        remedy = "correct the bucket or the keys that the server is started with"
        raise PermanentError(f"{server} is refused by its artifact store: {refusal['message']}; {remedy}") from error
    if lost := _ARTIFACT.search(problem):
        _raise_for_artifact(lost["path"], problem, server, error)
    raise TransientError(str(server), problem) from error


def _raise_for_artifact(path: str, problem: str, server: Server, error: Exception) -> NoReturn:
    if _NO_ANSWER.search(problem):
        raise TransientError(str(server), f"the connection broke at the artifact {path}: {problem}") from error
    remedy = "are its bucket and keys right? Its log has the bucket's answer"
    failure = f"it could not reach the artifact {path} in its artifact store ({problem[:300]}); {remedy}"
    raise TransientError(str(server), failure) from error
