"""Print the DAGs of a folder, as Airflow imports them: each task with its kind and with what it waits for, as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from airflow.dag_processing.dagbag import BundleDagBag


def outline(folder: Path) -> dict[str, dict[str, list[str]]]:
    bag = BundleDagBag(dag_folder=str(folder), bundle_path=folder, bundle_name="dags-folder")
    return {
        "import_errors": {name: text.splitlines() for name, text in bag.import_errors.items()},
        **{
            dag_id: {
                one.task_id: [one.task_type, one.trigger_rule, *sorted(one.upstream_task_ids)] for one in dag.tasks
            }
            for dag_id, dag in sorted(bag.dags.items())
        },
    }


if __name__ == "__main__":
    print("OUTLINE", json.dumps(outline(Path(sys.argv[1])), sort_keys=True))
