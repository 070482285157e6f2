"""One measurement in one fresh process: `python -m tests.benchmarks.build CONTENDER ROOT` prints a JSON line.

Airflow is imported first and not counted. The seconds are the processor's, which a busy machine stretches less.
"""

from __future__ import annotations

import gc
import json
import logging
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def hand_written(root: Path) -> list[Any]:
    """Import one Python file after another, as Airflow's own importer does."""
    import importlib.machinery
    import importlib.util

    from airflow.sdk.definitions._internal.contextmanager import DagContext

    for path in sorted((root / "hand_written").glob("*.py")):
        name = f"bench_module_{path.stem}"
        loader = importlib.machinery.SourceFileLoader(name, str(path))
        module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))  # type: ignore[arg-type]
        sys.modules[name] = module
        DagContext.current_autoregister_module_name = name
        loader.exec_module(module)
    return [dag for dag, _ in DagContext.autoregistered_dags]


def ours(root: Path) -> list[Any]:
    """Read, check and build one spec after another."""
    from factory import load_dag

    return [load_dag(path) for path in sorted((root / "ours" / "pipelines").glob("*.yaml"))]


def dag_factory(root: Path) -> list[Any]:
    """Load every YAML with dag-factory."""
    from dagfactory import load_yaml_dags

    found: dict[str, Any] = {}
    folder = str(root / "dag_factory")
    load_yaml_dags(globals_dict=found, dags_folder=folder, defaults_config_path=folder)
    return list(found.values())


def blueprint(root: Path) -> list[Any]:
    """Load every YAML with airflow-blueprint."""
    from blueprint import build_all_airflow_dags

    found: dict[str, Any] = {}
    build_all_airflow_dags(search_path=str(root / "blueprint"), register_globals=found)
    return list(found.values())


CONTENDERS: dict[str, Callable[[Path], list[Any]]] = {
    "hand_written": hand_written,
    "ours": ours,
    "dag_factory": dag_factory,
    "blueprint": blueprint,
}


def warm_up(contender: str) -> None:
    """Import Airflow and the contender's own library, which every process pays once."""
    import airflow.providers.standard.operators.python
    from airflow.sdk import DAG, task

    assert DAG, airflow
    assert task.branch
    if contender == "ours":
        import factory.bridge.dag
        import factory.compiler
        import factory.registry

        factory.registry.load_registry()
    elif contender == "dag_factory":
        import dagfactory

        assert dagfactory
    elif contender == "blueprint":
        import blueprint as library

        assert library


def main(contender: str, root: Path) -> None:
    """Build all pipelines of `contender` once and print what it took."""
    from airflow.sdk import DAG

    logging.disable(logging.INFO)
    sys.path.insert(0, str(root))
    warm_up(contender)
    gc.freeze()  # what was imported is no garbage of any contender
    started = time.process_time()
    dags = [one for one in CONTENDERS[contender](root) if isinstance(one, DAG)]
    seconds = time.process_time() - started
    tasks = sum(len(dag.tasks) for dag in dags)
    edges = sum(len(task.downstream_task_ids) for dag in dags for task in dag.tasks)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        "RESULT", json.dumps({"dags": len(dags), "tasks": tasks, "edges": edges, "seconds": seconds, "peak_mb": peak})
    )


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
