"""What the factory adds to Airflow's UI: the objects that tasks made, shown by the API server.

Airflow loads this module in each of its processes, through the `airflow.plugins` entry point. Only the API server asks
for the applications, so the rest never imports FastAPI.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from airflow.plugins_manager import AirflowPlugin

from factory.bridge.links import ARTIFACTS


class TaskflowPlugin(AirflowPlugin):
    """The factory's part of Airflow."""

    name = "taskflow"

    @cached_property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override]  # Airflow only reads it
        """The applications that the API server mounts."""
        from factory.bridge.artifacts import artifacts_app, configured_source

        return [{"name": "artifacts", "url_prefix": ARTIFACTS, "app": artifacts_app(configured_source())}]
