"""drift.report: what it finds, where it leaves it, and what it refuses; on a real object store and MLflow."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import uuid
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stack.objects import ObjectStore
from stack.tracking_server import Tracking
from tasks.contract import DataRejected, MissingResource, PermanentError, Run, TransientError
from tasks.drift.columns import CategoricalMethod, Columns, NumericMethod
from tasks.drift.compared_rows import FromFile, FromHistory, FromQuery, Source, parts
from tasks.drift.monitor import Publication, Recording
from tasks.drift.reading import read
from tasks.drift.sampling import Sampler
from tasks.files.places import InFolder
from tasks.files.run_files import files_of
from tests.support.database import Sql
from tests.support.drifting import COLUMNS, HISTORY, NOW, compared, keep, users, weeks
from tests.support.memory import peak_memory
from tests.support.tracking_clients import client_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as TrackedRun

BUCKET = "mlflow-artifacts"


@pytest.fixture
def run(run: Run) -> Run:
    """A run of a monitor of this test's own, on 5 January 2026."""
    return replace(run, dag_id=f"monitor_{uuid.uuid4().hex[:8]}", task_id="run_drift_report")


@pytest.fixture
def folder(tmp_path: Path, run: Run) -> Path:
    """A folder with the current users, and a history of two weeks."""
    pq.write_table(users(1), tmp_path / NOW)
    keep(tmp_path, run, *weeks(run, 2, 1))
    return tmp_path


@pytest.fixture
def publish(object_store: ObjectStore, tmp_path: Path) -> Publication:
    """A part of the bucket of this test's own."""
    return Publication(connection="object_store", bucket=BUCKET, prefix=f"drift-reports/{tmp_path.name}")


@pytest.fixture
def record(mlflow_server: Tracking) -> Recording:
    """An experiment of this test's own."""
    return Recording(connection="mlflow_default", experiment=f"drift {uuid.uuid4().hex[:8]}")


@pytest.fixture
def mlflow(mlflow_server: Tracking) -> MlflowClient:
    """MLflow, as a person who looks at it."""
    return client_of(mlflow_server)


def tracked(mlflow: MlflowClient, record: Recording, kind: str) -> list[TrackedRun]:
    experiment = mlflow.get_experiment_by_name(record.experiment)
    assert experiment is not None
    return list(mlflow.search_runs([experiment.experiment_id], f"tags.`drift.kind` = '{kind}'"))


def line(mlflow: MlflowClient, record: Recording, metric: str) -> list[tuple[dt.date, float]]:
    (only,) = tracked(mlflow, record, "line")
    points = mlflow.get_metric_history(only.info.run_id, metric)
    return sorted((dt.datetime.fromtimestamp(one.timestamp / 1000, dt.UTC).date(), one.value) for one in points)


def head(page: str) -> str:
    """Return the text of the section that stands before Evidently's."""
    section = page.partition("<body>")[2].partition("</section>")[0]
    return unescape(" ".join(re.sub(r"<[^>]*>", " ", section).split()))


def with_columns(**numeric: Any) -> Columns:
    return Columns.model_validate({"numeric": {"columns": ["spent", "payments"], **numeric}})


def test_same_people_drift_not(folder: Path, run: Run) -> None:
    """Rows of the same kind are no drift; the output says how many rows were there and how many were used."""
    found = compared(folder, run, sample_rows=1000)

    assert (found.drift_detected, found.drift_share, found.drifted_columns) == (False, 0, [])
    assert (found.current_rows, found.current_rows_used) == (1500, 1000)
    assert (found.reference_rows, found.reference_rows_used) == (3000, 1000)
    assert list(found.scores) == ["spent", "payments", "city", "active"]
    assert all(0 <= score < 0.1 for score in found.scores.values())
    assert (found.s3_key, found.report, found.run_page) == (None, None, None)


