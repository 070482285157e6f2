"""MLflow: where it is reached, what its errors mean, and which runs belong to a run of Airflow."""

from __future__ import annotations

import json
import os
import socket
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from secrets import token_hex

import mlflow
import pytest

from stack.database import Cluster
from stack.service import running
from stack.tracking_server import Tracking, TrackingKeys
from tasks.contract import MissingResource, PermanentError, Run, TransientError
from tasks.services import logins
from tasks.services.tracking import (
    PARENT,
    airflow_tags,
    check_store,
    delete_run,
    experiment_id,
    nested_runs,
    run_page,
    runs_of,
    tracking,
    tracking_errors,
    version_page,
)
from tests.support.ports import free_port

CONNECTION = "mlflow_default"


class Bucketless(Tracking):
    """A server whose bucket does not exist."""

    def _environment(self) -> dict[str, str]:
        return {**super()._environment(), "MLFLOW_ARTIFACTS_DESTINATION": "s3://no-such-bucket"}

    def probe(self) -> None:
        """Raise NotReady unless the server answers."""
        self._ask("GET", "/health")


@pytest.fixture(scope="module")
def other_server(mlflow_server: Tracking, cluster: Cluster, state: Path) -> Iterator[Tracking]:
    """A second server, with a login of its own, whose bucket does not exist."""
    account = cluster.account("bucketless", token_hex(16))
    cluster.create(account)
    keys = TrackingKeys(token_hex(16), token_hex(16))
    server = Bucketless(state / "bucketless", free_port(), account, mlflow_server.store, keys)
    with running(replace(server.service(), name="bucketless"), state, seconds=180):
        yield server


@pytest.fixture
def bucketless(other_server: Tracking, connect: pytest.MonkeyPatch) -> str:
    """The connection of the second server."""
    return set_connection(connect, **json.loads(other_server.airflow_connection))


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A way to set a connection for this test alone."""
    return monkeypatch


def set_connection(environment: pytest.MonkeyPatch, **parts: object) -> str:
    environment.setenv("AIRFLOW_CONN_MLFLOW_OTHER", json.dumps({"conn_type": "http", **parts}))
    return "mlflow_other"


def test_server_down_is_transient(connect: pytest.MonkeyPatch) -> None:
    """A server that is not there is told of, by its address and its connection."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        port = taken.getsockname()[1]
        connection = set_connection(connect, host="127.0.0.1", port=port)
        with pytest.raises(TransientError) as caught:
            tracking(connection)
    expected = f"MLflow at http://127.0.0.1:{port} (connection 'mlflow_other'): it does not answer (Connection refused)"
    assert str(caught.value).startswith(expected)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"conn_type": "aws"}, "is of type 'aws', not 'http'"),
        ({"host": ""}, "connection 'mlflow_other' has no host"),
    ],
)
def test_wrong_connection_is_permanent(parts: dict[str, str], message: str, connect: pytest.MonkeyPatch) -> None:
    """A connection of another type, or without a host, is refused before anything is sent."""
    connection = set_connection(connect, **parts)
    with pytest.raises(PermanentError, match=message):
        tracking(connection)


def test_missing_connection_is_named() -> None:
    """A connection that Airflow does not have is named."""
    with pytest.raises(MissingResource, match="connection 'mlflow_nowhere' does not exist"):
        tracking("mlflow_nowhere")


@pytest.mark.parametrize(
    ("host", "schema", "expected"),
    [
        ("ml.example", "https", "https://ml.example:81/#/experiments/3/runs/r"),
        ("https://ml.example/", "", "https://ml.example:81/#/experiments/3/runs/r"),
        ("ml.example", "", "http://ml.example:81/#/experiments/3/runs/r"),
    ],
)
def test_pages_follow_the_connection(host: str, schema: str, expected: str, connect: pytest.MonkeyPatch) -> None:
    """The link leads to the server that the connection names, by its protocol."""
    connection = set_connection(connect, host=host, schema=schema, port=81)
    assert run_page(connection, "r", "3") == expected
    assert version_page(connection, "m", "2").endswith("/#/models/m/versions/2")


def test_refused_request_is_permanent(mlflow_server: Tracking) -> None:
    """What the server refuses, it would refuse again."""
    client = tracking(CONNECTION)
    with pytest.raises(PermanentError, match="refused a request: RESOURCE_DOES_NOT_EXIST"), tracking_errors(CONNECTION):
        client.get_run("0" * 32)


