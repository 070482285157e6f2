"""The importer for Airflow 3.4, which Airflow itself creates and calls, since its configuration names it.

The option is `[dag_processor] dag_importer_configs`, or `importers` of a bundle; `CONFIGURATION` is its value.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from airflow.sdk.configuration import conf
from airflow.sdk.importers import (
    AbstractDagImporter,
    DagDefinition,
    DagImportError,
    DagImportResult,
    DagImportWarning,
    DagSourceCode,
    FilesystemDagDefinition,
    find_file_dag_definitions,
    get_file_suffix,
)

from factory.bridge.outcome import import_spec, learn_dag_ids
from factory.bridge.rehearsal import rehearse
from factory.planning.project import EXTENSIONS, is_spec

if TYPE_CHECKING:
    from airflow.dag_processing.bundles.base import BaseDagBundle

CLASSPATH = "factory.importer.YamlImporter"
CONFIGURATION = f'["{CLASSPATH}"]'
"""The value that the option needs, in the dag-processor and in the workers."""


class YamlImporter(AbstractDagImporter[FilesystemDagDefinition]):
    """Turns a spec into a DAG, or into an import error with the whole report."""

    def __init__(self) -> None:
        self.supported_extensions = list(EXTENSIONS)

    def can_handle(self, definition: DagDefinition | str | Path) -> bool:
        """Return whether `definition` is a YAML file."""
        return get_file_suffix(definition) in self.supported_extensions

    def list_dag_definitions(
        self,
        bundle: BaseDagBundle,
        *,
        safe_mode: bool = True,  # noqa: ARG002  # Airflow's signature
    ) -> Iterator[FilesystemDagDefinition]:
        """Yield every spec, but no tests of pipelines and no files of configs/.

        The dag-processor lists a folder and forks afterwards; a worker lists the one file it needs and forks nothing.
        """
        found = find_file_dag_definitions(bundle.path, self.supported_extensions)
        specs = [definition for definition in found if is_spec(definition.path)]
        if bundle.path.is_dir():
            rehearse()
            learn_dag_ids(bundle.path, (definition.path for definition in specs))
        yield from specs

    def import_definition(self, definition: FilesystemDagDefinition, bundle: BaseDagBundle) -> DagImportResult:
        """Return the DAG of a spec, or its report as an import error."""
        shown = definition.get_relative_loc(bundle.path)
        imported = import_spec(definition.path, shown)
        return DagImportResult(
            definition=definition,
            dags=[imported.dag] if imported.dag else [],
            errors=[DagImportError(source_reference=shown, **asdict(imported.problem))] if imported.problem else [],
            warnings=[DagImportWarning(source_reference=shown, **asdict(warned)) for warned in imported.warnings],
        )

    def get_source_code(self, definition: DagDefinition, dag_id: str | None = None) -> DagSourceCode:  # noqa: ARG002  # Airflow's signature
        """Return the YAML, for the Code tab."""
        return DagSourceCode(source_code=definition.read_text(), language="yaml")


def register() -> None:
    """Leave it to the configuration; warn if that names no importer of specs, since Airflow would say nothing."""
    options = ("dag_importer_configs", "dag_bundle_config_list")
    if not any(CLASSPATH in (conf.get("dag_processor", option, fallback="") or "") for option in options):
        logging.getLogger(__name__).warning(
            "Airflow will not read specs: set [dag_processor] dag_importer_configs to %s, here and in the workers",
            CONFIGURATION,
        )
