"""The nine-candidate grid of churn_training_dag, against other ways to fit it, in one run.

The training's core (checked, split, assembled once and cached; three fits at a time; measured in one job) against
plain Spark (read, prepared, fitted and measured for each candidate, nothing kept), and against scikit-learn on the
same features and rows. Then the memory of the driver as rows grow: Python and JVM, with an executor in a JVM of its own
as on a cluster. No MLflow: what is recorded does not depend on the rows.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from rich.console import Console
from rich.table import Table

from stack import java
from tasks.contract import Run
from tasks.models.training import Job, fit_grid, prepared
from tasks.spark.session import spark_session
from tests.support.customers import FEATURES, write_customers
from tests.support.grids import job, layout

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

REG, NET = [0.001, 0.01, 0.1], [0.0, 0.5, 1.0]
GRID = {"logistic_regression": {"reg_param": REG, "elastic_net_param": NET}}
RUN = Run("churn_training_dag", "benchmark", "train_spark_model", dt.date(2026, 1, 5))
MEMORY_ROWS = (100_000, 1_000_000)
_MEBIBYTE = 2**20


@dataclass(frozen=True)
class Line:
    """One way to fit the grid."""

    name: str
    seconds: float
    processor: float
    """Seconds of processor time, Python and JVM: what others on the machine do changes these less."""
    roc_auc: float


def main(argv: list[str] | None = None) -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows that are compared on")
    parser.add_argument("--rounds", type=int, default=2, help="times that each is measured; the best counts")
    parser.add_argument("--memory", type=int, nargs="*", default=MEMORY_ROWS, help="rows for which memory is measured")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args(argv)
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory(prefix="tf-") as folder:
        chosen = java.choose(Path(folder) / "java", os.environ.get("JAVA_HOME"))
        chosen.prepare()
        os.environ["JAVA_HOME"] = str(chosen.home)
        if asked.child:
            connect("local-cluster[1,2,3072]", {"spark.executor.memory": "3g", "spark.driver.memory": "1g"})
            sys.stdout.write(json.dumps(peaks(asked.child)))
            return
        connect("local[2]", {})
        report(compared(write_customers(Path(folder) / "c.parquet", asked.rows), asked.rounds), asked.rows)
        report_memory({rows: peaks_of_child(rows, Path(folder)) for rows in asked.memory})


def connect(master: str, conf: dict[str, str]) -> None:
    """Let the sessions of this process run on `master`."""
    connection = {"conn_type": "spark", "host": master, "extra": {"conf": conf}}
    os.environ["AIRFLOW_CONN_SPARK_DEFAULT"] = json.dumps(connection)


def compared(path: Path, rounds: int) -> list[Line]:
    """Return every way with its best time and its best ROC AUC; they take turns in one warm session."""
    ways: dict[str, Callable[[SparkSession, Path], float]] = {
        "this training": ours,
        "plain Spark, uncached, in turn": plain,
        "scikit-learn": scikit_learn,
    }
    small = write_customers(path.with_name("small.parquet"), 5_000)
    with spark_session("spark_default", RUN) as session:
        for fit in (ours, plain):
            fit(session, small)  # the JVM warms up here, for both
        found = [timed(name, fit, session, path) for _ in range(rounds) for name, fit in ways.items()]
    return [min((line for line in found if line.name == name), key=lambda line: line.seconds) for name in ways]


def timed(name: str, fit: Callable[[SparkSession, Path], float], session: SparkSession, path: Path) -> Line:
    """Return how long `fit` takes and what it returns."""
    started, busy = time.perf_counter(), processor()
    best = fit(session, path)
    return Line(name, time.perf_counter() - started, processor() - busy, best)


def processor() -> float:
    """Return the processor time that this process and those below it have had."""
    me = psutil.Process()
    times = [one.cpu_times() for one in (me, *me.children(recursive=True))]
    return sum(one.user + one.system for one in times)


def grid() -> Job:
    """Return the pipeline's training."""
    return job(RUN, GRID, parallelism=3)


def ours(session: SparkSession, path: Path) -> float:
    """Return the best ROC AUC by the training's own core."""
    with prepared(session.read.parquet(path.as_uri()), grid()) as given:
        return fit_grid(given, grid()).best.roc_auc


def plain(session: SparkSession, path: Path) -> float:
    """Return the best ROC AUC by a pipeline of Spark's own stages for each candidate."""
    from pyspark.ml.evaluation import BinaryClassificationEvaluator

    measure = BinaryClassificationEvaluator(labelCol="label")
    areas = []
    for reg, net in product(REG, NET):
        train, test = split(session.read.parquet(path.as_uri()))
        areas.append(measure.evaluate(pipeline(reg, net).fit(train).transform(test)))
    return max(areas)


def split(frame: DataFrame) -> tuple[DataFrame, DataFrame]:
    """Return training rows and holdout: the same as the training's."""
    from pyspark.sql import functions as sql

    from tasks.models.preparation import sampled

    terms = layout()
    numbers = [sql.col(name).cast("double").alias(name) for name in FEATURES["numeric"]]
    texts = [sql.coalesce(sql.col(name).cast("string"), sql.lit("?")).alias(name) for name in FEATURES["categorical"]]
    rows = frame.select("user_id", *numbers, *texts, sql.col("churned").cast("double").alias("label"))
    held_out = sampled(terms.key, terms.seed, terms.holdout)
    return rows.where(~held_out), rows.where(held_out)


