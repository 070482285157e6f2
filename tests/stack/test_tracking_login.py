"""MLflow's login, and what it would not close by itself: the server's disk, other buckets, pages that run commands."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex
from types import SimpleNamespace

import httpx
import pytest

from stack.tracking_app import _follow_password
from stack.tracking_server import USER, Tracking
from tests.support.mlflow_routes import PUBLIC, routes

PLACE = "mlflow.artifactLocation"
SECRET = "nobody else reads this"


@pytest.fixture(scope="module")
def admin(mlflow_server: Tracking) -> Iterator[httpx.Client]:
    """The server as its admin sees it."""
    with httpx.Client(base_url=mlflow_server.address, auth=(USER, mlflow_server.keys.admin_password)) as client:
        yield client


@pytest.fixture(scope="module")
def reader(mlflow_server: Tracking, admin: httpx.Client) -> Iterator[httpx.Client]:
    """The server as an account sees it that the admin made, with no rights of its own."""
    login = (f"reader-{token_hex(4)}", token_hex(16))
    made = admin.post("/api/2.0/mlflow/users/create", json=dict(zip(("username", "password"), login, strict=True)))
    assert made.is_success, made.text
    with httpx.Client(base_url=mlflow_server.address, auth=login) as client:
        yield client


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of the server's own machine, with files in it."""
    for name in ("secrets.json", "traces.json"):
        (tmp_path / name).write_text(SECRET)
    return tmp_path


@pytest.mark.parametrize("login", [None, ("nobody", "")], ids=["none", "unknown"])
def test_nothing_without_login(mlflow_server: Tracking, login: tuple[str, str] | None) -> None:
    """No address of the server answers without a login but its health, its version's name and its page's scripts."""
    with httpx.Client(base_url=mlflow_server.address, auth=login) as stranger:
        seen = {(method, path): stranger.request(method, path, json={}).status_code for method, path in routes()}
    assert len(seen) > 300
    assert {route for route, status in seen.items() if status not in {401, 404}} == PUBLIC
    assert {route for route, status in seen.items() if status == 404} == {one for one in seen if closed(one[1])}


def test_nothing_with_wrong_password(mlflow_server: Tracking) -> None:
    """Nor with a wrong password. Each takes a fifth of a second to refuse, so one address in nine is asked."""
    with httpx.Client(base_url=mlflow_server.address, auth=(USER, "wrong-password-123")) as stranger:
        some = [route for route in routes() if route not in PUBLIC][::9]
        seen = {stranger.request(method, path, json={}).status_code for method, path in some}
    assert seen <= {401, 404}
    assert 401 in seen


def closed(path: str) -> bool:
    """Return whether nobody gets an answer there."""
    words = r"assistant|gateway|gateway-proxy|jobs|prompt-optimization|scorer|webhooks"
    return bool(re.search(rf"^/gateway/|/\d\.0/(mlflow/)?({words})(/|$)", path))


def test_dangerous_pages_are_gone(admin: httpx.Client) -> None:
    """What runs command lines or calls other services answers not even the admin."""
    asked = [
        ("GET", "/ajax-api/3.0/mlflow/assistant/providers"),
        ("POST", "/ajax-api/3.0/mlflow/assistant/message"),
        ("POST", "/ajax-api/3.0/jobs/search"),
        ("GET", "/ajax-api/3.0/mlflow/gateway/secrets/list"),
        ("GET", "/gateway/mlflow/v1/models"),
        ("GET", "/api/2.0/mlflow/webhooks"),
    ]
    assert {path: admin.request(method, path, json={}).status_code for method, path in asked} == {
        path: 404 for _, path in asked
    }


def test_artifacts_may_have_any_name(admin: httpx.Client) -> None:
    """A path of an artifact that reads like a closed page is an artifact all the same."""
    place = "/api/2.0/mlflow-artifacts/artifacts/1/api/2.0/mlflow/jobs/a.txt"
    assert admin.put(place, content=b"text").is_success
    assert admin.get(place).content == b"text"


@pytest.mark.parametrize("place", ["file://{}", "{}", "s3://ge-artifacts/validations", "FILE://{}", "dbfs:/x"])
@pytest.mark.parametrize("field", ["artifact_location", "artifactLocation"])
def test_other_places_are_refused(admin: httpx.Client, folder: Path, place: str, field: str) -> None:
    """An experiment cannot have its artifacts on the server's disk or in another bucket."""
    named = place.format(folder)
    answer = admin.post("/api/2.0/mlflow/experiments/create", json={"name": token_hex(8), field: named})
    assert answer.status_code == 400
    assert answer.json()["message"].startswith("This server keeps artifacts in its own store only")


