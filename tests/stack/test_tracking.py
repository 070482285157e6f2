"""The MLflow that tests and stack share."""

from __future__ import annotations

import mlflow
import pytest

from stack.objects import ObjectStore
from stack.tracking_server import BUCKET, Tracking
from tests.support.tracking_clients import client_of


@pytest.fixture(scope="module")
def client(mlflow_server: Tracking) -> mlflow.MlflowClient:
    """A client that knows the server's address and login and nothing else."""
    return client_of(mlflow_server)


def test_artifacts_pass_through(client: mlflow.MlflowClient, object_store: ObjectStore) -> None:
    """An artifact that a client without keys logs lies in the bucket, and comes back."""
    experiment = client.create_experiment("artifacts")
    run = client.create_run(experiment)
    client.log_text(run.info.run_id, "kept", "folder/note.txt")
    assert run.info.artifact_uri.startswith("mlflow-artifacts:/")
    keys = object_store.client().list_objects_v2(Bucket=BUCKET, Prefix=f"{experiment}/")["Contents"]
    assert [one["Key"].partition(run.info.run_id)[2] for one in keys] == ["/artifacts/folder/note.txt"]
    assert [one.path for one in client.list_artifacts(run.info.run_id, "folder")] == ["folder/note.txt"]


def test_registry_knows_stages(client: mlflow.MlflowClient) -> None:
    """A model's version takes a stage and an alias."""
    client.create_registered_model("staged")
    run = client.create_run(client.create_experiment("stages"))
    version = client.create_model_version("staged", run.info.artifact_uri, run.info.run_id).version
    with pytest.warns(FutureWarning, match="stages will be removed"):
        client.transition_model_version_stage("staged", version, "Production")
    client.set_registered_model_alias("staged", "production", version)
    assert client.get_model_version_by_alias("staged", "production").current_stage == "Production"
