"""Spark's pages in Airflow: the page of a real master, which answers nobody but Airflow."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import httpx
import pytest
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.api_fastapi.core_api.security import get_user
from fastapi import FastAPI
from fastapi.testclient import TestClient

from factory.bridge.plugin import PAGES, SPARK
from factory.bridge.spark_pages import Cluster, spark_app
from stack.credentials import key
from stack.java import Java
from stack.page_tokens import PREFIX
from stack.ports import next_free
from stack.service import running
from stack.spark import Spark, SparkKeys, SparkPorts

CSS = "/spark/static/webui.css"


@pytest.fixture(scope="module")
def spark(java: Java, state: Path) -> Iterator[Spark]:
    """A master with its page."""
    ports = SparkPorts(next_free(23_200), next_free(23_220), ())
    spark = Spark(state / "spark-pages", ports, SparkKeys(key(), key()), java, 512)
    (master,) = spark.services()
    with running(master, state, seconds=180):
        yield spark


@pytest.fixture
def connected(spark: Spark, monkeypatch: pytest.MonkeyPatch) -> Spark:
    """The master, which Airflow knows."""
    monkeypatch.setenv("AIRFLOW_CONN_SPARK_PAGES", spark.pages_connection)
    return spark


def browser(cluster: Cluster, *, login: bool = True) -> TestClient:
    """Return a browser before an API server that shows the cluster."""
    app, server = spark_app(cluster), FastAPI()
    if login:
        app.dependency_overrides[get_user] = lambda: SimpleAuthManagerUser(username="ann", role="VIEWER")
    server.mount(SPARK, app)
    return TestClient(server, follow_redirects=False)


def answering(status: int, headers: dict[str, str], seen: list[httpx.Request] | None = None) -> Cluster:
    """Return a cluster whose master gives one answer to everything, and notes what it is asked."""

    def answer(asked: httpx.Request) -> httpx.Response:
        (seen if seen is not None else []).append(asked)
        return httpx.Response(status, headers=headers, stream=httpx.ByteStream(b"<script>1</script>"))

    return Cluster(client=httpx.Client(transport=httpx.MockTransport(answer)))


@pytest.mark.parametrize("path", ["/spark/", "/spark/json/", CSS, "/spark/proxy/app-1/environment/"])
def test_nobody_is_refused(connected: Spark, path: str) -> None:
    """Without Airflow's login there is a way to it and back, and no page, also not of its files."""
    answer = browser(Cluster(), login=False).get(path)
    assert answer.status_code == 401
    assert "Only Airflow users can see this." in answer.text
    assert connected.master not in answer.text


@pytest.mark.usefixtures("connected")
def test_user_sees_the_master(spark: Spark) -> None:
    """Airflow's users see the page, its links lead to Airflow, and no script but Spark's own may run in it."""
    answer = browser(Cluster()).get("/spark/")
    assert (answer.status_code, spark.master in answer.text) == (200, True)
    assert 'href="/spark/static/' in answer.text
    assert "script-src 'self' 'nonce-" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.usefixtures("connected")
@pytest.mark.parametrize("path", ["/spark/environment/", "/spark/logPage/?self&logType=out", "/spark/json/"])
def test_keys_are_on_no_page(spark: Spark, path: str) -> None:
    """Who looks at the pages learns neither the cluster's secret nor the key of the tokens."""
    answer = browser(Cluster()).get(path)
    assert (answer.status_code, answer.text != "") == (200, True)
    assert [one for one in (spark.keys.secret, spark.keys.pages) if one in answer.text] == []


@pytest.mark.usefixtures("connected")
def test_files_and_queries_pass() -> None:
    """A page's files come with their types, and what stands in an address reaches the master."""
    user = browser(Cluster())
    assert user.get(CSS).headers["content-type"] == "text/css"
    assert user.get("/spark/json/").json()["status"] == "ALIVE"
    assert "app-20010203040506-0007" in user.get("/spark/app/?appId=app-20010203040506-0007").text


