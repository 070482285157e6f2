"""The module that Celery's setting `imports` names: a worker imports it before it forks its pool."""

from __future__ import annotations

import gc
from typing import Any

from celery.signals import worker_ready

from stack.preloading import preload


def keep_frozen(**_: Any) -> None:
    """Freeze again what Airflow unfreezes once the pool is up: the worker's own collections would copy every page."""
    gc.freeze()


preload()
worker_ready.connect(keep_frozen)
