"""What a Celery worker imports before it forks the processes of its pool (`imports` among Celery's settings)."""

from __future__ import annotations

import gc
from typing import Any

from celery.signals import worker_ready

from stack.preloading import preload


def keep_frozen(**_: Any) -> None:
    """Keep the worker's own garbage collections off the shared pages: Airflow thaws them when its pool has started."""
    gc.freeze()


preload()
worker_ready.connect(keep_frozen)
