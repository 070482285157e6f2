"""The executor of the stack's Airflow."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from stack.paths import REPOSITORY

ENDS = """
    import sys
    from importlib import import_module
    from multiprocessing.connection import wait

    class Eager:
        '''A queue whose every word is obeyed before the next is said.'''

        def __init__(self, queue, workers):
            self.queue, self.workers = queue, workers

        def put(self, word):
            self.queue.put(word)
            wait([one.sentinel for one in self.workers if one.exitcode is None], timeout=20)

        def close(self):
            self.queue.close()

    import_module("stack.preloading").MODULES = {}
    executor = import_module("stack.executor").LocalExecutor(parallelism=8)
    executor.start()
    executor.workers = dict(reversed(executor.workers.items()))  # who is asked first is not who hears first
    executor.activity_queue = Eager(executor.activity_queue, list(executor.workers.values()))
    executor.end()
    print("ENDED")
"""


def test_every_worker_ends() -> None:
    """However soon a worker obeys, and whoever's word it takes, the executor ends with all of them."""
    program = [sys.executable, "-c", textwrap.dedent(ENDS)]
    try:
        done = subprocess.run(program, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=120)
    except subprocess.TimeoutExpired:
        pytest.fail("the executor waits for a worker that nobody told to end")
    assert done.stdout.splitlines()[-1:] == ["ENDED"], done.stderr
