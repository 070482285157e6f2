"""Airflow's LocalExecutor, which does the heavy imports before it forks its workers, and which always ends.

Airflow's own may wait forever for a worker: 3.3.2 queues one end message for each worker that is still alive when its
turn comes. If one takes a message and ends at once, too few are queued, and another worker waits for a message that
never comes (https://github.com/apache/airflow/issues/67870 is similar). A scheduler that has lost its database hangs
there, alive, and nothing restarts it.
"""

from __future__ import annotations

import gc

from airflow.executors import local_executor

from stack.preloading import preload

_SECONDS = 0.2


class LocalExecutor(local_executor.LocalExecutor):
    """Runs tasks in processes below the scheduler's."""

    def start(self) -> None:
        """Do the heavy imports, then fork the workers."""
        preload()
        super().start()
        gc.freeze()  # again: Airflow unfreezes it, and the scheduler's own collections would copy every page

    def end(self) -> None:
        """Tell every worker to end, alive or not, and read their reports until they have ended."""
        for _ in self.workers:
            self.activity_queue.put(None)
        while waiting := [worker for worker in self.workers.values() if worker.is_alive()]:
            waiting[0].join(_SECONDS)
            self._read_results()  # type: ignore[no-untyped-call]  # a worker ends only once its report is read
        super().end()
