"""models.evaluate and models.promote, against a real MLflow."""

from __future__ import annotations

import io
import logging
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

import mlflow
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException

from stack.app.batch import score_csv
from stack.app.production import Shelf
from stack.app.registered_models import Registry
from stack.tracking_server import BUCKET
from tasks.contract import MissingResource, PermanentError, Run, TransientError
from tasks.models import versions
from tasks.models.digests import DIGEST
from tasks.models.promotion import evaluate, promote
from tasks.models.trust import main as trust
from tests.support.candidates import TRUTH, WEAK, Recipe, auc, log_candidate
from tests.support.customers import FEATURES
from tests.support.tracking_clients import open_address

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stack.objects import ObjectStore
    from stack.tracking_server import Tracking
    from tasks.models.promotion import Evaluation
    from tasks.models.training import Training
    from tests.support.training import Trainer

CONNECTION = "mlflow_default"
BARE = Recipe().lacking("plots", "shap")
"""What an evaluation looks at, and no more."""
FEWER = {name: weight for name, weight in TRUTH.items() if name != "balance"}


@pytest.fixture(scope="session")
def address(mlflow_server: Tracking) -> str:
    """Where MLflow answers, with the login."""
    return open_address(mlflow_server)


@pytest.fixture(scope="session")
def strong(address: str) -> str:
    """The run of a candidate that is as good as can be."""
    return log_candidate(address, BARE)


@pytest.fixture(scope="session")
def weak(address: str) -> str:
    """The run of a candidate that overlooks much."""
    return log_candidate(address, replace(BARE, weights=WEAK, run_id="manual__0"))


@pytest.fixture(scope="session")
def again(address: str) -> str:
    """The run of a candidate that is just as good: the same data, trained once more."""
    return log_candidate(address, replace(BARE, run_id="manual__2"))


@pytest.fixture
def client(address: str) -> mlflow.MlflowClient:
    """A client of the server."""
    return mlflow.MlflowClient(address, address)


@pytest.fixture
def model() -> str:
    """The name of a registered model of this test alone."""
    return f"churn-{uuid.uuid4().hex[:8]}"


def stages(client: mlflow.MlflowClient, model: str) -> dict[int, str]:
    """Return the stage of each version."""
    found = client.search_model_versions(f"name = '{model}'")
    return {int(version.version): version.current_stage for version in found}


def alias(client: mlflow.MlflowClient, model: str) -> int | None:
    """Return the version that the alias names."""
    named = client.get_registered_model(model).aliases.get("production")
    return None if named is None else int(named)


def judged(model: str, run_id: str, run: Run, **terms: float) -> Evaluation:
    """Evaluate a candidate, and promote it if it is to be."""
    found = evaluate(CONNECTION, model, run_id, **terms, run=run)
    if found.promote:
        assert promote(CONNECTION, model, found.candidate_version, run=run).promoted
    return found


def test_first_candidate_passes(
    client: mlflow.MlflowClient, model: str, strong: str, run: Run, mlflow_server: Tracking
) -> None:
    """Without a Production the minimum decides; the version carries the run that made it, and is not promoted yet."""
    found = evaluate(CONNECTION, model, strong, run=run)
    assert found.model_dump() == {
        "promote": True,
        "candidate_version": 1,
        "production_version": None,
        "roc_auc": pytest.approx(auc(TRUTH), abs=1e-12),
        "production_roc_auc": None,
        "gain": None,
        "margin": 0.005,
        "missed_by": 0.0,
        "compared_on": "holdout",
        "verdict": f"ROC AUC {auc(TRUTH):.4f} reaches the minimum 0.5; there was no Production before",
        "version_page": f"{mlflow_server.address}/#/models/{model}/versions/1",
    }
    version = client.get_model_version(model, "1")
    assert (version.run_id, version.description) == (strong, found.verdict)
    assert {name: version.tags[name] for name in ("airflow.dag_id", "airflow.run_id", "airflow.task_id")} == {
        "airflow.dag_id": run.dag_id,
        "airflow.run_id": run.run_id,
        "airflow.task_id": run.task_id,
    }
    assert (alias(client, model), stages(client, model)) == (None, {1: "None"})