def test_missing_artifact_is_named(mlflow_server: Tracking, tmp_path: Path) -> None:
    """An artifact that the store does not give is named, with the server."""
    client = tracking(CONNECTION)
    made = client.create_run(experiment_id(client, "tracking")).info.run_id
    with pytest.raises((TransientError, PermanentError)) as caught, tracking_errors(CONNECTION):
        client.download_artifacts(made, "nothing.json", str(tmp_path))
    assert mlflow_server.address in str(caught.value)
    assert "nothing.json" in str(caught.value)


def test_servers_stay_apart(mlflow_server: Tracking, bucketless: str) -> None:
    """Each client uses the login of its own server, whichever was made last."""
    clients = [tracking(CONNECTION), tracking(bucketless)]
    for client in (*clients, *reversed(clients)):
        assert client.search_experiments(max_results=1)


def test_login_stays_with_the_connection(mlflow_server: Tracking) -> None:
    """The password is neither in the environment nor in an address, where errors and subprocesses would have it."""
    password = mlflow_server.keys.admin_password
    client = tracking(CONNECTION)
    assert client.search_experiments(max_results=1)
    own = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_CONN_")}
    assert [name for name, value in own.items() if password in value] == []
    assert password not in mlflow.get_tracking_uri() + repr(vars(logins))
    made = client.create_run(experiment_id(client, "tracking"))
    assert password not in repr(made)
    with pytest.raises((TransientError, PermanentError)) as caught, tracking_errors(CONNECTION):
        client.download_artifacts(made.info.run_id, "nothing.json")
    assert password not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("login", [{"login": "admin", "password": "wrong-password"}, {"login": "", "password": ""}])
def test_refused_login_is_permanent(
    mlflow_server: Tracking, connect: pytest.MonkeyPatch, login: dict[str, str]
) -> None:
    """A wrong login, or none, is told with the connection to correct, and not the password."""
    connection = set_connection(connect, **json.loads(mlflow_server.airflow_connection) | login)
    with pytest.raises(PermanentError) as caught, tracking_errors(connection):
        tracking(connection).search_experiments(max_results=1)
    assert f"(connection '{connection}') refused the login; correct the connection's login" in str(caught.value)
    assert "wrong-password" not in str(caught.value)
    tracking(CONNECTION)


def test_runs_are_found_again(mlflow_server: Tracking, run: Run) -> None:
    """A run of MLflow is found by the Airflow run that made it, whichever try, and deleted with those nested in it."""
    client = tracking(CONNECTION)
    experiment = experiment_id(client, "tracking")
    assert experiment_id(client, "tracking") == experiment
    first = client.create_run(experiment, tags=airflow_tags(run)).info.run_id
    other = client.create_run(experiment, tags=airflow_tags(replace(run, run_id="manual__2"))).info.run_id
    for _ in range(3):
        client.create_run(experiment, tags={PARENT: first})
    again = replace(run, try_number=2)
    assert [one.info.run_id for one in runs_of(client, experiment, again)] == [first]
    assert runs_of(client, experiment, again, {"airflow.try_number": "2"}) == []
    assert len(nested_runs(client, experiment, first)) == 3
    delete_run(client, experiment, first)
    assert (runs_of(client, experiment, run), nested_runs(client, experiment, first)) == ([], [])
    assert len(runs_of(client, experiment, replace(run, run_id="manual__2"))) == 1
    assert client.get_run(other).info.lifecycle_stage == "active"


def test_refusing_bucket_is_named(bucketless: str, tmp_path: Path) -> None:
    """A bucket that refuses the server is named, with the server, before anything is put there; so is a lost file."""
    client = tracking(bucketless)
    made = client.create_run(experiment_id(client, "x")).info.run_id
    refused = r"is refused by its artifact store: .* s3://no-such-bucket"
    with pytest.raises(PermanentError, match=refused), tracking_errors(bucketless):
        check_store(client, made)
    (tmp_path / "a.txt").write_text("a")
    lost = rf"could not reach the artifact .*/{made}/artifacts/a\.txt"
    with pytest.raises(TransientError, match=lost), tracking_errors(bucketless):
        client.log_artifact(made, str(tmp_path / "a.txt"))


def test_deleted_experiment_is_told(mlflow_server: Tracking) -> None:
    """An experiment that somebody deleted is not made anew behind their back."""
    client = tracking(CONNECTION)
    gone = experiment_id(client, "tracking_gone")
    client.delete_experiment(gone)
    with pytest.raises(PermanentError, match=f"is deleted; restore it .*-x {gone}"):
        experiment_id(client, "tracking_gone")
