"""The importer of Airflow 3.4, which Airflow itself makes and asks, since its configuration names it.

The option is `[dag_processor] dag_importer_configs`, or `importers` of one bundle; `CONFIGURATION` is its value.
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

from factory.bridge.outcome import import_spec, rehearse
from factory.planning.project import EXTENSIONS, is_spec

if TYPE_CHECKING:
    from airflow.dag_processing.bundles.base import BaseDagBundle

CLASSPATH = "factory.importer.YamlImporter"
CONFIGURATION = f'["{CLASSPATH}"]'
"""What the option has to hold, in the dag-processor and in the workers."""


class YamlImporter(AbstractDagImporter[FilesystemDagDefinition]):
    """Turns one spec into one DAG, or into one import error that holds the whole report."""

    def __init__(self) -> None:
        self.supported_extensions = list(EXTENSIONS)

    def can_handle(self, definition: DagDefinition | str | Path) -> bool:
        """Return whether it is a YAML file."""
        return get_file_suffix(definition) in self.supported_extensions

    def list_dag_definitions(
        self,
        bundle: BaseDagBundle,
        *,
        safe_mode: bool = True,  # noqa: ARG002  # Airflow's signature
    ) -> Iterator[FilesystemDagDefinition]:
        """Yield every spec; tests of pipelines and the files of configs/ are none.

        The dag-processor lists a folder. A worker lists the one file that it needs: nothing is forked after that.
        """
        if bundle.path.is_dir():
            rehearse(bundle.path)
        for definition in find_file_dag_definitions(bundle.path, self.supported_extensions):
            if is_spec(definition.path):
                yield definition

    def import_definition(self, definition: FilesystemDagDefinition, bundle: BaseDagBundle) -> DagImportResult:
        """Return the DAG of a spec, or its report as an import error."""
        shown = definition.get_relative_loc(bundle.path)
        found = import_spec(definition.path, shown)
        return DagImportResult(
            definition=definition,
            dags=[found.dag] if found.dag else [],
            errors=[DagImportError(source_reference=shown, **asdict(found.problem))] if found.problem else [],
            warnings=[DagImportWarning(source_reference=shown, **asdict(one)) for one in found.warnings],
        )

    def get_source_code(self, definition: DagDefinition, dag_id: str | None = None) -> DagSourceCode:  # noqa: ARG002  # Airflow's signature
        """Return the YAML, for the Code tab."""
        return DagSourceCode(source_code=definition.read_text(), language="yaml")


def register() -> None:
    """Leave it to the configuration; tell where that names no importer of specs, since no error would."""
    options = ("dag_importer_configs", "dag_bundle_config_list")
    if not any(CLASSPATH in (conf.get("dag_processor", option, fallback="") or "") for option in options):
        logging.getLogger(__name__).warning(
            "Airflow reads no spec: set [dag_processor] dag_importer_configs to %s, here and in the workers",
            CONFIGURATION,
        )
