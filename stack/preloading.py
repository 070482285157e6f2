"""What tasks import that takes them longer than their work: imported once, in the process that theirs are forked from.

Knows third-party modules by their names only. A task imports them as before, and finds them there; the processes that
read specs or serve pages import none of it.
"""

from __future__ import annotations

import gc
import importlib
import inspect
import logging
import os

MODULES = {
    "great_expectations": "a gate: 5.6 s and 127 MB, Spark's Python classes among them",
    "evidently": "a drift report: 4.4 s and 82 MB more",
    "mlflow.pyfunc": "a drift report, a promotion: 1.8 s and 31 MB more",
    "pandas": "a drift report, a training: 1.2 s and 39 MB, which the gate needs anyway",
    "airflow.providers.amazon.aws.hooks.base_aws": "whoever opens a bucket: 0.4 s and 7 MB, boto3 among them",
}
"""What is imported ahead: who would wait for it, how long in processor time, and what it takes once.

Not here: matplotlib and shap, needed only by a training, which spends a minute in Spark; and faker, which takes 0.3 s,
but whose unseeded generators would draw the same in every task.
"""

_log = logging.getLogger(__name__)


def preload() -> None:
    """Import the modules, and keep garbage collections off them: a page that is written to is no longer shared."""
    logging.disable(logging.INFO)  # Great Expectations logs 200 lines while it is imported
    try:
        for name in MODULES:
            _import(name)
    finally:
        logging.disable(logging.NOTSET)
    inspect.stack()  # Amazon's hook looks for its caller so, the first time among all modules: 0.3 s
    os.register_at_fork(after_in_child=_draw_anew)
    gc.collect()
    gc.freeze()


def _import(name: str) -> None:
    try:
        importlib.import_module(name)
    except ImportError as error:  # the tasks that need it tell their users; the others run
        _log.warning("%s cannot be imported ahead of tasks: %s", name, error)


def _draw_anew() -> None:
    """Give a forked process draws of its own where NumPy is not seeded; Python does so for its own."""
    import numpy as np

    np.random.seed()  # noqa: NPY002  # the global generator is what is meant
