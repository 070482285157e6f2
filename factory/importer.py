"""The bridge to Airflow 3.3: every YAML in the DAGs folder is a DAG file of its own.

Airflow loads this module in each of its processes, through the `airflow.policy` entry point. It registers an importer
for YAML, and extends the one function by which the dag-processor finds files, which knows only Python (3.4 does both
by configuration).
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import airflow.utils.file as airflow_files
from airflow.dag_processing.importers import get_importer_registry
from airflow.dag_processing.importers.base import AbstractDagImporter, DagImportError, DagImportResult, DagImportWarning

if TYPE_CHECKING:
    from factory.errors import Diagnostic

ENVIRONMENT = "TASKFLOW_ENVIRONMENT"
"""The environment variable that names a file of configs/environments/."""


class YamlImporter(AbstractDagImporter):
    """Turns one spec into one DAG, or into one import error that holds the whole report."""

    @classmethod
    def supported_extensions(cls) -> list[str]:
        """Return the endings of specs."""
        return [".yaml", ".yml"]

    def list_dag_files(self, directory: str | os.PathLike[str], safe_mode: bool = True) -> Iterator[str]:  # noqa: ARG002, FBT001, FBT002  # Airflow's signature
        """Yield every spec; tests of pipelines and the files of configs/ are none."""
        _rehearse(Path(directory))
        for path in super().list_dag_files(directory, safe_mode=False):
            if is_spec(Path(path)):
                yield path

    def import_file(
        self,
        file_path: str | Path,
        *,
        bundle_path: Path | None = None,
        bundle_name: str | None = None,  # noqa: ARG002  # Airflow's signature
        safe_mode: bool = True,  # noqa: ARG002  # Airflow's signature
    ) -> DagImportResult:
        """Return the DAG of a spec, or its report as an import error. It never raises: Airflow would only log that."""
        shown = self.get_relative_path(file_path, bundle_path)
        result = DagImportResult(file_path=shown)
        try:
            _import(Path(file_path), shown, result)
        except Exception as error:  # noqa: BLE001  # an importer that raises leaves no trace in the UI
            result.dags.clear()
            result.errors.append(_internal_error(shown, error))
        return result


def is_spec(path: Path) -> bool:
    """Return whether a YAML file declares a pipeline, by where it stands and how it is named."""
    return not path.name.endswith((".test.yaml", ".test.yml")) and "configs" not in path.parts[:-1]


def _import(path: Path, shown: str, result: DagImportResult) -> None:
    from factory.compiler import compile_file
    from factory.dag import build

    compiled = compile_file(path, environment=os.environ.get(ENVIRONMENT))
    errors = compiled.errors
    if errors or compiled.plan is None:
        result.errors.append(_import_error(shown, errors))
        return
    result.warnings.extend(_warning(shown, one) for one in compiled.report.diagnostics)
    dag = build(compiled.plan)
    dag.fileloc = str(path)
    dag.relative_fileloc = shown
    result.dags.append(dag)


def _import_error(shown: str, errors: list[Diagnostic]) -> DagImportError:
    from factory.errors import render

    first = errors[0]
    report = render(errors)
    # Airflow 3.3 shows `stacktrace or message` and keeps one error for a file: all of them stand in that text.
    return DagImportError(
        file_path=shown,
        message=report,
        error_type=first.code,
        line_number=first.span.line,
        column_number=first.span.column,
        context=first.source,
        suggestion=first.hint,
        stacktrace=report,
    )


def _internal_error(shown: str, error: Exception) -> DagImportError:
    import traceback

    head = f"{shown}: the factory failed on this spec; this is a bug of the factory, not of the spec"
    text = f"{head}\n{traceback.format_exc()}"
    return DagImportError(
        file_path=shown, message=f"{type(error).__name__}: {error}", error_type="internal", stacktrace=text
    )


def _warning(shown: str, diagnostic: Diagnostic) -> DagImportWarning:
    message = f"{diagnostic.message} ({diagnostic.hint})" if diagnostic.hint else diagnostic.message
    return DagImportWarning(
        file_path=shown, message=message, warning_type=diagnostic.code, line_number=diagnostic.span.line
    )


def _warm_up() -> None:
    """Import what checking a spec needs, so that the children which Airflow forks for each file and task have it.

    Half a second once in each process of Airflow, instead of before every task.
    """
    import sqlglot

    import factory.compiler
    import factory.registry
    from tasks.quality.expectations import catalogue

    factory.registry.load_registry()
    catalogue()
    sqlglot.parse("true", dialect="postgres")


_REHEARSAL = b"""
dag_id: rehearsal
schedule: "0 0 * * *"
start_date: 2026-01-01
params: {go: {type: boolean, default: true}}
steps:
  first: {uses: messages.log, with: {message: "{{ run.date }}"}}
  choose: {needs: first, branch: [{if: "{{ params.go }}", then: second}, {else: third}]}
  second: {uses: messages.log, with: {message: second}}
  third: {uses: messages.log, with: {message: third}}
"""


def _rehearse(directory: Path) -> None:
    """Build one DAG in the dag-processor, before it forks a child for each file: no child then does it a first time.

    What is there by then is frozen, so that the children's garbage collections copy no page of it.
    """
    from factory.compiler import compile_content
    from factory.dag import build

    plan = compile_content(_REHEARSAL, directory / "rehearsal.yaml").plan
    assert plan is not None
    build(plan)
    gc.collect()
    gc.freeze()


def register() -> None:
    """Make Airflow read specs. A second call changes nothing."""
    registry = get_importer_registry()
    if isinstance(registry.get_importer("x.yaml"), YamlImporter):
        return
    importer = YamlImporter()
    registry.register(importer)
    _warm_up()
    find_python = airflow_files.find_dag_file_paths

    def find_dag_file_paths(directory: str | os.PathLike[str], safe_mode: bool) -> list[str]:  # noqa: FBT001  # Airflow's signature
        return [*find_python(directory, safe_mode), *importer.list_dag_files(directory, safe_mode)]

    airflow_files.find_dag_file_paths = find_dag_file_paths


register()