def test_minimum_is_missed(model: str, weak: str, run: Run) -> None:
    """A first candidate below the minimum is not to be promoted, and by how much it missed is said."""
    found = evaluate(CONNECTION, model, weak, minimum=0.7, run=run)
    lacking = 0.7 - auc(WEAK)
    assert (found.promote, found.missed_by) == (False, pytest.approx(lacking))
    assert (
        found.verdict
        == f"ROC AUC {auc(WEAK):.4f} misses the minimum 0.7 by {lacking:.4f}; there was no Production before"
    )


def test_better_candidate_wins(client: mlflow.MlflowClient, model: str, weak: str, strong: str, run: Run) -> None:
    """Both models score the same rows; after the promotion alias and stage agree, and the older one is archived."""
    judged(model, weak, run)
    found = judged(model, strong, run)
    gain = auc(TRUTH) - auc(WEAK)
    assert (found.promote, found.production_version, found.compared_on) == (True, 1, "holdout")
    assert (found.gain, found.production_roc_auc) == (pytest.approx(gain), pytest.approx(auc(WEAK)))
    assert found.verdict == (
        f"ROC AUC {auc(TRUTH):.4f} beats Production {auc(WEAK):.4f} (version 1) by {gain:.4f}; the margin is 0.005"
    )
    assert (alias(client, model), stages(client, model)) == (2, {1: "Archived", 2: "Production"})


def test_equal_candidate_skips(client: mlflow.MlflowClient, model: str, strong: str, again: str, run: Run) -> None:
    """The same data trained again gains nothing: Production stays, and the version is kept unpromoted."""
    judged(model, strong, run)
    found = judged(model, again, replace(run, run_id="manual__2"))
    assert (found.promote, found.gain, found.missed_by) == (False, 0.0, 0.005)
    assert found.verdict == (
        f"ROC AUC {auc(TRUTH):.4f} against Production {auc(TRUTH):.4f} (version 1): "
        "a gain of +0.0000 misses the margin 0.005 by 0.0050"
    )
    assert (alias(client, model), stages(client, model)) == (1, {1: "Production", 2: "None"})


def test_no_margin_needs_gain(model: str, strong: str, again: str, run: Run) -> None:
    """With a margin of 0 an equal candidate does not beat Production either."""
    judged(model, strong, run)
    assert not evaluate(CONNECTION, model, again, margin=0.0, run=run).promote


def test_rerun_decides_the_same(client: mlflow.MlflowClient, model: str, weak: str, strong: str, run: Run) -> None:
    """A run cleared after its promotion registers nothing again and does not compare Production with itself."""
    judged(model, weak, run)
    first = judged(model, strong, run)
    again = judged(model, strong, replace(run, try_number=2))
    assert again == first
    assert (alias(client, model), stages(client, model)) == (2, {1: "Archived", 2: "Production"})


def test_other_terms_decide_anew(client: mlflow.MlflowClient, model: str, weak: str, strong: str, run: Run) -> None:
    """A candidate that was skipped passes on a rerun by a smaller margin, as the same version."""
    judged(model, weak, run)
    assert not judged(model, strong, run, margin=0.9).promote
    found = judged(model, strong, run, margin=0.1)
    assert (found.promote, found.candidate_version, found.margin) == (True, 2, 0.1)
    assert client.get_model_version(model, "2").description == found.verdict
    assert stages(client, model) == {1: "Archived", 2: "Production"}