def test_other_sources_are_refused(admin: httpx.Client, folder: Path) -> None:
    """A version cannot be made of files on the server's disk."""
    name = token_hex(8)
    assert admin.post("/api/2.0/mlflow/registered-models/create", json={"name": name}).is_success
    answer = admin.post("/api/2.0/mlflow/model-versions/create", json={"name": name, "source": f"file://{folder}"})
    assert answer.status_code == 400
    assert "keeps artifacts in its own store only" in answer.text


@pytest.mark.parametrize("place", ["file://{}", "{}", "s3://ge-artifacts/places"])
def test_recorded_places_stay_closed(mlflow_server: Tracking, admin: httpx.Client, folder: Path, place: str) -> None:
    """A place that came into the database some other way, before there was a login for example, is not opened."""
    mlflow_server.store.client().put_object(Bucket="ge-artifacts", Key="places/secrets.json", Body=SECRET.encode())
    made = admin.post("/api/2.0/mlflow/experiments/create", json={"name": token_hex(8)}).json()["experiment_id"]
    with mlflow_server.database.connect() as session, session.cursor() as cursor:
        cursor.execute(
            "UPDATE experiments SET artifact_location = %s WHERE experiment_id = %s", (place.format(folder), made)
        )
    run = admin.post("/api/2.0/mlflow/runs/create", json={"experiment_id": made, "start_time": 1}).json()["run"]
    answers = [
        admin.get("/get-artifact", params={"run_uuid": run["info"]["run_id"], "path": f"{below}secrets.json"})
        for below in ("", f"{run['info']['run_id']}/artifacts/", "../../")
    ]
    listed = admin.get("/api/2.0/mlflow/artifacts/list", params={"run_id": run["info"]["run_id"]})
    assert [answer.status_code for answer in (*answers, listed)] == [400] * 4
    assert SECRET not in "".join(answer.text for answer in answers)


@pytest.mark.parametrize("account", ["reader", "admin"])
def test_traces_open_no_files(account: str, folder: Path, request: pytest.FixtureRequest) -> None:
    """A trace that names a folder of the server's machine as its place shows nothing of it."""
    user: httpx.Client = request.getfixturevalue(account)
    trace, attachment, place = f"tr-{token_hex(16)}", str(uuid.uuid4()), f"file://{folder}"
    (folder / "attachments").mkdir()
    (folder / "attachments" / attachment).write_text(SECRET)
    experiment = user.post("/api/2.0/mlflow/experiments/create", json={"name": token_hex(8)}).json()["experiment_id"]
    info = {
        "trace_id": trace,
        "trace_location": {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment}},
        "request_time": "2026-01-05T00:00:00Z",
        "execution_duration": "1s",
        "state": "OK",
    }
    begun = user.post("/api/3.0/mlflow/traces", json={"trace": {"trace_info": info}})
    assert begun.is_success, begun.text
    moved = user.request("PATCH", f"/api/3.0/mlflow/traces/{trace}/tags", json={"key": PLACE, "value": place})
    assert moved.is_success, moved.text
    address = "/ajax-api/2.0/mlflow/get-trace-artifact"
    answers = [user.get(address, params={"request_id": trace, **path}) for path in ({}, {"path": attachment})]
    assert SECRET not in "".join(answer.text for answer in answers)
    assert not answers[1].is_success


def test_reader_changes_nothing(reader: httpx.Client, admin: httpx.Client) -> None:
    """An account without rights sees models, and moves no alias and makes no version."""
    name = token_hex(8)
    assert admin.post("/api/2.0/mlflow/registered-models/create", json={"name": name}).is_success
    assert reader.get("/api/2.0/mlflow/registered-models/get", params={"name": name}).is_success
    alias = {"name": name, "alias": "production", "version": "1"}
    assert reader.post("/api/2.0/mlflow/registered-models/alias", json=alias).status_code == 403
    version = {"name": name, "source": "mlflow-artifacts:/0/x/artifacts/model"}
    assert reader.post("/api/2.0/mlflow/model-versions/create", json=version).status_code == 403


def test_settings_are_private(mlflow_server: Tracking) -> None:
    """The file with the admin's password is readable only by its owner."""
    assert mlflow_server.keys.admin_password in mlflow_server.settings.read_text()
    assert mlflow_server.settings.stat().st_mode & 0o777 == 0o600


def test_password_follows_settings(tmp_path: Path) -> None:
    """After a change of the password in the settings, the next start accepts the new one only."""
    from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore

    store = SqlAlchemyStore()
    store.init_db(f"sqlite:///{tmp_path}/users.db")
    store.create_user(USER, "first-password", is_admin=True)
    settings = SimpleNamespace(admin_username=USER, admin_password="second-password")
    _follow_password(SimpleNamespace(store=store, auth_config=settings))
    accepted = [word for word in ("first-password", "second-password") if store.authenticate_user(USER, word)]
    assert accepted == ["second-password"]
