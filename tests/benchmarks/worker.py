"""What a worker does before each task, in one fresh process: fill a DagBag from the one file of its DAG.

`python -m tests.benchmarks.worker CONTENDER ROOT` prints a JSON line. Airflow is imported first and not counted.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path

from tests.benchmarks.build import warm_up

FILES = {
    "hand_written": "hand_written/bench_0001.py",
    "ours": "ours/pipelines/bench_0001.yaml",
    "dag_factory": "dag_factory/loader.py",
    "blueprint": "blueprint/loader.py",
}


def main(contender: str, root: Path) -> None:
    """Parse the file of one DAG as a worker does and print the milliseconds."""
    logging.disable(logging.INFO)
    sys.path.insert(0, str(root))
    warm_up(contender)
    from airflow.dag_processing.dagbag import BundleDagBag

    file = root / FILES[contender]
    started = time.perf_counter()
    bag = BundleDagBag(dag_folder=str(file), bundle_path=file.parent, bundle_name="bench", safe_mode=False)
    milliseconds = (time.perf_counter() - started) * 1000
    assert "bench_0001" in bag.dags, bag.import_errors
    print("RESULT", json.dumps({"milliseconds": milliseconds}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
