"""Registered models as people leave them: Production by one sign and not by the other, or not ready."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

import mlflow
import pytest

from tasks.contract import MissingResource, PermanentError, Run
from tasks.models.production import main as choose
from tasks.models.promotion import evaluate, promote
from tests.support.candidates import WEAK, Recipe, log_candidate
from tests.support.tracking_clients import open_address

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stack.database import Cluster
    from stack.tracking_server import Tracking

CONNECTION = "mlflow_default"
BARE = Recipe().lacking("plots", "shap")
Signs = dict[str, str]
"""The stage of each version, and the version of the alias."""


@pytest.fixture(scope="module")
def client(mlflow_server: Tracking) -> mlflow.MlflowClient:
    """A client of the server."""
    address = open_address(mlflow_server)
    return mlflow.MlflowClient(address, address)


@pytest.fixture(scope="module")
def runs(mlflow_server: Tracking) -> list[str]:
    """The runs of three candidates: a weak one, and two that are as good as can be."""
    address = open_address(mlflow_server)
    weak = replace(BARE, weights=WEAK, run_id="manual__0")
    return [log_candidate(address, one) for one in (weak, BARE, replace(BARE, run_id="manual__2"))]


@pytest.fixture
def model() -> str:
    """The name of a registered model of this test alone."""
    return f"churn-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def two(client: mlflow.MlflowClient, model: str, runs: list[str], run: Run) -> Iterator[str]:
    """A model with two versions, neither Production."""
    for one in runs[:2]:
        evaluate(CONNECTION, model, one, run=run)
    return (yield model)


def signed(client: mlflow.MlflowClient, model: str, stages: dict[int, str], aliases: dict[str, int]) -> None:
    """Give versions a stage, and an alias a version, as a person does."""
    for version, stage in stages.items():
        client.transition_model_version_stage(model, str(version), stage, archive_existing_versions=False)
    for alias, version in aliases.items():
        client.set_registered_model_alias(model, alias, str(version))


def signs(client: mlflow.MlflowClient, model: str) -> Signs:
    """Return the signs of a model."""
    stages = {version.version: version.current_stage for version in client.search_model_versions(f"name = '{model}'")}
    return {str(version): stage for version, stage in stages.items()} | {
        name: str(version) for name, version in client.get_registered_model(model).aliases.items()
    }


DISAGREE = [
    ({1: "Production"}, {}, "the stage Production names version 1, but no version has the alias production", "1"),
    (
        {1: "Production", 2: "Production"},
        {},
        "the stage Production names versions 1 and 2, but no version has the alias production",
        "N",
    ),
    (
        {1: "Production"},
        {"production": 2},
        "the alias production names version 2, and the stage Production names version 1",
        "2",
    ),
    (
        {1: "Production", 2: "Production"},
        {"production": 2},
        "the alias production names version 2, and the stage Production names versions 1 and 2",
        "2",
    ),
    ({1: "Archived"}, {"production": 1}, "the alias production names version 1, whose stage is Archived", "1"),
    (
        {},
        {"Production": 1},
        (
            "the stage Production names no version, but no version has the alias production "
            "(the alias 'Production' is another one)"
        ),
        "N",
    ),
]


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(("stages", "aliases", "problem", "likely"), DISAGREE)
def test_signs_that_disagree_are_settled_by_hand(
    client: mlflow.MlflowClient,
    two: str,
    runs: list[str],
    run: Run,
    stages: dict[int, str],
    aliases: dict[str, int],
    problem: str,
    likely: str,
) -> None:
    """Both are named, and the command that settles it; nothing is registered, promoted or archived before."""
    signed(client, two, stages, aliases)
    before = signs(client, two)
    other = 3 - int(aliases.get("production", 1))

    for attempt in (
        lambda: evaluate(CONNECTION, two, runs[2], run=run),
        lambda: promote(CONNECTION, two, other, run=run),
    ):
        with pytest.raises(PermanentError) as told:
            attempt()
        assert str(told.value) == (
            f"{two} in MLflow (connection 'mlflow_default'): {problem}; decide which one is Production: "
            f"`make production MODEL={two} VERSION={likely}` sets alias and stage"
        )
    assert signs(client, two) == before

    assert choose([two, "2"]) == 0
    assert evaluate(CONNECTION, two, runs[2], run=run).production_version == 2


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("stages", [{}, {2: "Production"}, {1: "Archived", 2: "Staging"}])
def test_alias_decides_where_no_stage_contradicts(
    client: mlflow.MlflowClient, two: str, runs: list[str], run: Run, stages: dict[int, str]
) -> None:
    """Who does not use stages need not: the candidate, as good as Production, is not promoted."""
    signed(client, two, stages, {"production": 2})

    found = evaluate(CONNECTION, two, runs[2], run=run)

    assert (found.production_version, found.gain, found.promote) == (2, 0, False)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_interrupted_promotion_is_repeated(client: mlflow.MlflowClient, two: str, runs: list[str], run: Run) -> None:
    """The alias has moved, the stage not yet: the steps of that candidate go on, those of another one do not."""
    signed(client, two, {1: "Production"}, {"production": 2})

    assert evaluate(CONNECTION, two, runs[1], run=run).candidate_version == 2
    assert promote(CONNECTION, two, 2, run=run).promoted
    assert signs(client, two) == {"1": "Archived", "2": "Production", "production": "2"}


def test_deleted_version_is_not_production(client: mlflow.MlflowClient, two: str, runs: list[str], run: Run) -> None:
    """A Production that was deleted is none; its alias went with it."""
    signed(client, two, {}, {"production": 2})
    client.delete_model_version(two, "2")

    found = evaluate(CONNECTION, two, runs[2], run=run)

    assert found.production_version is None
    with pytest.raises(MissingResource, match="version '2' does not exist in registered model"):
        promote(CONNECTION, two, 2, run=run)


@pytest.mark.parametrize("status", ["PENDING_REGISTRATION", "FAILED_REGISTRATION"])
def test_version_that_is_not_ready_is_refused(
    client: mlflow.MlflowClient, cluster: Cluster, two: str, runs: list[str], run: Run, status: str
) -> None:
    """As a candidate and as Production: it is neither compared nor promoted."""
    signed(client, two, {}, {"production": 2})
    with cluster.superuser.named("mlflow").connect() as session, session.cursor() as cursor:
        cursor.execute("UPDATE model_versions SET status = %s WHERE name = %s AND version = 2", (status, two))
    problem = rf"^version 2 of {two} in MLflow \(connection 'mlflow_default'\) is {status}.*; delete it in MLflow"

    for attempt in (
        lambda: evaluate(CONNECTION, two, runs[1], run=run),
        lambda: evaluate(CONNECTION, two, runs[2], run=run),
        lambda: promote(CONNECTION, two, 2, run=run),
        lambda: promote(CONNECTION, two, 1, run=run),
    ):
        with pytest.raises(PermanentError, match=problem):
            attempt()
    assert choose([two, "2"]) == 1


def test_renamed_model_is_suspected(
    client: mlflow.MlflowClient, two: str, runs: list[str], run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    """A model of another name has no Production, and that is not passed over."""
    own = replace(run, task_id=f"evaluate_{two[-8:]}")
    evaluate(CONNECTION, two, runs[2], run=own)
    client.rename_registered_model(two, f"{two}-renamed")

    evaluate(CONNECTION, two, runs[2], run=own)

    warning = f"{two} is not registered yet, and this step has registered versions of {two}-renamed; was it renamed?"
    assert warning in caplog.messages


def test_lost_candidate_is_trained_again(
    client: mlflow.MlflowClient, model: str, mlflow_server: Tracking, run: Run
) -> None:
    """A candidate whose files are gone has another remedy than a Production."""
    lost = log_candidate(open_address(mlflow_server), replace(BARE, run_id="manual__9"))
    (logged,) = client.get_run(lost).outputs.model_outputs
    client.delete_logged_model(logged.model_id)

    with pytest.raises(MissingResource, match=r"logged model 'model' does not exist in run .*; log it as `model`"):
        evaluate(CONNECTION, model, lost, run=run)
