"""The guide's pipelines from files and tables into tables and files, as `taskflow run` runs them."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from stack.database import Database
from stack.paths import REPOSITORY
from tests.support.warm_taskflow import Warm

CONFIGS = "places: {data: {folder: data}}\nwith: {'*': {files: data}}\n"
DAY = "2026-01-05"
CSV = f'order_id,ordered_on,price,note\n1,{DAY},9.50,first\n2,{DAY},0.50,""\n3,2026-01-04,1,\n'


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with the examples of the guide, each as a spec of its name."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "defaults.yaml").write_text(CONFIGS)
    (tmp_path / "pipelines").mkdir()
    for text in re.findall(r"```yaml\n(dag_id: (?:orders|customers|shop)\n.*?)```", guide(), re.DOTALL):
        name = text.partition("\n")[0].removeprefix("dag_id: ")
        (tmp_path / "pipelines" / f"{name}.yaml").write_text(text)
    return tmp_path


def guide() -> str:
    section = (REPOSITORY / "docs" / "guide.md").read_text().partition("## Files and tables")[2]
    return section.partition("\n## ")[0]


def run(taskflow: Warm, project: Path, name: str) -> str:
    done = taskflow(project, "run", name, "--date", DAY)
    assert done.returncode == 0, done.stdout + done.stderr
    return " ".join(done.stdout.split())


def test_files_reach_production_through_a_gate(database: Database, project: Path, warm_taskflow: Warm) -> None:
    """A day's file is loaded, judged, merged and counted, and its summary is a file. A rerun changes nothing."""
    folder = project / "data" / "incoming" / DAY
    folder.mkdir(parents=True)
    rows = CSV + "".join(f"{n},{DAY},1,more\n" for n in range(4, 24)) + "x,y,z,bad\n"
    (folder / "orders.csv").write_text(rows)
    with database.connect() as session, session.cursor() as cursor:
        cursor.execute("CREATE SCHEMA staging; CREATE SCHEMA prod")
        cursor.execute(
            "CREATE TABLE prod.orders (order_id bigint PRIMARY KEY, ordered_on date, price numeric, note text)"
        )
        for _ in range(2):
            said = run(warm_taskflow, project, "orders")
            assert f"22 orders of {DAY}" in said
            cursor.execute("SELECT count(*), count(note), sum(price) FROM prod.orders")
            assert [str(one) for one in cursor.fetchall()[0]] == ["23", "22", "31.00"]
        cursor.execute("SELECT line, reason, raw FROM staging.orders_bad")
        bad = 'column order_id: invalid input syntax for type bigint: "x"'
        assert cursor.fetchall() == [(25, bad, "x,y,z,bad")] * 2
    summary = pq.read_table(project / "data" / "orders" / f"{DAY}.parquet").to_pylist()
    assert [(str(row["ordered_on"]), row["orders"], str(row["total"])) for row in summary] == [(DAY, 22, "30.00")]


def test_rows_of_a_day_come_from_another_database(
    database: Database, project: Path, warm_taskflow: Warm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows that changed on the run's date are copied, judged and merged."""
    monkeypatch.setenv("AIRFLOW_CONN_SHOP_POSTGRES", database.airflow_connection)
    columns = "(customer_id bigint PRIMARY KEY, name text, updated_at timestamptz)"
    with database.connect() as session, session.cursor() as cursor:
        cursor.execute("CREATE SCHEMA staging; CREATE SCHEMA prod")
        cursor.execute(f"CREATE TABLE public.customers {columns}; CREATE TABLE prod.customers {columns}")
        cursor.execute("""
            INSERT INTO public.customers VALUES (1, 'a', '2026-01-04 23:59:59.999+00'), (2, 'b', '2026-01-05 00:00+00'),
                (3, 'c', '2026-01-05 23:59+00'), (4, 'd', '2026-01-06 00:00+00')
        """)
        run(warm_taskflow, project, "customers")
        cursor.execute("SELECT customer_id FROM prod.customers ORDER BY 1")
        assert cursor.fetchall() == [(2,), (3,)]


def test_each_table_is_copied_judged_and_merged(
    database: Database, project: Path, warm_taskflow: Warm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One spec brings two tables from another database, each through a gate of its own."""
    monkeypatch.setenv("AIRFLOW_CONN_SHOP_POSTGRES", database.airflow_connection)
    with database.connect() as session, session.cursor() as cursor:
        cursor.execute("CREATE SCHEMA staging; CREATE SCHEMA prod")
        for name, key in (("products", "product_id"), ("shops", "shop_id")):
            cursor.execute(f"CREATE TABLE public.{name} AS SELECT n AS {key}, 'x' AS name FROM generate_series(1, 3) n")
            cursor.execute(f"CREATE TABLE prod.{name} ({key} int PRIMARY KEY, name text)")
        said = run(warm_taskflow, project, "shop")
        assert "3 shops are new" in said
        assert "3 products are new" in said
        cursor.execute("SELECT (SELECT count(*) FROM prod.products), (SELECT sum(shop_id) FROM prod.shops)")
        assert cursor.fetchall() == [(3, 6)]