def test_report_goes_everywhere(
    folder: Path, run: Run, publish: Publication, record: Recording, object_store: ObjectStore, mlflow: MlflowClient
) -> None:
    """A drift is on disk, in the bucket as a page of HTML, and in MLflow with share and scores."""
    pq.write_table(users(1, spent=1), folder / NOW)
    found = compared(folder, run, publish=publish, record=record, max_drift_share=0.2)

    assert (found.drift_detected, found.drift_share, found.drifted_columns) == (True, 0.25, ["spent"])
    assert found.s3_key == f"{publish.prefix}/2026-01-05.html"
    own = files_of(InFolder(folder=str(folder)), run).name
    assert found.report == f"s3://{BUCKET}/{publish.prefix}/runs/{own}.html"
    assert Path(found.report_path).samefile(folder / "drift_reports" / "2026-01-05.html")
    stored = object_store.client().get_object(Bucket=BUCKET, Key=found.s3_key)
    page = Path(found.report_path).read_text(encoding="utf-8")
    assert (stored["ContentType"], stored["Body"].read().decode()) == ("text/html", page)
    told = head(page)
    assert told.startswith("Drift on 2026-01-05 Verdict drift: 1 of 4 columns drifted (spent), a share of 0.25 > 0.2")
    assert f"1,500 of 1,500 rows used, from {folder}/{NOW}" in told
    assert "3,000 of 3,000 rows used, from 2 snapshots" in told
    (tracked_run,) = tracked(mlflow, record, "report")
    assert str(found.run_page).endswith(tracked_run.info.run_id)
    assert tracked_run.data.metrics["drift_share"] == 0.25
    assert tracked_run.data.metrics["score/spent"] == pytest.approx(found.scores["spent"])
    assert tracked_run.data.tags["drift.report"] == found.report
    assert tracked_run.data.params["test/city"] == "jensenshannon 0.1"


def test_page_is_self_contained(folder: Path, run: Run) -> None:
    """The page loads nothing from elsewhere."""
    page = Path(compared(folder, run).report_path).read_text(encoding="utf-8")
    loaded = re.findall(r"""<(?:script|img|iframe)[^>]*\ssrc=|<link[^>]*\shref=|url\(["']?https?:""", page)
    assert loaded == []


def test_dates_become_a_line(
    folder: Path, run: Run, publish: Publication, record: Recording, object_store: ObjectStore, mlflow: MlflowClient
) -> None:
    """Weeks that are looked at in any order are points of one line and pages of their own; a rerun replaces its own."""
    keep(folder, run, *weeks(run, 4, 3))
    shares = {}
    for number, (date, spent) in enumerate(zip(weeks(run, 0, 2, 1), (0, 1, 1), strict=True)):
        pq.write_table(users(1, spent=spent), folder / NOW)
        week = replace(run, date=date, run_id=f"week {number}")
        shares[date] = compared(folder, week, publish=publish, record=record).drift_share
    assert line(mlflow, record, "drift_share") == sorted(shares.items())

    pq.write_table(users(1, spent=0), folder / NOW)
    again = compared(folder, week, publish=publish, record=record)

    assert line(mlflow, record, "drift_share") == sorted((shares | {week.date: again.drift_share}).items())
    assert len(tracked(mlflow, record, "report")) == 3
    listed = object_store.client().list_objects_v2(Bucket=BUCKET, Prefix=f"{publish.prefix}/2")["Contents"]
    assert [one["Key"] for one in listed] == [f"{publish.prefix}/{date}.html" for date in sorted(shares)]


def test_runs_of_one_date_keep_their_pages(
    folder: Path, run: Run, publish: Publication, object_store: ObjectStore
) -> None:
    """Two runs of one date each have a page of their own, on disk and in the bucket; the date's is the last one."""
    keep(folder, run, *weeks(run, 2, 1))
    pq.write_table(users(1, spent=1), folder / NOW)
    first, second = (compared(folder, replace(run, run_id=one), publish=publish) for one in ("first", "second"))

    pages = []
    for found, run_id in ((first, "first"), (second, "second")):
        bucket, _, key = str(found.report).removeprefix("s3://").partition("/")
        page = object_store.client().get_object(Bucket=bucket, Key=key)["Body"].read()
        assert f"run {run_id}" in page.decode()
        assert Path(found.report_path).read_bytes() == page
        pages.append(page)
    dated = object_store.client().get_object(Bucket=BUCKET, Key=str(second.s3_key))["Body"].read()
    assert dated == pages[1] == (folder / "drift_reports" / f"{run.date}.html").read_bytes()


