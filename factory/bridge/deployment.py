"""The name of the Airflow that runs a task, where several write to one database."""

from __future__ import annotations

import os
import socket
import uuid

DEPLOYMENT = "TASKFLOW_DEPLOYMENT"
"""The environment variable that names an Airflow."""

_local: list[str] = []


def deployment() -> str:
    """Return `TASKFLOW_DEPLOYMENT`, or the address at which its tasks or people reach it; or what `be_local` set."""
    from airflow.sdk.configuration import conf

    named = _local[0] if _local else os.environ.get(DEPLOYMENT)
    addresses = (("core", "execution_api_server_url"), ("api", "base_url"))
    return named or next((found for one in addresses if (found := str(conf.get(*one, fallback="")))), "")


def be_local() -> None:
    """Say that the runs of this process are of no Airflow: they end with it."""
    _local[:] = [f"taskflow run on {socket.gethostname()}, process {os.getpid()} ({uuid.uuid4()})"]


def is_local() -> bool:
    """Return whether the runs of this process end with it."""
    return bool(_local)
