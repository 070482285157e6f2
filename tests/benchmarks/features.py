"""spark.build_table with the churn pipeline's SQL, against the same SQL in a bare Spark session that writes parquet.

Runs Spark in its own process tree, on the users asked for; each begins a session of its own, on a Java that is warm.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import logging
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from stack import java as javas
from tasks.contract import Run
from tasks.files.places import InFolder
from tasks.spark.features import build_table
from tasks.spark.session import spark_session
from tests.support.churn import build_users, write_inputs

ROOT = Path(__file__).parents[2]
AS_OF, HORIZON_DAYS, WINDOW_DAYS = dt.date(2026, 1, 31), 30, 90
SQL = "churn/features.sql"
INPUTS = {"payments": "payments.parquet", "users": "users.parquet"}
VALUES = {"as_of": AS_OF, "window_days": WINDOW_DAYS, "horizon_days": HORIZON_DAYS}
LIMIT = 2
"""How many times its bare SQL the step may take."""


def task(folder: Path, run: Run) -> None:
    """Build the features as the step does."""
    files = InFolder(folder=str(folder))
    build_table("spark_default", INPUTS, SQL, ["user_id"], "features.parquet", files, VALUES, run=run)


def bare(folder: Path, run: Run) -> None:
    """Build them with Spark alone: the rows in any order, unchecked, in as many files as there are partitions."""
    shutil.rmtree(folder / "bare", ignore_errors=True)
    with spark_session("spark_default", run) as session:
        for name, file in INPUTS.items():
            session.read.parquet(str(folder / file)).createOrReplaceTempView(name)
        text = (ROOT / "configs" / "sql" / SQL).read_text(encoding="utf-8")
        session.sql(text, args=VALUES).write.parquet(str(folder / "bare"))


def main(argv: list[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=300_000, help="users known to the exports")
    parser.add_argument("--rounds", type=int, default=3, help="times that each is measured; the best counts")
    asked = parser.parse_args(argv)
    logging.disable(logging.INFO)
    run = Run("churn_training_dag", "benchmark", "features", AS_OF, configs=ROOT / "configs")
    with tempfile.TemporaryDirectory(prefix="tf-") as folder, spark(Path(folder)):
        data = Path(folder) / "data"
        write_inputs(data, asked.users, AS_OF, HORIZON_DAYS)
        build_users(data, run)
        report(measured(data, run, asked.rounds), data, asked.users)


@contextmanager
def spark(folder: Path) -> Iterator[None]:
    """Give the connection `spark_default`, a Spark in this process tree on all processors, for the block."""
    os.environ["AIRFLOW_HOME"] = str(folder / "airflow")
    java = javas.choose(folder / "java", os.environ.get("JAVA_HOME"))
    java.prepare()
    os.environ["JAVA_HOME"] = str(java.home)
    os.environ["SPARK_LOCAL_DIRS"] = str(folder / "scratch")
    os.environ["AIRFLOW_CONN_SPARK_DEFAULT"] = json.dumps({"conn_type": "spark", "host": "local[*]"})
    with spark_session("spark_default", Run("d", "r", "warm", AS_OF)) as session:
        session.range(1).count()
    yield


def measured(folder: Path, run: Run, rounds: int) -> tuple[float, float]:
    """Return the best time of the step and of its bare SQL; they take turns at being first."""
    seconds: dict[Callable[[Path, Run], None], list[float]] = {task: [], bare: []}
    for nth in range(rounds):
        for action in list(seconds)[:: 1 if nth % 2 == 0 else -1]:
            started = time.perf_counter()
            action(folder, run)
            seconds[action].append(time.perf_counter() - started)
    return min(seconds[task]), min(seconds[bare])


def report(best: tuple[float, float], folder: Path, users: int) -> None:
    """Print the table."""
    paid, built = (pq.read_metadata(folder / f"{name}.parquet").num_rows for name in ("payments", "features"))
    table = Table(title=f"Features of {built:,} of {users:,} users, from {paid:,} payments")
    for heading in ("", "task", "bare SQL", "ratio", "at most"):
        table.add_column(heading, justify="right" if heading else "left")
    ratio = best[0] / best[1]
    colour = "green" if ratio <= LIMIT else "red"
    table.add_row(SQL, f"{best[0]:.2f} s", f"{best[1]:.2f} s", f"[{colour}]{ratio:.2f}", f"{LIMIT}")
    Console().print(table)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    Console().print(f"Python held at most {peak:.0f} MB, the making of the inputs included; the rows are in the JVM.")


if __name__ == "__main__":
    main()
