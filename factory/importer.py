"""The entry point for Airflow: every YAML in the DAGs folder is its own DAG file.

Airflow loads this module in each of its processes, through the `airflow.policy` entry point, and 3.4 finds the importer
here. Only this module asks which of the two interfaces the installed Airflow has.
"""

from __future__ import annotations

from importlib.util import find_spec

from factory.bridge.rehearsal import warm_up

if find_spec("airflow.sdk.importers"):
    from factory.bridge.importer_3_4 import YamlImporter, register
else:
    from factory.bridge.importer_3_3 import YamlImporter, register  # type: ignore[assignment]  # each Airflow has a base of its own

__all__ = ["YamlImporter"]

warm_up()
register()
