"""From what a task returned to a page in the browser: the buttons on the task, and the objects behind them."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.api_fastapi.core_api.security import get_user
from airflow.sdk import BaseOperator
from airflow.serialization.serialized_objects import DagSerialization
from fastapi import FastAPI
from fastapi.testclient import TestClient
from itsdangerous import TimestampSigner, URLSafeTimedSerializer

from factory.bridge.artifacts import TOKEN_SECONDS, Source, artifacts_app, configured_source
from factory.bridge.dag import build
from factory.bridge.links import address, with_links
from factory.bridge.plugin import TaskflowPlugin
from factory.planning.plan import Node, Plan
from factory.registry import TaskDefinition
from stack.objects import ObjectStore
from tasks.contract import Link, Output
from tests.support.imports import loaded_after

BUCKET = "ge-artifacts"
INDEX = f"s3://{BUCKET}/docs/index.html"
ELSEWHERE = "https://example.com/run/1"


# --- the buttons ------------------------------------------------------------------------------------------------


class Findings(Output):
    rows: int
    data_docs: Link | None
    result: Link


def found() -> Findings:
    """Return two links."""
    return Findings(rows=1, data_docs=None, result=ELSEWHERE)


def test_links_stand_in_output() -> None:
    """The fields of the output that are links, and no others, become buttons."""
    assert TaskDefinition("a.found", "gate", found).links == ("data_docs", "result")


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        (INDEX, "/artifacts/ge-artifacts/docs/index.html"),
        ("s3://b-1/näme #1?.html", "/artifacts/b-1/n%C3%A4me%20%231%3F.html"),
        (ELSEWHERE, ELSEWHERE),
        ("http://127.0.0.1:5000/#/runs/1", "http://127.0.0.1:5000/#/runs/1"),
    ],
)
def test_address_of_link(link: str, expected: str) -> None:
    """An object has an address of the UI, a page keeps its own."""
    assert address(link) == expected


def test_address_below_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the UI has a path of its own, so have the objects."""
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://data.example.com/airflow/")

    assert address(INDEX) == "/airflow/artifacts/ge-artifacts/docs/index.html"


@pytest.mark.parametrize("link", ["javascript:alert(1)", "file:///etc/passwd", "docs/index.html"])
def test_other_links_refused(link: str) -> None:
    """Nothing else becomes a button: it would run in the user's session."""
    with pytest.raises(ValueError, match=re.escape(f"a task returned the link {link!r}; it should be s3://bucket/key")):
        address(link)


LINKED = """
import json

from airflow.models.taskinstancekey import TaskInstanceKey
from airflow.sdk import DAG, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from factory.bridge.links import with_links

INDEX, ELSEWHERE = "s3://ge-artifacts/docs/index.html", "https://example.com/run/1"


def passes(where):
    return {"data_docs": where, "result": ELSEWHERE}


def fails_with_output():
    get_current_context()["ti"].xcom_push("return_value", passes(INDEX))
    raise AirflowFailException


def fails_early():
    raise AirflowFailException


def skips():
    raise AirflowSkipException


def returns_nonsense():
    return passes("javascript:alert(1)")


def mapped(where):
    return passes(where)


def linked(function):
    decorated = task(function)
    decorated.operator_class = with_links(decorated.operator_class, ("data_docs", "result"))
    return decorated


with DAG("linked", schedule=None) as dag:
    linked(passes)(INDEX)
    linked(fails_with_output)()
    linked(fails_early)()
    linked(skips)()
    linked(returns_nonsense)()
    linked(mapped).expand(where=[INDEX, "s3://ge-artifacts/other.html"])


def links_of(instance, run_id):
    from airflow.serialization.serialized_objects import DagSerialization

    operator = DagSerialization.from_dict(DagSerialization.to_dict(dag)).get_task(instance.task_id)
    key = TaskInstanceKey("linked", instance.task_id, run_id, map_index=instance.map_index)
    return {link.name: link.get_link(operator, ti_key=key) for link in operator.operator_extra_links}


if __name__ == "__main__":
    from airflow.utils.db import initdb

    initdb()
    run = dag.test()
    found = {f"{one.task_id} {one.map_index}": links_of(one, run.run_id) for one in run.get_task_instances()}
    print("LINKS", json.dumps(found))
"""