def pipeline(reg: float, net: float) -> Any:
    """Return the stages that a textbook would use, unfitted."""
    from pyspark.ml import Pipeline
    from pyspark.ml.classification import LogisticRegression
    from pyspark.ml.feature import Imputer, OneHotEncoder, StandardScaler, StringIndexer, VectorAssembler

    numbers, texts = FEATURES["numeric"], FEATURES["categorical"]
    known, index, levels = (
        [f"{name}_{kind}" for name in names] for kind, names in (("k", numbers), ("i", texts), ("l", texts))
    )
    return Pipeline(
        stages=[
            Imputer(inputCols=numbers, outputCols=known),
            StringIndexer(inputCols=texts, outputCols=index, handleInvalid="keep"),
            OneHotEncoder(inputCols=index, outputCols=levels),
            VectorAssembler(inputCols=known, outputCol="numbers"),
            StandardScaler(inputCol="numbers", outputCol="scaled", withMean=True),
            VectorAssembler(inputCols=["scaled", *levels], outputCol="features"),
            LogisticRegression(regParam=reg, elasticNetParam=net, maxIter=100, standardization=False),
        ]
    )


def scikit_learn(session: SparkSession, path: Path) -> float:
    """Return the best ROC AUC by scikit-learn, in this process."""
    from sklearn.metrics import roc_auc_score

    train, test = (part.toPandas() for part in split(session.read.parquet(path.as_uri())))
    vectors = scikit_vectors().fit(train)
    rows, held_out = vectors.transform(train), vectors.transform(test)
    areas = []
    for reg, net in product(REG, NET):
        fitted = scikit_model(reg, net, len(train)).fit(rows, train["label"])
        areas.append(roc_auc_score(test["label"], fitted.predict_proba(held_out)[:, 1]))
    return float(max(areas))


def scikit_vectors() -> Any:
    """Return the same preparation by scikit-learn."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    levels = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    return ColumnTransformer([("numbers", numbers, FEATURES["numeric"]), ("levels", levels, FEATURES["categorical"])])


def scikit_model(reg: float, net: float, rows: int) -> Any:
    """Return the same penalty: scikit-learn's is the inverse, of the sum instead of the mean."""
    from sklearn.linear_model import LogisticRegression

    solver = "lbfgs" if net == 0 else "saga"
    return LogisticRegression(C=1 / (reg * rows), l1_ratio=net, solver=solver, max_iter=100)


def peaks_of_child(rows: int, folder: Path) -> dict[str, float]:
    """Return the greatest memory of a process that does nothing but train."""
    path = write_customers(folder / f"{rows}.parquet", rows)
    command = [sys.executable, "-m", "tests.benchmarks.training", "--child", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def peaks(path: Path) -> dict[str, float]:
    """Return the greatest resident memory in MiB of each kind of process while the grid is fitted."""
    from tasks.models.training import _pipeline, _sample

    seen: dict[str, float] = {"python": 0.0, "driver": 0.0, "executor": 0.0}
    over, process = threading.Event(), psutil.Process()

    def watch() -> None:
        while not over.wait(0.2):
            for one in (process, *process.children(recursive=True)):
                with suppress(psutil.NoSuchProcess):
                    kind = kind_of(one)
                    seen[kind] = max(seen[kind], one.memory_info().rss / _MEBIBYTE)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    started = time.perf_counter()
    with spark_session("spark_default", RUN) as session, prepared(session.read.parquet(path.as_uri()), grid()) as given:
        fit = fit_grid(given, grid())
        _sample(given, layout(), fit.inputs, _pipeline(fit.best.fitted.model, fit.stages))
    seconds = time.perf_counter() - started
    over.set()
    watcher.join()
    return {**seen, "seconds": seconds}


def kind_of(process: psutil.Process) -> str:
    """Return whether it is Python, the driver's JVM or the executor's."""
    if "java" not in process.name():
        return "python"
    return "executor" if "CoarseGrainedExecutorBackend" in " ".join(process.cmdline()) else "driver"


def report(lines: list[Line], rows: int) -> None:
    """Print the comparison."""
    table = Table(title=f"Nine candidates on {rows:,} rows ({dt.date.today()})")  # noqa: DTZ011
    for heading in ("", "seconds", "times ours", "processor s", "times ours", "best ROC AUC"):
        table.add_column(heading, justify="right" if heading else "left")
    for line in lines:
        ratio, busy = line.seconds / lines[0].seconds, line.processor / lines[0].processor
        cells = (f"{line.seconds:.1f}", f"{ratio:.2f}", f"{line.processor:.1f}", f"{busy:.2f}", f"{line.roc_auc:.6f}")
        table.add_row(line.name, *cells)
    Console().print(table)


def report_memory(found: dict[int, dict[str, float]]) -> None:
    """Print the memory."""
    table = Table(title="Greatest resident memory while the grid is fitted and the holdout sampled, MiB")
    for heading in ("rows", "driver: Python", "driver: JVM", "executor's JVM", "seconds, cold"):
        table.add_column(heading, justify="right")
    for rows, peak in found.items():
        sizes = (f"{peak[kind]:.0f}" for kind in ("python", "driver", "executor"))
        table.add_row(f"{rows:,}", *sizes, f"{peak['seconds']:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
