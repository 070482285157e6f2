"""crypto_events_dag on the scheduler, as the analyst and the operator meet it through Airflow's API."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from pydantic import JsonValue

from stack.airflow_api import DagRun
from tests.support.pipeline import OF_A_TRY, PROD, RAW, RECORDS, REJECTS, Pipeline, content, differences
from tests.support.waiting import eventually
from tests.support.whole_stack import RunningStack

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef

pytestmark = pytest.mark.stack

DAG = "crypto_events_dag"
BUCKET = "ge-artifacts"
SUITES = {"ge_validate_raw": "suite_raw_history", "ge_validate_candidate": "suite_staging_candidate"}
GREEN = {
    "create_tables": "success",
    "generate_fake_history_last_5_days": "success",
    "build_events_candidate": "success",
    "ge_validate_raw": "success",
    "ge_validate_candidate": "success",
    "merge_to_prod": "success",
    "decide_vacuum": "success",
    "vacuum_analyze_prod": "skipped",
    "notify_success": "success",
}
STOPPED = GREEN | {
    "ge_validate_raw": "failed",
    "ge_validate_candidate": "upstream_failed",
    "merge_to_prod": "upstream_failed",
    "decide_vacuum": "upstream_failed",
    "vacuum_analyze_prod": "upstream_failed",
    "notify_success": "upstream_failed",
}
PAST, BAD = dt.date(2026, 1, 20), dt.date(2026, 2, 10)
"""Days whose windows do not touch each other, nor that of today's run."""
FLAWS = {
    "invalid_site_id": "site_id NOT IN ('ARGENTINA', 'BRASIL', 'MEXICO')",
    "invalid_purchase_date": "purchase_date = '2026-13-45'",
    "missing_user_id": "user_id IS NULL",
    "invalid_crypto_type": "crypto_type NOT IN ('BTC', 'ETH', 'USDC')",
    "negative_purchase_price": "purchase_price < 0",
}
"""How a test finds the rows that must be rejected, by reason."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A run as it stood when it had ended for the first time."""

    run: DagRun
    date: dt.date
    states: dict[str, str]
    outputs: dict[str, dict[str, Any]]

    @classmethod
    def of(cls, crypto: Pipeline, run: DagRun, date: dt.date) -> Ended:
        states = crypto.states(run)
        done = [task for task, state in states.items() if state == "success" and task != "decide_vacuum"]
        return cls(run, date, states, {task: crypto.output(run, task) for task in done})


@pytest.fixture(scope="module")
def crypto(stack: RunningStack) -> Iterator[Pipeline]:
    """The pipeline as it is shipped, its schedule at work."""
    pipeline = Pipeline(DAG, stack.api, stack.services.crypto)
    pipeline.api.await_dag(DAG, seconds=180)
    pipeline.api.unpause(DAG)
    yield pipeline
    pipeline.api.pause(DAG)


@pytest.fixture(scope="module")
def clean(crypto: Pipeline) -> Ended:
    """The run that the schedule made by itself when the pipeline was unpaused."""
    found = eventually("a run by the schedule", lambda: runs(crypto, "scheduled"))
    run = crypto.api.wait(DagRun(DAG, found[0]["dag_run_id"], found[0]["state"]), seconds=300)
    return Ended.of(crypto, run, dt.date.fromisoformat(found[0]["logical_date"][:10]))


@pytest.fixture(scope="module")
def past(crypto: Pipeline, clean: Ended) -> Ended:
    """A backfill of a past day with its own params, after the schedule's run: a backfill does not wait for others."""
    moment = f"{PAST}T00:00:00Z"
    params: JsonValue = {"window_days": 3, "rows_per_day": 100, "vacuum": True}
    crypto.api.request(
        "POST", "/backfills", {"dag_id": DAG, "from_date": moment, "to_date": moment, "dag_run_conf": params}
    )
    found = eventually("a run by the backfill", lambda: runs(crypto, "backfill"))
    run = crypto.api.wait(DagRun(DAG, found[0]["dag_run_id"], found[0]["state"]), seconds=300)
    return Ended.of(crypto, run, PAST)


@pytest.fixture(scope="module")
def bad(crypto: Pipeline, clean: Ended) -> Ended:
    """A run for a past day of which every fifth row is bad."""
    run = crypto.run(BAD, window_days=5, rows_per_day=200, bad_share=0.2)
    return Ended.of(crypto, run, BAD)