def test_rerun_finds_the_same(folder: Path, run: Run) -> None:
    """The same rows, date and arguments give the same output: the sample is drawn by a seed."""
    assert compared(folder, run, sample_rows=200) == compared(folder, run, sample_rows=200)
    later = compared(folder, replace(run, date=run.date + dt.timedelta(days=1)), sample_rows=200)
    assert later.scores != compared(folder, run, sample_rows=200).scores


@pytest.mark.parametrize(
    ("columns", "max_share", "drifted", "detected"),
    [
        (with_columns(threshold=0.9), 0.2, [], False),
        (with_columns(threshold=0.2), 0.2, ["spent"], True),
        (with_columns(threshold=0.2), 0.5, ["spent"], False),
        (with_columns(threshold=0.9, own={"spent": {"threshold": 0.2}}), 0.2, ["spent"], True),
        (with_columns(threshold=0.2, own={"spent": {"threshold": 0.9}}), 0.2, [], False),
        (with_columns(method="ks", threshold=1e-6), 0.2, ["spent"], True),
        (with_columns(method="ks", threshold=1e-60), 0.2, [], False),
        (with_columns(own={"payments": {"method": "psi", "threshold": 0.001}}), 0.2, ["spent", "payments"], True),
    ],
)
def test_yaml_decides_the_verdict(
    folder: Path, run: Run, columns: Columns, max_share: float, drifted: list[str], *, detected: bool
) -> None:
    """Method and threshold, of all columns and of one, and the share of the whole change the verdict."""
    pq.write_table(users(1, spent=0.4), folder / NOW)
    found = compared(folder, run, columns=columns, max_drift_share=max_share)
    assert (found.drifted_columns, found.drift_detected) == (drifted, detected)
    page = Path(found.report_path).read_text(encoding="utf-8")
    verdict = "is detected" if detected else "is NOT detected"
    assert f"Dataset Drift {verdict}. Dataset drift detection threshold is {max_share}" in page


def test_methods_are_evidentlys() -> None:
    """Each method that a spec may name is one that the library has for that kind of column."""
    from evidently.legacy.calculations.stattests import registry

    known = {name: {kind.value for kind in kinds} for name, kinds in registry._registered_stat_tests.items()}
    assert all("num" in known[name] for name in get_args(NumericMethod))
    assert all("cat" in known[name] for name in get_args(CategoricalMethod))


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({}, "should name numeric or categorical columns"),
        ({"numeric": {"columns": ["a", "a"]}}, "should name each column once; a is there twice"),
        ({"numeric": {"columns": ["a"]}, "categorical": {"columns": ["a"]}}, "a is numeric and categorical"),
        ({"numeric": {"columns": ["a"], "own": {"b": {"threshold": 1}}}}, "b is not among them"),
        ({"numeric": {"columns": ["a"], "own": {"a": {"method": "ks"}}}}, "Field required"),
        ({"numeric": {"columns": ["a"], "method": "chisquare"}}, "Input should be 'wasserstein'"),
    ],
)
def test_senseless_columns_are_refused(written: dict[str, Any], message: str) -> None:
    """What a spec says of columns is checked before it runs; a method of its own brings its threshold."""
    with pytest.raises(ValueError, match=message):
        Columns.model_validate_json(json.dumps(written))


