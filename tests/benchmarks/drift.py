"""drift.report on a reference of eight snapshots and a current table, a million rows each; beside Evidently alone.

Each is measured in a process of its own, as a task is one: its time, and the most memory that it had. Evidently alone
reads the same number of rows as are drawn, of one table and at once: what is above it is the reading and the drawing.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

DATE = dt.date(2026, 3, 1)
LIMIT_MB = 1000
BLOCK = 100_000
NUMBERS, CATEGORIES = [f"n{one}" for one in range(15)], [f"c{one}" for one in range(5)]


def main(argv: list[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of each of the nine tables")
    parser.add_argument("--sample", type=int, default=20_000, help="rows that are drawn of each side")
    asked = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="taskflow-bench-") as name:
        folder = Path(name)
        in_process(write_tables, folder, asked.rows)
        measured = {
            "drift.report, 20 columns": in_process(task, folder, asked.sample),
            "Evidently alone": in_process(alone, folder, asked.sample),
        }
    report(measured, asked.rows, asked.sample)


def in_process(action: Callable[..., None], *arguments: Any) -> tuple[float, float]:
    """Run an action in a fresh process; return its seconds and the most megabytes that it had."""
    context = multiprocessing.get_context("spawn")
    results: Any = context.SimpleQueue()
    process = context.Process(target=watched, args=(results, action, *arguments))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{action.__name__} failed")
    seconds, megabytes = results.get()
    return seconds, megabytes


def watched(results: Any, action: Callable[..., None], *arguments: Any) -> None:
    """Run an action, and put its seconds and the most megabytes that the process had."""
    started = time.perf_counter()
    action(*arguments)
    results.put((time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def write_tables(folder: Path, rows: int) -> None:
    """Write the current table and eight snapshots, each in one row group, which is the hardest to read in parts."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    chance = np.random.default_rng(7)
    texts = np.array(["Cordoba", "Rosario", "Salta", "Mendoza"])
    names = [f"history/snapshot_date={DATE - dt.timedelta(weeks=week)}" for week in range(1, 9)]
    (folder / "history").mkdir()
    for name in ["now", *names]:
        numbers = {one: chance.gamma(2, 3, rows) for one in NUMBERS}
        table = pa.table(numbers | {one: texts[chance.integers(0, 4, rows)] for one in CATEGORIES})
        pq.write_table(table, folder / f"{name}.parquet", row_group_size=rows)


def task(folder: Path, sample: int) -> None:
    """Report as the step does, to a folder."""
    from tasks.contract import Run
    from tasks.drift.columns import Columns
    from tasks.drift.compared_rows import FromFile, FromHistory
    from tasks.drift.monitor import report as drift_report
    from tasks.files.places import InFolder

    written = {"numeric": {"columns": NUMBERS}, "categorical": {"columns": CATEGORIES}}
    run = Run("churn_drift_monitor_w", "benchmark", "report", DATE, configs=folder / "configs")
    found = drift_report(
        FromFile(file="now.parquet"),
        FromHistory(history="history"),
        Columns.model_validate_json(json.dumps(written)),
        "reports",
        InFolder(folder=str(folder)),
        sample_rows=sample,
        run=run,
    )
    assert found.reference_rows == 8 * found.current_rows


def alone(folder: Path, sample: int) -> None:
    """Read as many rows as are drawn, and let Evidently compare them and write its page."""
    import os

    os.environ["DO_NOT_TRACK"] = "1"
    import pyarrow.parquet as pq
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    with pq.ParquetFile(folder / "now.parquet", buffer_size=1 << 20) as table:
        batches = table.iter_batches(sample)
        frames = [next(batches).to_pandas() for _ in range(2)]
    kinds = DataDefinition(numerical_columns=NUMBERS, categorical_columns=CATEGORIES)
    sides = [Dataset.from_pandas(one, data_definition=kinds) for one in frames]
    found = Report([DataDriftPreset()], include_tests=True).run(*sides)
    (folder / "alone.html").write_text(found.get_html_str(as_iframe=False), encoding="utf-8")


def report(measured: dict[str, tuple[float, float]], rows: int, sample: int) -> None:
    """Print the table."""
    table = Table(title=f"Drift of {rows:,} rows against 8 x {rows:,}, {sample:,} drawn of each side")
    for heading in ("", "seconds", "most memory", "at most"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, (seconds, megabytes) in measured.items():
        colour = "green" if megabytes <= LIMIT_MB else "red"
        table.add_row(name, f"{seconds:.1f}", f"[{colour}]{megabytes:,.0f} MB", f"{LIMIT_MB:,} MB")
    Console().print(table)


if __name__ == "__main__":
    main()
