"""Airflow pipelines from YAML: a spec is checked, planned and turned into a DAG of `@task` functions.

The stages are document, spec, resolve, plan, rules and dag, in that order; `compiler` runs all but the last.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow.sdk import DAG


def load_dag(path: str | Path, *, environment: str | None = None) -> DAG:
    """Return the DAG of the spec at `path`, or raise `SpecError`, whose text is the whole report."""
    from factory.bridge.dag import build
    from factory.compiler import compile_file

    compiled = compile_file(Path(path), environment=environment)
    compiled.report.require_no_errors()
    assert compiled.plan is not None
    dag = build(compiled.plan)
    dag.fileloc = str(Path(path).absolute())
    return dag