# --- which rows are compared ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dated", "last", "rows"),
    [("before_run", 8, 30), ("before_run", 1, 20), ("up_to_run", 8, 60), ("any", 8, 100), ("any", 2, 70)],
)
def test_reference_looks_back(folder: Path, run: Run, dated: Any, last: int, rows: int) -> None:
    """The reference is the last snapshots of the days that count: by default those before the run's own."""
    for path in (folder / HISTORY).iterdir():
        path.unlink()
    for week, size in ((2, 10), (1, 20), (0, 30), (-1, 40)):
        keep(folder, run, *weeks(run, week), table=users(rows=size))
    found = compared(folder, run, reference=FromHistory(history=HISTORY, last=last, dated=dated))
    assert found.reference_rows == rows


def test_any_file_is_compared(folder: Path, run: Run) -> None:
    """Two files are compared as well; widths of numbers do not matter, not even where they are categories."""
    narrow = users(1).set_column(1, "spent", users(1)["spent"].cast(pa.float32()))
    pq.write_table(narrow.append_column("plan", pa.array([1, 2, 3] * 500, pa.int8())), folder / NOW)
    pq.write_table(users(2).append_column("plan", pa.array([1.0, 2.0, 3.0] * 500)), folder / "then.parquet")
    columns = Columns.model_validate({"numeric": {"columns": ["spent"]}, "categorical": {"columns": ["plan"]}})
    found = compared(folder, run, reference=FromFile(file="then.parquet"), columns=columns)
    assert (found.drifted_columns, found.scores["plan"]) == ([], 0)


@pytest.fixture
def queries(run: Run, sql: Sql, tmp_path: Path) -> Iterator[Run]:
    """A run whose configs hold two queries on a table of orders."""
    sql("CREATE TABLE orders (day date, amount numeric(9, 2), paid boolean, country text, tags text[])")
    sql("INSERT INTO orders SELECT d, 100 + n % 50, n % 3 = 0, (ARRAY['AR', 'BR'])[1 + n % 2] "
        "FROM generate_series(1, 800) AS n, (VALUES (DATE '2026-01-04'), (DATE '2026-01-05')) AS days (d)")  # fmt: skip
    sql("UPDATE orders SET amount = amount + 40 WHERE day = '2026-01-05'")
    folder = tmp_path / "configs" / "sql"
    folder.mkdir(parents=True)
    (folder / "orders.sql").write_text("SELECT * FROM orders WHERE day = %(day)s ORDER BY amount, country\n")
    (folder / "bad.sql").write_text("DELETE FROM orders\n")
    return (yield replace(run, configs=tmp_path / "configs"))


def orders(day: str) -> FromQuery:
    return FromQuery(connection="crypto_postgres", sql="orders.sql", values={"day": day})


def test_queries_are_compared(folder: Path, queries: Run) -> None:
    """Two results of Postgres are compared like files: exact numbers, truths, texts and dates."""
    columns = Columns.model_validate(
        {"numeric": {"columns": ["amount", "paid"]}, "categorical": {"columns": ["country", "day"]}}
    )
    found = compared(folder, queries, current=orders("2026-01-05"), reference=orders("2026-01-04"), columns=columns)
    assert found.drifted_columns == ["amount", "day"]
    assert (found.current_rows, found.reference_rows) == (800, 800)


@pytest.mark.parametrize(
    ("current", "column", "error", "message"),
    [
        (orders("2026-01-05"), "tags", DataRejected, "tags is neither number, text nor date"),
        (orders("2026-01-05"), "price", DataRejected, r"orders.sql in crypto_postgres\) .*it has no column price"),
        (orders("2020-01-01"), "amount", DataRejected, "it has no rows"),
        (
            FromQuery(connection="crypto_postgres", sql="bad.sql"),
            "amount",
            PermanentError,
            "not a SELECT",
        ),
        (
            FromQuery(connection="crypto_postgres", sql="orders.sql", values={"d": 1}),
            "amount",
            PermanentError,
            "%.day.s",
        ),
        (
            FromQuery(connection="crypto_postgres", sql="lost.sql"),
            "amount",
            MissingResource,
            "it has bad.sql, orders.sql",
        ),
    ],
)
def test_unfit_query_is_told(
    folder: Path, queries: Run, current: Source, column: str, error: type[Exception], message: str
) -> None:
    """A query that gives no comparable rows, or is none, says what is wrong."""
    columns = Columns.model_validate({"numeric": {"columns": [column]}})
    with pytest.raises(error, match=message):
        compared(folder, queries, current=current, reference=orders("2026-01-04"), columns=columns)


