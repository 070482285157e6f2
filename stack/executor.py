"""Airflow's LocalExecutor, which does the heavy imports before it forks its workers, and which always ends.

Airflow's own may wait for ever for a worker that nobody told to end: 3.3.2 tells as many workers to end as are alive
when it comes to each; one that ends at once has taken the word of another, who then waits for one that never comes
(https://github.com/apache/airflow/issues/67870 is its like). A scheduler that has lost its database hangs there, alive,
and nothing starts it again.
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
        """Tell every worker to end, whoever is alive, and read what they report until they have ended."""
        for _ in self.workers:
            self.activity_queue.put(None)
        while waiting := [worker for worker in self.workers.values() if worker.is_alive()]:
            waiting[0].join(_SECONDS)
            self._read_results()  # type: ignore[no-untyped-call]  # Airflow's; unread, a worker's report keeps it
        super().end()