def test_changed_features_use_records(
    client: mlflow.MlflowClient, model: str, strong: str, address: str, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    """A Production that needs a column the candidate's rows lack is judged by its recorded metric, and it is said."""
    judged(model, strong, run)
    fewer = log_candidate(address, replace(BARE, weights=FEWER, rows=1_500))
    with caplog.at_level(logging.INFO):
        found = evaluate(CONNECTION, model, fewer, run=run)
    recorded = client.get_run(strong).data.metrics["roc_auc"], client.get_run(fewer).data.metrics["roc_auc"]
    assert (found.compared_on, found.production_roc_auc, found.roc_auc) == ("recorded", *recorded)
    assert "Production cannot score this data: the candidate's data has no balance" in found.verdict
    assert found.verdict in caplog.text


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (BARE.lacking("model"), "logged model 'model' does not exist in run"),
        (BARE.lacking("holdout"), "artifact 'holdout.parquet' does not exist in run"),
    ],
    ids=["model", "holdout"],
)
def test_incomplete_run_registers_nothing(
    client: mlflow.MlflowClient, model: str, address: str, run: Run, recipe: Recipe, message: str
) -> None:
    """A run without its model or its rows is refused before anything stands in the registry."""
    with pytest.raises(MissingResource, match=message):
        evaluate(CONNECTION, model, log_candidate(address, recipe), run=run)
    with pytest.raises(MlflowException, match="not found"):
        client.get_registered_model(model)


def test_lost_production_is_named(client: mlflow.MlflowClient, model: str, strong: str, weak: str, run: Run) -> None:
    """A Production whose files are gone cannot be compared with; nothing is registered, and the version is named."""
    client.create_registered_model(model)
    tags = {DIGEST: "0" * 64}
    client.create_model_version(model, f"runs:/{weak}/nothing", run_id=weak, tags=tags, await_creation_for=0)
    client.set_registered_model_alias(model, "production", "1")
    with pytest.raises(MissingResource) as error:
        evaluate(CONNECTION, model, strong, run=run)
    assert str(error.value) == (
        f"model 'models:/{model}/1' does not exist in the artifact store of MLflow; "
        "restore its files, or make another version Production"
    )
    assert (alias(client, model), stages(client, model)) == (1, {1: "None"})


def test_version_keeps_digest(client: mlflow.MlflowClient, model: str, strong: str, run: Run) -> None:
    """A registered version has the digest that its training recorded."""
    evaluate(CONNECTION, model, strong, run=run)
    assert client.get_model_version(model, "1").tags[DIGEST] == client.get_run(strong).data.tags[DIGEST]


def test_unrecorded_candidate_is_not_run(client: mlflow.MlflowClient, model: str, address: str, run: Run) -> None:
    """A run that recorded no digest of its model is refused before the model is loaded, and registers nothing."""
    unrecorded = log_candidate(address, BARE.lacking("digest"))
    with pytest.raises(PermanentError) as error:
        evaluate(CONNECTION, model, unrecorded, run=run)
    (logged,) = client.get_run(unrecorded).outputs.model_outputs
    assert str(error.value) == (
        f"no digest was recorded of the files of models:/{logged.model_id}: train again: clear the training step"
    )
    with pytest.raises(MlflowException, match="not found"):
        client.get_registered_model(model)