@dataclass(frozen=True)
class Ended:
    """A run whose tasks have ended in every state: their buttons, as the API server finds them, and what was logged."""

    links: dict[str, dict[str, str]]
    logged: str


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """A run of a DAG whose tasks have links."""
    folder = tmp_path_factory.mktemp("linked")
    (folder / "linked.py").write_text(LINKED)
    environment = {"AIRFLOW_HOME": str(folder), "AIRFLOW__CORE__DAGS_FOLDER": str(folder), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", folder / "linked.py"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    logged, _, links = done.stdout.partition("LINKS ")
    return Ended(json.loads(links), logged + done.stderr)


def test_button_from_output(ended: Ended) -> None:
    """A task that succeeded has a button for each link of its output."""
    assert ended.links["passes -1"] == {"Data docs": address(INDEX), "Result": ELSEWHERE}


def test_failed_gate_has_button(ended: Ended) -> None:
    """A task that pushed its output before it failed keeps its buttons."""
    assert ended.links["fails_with_output -1"] == {"Data docs": address(INDEX), "Result": ELSEWHERE}


@pytest.mark.parametrize("task_id", ["fails_early", "skips"])
def test_no_output_no_button(ended: Ended, task_id: str) -> None:
    """A task without output has no button, which the UI shows for an empty address."""
    assert ended.links[f"{task_id} -1"] == {"Data docs": "", "Result": ""}


def test_mapped_buttons_differ(ended: Ended) -> None:
    """Each of the instances of a mapped task has its own buttons."""
    assert [ended.links[f"mapped {index}"]["Data docs"] for index in (0, 1)] == [
        address(INDEX),
        "/artifacts/ge-artifacts/other.html",
    ]


def test_only_nonsense_is_logged(ended: Ended) -> None:
    """A link that cannot be shown is an error in the log of its task, and what is missing is none."""
    assert ended.links["returns_nonsense -1"] == {"Data docs": "", "Result": ELSEWHERE}
    assert ended.logged.count("Failed to push an xcom for task operator extra link") == 1
    assert "a task returned the link 'javascript:alert(1)'" in ended.logged


# --- the DAG ----------------------------------------------------------------------------------------------------


def serialized(links: tuple[str, ...], **more: Any) -> dict[str, Any]:
    """Return the one task of a pipeline as it is serialized."""
    node = Node("gate", ("steps", "gate"), "quality.validate", arguments={"a": 1}, links=links, **more)
    plan = Plan("made", "made.yaml", Path(), {}, {}, None, None, (), (node,), {})
    task: dict[str, Any] = DagSerialization.to_dict(build(plan))["dag"]["tasks"][0]["__var"]
    return task


@pytest.mark.parametrize("more", [{}, {"expand": {"b": [1, 2]}}], ids=["single", "mapped"])
def test_links_change_nothing_else(more: dict[str, Any]) -> None:
    """The serialized task has its links, and is otherwise what it is without them."""
    plain, linked = serialized((), **more), serialized(("data_docs", "result"), **more)

    assert linked == plain | {"_operator_extra_links": {"Data docs": "_link_data_docs", "Result": "_link_result"}}


def test_links_keep_their_order() -> None:
    """Links are serialized in the order of the output, in every process: no new DAG version without a change."""
    assert list(serialized(("b", "a", "c"))["_operator_extra_links"]) == ["B", "A", "C"]


def test_classes_are_shared() -> None:
    """A pipeline's second build makes no further class."""
    made = with_links(BaseOperator, ("data_docs",))

    assert made is with_links(BaseOperator, ("data_docs",))
    assert made is not with_links(BaseOperator, ("result",))


# --- the objects ------------------------------------------------------------------------------------------------

REPORT = "<!doctype html><h1>Docs</h1><link rel=stylesheet href=static/style.css>"
LARGE = bytes(range(256)) * 4096
SOURCE = Source(frozenset({BUCKET, "absent-bucket"}), "the key of these tests")


class Old(TimestampSigner):
    """Signs as it did before the life of a token."""

    def get_timestamp(self) -> int:
        return super().get_timestamp() - TOKEN_SECONDS - 1


@pytest.fixture(scope="module", autouse=True)
def objects(object_store: ObjectStore) -> None:
    """A report with its files, and others beside it."""
    client = object_store.client()
    for key, body, kind in (
        ("docs/index.html", REPORT.encode(), "text/html; charset=utf-8"),
        ("docs/static/style.css", b"h1 {color: green}", "text/css"),
        ("docs/large.bin", LARGE, "application/octet-stream"),
        ("docs-2/index.html", b"others", "text/html"),
        ("alone.html", b"alone", "text/html"),
        ("alone.html.old", b"older", "text/html"),
        ("a b/é #1?.txt", b"odd", "text/plain"),
    ):
        client.put_object(Bucket=BUCKET, Key=key, Body=body, ContentType=kind)


@pytest.fixture
def app() -> FastAPI:
    """The application of the objects, in which nobody is logged in."""
    return artifacts_app(SOURCE)


@pytest.fixture
def anybody(app: FastAPI) -> Iterator[TestClient]:
    """A browser without a login, before the API server with the application."""
    server = FastAPI()
    server.mount("/artifacts", app)
    with TestClient(server, follow_redirects=False) as client:
        yield client


@pytest.fixture
def user(app: FastAPI, anybody: TestClient) -> TestClient:
    """A browser with a login."""
    app.dependency_overrides[get_user] = lambda: SimpleAuthManagerUser(username="ann", role="VIEWER")
    return anybody


def said(answer: httpx.Response) -> str:
    """Return what a page says in its body."""
    return unescape(re.sub(r"<[^>]*>", "", answer.text.partition("<p>")[2])).strip()


def token_for(key: str) -> str:
    """Return the address that a login gives for an object, without the object."""
    return f"/artifacts/_view/{SOURCE.tokens.dumps(f'{BUCKET}/{key}')}"


def test_nobody_is_refused(anybody: TestClient) -> None:
    """Without a login there is a way to it and back, and no object."""
    answer = anybody.get("/artifacts/ge-artifacts/docs/index.html")

    assert (answer.status_code, said(answer)) == (401, "Only Airflow users can see this. Log in")
    assert 'href="/api/v2/auth/login?next=%2Fartifacts%2Fge-artifacts%2Fdocs%2Findex.html"' in answer.text


def test_nobody_learns_buckets(anybody: TestClient) -> None:
    """Without a login or a token nobody is told which buckets there are."""
    for path in ("/artifacts/other/x", "/artifacts/_view/forged/other/x"):
        assert BUCKET not in anybody.get(path).text


def test_login_leads_to_token(user: TestClient) -> None:
    """A login is exchanged for an address that is neither kept nor told to other servers."""
    answer = user.get("/artifacts/ge-artifacts/docs/index.html")

    assert answer.status_code == 303
    assert re.fullmatch(r"/artifacts/_view/[\w.-]+/ge-artifacts/docs/index\.html", answer.headers["location"])
    assert (answer.headers["cache-control"], answer.headers["referrer-policy"]) == ("no-store", "no-referrer")


def test_object_runs_in_sandbox(user: TestClient) -> None:
    """An object comes as it was stored, in an origin of its own."""
    answer = user.get("/artifacts/ge-artifacts/docs/index.html", follow_redirects=True)

    assert (answer.status_code, answer.text) == (200, REPORT)
    assert dict(answer.headers) == {
        "content-type": "text/html; charset=utf-8",
        "content-length": str(len(REPORT)),
        "content-security-policy": "sandbox allow-scripts allow-popups",
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-store",
    }


def test_relative_files_need_no_login(user: TestClient, app: FastAPI) -> None:
    """What the report asks for by a relative address comes without the login, which a sandbox does not send."""
    page = user.get("/artifacts/ge-artifacts/docs/index.html").headers["location"]
    app.dependency_overrides.clear()
    answer = user.get(page.replace("index.html", "static/style.css"))

    assert (answer.status_code, answer.text, answer.headers["content-type"]) == (200, "h1 {color: green}", "text/css")


def test_large_object_is_whole(anybody: TestClient) -> None:
    """An object of many chunks arrives byte for byte."""
    assert anybody.get(f"{token_for('docs/')}/ge-artifacts/docs/large.bin").content == LARGE


def test_odd_key_is_found(user: TestClient) -> None:
    """A key with blanks and signs is reached by the address that the button has."""
    assert user.get(address(f"s3://{BUCKET}/a b/é #1?.txt"), follow_redirects=True).text == "odd"


@pytest.mark.parametrize(
    ("scope", "key"),
    [
        ("docs/", "docs-2/index.html"),
        ("docs/", "alone.html"),
        ("docs/static/", "docs/index.html"),
        ("alone.html", "alone.html.old"),
        ("alone.html", "docs/index.html"),
    ],
)
def test_token_opens_its_folder(anybody: TestClient, scope: str, key: str) -> None:
    """A token is good for the folder of the object that was opened, or for the object alone where it lies in none."""
    answer = anybody.get(f"{token_for(scope)}/ge-artifacts/{key}")

    assert answer.status_code == 403
    assert said(answer) == f"This address opens ge-artifacts/{scope} only, not ge-artifacts/{key}."


def test_token_of_object_without_folder(user: TestClient) -> None:
    """An object in no folder is opened alone, not with its whole bucket."""
    page = user.get("/artifacts/ge-artifacts/alone.html").headers["location"]

    assert user.get(page).text == "alone"
    assert user.get(page.replace("alone.html", "docs/index.html")).status_code == 403


def test_token_of_another_bucket(anybody: TestClient) -> None:
    """A token says which bucket it is for."""
    assert anybody.get(f"{token_for('docs/')}/absent-bucket/docs/index.html").status_code == 403


@pytest.mark.parametrize("key", ["docs/%2e%2e/docs-2/index.html", "docs/%2e/index.html", "docs//index.html", "docs/"])
def test_key_climbs_nowhere(user: TestClient, key: str) -> None:
    """A key cannot leave its folder, with a token or a login."""
    shown = key.replace("%2e", ".")
    for path in (f"/artifacts/ge-artifacts/{key}", f"{token_for('docs/')}/ge-artifacts/{key}"):
        answer = user.get(path)
        assert (answer.status_code, said(answer)) == (404, f"{shown!r} is not the key of an object.")


def test_forged_token_refused(anybody: TestClient) -> None:
    """A token that another key signed opens nothing."""
    forged = Source(SOURCE.buckets, "another key").tokens.dumps(f"{BUCKET}/docs/")
    answer = anybody.get(f"/artifacts/_view/{forged}/ge-artifacts/docs/index.html")

    assert answer.status_code == 403
    assert said(answer) == "Airflow did not issue this address; open the link on the task again."


def test_old_token_shows_way(anybody: TestClient) -> None:
    """A token ends after an hour, and the page says how to have a new one."""
    old = URLSafeTimedSerializer(SOURCE.secret_key, salt=SOURCE.tokens.salt, signer=Old).dumps(f"{BUCKET}/docs/")
    answer = anybody.get(f"/artifacts/_view/{old}/ge-artifacts/docs/index.html")

    assert answer.status_code == 403
    assert said(answer) == (
        "This address was valid for 60 minutes. Open the link on the task in Airflow again, or open it from here"
    )
    assert 'href="/artifacts/ge-artifacts/docs/index.html"' in answer.text


def test_unlisted_bucket_refused(user: TestClient) -> None:
    """A bucket that the operator did not list is not shown, whatever the store holds; markup in its name is text."""
    answer = user.get("/artifacts/<b>other/x.html")

    assert answer.status_code == 404
    assert said(answer) == (
        "Bucket '<b>other' is not shown here; TASKFLOW_ARTIFACT_BUCKETS lists those that are: "
        "absent-bucket, ge-artifacts."
    )
    assert "<b>other" not in answer.text
    assert answer.headers["content-security-policy"] == "default-src 'none'; style-src 'unsafe-inline'"


def test_missing_bucket_is_named(user: TestClient, object_store: ObjectStore) -> None:
    """A listed bucket that does not exist is named with its store."""
    answer = user.get("/artifacts/absent-bucket/x/y.html", follow_redirects=True)

    assert answer.status_code == 404
    assert said(answer).startswith(f"bucket 'absent-bucket' does not exist in object store at {object_store.endpoint}")


def test_missing_object_is_named(user: TestClient) -> None:
    """An object that is gone is named."""
    answer = user.get("/artifacts/ge-artifacts/docs/gone.html", follow_redirects=True)

    assert (answer.status_code, said(answer)) == (
        404,
        "Bucket 'ge-artifacts' has no object 'docs/gone.html'; it may have been removed.",
    )


def test_edited_connection_is_used(
    user: TestClient, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The object store is asked as its connection reads now; what is wrong with it is said."""
    page = "/artifacts/ge-artifacts/docs/index.html"
    found = json.loads(object_store.airflow_connection)

    monkeypatch.setenv("AIRFLOW_CONN_OBJECT_STORE", json.dumps(found | {"password": "wrong"}))
    refused = user.get(page, follow_redirects=True)
    assert (refused.status_code, "refused access to bucket 'ge-artifacts'" in said(refused)) == (502, True)

    monkeypatch.setenv(
        "AIRFLOW_CONN_OBJECT_STORE", json.dumps(found | {"extra": {"endpoint_url": "http://127.0.0.1:1"}})
    )
    silent = user.get(page, follow_redirects=True)
    assert silent.status_code == 502
    assert said(silent).startswith("object store at http://127.0.0.1:1 (connection 'object_store'): Could not connect")

    monkeypatch.setenv("AIRFLOW_CONN_OBJECT_STORE", object_store.airflow_connection)
    assert user.get(page, follow_redirects=True).text == REPORT


def test_missing_connection_is_named() -> None:
    """A connection that nobody made is named with the way to make it."""
    other = TestClient(artifacts_app(Source(SOURCE.buckets, SOURCE.secret_key, "nowhere")))
    answer = other.get(f"{token_for('docs/').removeprefix('/artifacts')}/ge-artifacts/docs/index.html")

    assert answer.status_code == 502
    assert said(answer).startswith("connection 'nowhere' does not exist in Airflow; create it in the UI")


# --- the plugin -------------------------------------------------------------------------------------------------


def test_buckets_from_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator lists the buckets; two are listed where nobody does."""
    monkeypatch.delenv("TASKFLOW_ARTIFACT_BUCKETS", raising=False)
    assert configured_source().buckets == {"ge-artifacts", "mlflow-artifacts"}

    monkeypatch.setenv("TASKFLOW_ARTIFACT_BUCKETS", " one-bucket, other-bucket ,")
    assert configured_source().buckets == {"one-bucket", "other-bucket"}


def test_plugin_offers_objects() -> None:
    """Airflow finds the plugin, and the API server its applications."""
    (entry,) = importlib.metadata.entry_points(group="airflow.plugins", name="taskflow")
    offered, _ = entry.load()().fastapi_apps

    assert (entry.load(), offered["url_prefix"], type(offered["app"])) == (TaskflowPlugin, "/artifacts", FastAPI)


def test_plugin_is_light() -> None:
    """A process that is no API server loads the plugin without the libraries of one."""
    heavy = ("fastapi", "boto3", "botocore", "factory.bridge.artifacts", "factory.bridge.spark_pages")

    assert loaded_after("from factory.bridge.plugin import TaskflowPlugin; TaskflowPlugin()", heavy) == set()
