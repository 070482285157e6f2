"""What `dag-run` asks before it starts a run, with an Airflow that answers from a table."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from stack.airflow_api import AirflowApi
from stack.triggering import declared, start


@pytest.fixture
def specs(tmp_path: Path) -> Path:
    (tmp_path / "a.yaml").write_text('# a comment\ndag_id: "orders"  # quoted\nsteps: {}\n')
    (tmp_path / "b.yaml").write_text("steps: {}\ndag_id: people\n")
    (tmp_path / "c.yaml").write_text("title: none\nwith:\n  dag_id: nested\n")
    return tmp_path


@pytest.fixture
def asked() -> list[dict[str, Any]]:
    return []


@pytest.fixture
def api(asked: list[dict[str, Any]]) -> AirflowApi:
    """An Airflow that knows `orders`, in Lima, with one param and a run of 3 February."""

    def answer(request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/api/v2")
        if path == "/dags/orders/dagRuns":
            asked.append(json.loads(request.content))
            if "2026-02-03" in str(asked[-1]["logical_date"]):
                return httpx.Response(409, json={"detail": "exists"})
            return httpx.Response(200, json={"dag_id": "orders", "dag_run_id": "manual__1", "state": "queued"})
        found = {
            "/dags/orders": {},
            "/dags/orders/details": {"params": {"window_days": {}}, "timezone": "America/Lima"},
            "/importErrors": {"import_errors": [{"filename": "b.yaml", "stack_trace": "b.yaml:1: error"}]},
        }
        return httpx.Response(200, json=found[path]) if path in found else httpx.Response(404, json={"detail": "no"})

    return AirflowApi("http://airflow", "a", "b", httpx.Client(transport=httpx.MockTransport(answer)))


def test_specs_are_found_by_their_names(specs: Path) -> None:
    """The line at the top level counts, in quotes or not, before a comment or not."""
    assert declared(specs) == {"orders": specs / "a.yaml", "people": specs / "b.yaml"}


def test_run_starts(api: AirflowApi, specs: Path, asked: list[dict[str, Any]]) -> None:
    """A day begins at midnight in the pipeline's time zone; a moment is taken as it is, and so is no date."""
    for date in ("2026-02-04", "2026-02-04T06:00:00+00:00", None):
        start(api, specs, "orders", {"window_days": 3}, date)

    moments = ["2026-02-04T00:00:00-05:00", "2026-02-04T06:00:00+00:00", None]
    assert asked == [{"logical_date": moment, "conf": {"window_days": 3}} for moment in moments]


@pytest.mark.parametrize(
    ("dag_id", "params", "date", "problem"),
    [
        ("Ordres", {}, None, "there is no pipeline 'Ordres'; did you mean 'orders'?"),
        ("xyz", {}, None, "there is no pipeline 'xyz'; pipelines: orders, people"),
        ("orders", {"Window_day": 3}, None, "'Window_day' is not a param of orders; did you mean 'window_days'?"),
        ("orders", {}, "3 February", "'3 February' is not a date; write one such as 2026-02-03"),
        ("orders", {}, "2026-02-03", "orders has a run for 2026-02-03 already; clear that one, or leave the date out"),
    ],
)
def test_mistake_is_named_before_the_run(
    api: AirflowApi, specs: Path, dag_id: str, params: dict[str, Any], date: str | None, problem: str
) -> None:
    """Nothing is waited for, and nothing is started."""
    with pytest.raises(ValueError, match=f"^{re.escape(problem)}$"):
        start(api, specs, dag_id, params, date)


def test_import_error_is_told(api: AirflowApi, specs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipeline whose spec Airflow cannot read is not waited for."""
    monkeypatch.setattr("stack.airflow_api._STALE_SECONDS", -1)

    with pytest.raises(TimeoutError, match=r"cannot read .*b\.yaml:\nb\.yaml:1: error"):
        start(api, specs, "people", {})