def test_unrecorded_production_is_trusted_by_hand(
    client: mlflow.MlflowClient, model: str, weak: str, strong: str, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """A Production without a digest is not loaded until somebody runs the command that the error names."""
    judged(model, weak, run)
    recorded = client.get_model_version(model, "1").tags[DIGEST]
    client.delete_model_version_tag(model, "1", DIGEST)
    with pytest.raises(PermanentError) as error:
        evaluate(CONNECTION, model, strong, run=run)
    assert str(error.value) == (
        f"no digest was recorded of the files of models:/{model}/1: if you trust the files as they are now, "
        f"`make trust-model MODEL={model} VERSION=1` records their digest"
    )
    assert trust([model, "1"]) == 0
    assert capsys.readouterr().out == f"{model}, version 1: the digest of its files is recorded, {recorded}\n"
    assert evaluate(CONNECTION, model, strong, run=run).compared_on == "holdout"


def test_changed_files_are_not_run(
    client: mlflow.MlflowClient, model: str, address: str, object_store: ObjectStore, tmp_path: Path, run: Run
) -> None:
    """Code that somebody put into the bucket, in the place of a candidate's or beside it, is not run."""
    witness = tmp_path / "it-ran"
    changed = log_candidate(address, BARE)
    (logged,) = client.get_run(changed).outputs.model_outputs
    place = client.get_logged_model(logged.model_id).artifact_location.removeprefix("mlflow-artifacts:/")
    store, code = object_store.client(), f"{place}/hand_made_model.py"
    found = store.get_object(Bucket=BUCKET, Key=code)["Body"].read()
    store.put_object(Bucket=BUCKET, Key=code, Body=f"open({str(witness)!r}, 'w')\n".encode() + found)
    with pytest.raises(PermanentError, match=f"the files of models:/{logged.model_id} were changed: their digest is"):
        evaluate(CONNECTION, model, changed, run=run)
    store.put_object(Bucket=BUCKET, Key=code, Body=found)
    store.put_object(Bucket=BUCKET, Key=f"{place}/more.py", Body=b"")
    with pytest.raises(PermanentError, match="were changed"):
        evaluate(CONNECTION, model, changed, run=run)
    store.delete_object(Bucket=BUCKET, Key=f"{place}/more.py")
    assert evaluate(CONNECTION, model, changed, run=run).promote
    assert not witness.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ([], 2, "expected the name of a registered model and a version, such as: churn-model 3"),
        (["churn-model", "three"], 2, "expected the name of a registered model and a version"),
        (["no-such-model", "1"], 1, "registered model 'no-such-model' does not exist in MLflow"),
        (["no-such-model", "1", "mlflow_nowhere"], 1, "connection 'mlflow_nowhere' does not exist"),
    ],
)
@pytest.mark.usefixtures("address")
def test_trust_needs_a_version(arguments: list[str], code: int, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The command says what it lacks."""
    assert trust(arguments) == code
    assert told in capsys.readouterr().err


def test_unfinished_run_is_refused(client: mlflow.MlflowClient, model: str, run: Run) -> None:
    """A training that is not done has no candidate."""
    started = client.create_run("0").info.run_id
    with pytest.raises(PermanentError, match=f"run '{started}' of MLflow .* is RUNNING, not FINISHED"):
        evaluate(CONNECTION, model, started, run=run)


def test_unknown_run_is_named(model: str, run: Run) -> None:
    """A run that is not there is named, and what to do."""
    with pytest.raises(MissingResource) as error:
        evaluate(CONNECTION, model, "0" * 32, run=run)
    assert str(error.value) == (
        f"run '{'0' * 32}' does not exist in MLflow (connection 'mlflow_default'); "
        "it may have been deleted; run the training step again, or correct `run_id` in the step"
    )


@pytest.mark.usefixtures("address")
def test_unknown_model_is_named(model: str, run: Run) -> None:
    """There is nothing to promote in a model that nobody registered."""
    with pytest.raises(MissingResource, match=f"registered model '{model}' does not exist in MLflow"):
        promote(CONNECTION, model, 1, run=run)


def test_unknown_version_is_named(client: mlflow.MlflowClient, model: str, strong: str, run: Run) -> None:
    """A version that is not there leaves Production as it was."""
    judged(model, strong, run)
    with pytest.raises(MissingResource, match=f"version '7' does not exist in registered model '{model}'"):
        promote(CONNECTION, model, 7, run=run)
    assert (alias(client, model), stages(client, model)) == (1, {1: "Production"})


def test_promotion_repeats(client: mlflow.MlflowClient, model: str, weak: str, strong: str, run: Run) -> None:
    """A promotion that was killed between alias and stage ends right on the next attempt, and may be repeated."""
    judged(model, weak, run)
    found = evaluate(CONNECTION, model, strong, run=run)
    client.set_registered_model_alias(model, "production", str(found.candidate_version))  # and here it was killed
    for _ in range(2):
        again = promote(CONNECTION, model, found.candidate_version, run=run)
        assert (again.promoted, again.archived) == (True, [1])
        assert again.reason == "version 2 is already Production"
        assert (alias(client, model), stages(client, model)) == (2, {1: "Archived", 2: "Production"})


def test_old_version_stays_back(
    client: mlflow.MlflowClient, model: str, weak: str, strong: str, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    """An Airflow run of long ago that is run again does not put its model over what came after it."""
    judged(model, weak, run)
    judged(model, strong, run)
    with caplog.at_level(logging.WARNING):
        found = promote(CONNECTION, model, 1, run=run)
    assert (found.promoted, found.archived) == (False, [])
    assert found.reason == "version 2 is Production and newer than version 1, which stays as it is"
    assert found.reason in caplog.text
    assert (alias(client, model), stages(client, model)) == (2, {1: "Archived", 2: "Production"})


@pytest.mark.filterwarnings("error::FutureWarning")
def test_stages_do_not_warn(model: str, weak: str, strong: str, run: Run, recwarn: pytest.WarningsRecorder) -> None:
    """That MLflow means to drop its stages some day is not told in every log."""
    judged(model, weak, run)
    judged(model, strong, run)
    assert not [one for one in recwarn if "stage" in str(one.message)]


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch, address: str) -> Iterator[None]:
    """The connection leads to a port where nobody listens."""
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", "http://127.0.0.1:9")
    yield
    mlflow.set_tracking_uri(address)


@pytest.mark.usefixtures("nobody")
def test_silent_server_is_transient(model: str, run: Run) -> None:
    """A server that is down is worth a retry."""
    with pytest.raises(TransientError, match=r"MLflow at http://127\.0\.0\.1:9 .* does not answer"):
        evaluate(CONNECTION, model, "0" * 32, run=run)
    with pytest.raises(TransientError, match="does not answer"):
        promote(CONNECTION, model, 1, run=run)


def test_many_versions_are_found(client: mlflow.MlflowClient, model: str, strong: str) -> None:
    """The registry's pages are all read, the oldest version first."""
    client.create_registered_model(model)
    for _ in range(3):
        client.create_model_version(model, source=f"runs:/{strong}/model", run_id=strong)
    found = versions.Registry(client, CONNECTION, model).versions()
    assert [int(one.version) for one in found] == [1, 2, 3]


def test_trained_model_is_served(
    done: tuple[Trainer, Training], client: mlflow.MlflowClient, model: str, address: str, tmp_path: Path, run: Run
) -> None:
    """What Spark trained is judged, promoted and asked for in the app's form; its file scores as Spark did."""
    _, trained = done
    found = judged(model, trained.run_id, run)
    assert found.promote
    assert found.roc_auc == pytest.approx(trained.roc_auc, abs=1e-4), "the training measures by histograms"
    served = Shelf(Registry(address), model).look()
    assert served.model is not None, served.problem
    assert [one.name for one in served.model.fields] == [*FEATURES["numeric"], *FEATURES["categorical"]]
    holdout = pd.read_parquet(client.download_artifacts(trained.run_id, "holdout.parquet", str(tmp_path)))
    done = score_csv(
        io.BytesIO(holdout.rename(columns={"probability": "spark"}).to_csv(index=False).encode()), served.model
    )
    scores = pd.read_csv(io.BytesIO(done.content))
    assert (done.rows, done.problem_count) == (len(holdout), 0)
    assert abs(scores["probability"] - scores["spark"]).max() < 1e-9
    person = holdout.head(1)
    explanation = served.model.explain(person)
    assert explanation.probability(explanation.score) == pytest.approx(person["probability"].iloc[0], abs=1e-9)