def counts(folder: Path, run: Run) -> tuple[int, int]:
    """Draw of the current rows; what was drawn is freed at the end, before the measured memory is."""
    found = parts(FromFile(file=NOW), COLUMNS.all, InFolder(folder=str(folder)), run)
    side = read("current", found, COLUMNS, Sampler(5000, key=1))
    return side.total, side.used


def test_memory_stays_flat(tmp_path: Path, run: Run) -> None:
    """Snapshots that are five times as long, each in one row group, need no more memory."""
    peaks = []
    for rows in (200_000, 1_000_000):
        pq.write_table(users(rows=rows), tmp_path / NOW, row_group_size=rows)
        with peak_memory() as peak:
            assert counts(tmp_path, run) == (rows, 5000)
        peaks.append(peak())
    assert peaks[1] < 1.2 * peaks[0]


# --- what is refused --------------------------------------------------------------------------------------------


def spoilt(change: str) -> pa.Table:
    """Return current users with something wrong."""
    table = users(1)
    if change == "renamed":
        return table.rename_columns(["user_id", "spend", "payments", "town", "active"])
    if change == "text":
        return table.set_column(1, "spent", table["spent"].cast(pa.string()))
    if change == "null":
        return table.set_column(1, "spent", pa.nulls(len(table), pa.float64()))
    if change == "untyped":
        return table.set_column(1, "spent", pa.nulls(len(table)))
    if change == "infinite":
        return table.set_column(1, "spent", pa.array(np.full(len(table), np.inf)))
    return table.slice(0, 0)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("renamed", "it has no column spent; it has no column city"),
        ("text", "spent is text, which cannot be compared as numeric"),
        ("null", "spent has no value in any of the 1,500 rows that were drawn"),
        ("untyped", "spent is null in every row, which cannot be compared as numeric"),
        ("infinite", "spent has infinite values"),
        ("empty", "it has no rows"),
    ],
)
@pytest.mark.parametrize("side", ["current", "reference"])
def test_unfit_table_changes_nothing(folder: Path, run: Run, side: str, change: str, problem: str) -> None:
    """A table that cannot be compared is named with all that is wrong in it; the old report stays."""
    old = folder / "drift_reports" / "2026-01-05.html"
    old.parent.mkdir()
    old.write_text("old")
    if side == "current":
        pq.write_table(spoilt(change), folder / NOW)
    else:
        keep(folder, run, *weeks(run, 2, 1), table=spoilt(change))

    with pytest.raises(DataRejected) as caught:
        compared(folder, run)

    told = str(caught.value)
    if side == "reference" and change in {"text", "untyped"}:
        problem = problem.replace(", which cannot be compared as numeric", f", and a number in {folder}/{NOW}")
    if side == "reference":
        problem = problem.replace("1,500", "3,000")
    assert told.startswith(f"{side} ({folder}/")
    assert f"cannot be compared: {problem}; fix the pipeline that writes it" in told
    assert old.read_text() == "old"
    assert [one.name for one in old.parent.iterdir()] == ["2026-01-05.html"]


def test_type_that_changed_is_named(folder: Path, run: Run) -> None:
    """A category that was a text and is a number now is told of with both places."""
    pq.write_table(users(1).set_column(3, "city", pa.array([1] * 1500)), folder / NOW)
    first = folder / HISTORY / f"snapshot_date={weeks(run, 2)[0]}.parquet"
    with pytest.raises(DataRejected) as caught:
        compared(folder, run)
    assert f"reference ({first}) cannot be compared: city is text, and a number in {folder}/{NOW}" in str(caught.value)


