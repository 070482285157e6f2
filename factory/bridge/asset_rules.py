"""Airflow's assets, and what the providers of this Airflow say of their URIs: each has rules for its own schemes.

Knows no rule itself: it makes each asset as for the DAG, and tells which one is refused, with its line.
"""

from __future__ import annotations

from airflow.sdk import Asset

from factory.compiler import Compiled
from factory.language.arguments import AssetSpec
from factory.language.assets import is_for_providers
from factory.language.errors import shortened
from factory.planning.dag_rules import assets_of


def asset_of(spec: AssetSpec) -> Asset:
    """Return Airflow's asset; raise what its provider raises for one that it refuses."""
    return Asset(name=spec.name, uri=spec.uri) if spec.uri else Asset(name=spec.name)


def report_refused_assets(compiled: Compiled) -> None:
    """Report the assets that a provider refuses, of schemes whose rules the factory does not know itself."""
    if compiled.plan is None or compiled.errors:
        return
    for path, asset in assets_of(compiled.plan, compiled.report.document.value):
        if not is_for_providers(asset):
            continue
        try:
            asset_of(asset)
        except Exception as error:  # noqa: BLE001  # a provider's own function: nobody knows what it raises
            reason = shortened(str(error) or type(error).__name__)
            message = f'the provider of its scheme refuses the asset "{asset.uri or asset.name}": {reason}'
            hint = "correct its URI as its provider wants it, or use a name without ://"
            compiled.report.add("wrong-value", path, message, hint)
