"""One pass of Airflow's dag-processor over 500 specs, beside 500 hand-written files; each pass in a fresh home."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.benchmarks.pipelines import write_all

CONSOLE = Console()
FOLDERS = {"hand_written": "hand_written", "ours": "ours/pipelines"}
AIRFLOW = Path(sys.executable).parent / "airflow"


def one_pass(folder: Path) -> float:
    """Return the seconds of `airflow dag-processor --num-runs 1` over `folder`, with a migrated database."""
    with tempfile.TemporaryDirectory() as home:
        settings = {
            "AIRFLOW_HOME": home,
            "AIRFLOW__CORE__DAGS_FOLDER": str(folder),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
        }
        environment = os.environ | settings
        subprocess.run([AIRFLOW, "db", "migrate"], env=environment, capture_output=True, check=True)
        started = time.monotonic()
        subprocess.run([AIRFLOW, "dag-processor", "--num-runs", "1"], env=environment, capture_output=True, check=True)
        seconds = time.monotonic() - started
        check(environment, folder)
    return seconds


def check(environment: dict[str, str], folder: Path) -> None:
    """Fail unless every file of `folder` became a DAG."""
    import sqlite3

    with sqlite3.connect(f"{environment['AIRFLOW_HOME']}/airflow.db") as database:
        (dags,) = database.execute("SELECT count(*) FROM dag").fetchone()
    files = len([*folder.glob("*.py"), *folder.glob("*.yaml")])
    if dags != files:
        sys.exit(f"the dag-processor made {dags} DAGs of the {files} files in {folder}")


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--runs", type=int, default=2)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_all(root, options.count)
        shutil.rmtree(root / "hand_written" / "__pycache__", ignore_errors=True)
        rounds = [{name: one_pass(root / place) for name, place in FOLDERS.items()} for _ in range(options.runs)]
    table = Table("", "seconds", "of hand-written", title=f"a pass of the dag-processor over {options.count} pipelines")
    for name in FOLDERS:
        times, ratios = [one[name] for one in rounds], [one[name] / one["hand_written"] for one in rounds]
        table.add_row(name, f"{min(times):.1f} - {max(times):.1f}", f"{min(ratios):.2f} - {max(ratios):.2f} x")
    CONSOLE.print(table)


if __name__ == "__main__":
    main()
