"""The cleaning of one CSV against the bare Spark that it amounts to: read, cast, filter, deduplicate, write parquet.

Both run in one JVM on two threads, one after the other, and the best of each counts. The task does more: it counts
what it drops by column and reason, keeps the first of each key, and makes one file of Spark's parts.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
from pyarrow import csv
from rich.console import Console
from rich.table import Table

from stack.java import choose
from tasks.contract import Run
from tasks.files.places import InFolder
from tasks.spark.cleaning import CsvSource, FromSource, FromSql, clean_csv
from tasks.spark.session import spark_session

CONNECTION = "spark_default"
DATE = dt.date(2026, 1, 5)
BLOCK = 500_000
LIMIT = 2.0
SOURCE: dict[str, Any] = {
    "file": "PAYMENTS.csv",
    "unique": ["paid_on", "seller_id", "user_id", "spent"],
    "columns": {
        "FECHA": {"name": "paid_on", "type": "date", "required": True, "not_after": {"date": str(DATE)}},
        "CUS_CUST_ID_SEL": {"name": "seller_id", "type": "integer", "minimum": 1},
        "CUS_CUST_ID_BUY": {"name": "user_id", "type": "integer", "required": True, "minimum": 1},
        "SPENT": {"name": "spent", "type": "number", "required": True, "minimum": 0, "maximum": 1_000_000},
        "TPV_SEGMENT_DETAIL": {"name": "segment", "type": "text", "values": ["QR", "Point", "Online", "Services"]},
        "DESCUENTO": {"name": "discount", "type": "number", "minimum": 0},
    },
}
BARE = """
    SELECT try_cast(FECHA AS date) AS paid_on, try_cast(CUS_CUST_ID_SEL AS bigint) AS seller_id,
           try_cast(CUS_CUST_ID_BUY AS bigint) AS user_id, try_cast(SPENT AS double) AS spent,
           TPV_SEGMENT_DETAIL AS segment, try_cast(DESCUENTO AS double) AS discount
    FROM lines
    WHERE try_cast(FECHA AS date) <= DATE'2026-01-05' AND try_cast(CUS_CUST_ID_BUY AS bigint) >= 1
      AND try_cast(SPENT AS double) BETWEEN 0 AND 1000000
"""


def main(argv: list[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000, help="rows of the CSV")
    parser.add_argument("--rounds", type=int, default=3, help="times that each is measured; the best counts")
    asked = parser.parse_args(argv)
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory(prefix="taskflow-bench-") as folder:
        project = Path(folder)
        java = choose(project / "java", os.environ.get("JAVA_HOME"))
        java.prepare()
        os.environ |= {"JAVA_HOME": str(java.home), "SPARK_LOCAL_IP": "127.0.0.1", "SPARK_LOCAL_DIRS": folder}
        os.environ["AIRFLOW_CONN_SPARK_DEFAULT"] = json.dumps({"conn_type": "spark", "host": "local[2]"})
        (project / "data").mkdir()
        write_payments(project / "data" / "PAYMENTS.csv", asked.rows)
        run = Run("churn_training_dag", "benchmark", "clean", DATE, configs=project / "configs")
        rounds = [(timed(lambda: bare(project, run)), timed(lambda: task(run))) for _ in range(asked.rounds)]
        report(asked.rows, *(min(times) for times in zip(*rounds, strict=True)))


def write_payments(file: Path, rows: int) -> None:
    """Write payments of which about two in a hundred are dirty, and one in two hundred stands twice."""
    chance = np.random.default_rng(7)
    dirt = np.array(["2026-02-31", "", "2099-12-31", "31/12/2025"])
    with csv.CSVWriter(file, pa.schema([(name, pa.string()) for name in SOURCE["columns"]])) as writer:
        for start in range(0, rows, BLOCK):
            size = min(BLOCK, rows - start)
            days = (np.datetime64(DATE) - chance.integers(0, 180, size)).astype(str).astype(object)
            bad = chance.random(size) < 0.01
            days[bad] = chance.choice(dirt, bad.sum())
            spent = chance.gamma(2, 900, size).round(2)
            spent[chance.random(size) < 0.01] *= -1
            columns = [
                days,
                chance.integers(1, 50_000, size).astype(str),
                chance.integers(1, max(rows // 5, 2), size).astype(str),
                spent.astype(str),
                chance.choice(["QR", "Point", "Online", "Services"], size),
                (spent.clip(0) * 0.1).round(2).astype(str),
            ]
            table = pa.table([pa.array(column, pa.string()) for column in columns], names=list(SOURCE["columns"]))
            twice = np.sort(np.concatenate([np.arange(size), chance.integers(0, size, size // 200)]))[:size]
            writer.write_table(table.take(twice))


def task(run: Run) -> None:
    """Clean with the registered task."""
    source = CsvSource.model_validate_json(json.dumps(SOURCE))
    outputs: dict[str, FromSource | FromSql] = {"payments.parquet": FromSource(source="payments")}
    clean_csv(CONNECTION, {"payments": source}, outputs, "report.json", InFolder(folder="data"), run=run)


def bare(project: Path, run: Run) -> None:
    """Do the like with nothing but Spark, in a session of the same settings."""
    schema = ", ".join(f"{name} STRING" for name in SOURCE["columns"])
    with spark_session(CONNECTION, run) as session:
        lines = session.read.csv(str(project / "data" / "PAYMENTS.csv"), schema=schema, header=True)
        lines.createOrReplaceTempView("lines")
        kept = session.sql(BARE).dropDuplicates(SOURCE["unique"])
        kept.write.mode("overwrite").parquet(str(project / "bare"))


def timed(action: Callable[[], object]) -> float:
    """Return how many seconds `action` takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def report(rows: int, bare_seconds: float, task_seconds: float) -> None:
    """Print the table."""
    table = Table(title=f"Cleaning {rows:,} payments on Spark, two threads")
    for heading in ("", "seconds", "ratio", "at most"):
        table.add_column(heading, justify="right" if heading else "left")
    ratio = task_seconds / bare_seconds
    colour = "green" if ratio <= LIMIT else "red"
    table.add_row("bare Spark", f"{bare_seconds:.1f}", "", "")
    table.add_row("spark.clean_csv", f"{task_seconds:.1f}", f"[{colour}]{ratio:.2f}", f"{LIMIT:g}")
    Console().print(table)
    used = psutil.Process().memory_info().rss / 2**20
    Console().print(f"Python holds {used:,.0f} MiB at the end; the JVM's heap is limited by spark.driver.memory.")


if __name__ == "__main__":
    main()
