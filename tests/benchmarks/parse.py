"""Spec to DAG beside hand-written TaskFlow files, dag-factory and airflow-blueprint; and what a worker pays."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.benchmarks.build import CONTENDERS
from tests.benchmarks.pipelines import write_all

CONSOLE = Console()
LOADERS = {
    "ours": None,
    "hand_written": None,
    "dag_factory": """\
# an airflow dag file
import os

from dagfactory import load_yaml_dags

folder = os.path.dirname(__file__)
load_yaml_dags(globals_dict=globals(), dags_folder=folder, defaults_config_path=folder)
""",
    "blueprint": """\
# an airflow dag file
from blueprint import build_all_airflow_dags

build_all_airflow_dags()
""",
}


def measured(module: str, arguments: list[str]) -> dict[str, Any]:
    """Run one measurement in a process of its own and return what it printed."""
    with tempfile.TemporaryDirectory() as home:
        quiet = {"AIRFLOW_HOME": home, "AIRFLOW__CORE__LOAD_EXAMPLES": "False", "DO_NOT_TRACK": "1"}
        environment = os.environ | quiet | {"AIRFLOW__DAG_FACTORY__ENABLE_TELEMETRY": "False"}
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", module, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    line = next((line for line in done.stdout.splitlines() if line.startswith("RESULT")), None)
    if line is None:
        sys.exit(f"{' '.join(arguments)} failed:\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(line.removeprefix("RESULT"))
    return result


def build_table(root: Path, count: int, runs: int) -> Table:
    """Return what each contender takes for all pipelines of `root`, in turn, the first round not counted."""
    rounds = [
        {name: measured("tests.benchmarks.build", [name, str(root)]) for name in CONTENDERS} for _ in range(runs + 1)
    ][1:]
    table = Table(
        "", "ms a DAG", "of hand-written", "min", "max", "peak MB", title=f"{count} pipelines of 8 tasks to DAGs"
    )
    for name in CONTENDERS:
        found = [one[name] for one in rounds]
        assert {(one["dags"], one["tasks"]) for one in found} == {(count, count * 8)}, (name, found[0])
        ratios = [one[name]["seconds"] / one["hand_written"]["seconds"] for one in rounds]
        times = [one["seconds"] / count * 1000 for one in found]
        peak = max(one["peak_mb"] for one in found)
        table.add_row(
            name,
            f"{statistics.median(times):.2f}",
            f"{statistics.median(ratios):.2f} x",
            f"{min(times):.2f}",
            f"{max(times):.2f}",
            f"{peak:.0f}",
        )
    return table


def worker_table(root: Path, count: int, runs: int) -> Table:
    """Return what a worker parses before each task of one of `count` pipelines."""
    for name, loader in LOADERS.items():
        if loader:
            (root / name / "loader.py").write_text(loader)
    table = Table("", "ms before each task", "min", "max", title=f"a worker's parse, {count} pipelines deployed")
    for name in LOADERS:
        times = [measured("tests.benchmarks.worker", [name, str(root)])["milliseconds"] for _ in range(runs)]
        table.add_row(name, f"{statistics.median(times):,.0f}", f"{min(times):,.0f}", f"{max(times):,.0f}")
    return table


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[100, 500])
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args(arguments)
    for count in options.counts:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            write_all(root, count)
            CONSOLE.print(build_table(root, count, options.runs))
            CONSOLE.print(worker_table(root, count, options.runs))


if __name__ == "__main__":
    main()