@pytest.mark.usefixtures("connected")
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_pages_are_only_read(method: str) -> None:
    """Nothing reaches the master that could change it."""
    assert browser(Cluster()).request(method, "/spark/app/kill/").status_code == 405


@pytest.mark.usefixtures("connected")
@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("http://127.0.0.1:8082/proxy/app-1/jobs/", "/spark/proxy/app-1/jobs/"),
        ("http://127.0.0.1:8082/spark/proxy/app-1/jobs/?id=1", "/spark/proxy/app-1/jobs/?id=1"),
        ("http://elsewhere.example/x", "/spark/x"),
    ],
)
def test_redirect_stays_below(location: str, expected: str) -> None:
    """Where the master sends a browser to an address of its own, Airflow sends it to the one below its own."""
    answer = browser(answering(302, {"Location": location})).get("/spark/proxy/app-1")
    assert (answer.status_code, answer.headers["location"]) == (302, expected)


@pytest.mark.usefixtures("connected")
def test_unnamed_scripts_never_run() -> None:
    """A page that does not say which scripts are its own may run none, and sets no cookie in Airflow's name."""
    answer = browser(answering(200, {"Content-Type": "text/html", "Set-Cookie": "_token=x"})).get("/spark/")
    assert answer.headers["content-security-policy"] == "default-src 'none'; style-src 'unsafe-inline'"
    assert "set-cookie" not in answer.headers


@pytest.mark.usefixtures("connected")
def test_login_stays_in_airflow() -> None:
    """The master gets a token for a minute, and neither the login nor the cookies of who looks."""
    seen: list[httpx.Request] = []
    mine = {"Authorization": "Bearer mine", "Cookie": "_token=mine"}
    browser(answering(200, {}, seen)).get("/spark/", headers=mine)
    assert [("mine" in str(one.headers.raw), "Bearer ey" in str(one.headers.raw)) for one in seen] == [(False, True)]


def test_absent_master_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the connection, or with one where nobody listens, a page says what is missing."""
    monkeypatch.delenv("AIRFLOW_CONN_SPARK_PAGES", raising=False)
    answer = browser(Cluster("no_such_pages")).get("/spark/")
    assert (answer.status_code, "AIRFLOW_CONN_NO_SUCH_PAGES" in answer.text) == (502, True)

    there = {"conn_type": "http", "host": "127.0.0.1", "port": next_free(23_240), "password": key()}
    monkeypatch.setenv("AIRFLOW_CONN_SPARK_PAGES", json.dumps(there))
    answer = browser(Cluster()).get("/spark/")
    assert answer.status_code == 502
    assert f"The Spark master at http://127.0.0.1:{there['port']} does not answer" in answer.text


@pytest.mark.parametrize(
    ("password", "expected"),
    [
        ("abc", "The password of connection 'spark_pages' is not a key in URL-safe base64 (Incorrect padding)."),
        (None, ""),
    ],
)
def test_key_is_optional(password: str | None, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster without a filter is asked without a token; a key that is none is told."""
    there = {"conn_type": "http", "host": "127.0.0.1", "port": 9, "password": password}
    monkeypatch.setenv("AIRFLOW_CONN_SPARK_PAGES", json.dumps(there))
    seen: list[httpx.Request] = []
    answer = browser(answering(200, {}, seen)).get("/spark/")
    assert expected in unescape(answer.text)
    assert [one.headers.get("authorization") for one in seen] == ([] if expected else [None])


def test_links_lead_to_the_plugin() -> None:
    """Airflow offers the pages where Spark's links lead."""
    assert SPARK == PREFIX
    (entry,) = importlib.metadata.entry_points(group="airflow.plugins", name="taskflow")
    assert {one["url_prefix"] for one in entry.load()().fastapi_apps} == {page.url_prefix for page in PAGES}
