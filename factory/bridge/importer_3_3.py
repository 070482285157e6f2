"""The importer for Airflow 3.3, which has a registry of importers by file extension but no option to fill it.

Registers one for YAML, and extends the function that finds the dag-processor's files, which knows only Python.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import airflow.utils.file as airflow_files
from airflow.dag_processing.importers import get_importer_registry
from airflow.dag_processing.importers.base import AbstractDagImporter, DagImportError, DagImportResult, DagImportWarning

from factory.bridge.outcome import import_spec, learn_dag_ids
from factory.bridge.rehearsal import rehearse
from factory.planning.project import EXTENSIONS, is_spec


class YamlImporter(AbstractDagImporter):
    """Turns a spec into a DAG, or into an import error with the whole report."""

    @classmethod
    def supported_extensions(cls) -> list[str]:
        """Return the file extensions of specs."""
        return list(EXTENSIONS)

    def list_dag_files(self, directory: str | os.PathLike[str], safe_mode: bool = True) -> Iterator[str]:  # noqa: ARG002, FBT001, FBT002  # Airflow's signature
        """Yield every spec, but no tests of pipelines and no files of configs/."""
        rehearse()
        specs = [path for path in super().list_dag_files(directory, safe_mode=False) if is_spec(Path(path))]
        learn_dag_ids(Path(directory), map(Path, specs))
        yield from specs

    def import_file(
        self,
        file_path: str | Path,
        *,
        bundle_path: Path | None = None,
        bundle_name: str | None = None,  # noqa: ARG002  # Airflow's signature
        safe_mode: bool = True,  # noqa: ARG002  # Airflow's signature
    ) -> DagImportResult:
        """Return the DAG of a spec, or its report as an import error."""
        shown = self.get_relative_path(file_path, bundle_path)
        imported = import_spec(Path(file_path), shown)
        return DagImportResult(
            file_path=shown,
            dags=[imported.dag] if imported.dag else [],
            errors=[DagImportError(file_path=shown, **asdict(imported.problem))] if imported.problem else [],
            warnings=[DagImportWarning(file_path=shown, **asdict(warned)) for warned in imported.warnings],
        )


def register() -> None:
    """Make Airflow read specs. A second call changes nothing."""
    registry = get_importer_registry()
    if isinstance(registry.get_importer("x.yaml"), YamlImporter):
        return
    importer = YamlImporter()
    registry.register(importer)
    find_python = airflow_files.find_dag_file_paths

    def find_dag_file_paths(directory: str | os.PathLike[str], safe_mode: bool) -> list[str]:  # noqa: FBT001  # Airflow's signature
        return [*find_python(directory, safe_mode), *importer.list_dag_files(directory, safe_mode)]

    airflow_files.find_dag_file_paths = find_dag_file_paths
