"""The heavy imports of tasks, done once in the process that tasks are forked from."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from importlib.util import find_spec
from typing import Any

import pytest

from stack.paths import REPOSITORY
from stack.preloading import MODULES
from stack.workers import PRELOADED

FORKED = """
    import gc, json, multiprocessing, sys, threading
    from concurrent.futures import ProcessPoolExecutor
    from stack.preloading import MODULES, preload

    def work(size):
        '''What a task may do first: both libraries compute in threads of their own.'''
        import numpy as np
        import pyarrow as pa
        from pyarrow import compute
        before = [name for name in MODULES if name in sys.modules]
        from factory.registry import load_registry
        from stack.bucket_sessions import loader
        from tasks.quality.data_docs import page_view
        prepared = [
            page_view.cache_info().currsize == 1,
            len(loader()._cache) > 2,
            all("arguments" in vars(task) for task in load_registry()),
            "factory.bridge.dag" in sys.modules,
        ]
        ones = np.ones((size, size))
        total = compute.sum(pa.array(range(size))).as_py()
        return before, prepared, (ones @ ones).sum(), total, np.random.random(), gc.get_freeze_count() > 100_000

    preload()
    threads = [one.name for one in threading.enumerate()]
    pools = [ProcessPoolExecutor(1, multiprocessing.get_context("fork")) for _ in range(2)]
    print(json.dumps([threads, *(one.submit(work, 500).result(timeout=60) for one in pools)]))
"""

STARTED = """
    import gc, sys
    from importlib import import_module

    preloading = import_module("stack.preloading")
    preloading.MODULES, preloading.CALLS = {"colorsys": ""}, {}
    executor = import_module("stack.executor").LocalExecutor(parallelism=2)
    executor._spawn_worker = lambda: print("colorsys" in sys.modules, gc.get_freeze_count() > 0)
    executor.start()
    print(gc.get_freeze_count() > 0)
"""

MISSING = """
    from importlib import import_module

    preloading = import_module("stack.preloading")
    preloading.MODULES = {"nowhere": "", "colorsys": ""}
    preloading.CALLS = {"nowhere:else": "", "os:mkdir": "", "gc:disable": ""}
    preloading.preload()
    import gc, sys
    print("colorsys" in sys.modules, gc.isenabled())
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=300)


@pytest.fixture(scope="module")
def forked() -> list[Any]:
    """What a process that has imported it all prints, its threads, and what two processes forked from it see."""
    done = run(FORKED)
    told: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return [done.stderr, *told]


def test_tasks_find_imports(forked: list[Any]) -> None:
    """A process forked afterwards has every module, frozen."""
    _, _, *seen = forked
    assert [(names, frozen) for names, _, _, _, _, frozen in seen] == [(list(MODULES), True)] * 2


def test_tasks_find_calls_made(forked: list[Any]) -> None:
    """The templates of pages, what boto3 knows of S3, the checks of arguments: all are made before the fork."""
    _, _, *seen = forked
    assert [prepared for _, prepared, *_ in seen] == [[True] * 4] * 2


def test_nothing_runs_at_the_fork(forked: list[Any]) -> None:
    """The imports start no Python thread, and libraries with threads of their own still compute in a forked process."""
    _, threads, *seen = forked
    assert threads == ["MainThread"]
    assert [(product, total) for _, _, product, total, _, _ in seen] == [(500.0**3, 499 * 250)] * 2


def test_tasks_draw_their_own(forked: list[Any]) -> None:
    """Two tasks that do not seed NumPy draw differently."""
    _, _, *seen = forked
    assert len({draw for _, _, _, _, draw, _ in seen}) == 2


def test_imports_say_nothing(forked: list[Any]) -> None:
    """The log of the scheduler stays readable."""
    assert forked[0] == ""


def test_workers_are_forked_after_it() -> None:
    """The executor imports, freezes, and only then forks its workers; afterwards it stays frozen itself."""
    assert run(STARTED).stdout.splitlines()[-3:] == ["True True", "True True", "True"]


def test_missing_module_is_told() -> None:
    """A module that cannot be imported is logged, and the next one is imported."""
    done = run(MISSING)
    assert done.stdout.splitlines()[-1] == "True False"
    assert "os.mkdir failed ahead of tasks" in done.stdout + done.stderr
    assert "nowhere cannot be imported ahead of tasks: No module named 'nowhere'" in done.stdout + done.stderr


def test_other_processes_import_none() -> None:
    """The processes that read specs or serve pages load our modules and none of these."""
    told = run(
        "import sys, factory.importer, factory.bridge.plugin, stack.executor, stack.workers\n"
        f"print([name for name in {list(MODULES)} if name in sys.modules])"
    )
    assert told.stdout.splitlines()[-1] == "[]"


def test_celery_finds_its_module() -> None:
    """The module that Celery's setting names exists."""
    assert find_spec(PRELOADED) is not None