def test_missing_history_names_pipeline(folder: Path, run: Run) -> None:
    """Without a history the error says which pipeline to run first; with a later one only, what else can be done."""
    absent = FromHistory(history="no.parquet", written_by="churn_training_dag")
    with pytest.raises(MissingResource) as caught:
        compared(folder, run, reference=absent)
    told = f"reference history 'no.parquet' does not exist in {folder}; run churn_training_dag first"
    assert str(caught.value) == told

    early = replace(run, date=weeks(run, 2)[0])
    with pytest.raises(PermanentError, match=r"no snapshot dated before 2025-12-22, only snapshot_date=2025-12-22, .*"):
        compared(folder, early)


def test_missing_file_is_named(folder: Path, run: Run) -> None:
    """A current file that is not there says so, and one that is cut off too."""
    with pytest.raises(MissingResource, match=r"^file 'no.parquet' does not exist in .*; run the_dag first$"):
        compared(folder, run, current=FromFile(file="no.parquet", written_by="the_dag"))
    (folder / NOW).write_bytes((folder / NOW).read_bytes()[:-9])
    with pytest.raises(PermanentError, match=r"now.parquet is not a complete parquet file"):
        compared(folder, run)


def test_missing_bucket_is_named(folder: Path, run: Run, object_store: ObjectStore) -> None:
    """A bucket that is not there is told of before anything is computed, and no page is left on disk."""
    nowhere = Publication(connection="object_store", bucket="no-such-bucket", prefix="drift-reports")
    with pytest.raises(MissingResource, match="bucket 'no-such-bucket' does not exist in object store"):
        compared(folder, run, publish=nowhere)
    assert not (folder / "drift_reports").exists()


def test_refused_keys_change_nothing(
    folder: Path, run: Run, publish: Publication, record: Recording, mlflow: MlflowClient, monkeypatch: Any
) -> None:
    """Keys that the bucket refuses leave the report of before: on disk, in the bucket and in MLflow."""
    compared(folder, run, publish=publish, record=record)
    page = folder / "drift_reports" / "2026-01-05.html"
    before = page.read_bytes(), line(mlflow, record, "score/spent")
    connection = json.loads(os.environ["AIRFLOW_CONN_OBJECT_STORE"])
    monkeypatch.setenv("AIRFLOW_CONN_OBJECT_STORE", json.dumps({**connection, "password": "wrong"}))
    pq.write_table(users(1, spent=1), folder / NOW)

    with pytest.raises(PermanentError, match=r"refused access to bucket 'mlflow-artifacts' \(403\); check the keys"):
        compared(folder, run, publish=publish, record=record)

    assert (page.read_bytes(), line(mlflow, record, "score/spent")) == before


def test_late_refusal_changes_nothing(
    folder: Path, run: Run, publish: Publication, record: Recording, mlflow: MlflowClient
) -> None:
    """A bucket that refuses the page itself, when all is computed, leaves the report of before too."""
    compared(folder, run, publish=publish, record=record)
    page = folder / "drift_reports" / "2026-01-05.html"
    before = page.read_bytes(), line(mlflow, record, "score/spent")
    pq.write_table(users(1, spent=1), folder / NOW)
    too_long = publish.model_copy(update={"prefix": "x" * 1100})

    with pytest.raises((PermanentError, TransientError)):
        compared(folder, run, publish=too_long, record=record)

    assert (page.read_bytes(), line(mlflow, record, "score/spent")) == before
    assert len(tracked(mlflow, record, "report")) == 1


def test_mlflow_down_is_told(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """An MLflow that does not answer is transient, and no page is written."""
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_NOWHERE", json.dumps({"conn_type": "http", "host": "127.0.0.1", "port": 9}))
    with pytest.raises(TransientError, match="it does not answer"):
        compared(folder, run, record=Recording(connection="mlflow_nowhere", experiment="drift"))
    assert not (folder / "drift_reports").exists()
