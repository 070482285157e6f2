"""The tab of the churn app that shows drift: in Streamlit's own test harness, on a real MLflow."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from streamlit.testing.v1 import AppTest

from stack.app.drift import address, reports
from stack.app.registered_models import Registry, Unusable
from stack.app_server import SCRIPT

if TYPE_CHECKING:
    from collections.abc import Callable


pytestmark = pytest.mark.usefixtures("mlflow_login")

AIRFLOW = "http://127.0.0.1:8080"


@pytest.fixture(scope="module")
def mlflow_address(mlflow_server: Any) -> str:
    """Where MLflow answers."""
    return str(mlflow_server.address)


@pytest.fixture(scope="module")
def experiment(mlflow_address: str) -> str:
    """An experiment with two weeks, of which the second was looked at twice."""
    from mlflow import MlflowClient

    client, name = MlflowClient(mlflow_address), f"drift {uuid.uuid4().hex[:8]}"
    made = client.create_experiment(name)
    for date, share, drifted in (
        ("2026-01-11", 0.0, ""),
        ("2026-01-04", 0.1, "age"),
        ("2026-01-11", 0.4, "age, spent"),
    ):
        tags = {"drift.kind": "report", "drift.date": date, "drift.columns": drifted}
        tags["drift.report"] = f"s3://mlflow-artifacts/drift-reports/{date}.html"
        run = client.create_run(made, tags=tags)
        client.log_param(run.info.run_id, "max_drift_share", 0.3)
        client.log_metric(run.info.run_id, "drift_share", share)
        client.log_metric(run.info.run_id, "score/age", share / 2)
        client.set_terminated(run.info.run_id)
    client.create_run(made, tags={"drift.kind": "report", "drift.date": "2026-01-18"})  # not finished
    return name


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Callable[..., AppTest]:
    """A function that opens the page for an address and an experiment."""

    def opened(address: str, experiment: str) -> AppTest:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        monkeypatch.setenv("TASKFLOW_DRIFT", experiment)
        monkeypatch.setenv("AIRFLOW__API__BASE_URL", AIRFLOW)
        return AppTest.from_file(str(SCRIPT), default_timeout=60).run()

    return opened


def test_newest_report_counts(mlflow_address: str, experiment: str) -> None:
    """Each date has the newest finished report, in the order of the dates."""
    found = reports(Registry(mlflow_address), experiment)
    assert [(one.date, one.share, one.detected) for one in found] == [
        (dt.date(2026, 1, 4), 0.1, False),
        (dt.date(2026, 1, 11), 0.4, True),
    ]
    assert (found[1].drifted, found[1].scores) == ("age, spent", {"age": 0.2})


def test_tab_tells_the_verdict(page: Callable[..., AppTest], mlflow_address: str, experiment: str) -> None:
    """The tab says what the newest report found, and lists the reports with links that open them in Airflow."""
    shown = page(mlflow_address, experiment)
    assert not shown.exception
    told = " ".join(one.value for one in shown.tabs[3].markdown)
    assert ":red-badge[Drift] On 11 January 2026, 40% of the columns had drifted: age, spent." in told
    (table,) = (one.value for one in shown.tabs[3].dataframe)
    assert list(table["Report"]) == [
        f"{AIRFLOW}/artifacts/mlflow-artifacts/drift-reports/2026-01-{day}.html" for day in ("11", "04")
    ]


def test_no_report_says_so(page: Callable[..., AppTest], mlflow_address: str) -> None:
    """Without reports the tab says what to run."""
    shown = page(mlflow_address, "nothing here")
    assert not shown.exception
    assert "There is no report of drift yet" in shown.tabs[3].info[0].value


def test_no_server_is_unusable() -> None:
    """An MLflow that does not answer is told of."""
    with pytest.raises(Unusable, match="does not answer"):
        reports(Registry("http://127.0.0.1:9"), "churn_drift")


@pytest.mark.parametrize(
    ("page", "airflow", "expected"),
    [
        ("s3://b/drift-reports/1.html", f"{AIRFLOW}/", f"{AIRFLOW}/artifacts/b/drift-reports/1.html"),
        ("s3://b/1.html", "", None),
        ("/data/drift_reports/1.html", AIRFLOW, None),
    ],
)
def test_only_objects_have_links(page: str, airflow: str, expected: str | None) -> None:
    """An object opens in Airflow; a file on a worker's disk opens nowhere."""
    assert address(page, airflow) == expected
