"""The pages that the factory adds to Airflow's UI.

Airflow loads this module in each of its processes, through the `airflow.plugins` entry point. Only the API server asks
for the pages, so the other processes never import FastAPI.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.plugins_manager import AirflowPlugin

from factory.bridge.links import ARTIFACTS

if TYPE_CHECKING:
    from fastapi import FastAPI


SPARK = "/spark"
"""Where the API server shows Spark's pages; the cluster has it as `spark.ui.reverseProxyUrl`, for its links."""


@dataclass(frozen=True, slots=True)
class Page:
    """A web application below `url_prefix`, made when the API server asks for it."""

    name: str
    url_prefix: str
    make: Callable[[], FastAPI]


def _artifacts() -> FastAPI:
    from factory.bridge.artifacts import artifacts_app, configured_source

    return artifacts_app(configured_source())


def _spark() -> FastAPI:
    from factory.bridge.spark_pages import Cluster, spark_app

    return spark_app(Cluster())


PAGES = (Page("artifacts", ARTIFACTS, _artifacts), Page("spark", SPARK, _spark))


class TaskflowPlugin(AirflowPlugin):
    """The factory's part of Airflow."""

    name = "taskflow"

    @cached_property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override]  # Airflow only reads it
        """The applications that the API server mounts."""
        return [{"name": page.name, "url_prefix": page.url_prefix, "app": page.make()} for page in PAGES]
