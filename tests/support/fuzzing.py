"""Compiles fuzzed specs in a process of its own, which a hang or a signal may end: `python -m tests.support.fuzzing`.

Prints each seed before its case and each exception after it; a case that takes too long ends the process.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import shutil
import tempfile
import traceback
import warnings
from pathlib import Path

from factory.bridge.rehearsal import rehearse, warm_up
from tests.support.mutations import Case, case_of

PATIENCE = 10
"""After how many seconds a case counts as one that hangs."""


def compile_case(case: Case, folder: Path) -> None:
    """Compile a case as a project in `folder` has it; with no error, build its DAG as the dag-processor does."""
    from airflow.serialization.serialized_objects import DagSerialization

    from factory.bridge.dag import build
    from factory.compiler import compile_content
    from factory.language.errors import render

    if case.file:
        (folder / "configs" / case.file).write_bytes(case.content)
    compiled = compile_content(case.spec, folder / "pipelines" / "fuzzed.yaml")
    render(compiled.report.diagnostics).encode()
    if not compiled.errors:
        assert compiled.plan is not None, "neither a plan nor an error"
        dag = build(compiled.plan)
        dag.check_cycle()
        dag.resolve_template_files()
        json.dumps(DagSerialization.to_dict(dag))


def project(configs: Path, folder: Path) -> Path:
    """Return a project in `folder` with a copy of `configs`."""
    (folder / "pipelines").mkdir(parents=True)
    shutil.copytree(configs, folder / "configs")
    return folder


def run(first: int, count: int, home: Path) -> None:
    """Compile the cases of `count` seeds."""
    projects: dict[Path, Path] = {}
    warm_up()
    rehearse()
    for seed in range(first, first + count):
        print(f"SEED {seed}", flush=True)
        case = case_of(seed)
        if case.configs not in projects:
            projects[case.configs] = project(case.configs, home / str(len(projects)))
        folder = projects[case.configs]
        faulthandler.dump_traceback_later(PATIENCE, exit=True)
        try:
            compile_case(case, folder)
        except BaseException:  # noqa: BLE001  # whatever it is, it is what is looked for
            print(f"FAILED {json.dumps([seed, traceback.format_exc()])}", flush=True)
        faulthandler.cancel_dump_traceback_later()
        if case.file:
            shutil.copyfile(case.configs / case.file, folder / "configs" / case.file)
    print("DONE", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=5000)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as temporary:
        run(options.first, options.count, Path(temporary))