def runs(crypto: Pipeline, kind: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = crypto.api.request("GET", f"/dags/{DAG}/dagRuns", run_type=kind)["dag_runs"]
    return found


def fetched(stack: RunningStack, link: str) -> GetObjectOutputTypeDef:
    assert link.startswith(f"s3://{BUCKET}/")
    return stack.services.store.client().get_object(Bucket=BUCKET, Key=link.removeprefix(f"s3://{BUCKET}/"))


# --- a clean run ------------------------------------------------------------------------------------------------


def test_schedule_runs_pipeline(clean: Ended) -> None:
    """Unpaused, the pipeline runs by itself, green, for the last day that the schedule names."""
    assert (clean.run.state, clean.states) == ("success", GREEN)
    assert dt.datetime.now(dt.UTC).date() - clean.date <= dt.timedelta(days=1)


def test_outputs_count_rows(clean: Ended) -> None:
    """Each step tells how many rows it made, found or loaded: 2,000 for each of five days."""
    outputs = clean.outputs
    assert outputs["generate_fake_history_last_5_days"] == {"inserted": 10_000, "bad": 0, "rows": 10_000}
    assert outputs["build_events_candidate"] == {"rows": 10_000}
    for task, suite in SUITES.items():
        gate = outputs[task]
        assert (gate["suite"], gate["passed"], gate["failed"], gate["rows"]) == (suite, True, 0, 10_000)
    merged = {"inserted": 10_000, "updated": 0, "reactivated": 0, "deactivated": 0, "unchanged": 0}
    assert outputs["merge_to_prod"] == merged


def test_rows_reach_prod(crypto: Pipeline, clean: Ended) -> None:
    """Prod holds the window's history, its dates read and its values computed."""
    text = f"""
        WITH history AS (
            SELECT site_id, user_id, to_date(purchase_date, 'DD/MM/YYYY') AS purchase_date, crypto_type,
                   purchase_price * purchase_units AS value, inserted_at::date AS inserted
            FROM {RAW} WHERE inserted_at >= %(date)s::date - 4 AND inserted_at < %(date)s::date + 1
        )
        SELECT count(*), count(DISTINCT inserted), count(*) FILTER (WHERE is_active AND purchase_value = value)
        FROM history LEFT JOIN {PROD} USING (site_id, user_id, purchase_date, crypto_type)
        WHERE purchase_date = inserted
    """
    assert crypto.sql(text, {"date": clean.date}) == [(10_000, 5, 10_000)]


def test_validations_are_recorded(crypto: Pipeline, clean: Ended) -> None:
    """Each validation has its row, with the rules that it asked."""
    text = f"""
        SELECT task_id, suite, run_date, passed, failed, rejected,
               expectations = jsonb_array_length(details->'expectations')
        FROM {RECORDS} WHERE dag_id = %(dag)s AND run_id = %(run)s ORDER BY started_at
    """
    found = crypto.sql(text, {"dag": DAG, "run": clean.run.run_id})
    assert found == [(task, suite, clean.date, True, 0, 0, True) for task, suite in SUITES.items()]


@pytest.mark.parametrize("task", SUITES)
def test_results_are_published(stack: RunningStack, clean: Ended, task: str) -> None:
    """The library's own result of a validation lies in the bucket as JSON."""
    found = fetched(stack, clean.outputs[task]["result"])
    result = json.loads(found["Body"].read())
    assert found["ContentType"] == "application/json"
    assert clean.outputs[task]["result"].startswith(f"s3://{BUCKET}/validations/{SUITES[task]}/")
    assert (result["success"], len(result["results"])) == (True, clean.outputs[task]["expectations"])


@pytest.mark.parametrize("task", SUITES)
def test_data_docs_are_linked(stack: RunningStack, clean: Ended, task: str) -> None:
    """Data Docs lie in the bucket as pages that a browser shows, and every page that one names is there."""
    index = clean.outputs[task]["data_docs"]
    assert index.startswith(f"s3://{BUCKET}/data_docs/{SUITES[task]}/")
    first = fetched(stack, index)["Body"].read().decode()
    pages = {page for page in re.findall(r'href="([^"#]+)"', first) if not page.startswith("data:")}
    assert pages == {"index.html", "expectations.html"}
    for page in pages:
        assert fetched(stack, index.replace("index.html", page))["ContentType"] == "text/html; charset=utf-8"
    of_run, _, of_try = index.removesuffix("/index.html").rpartition("/")
    assert f'href="{of_try}/index.html"' in fetched(stack, f"{of_run}/index.html")["Body"].read().decode()


def test_rerun_changes_nothing(crypto: Pipeline, clean: Ended) -> None:
    """A cleared run does its work again and leaves each row as it was, `updated_at` included."""
    before, kept = content(crypto, *OF_A_TRY), records(crypto, clean.run)
    again = crypto.rerun(clean.run)
    assert (again.state, crypto.states(again)) == ("success", GREEN)
    assert crypto.output(again, "merge_to_prod")["unchanged"] == 10_000
    assert differences(before, content(crypto, *OF_A_TRY)) == {}
    assert records(crypto, clean.run)[: len(kept)] == kept
    assert len(records(crypto, clean.run)) == 2 * len(kept)


def records(crypto: Pipeline, run: DagRun) -> list[tuple[Any, ...]]:
    """Return the records of the validations of a run, the first ones first."""
    text = f"SELECT to_jsonb(records) FROM {RECORDS} AS records WHERE dag_id = %(dag)s AND run_id = %(run)s"
    return crypto.sql(f"{text} ORDER BY started_at", {"dag": DAG, "run": run.run_id})


# --- a past day -------------------------------------------------------------------------------------------------


def test_past_run_vacuums(past: Ended) -> None:
    """With the param `vacuum` the branch goes through the vacuum, and the run's end is told after it."""
    assert (past.run.state, past.states) == ("success", GREEN | {"vacuum_analyze_prod": "success"})
    assert past.outputs["vacuum_analyze_prod"]["table"] == PROD
    message = past.outputs["notify_success"]["message"]
    assert message.startswith(f"{PROD} holds {PAST} and its window of 3 days: 300 inserted")


def test_past_run_keeps_window(crypto: Pipeline, past: Ended) -> None:
    """A run for a past day fills and loads the days that end with it, whatever day today is."""
    days = [(PAST - dt.timedelta(days=back), 100) for back in (2, 1, 0)]
    near = {"first": PAST - dt.timedelta(days=15), "last": PAST + dt.timedelta(days=15)}
    between = "BETWEEN %(first)s AND %(last)s GROUP BY 1 ORDER BY 1"
    assert past.outputs["generate_fake_history_last_5_days"]["inserted"] == 300
    assert crypto.sql(f"SELECT inserted_at::date, count(*) FROM {RAW} WHERE inserted_at::date {between}", near) == days
    assert crypto.sql(f"SELECT purchase_date, count(*) FROM {PROD} WHERE purchase_date {between}", near) == days


def test_left_rows_switch_off(crypto: Pipeline, past: Ended) -> None:
    """Rows that leave the history are switched off in prod and come back when it has them again; no other row moves."""
    window = {"first": PAST - dt.timedelta(days=2), "last": PAST}
    chosen = "inserted_at::date BETWEEN %(first)s AND %(last)s AND user_id %% 10 = 0"
    crypto.sql(f"CREATE TABLE public.left_rows AS SELECT * FROM {RAW} WHERE {chosen}", window)
    before, unstamped = content(crypto)[PROD], content(crypto, "updated_at")[PROD]
    crypto.sql(f"DELETE FROM {RAW} WHERE {chosen}", window)

    without = crypto.rerun(past.run, task_ids=["build_events_candidate"])
    moved = [json.loads(row) for row in content(crypto)[PROD] - before]
    assert (without.state, crypto.output(without, "merge_to_prod")["deactivated"]) == ("success", 30)
    assert len(moved) == 30
    assert {(row["user_id"] % 10, row["is_active"]) for row in moved} == {(0, False)}

    crypto.sql(f"INSERT INTO {RAW} SELECT * FROM public.left_rows; DROP TABLE public.left_rows")
    restored = crypto.rerun(past.run, task_ids=["build_events_candidate"])
    assert (restored.state, crypto.output(restored, "merge_to_prod")["reactivated"]) == ("success", 30)
    assert differences({PROD: unstamped}, {PROD: content(crypto, "updated_at")[PROD]}) == {}


# --- bad rows ---------------------------------------------------------------------------------------------------


def test_bad_rows_stop_run(crypto: Pipeline, bad: Ended) -> None:
    """The gate fails the run before prod, which holds nothing of its window, and records why."""
    assert (bad.run.state, bad.states) == ("failed", STOPPED)
    text = f"SELECT count(*) FROM {PROD} WHERE purchase_date BETWEEN %(date)s::date - 4 AND %(date)s"
    assert crypto.sql(text, {"date": BAD}) == [(0,)]
    recorded = f"SELECT suite, passed, failed, rejected FROM {RECORDS} WHERE run_id = %(run)s"
    assert crypto.sql(recorded, {"run": bad.run.run_id}) == [("suite_raw_history", False, len(FLAWS), 200)]


def test_bad_rows_are_rejected(crypto: Pipeline, bad: Ended) -> None:
    """Each bad row stands among the rejects once, under the reason that a look at the history confirms."""
    window = "inserted_at >= %(date)s::date - 4 AND inserted_at < %(date)s::date + 1"
    expected = {
        reason: crypto.sql(f"SELECT count(*) FROM {RAW} WHERE {window} AND {flaw}", {"date": BAD})[0][0]
        for reason, flaw in FLAWS.items()
    }
    assert sum(expected.values()) == bad.outputs["generate_fake_history_last_5_days"]["bad"] == 200
    assert rejected(crypto, bad) == expected


def rejected(crypto: Pipeline, ended: Ended) -> dict[str, int]:
    """Return how many rows a run set aside, by reason."""
    text = f"SELECT reason, count(*) FROM {REJECTS} WHERE dag_id = %(dag)s AND run_id = %(run)s GROUP BY 1"
    return dict(crypto.sql(text, {"dag": DAG, "run": ended.run.run_id}))


def test_repeated_gate_keeps_rejects(crypto: Pipeline, bad: Ended) -> None:
    """A failed gate that is cleared fails again: its rejects are there once, the records of both tries stay."""
    before, kept = content(crypto, "quarantined_at", *OF_A_TRY)[REJECTS], records(crypto, bad.run)
    again = crypto.rerun(bad.run, task_ids=["ge_validate_raw"])
    assert (again.state, crypto.states(again)) == ("failed", STOPPED)
    assert content(crypto, "quarantined_at", *OF_A_TRY)[REJECTS] == before
    assert (records(crypto, bad.run)[:1], len(records(crypto, bad.run))) == (kept, 2)


def test_failed_gate_names_reasons(crypto: Pipeline, bad: Ended) -> None:
    """What failed the gate is told in its log: every reason with its rows, where they are, and the pages to look at."""
    (failure,) = [event for event in crypto.events(bad.run, "ge_validate_raw", 1) if event.get("level") == "error"]
    told = failure["event"]
    assert "error_detail" not in failure
    reasons = told.partition("rejected rows: ")[2].partition(";")[0].split(", ")
    assert set(reasons) == {f"{reason} {rows}" for reason, rows in rejected(crypto, bad).items()}
    assert f"in {REJECTS} where validation_id = '" in told
    assert f"Data Docs: s3://{BUCKET}/data_docs/suite_raw_history/" in told


# --- the operator -----------------------------------------------------------------------------------------------


def test_failed_gate_shows_docs(stack: RunningStack, crypto: Pipeline, bad: Ended) -> None:
    """The button on a gate that failed opens its Data Docs in a sandbox, for a user, with no token in any log."""
    path = f"/dags/{DAG}/dagRuns/{bad.run.run_id}/taskInstances/ge_validate_raw/links"
    links = crypto.api.request("GET", path)["extra_links"]
    login = {"username": "viewer", "password": stack.services.airflow.passwords()["viewer"]}

    with httpx.Client(base_url=crypto.api.address, trust_env=False) as browser:
        nobody = browser.get(links["Data docs"])
        token = browser.post("/auth/token", json=login).json()["access_token"]
        browser.cookies.set("_token", token)
        led = browser.get(links["Data docs"])
        browser.cookies.clear()
        page = browser.get(led.headers["location"])

    assert (nobody.status_code, led.status_code, page.status_code) == (401, 303, 200)
    assert page.headers["content-security-policy"] == "sandbox allow-scripts allow-popups"
    assert "suite_raw_history" in page.text
    assert page.url.path.split("/")[3] not in stack.home.log("api-server").read_text()


def test_runs_tell_no_secret(stack: RunningStack, crypto: Pipeline, clean: Ended, bad: Ended) -> None:
    """No password or key of the stack stands in a task's log, its rendered fields or what it returned."""
    secrets = json.loads(stack.home.secrets.read_text()).values()
    told = [text for ended in (clean, bad) for text in everything_told(crypto, ended.run)]
    assert sum("Done. Returned value was" in text for text in told) >= 11
    assert [text for text in told if any(secret in text for secret in secrets)] == []


def everything_told(crypto: Pipeline, run: DagRun) -> Iterator[str]:
    """Yield what Airflow shows of each task of a run: its instance with the rendered fields, its logs, its outputs."""
    at = f"/dags/{DAG}/dagRuns/{run.run_id}/taskInstances"
    for instance in crypto.api.request("GET", at)["task_instances"]:
        task = instance["task_id"]
        yield json.dumps(instance)
        for number in range(1, instance["try_number"] + 1):
            yield json.dumps(crypto.events(run, task, number))
        for entry in crypto.api.request("GET", f"{at}/{task}/xcomEntries")["xcom_entries"]:
            yield json.dumps(crypto.api.request("GET", f"{at}/{task}/xcomEntries/{entry['key']}"))
