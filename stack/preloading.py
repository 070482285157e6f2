"""What every task would do first, done once in the process that tasks are forked from.

Knows modules and functions by name only. A task imports and calls them as before and finds their work done; the
processes that read specs or serve pages do none of it.
"""

from __future__ import annotations

import gc
import importlib
import inspect
import logging
import os
from types import ModuleType

MODULES = {
    "great_expectations": "a gate: 5.6 s and 127 MB, including Spark's Python classes",
    "evidently": "a drift report: 4.4 s and 82 MB more",
    "mlflow.pyfunc": "a drift report, a promotion: 1.8 s and 31 MB more",
    "pandas": "a drift report, a training: 1.2 s and 39 MB, which the gate needs anyway",
    "airflow.providers.amazon.aws.hooks.base_aws": "every task that opens a bucket: 0.4 s and 7 MB, including boto3",
}
"""What is imported ahead of tasks: who would wait for it, the processor time it takes, and the memory, once.

Not here: matplotlib and shap, because only a training needs them and spends a minute in Spark; faker, because it takes
only 0.3 s and its unseeded generators would draw the same in every task.
"""

CALLS = {
    "factory.bridge.rehearsal:rehearse": "every task: 0.08 s, what its spec is checked and built with",
    "stack.bucket_sessions:read_descriptions": "every task that opens a bucket: 0.05 s, what boto3 knows of S3",
    "tasks.quality.data_docs:page_view": "a gate: 0.06 s, the templates of its pages",
}
"""What is called ahead of tasks, and who would wait for it. Each takes nothing, and does the same a second time."""

_log = logging.getLogger(__name__)


def preload() -> None:
    """Import, call, and keep garbage collections off the result: a page that is written to is no longer shared."""
    logging.disable(logging.INFO)  # importing Great Expectations logs 200 lines
    try:
        for name in MODULES:
            _import(name)
        for name in CALLS:
            _call(*name.split(":"))
    finally:
        logging.disable(logging.NOTSET)
    inspect.stack()  # fills a cache: Amazon's hook calls this in each task, and over so many modules it takes 0.3 s
    os.register_at_fork(after_in_child=_draw_anew)
    gc.collect()
    gc.freeze()


def _import(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ImportError as error:  # the tasks that need it will say so; the others run
        _log.warning("%s cannot be imported ahead of tasks: %s", name, error)
        return None


def _call(module: str, function: str) -> None:
    if found := _import(module):
        try:
            getattr(found, function)()
        except Exception:  # noqa: BLE001  # the tasks that need it meet the error, and tell it where people look
            _log.warning("%s.%s failed ahead of tasks", module, function, exc_info=True)


def _draw_anew() -> None:
    """Reseed NumPy in a forked process, as Python does its own generator: tasks would draw the same numbers."""
    import numpy as np

    np.random.seed()  # noqa: NPY002  # the global generator is meant
