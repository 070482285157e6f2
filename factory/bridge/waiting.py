"""How a task waits for another run without a worker's slot: Airflow's triggerer looks, and the task is called again.

Knows Airflow's deferral; does not know what is waited for.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Mapping
from functools import cache
from http import HTTPStatus
from types import new_class
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk.exceptions import AirflowRuntimeError, TaskDeferred
from airflow.triggers.base import BaseTrigger, TriggerEvent

from factory.bridge.failures import fail
from tasks.contract import Occupied, PermanentError, Run

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator

_POLL_SECONDS = 2.0
"""How often the triggerer asks for the state of a run."""
_LOOK_AGAIN_SECONDS = {True: 300.0, False: 5.0}
"""After which the task itself looks again, where Airflow can be asked and where it cannot.

A run can give a table back without ending.
"""


class RunEnded(BaseTrigger):
    """Fires when a run is no longer running, or when it is time to look again."""

    def __init__(self, dag_id: str, run_id: str, can_ask: bool, since: str, seconds: float) -> None:  # noqa: FBT001  # deserialized
        super().__init__()  # type: ignore[no-untyped-call]
        self.dag_id, self.run_id, self.can_ask, self.since, self.seconds = dag_id, run_id, can_ask, since, seconds

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what the triggerer makes it from."""
        names = ("dag_id", "run_id", "can_ask", "since", "seconds")
        return f"{__name__}.{type(self).__name__}", {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event: since when the task has waited."""
        loop = asyncio.get_running_loop()
        end = loop.time() + min(self.seconds, _LOOK_AGAIN_SECONDS[self.can_ask])
        while (left := end - loop.time()) > 0:
            if self.can_ask and not await asyncio.to_thread(is_running, self.dag_id, self.run_id):
                break
            await asyncio.sleep(min(left, _POLL_SECONDS))
        yield TriggerEvent({"since": self.since})  # type: ignore[no-untyped-call]


def is_running(dag_id: str, run_id: str) -> bool:
    """Return whether Airflow says that a run is running now; a run that is gone is not."""
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    try:
        return bool(RuntimeTaskInstance.get_dagrun_state(dag_id=dag_id, run_id=run_id) == "running")
    except AirflowRuntimeError as error:
        if (error.error.detail or {}).get("status_code") == HTTPStatus.NOT_FOUND:
            return False
        raise


def wait(occupied: Occupied, run: Run, context: Mapping[str, Any]) -> NoReturn:
    """Give the worker's slot back until what the task needs may be free; fail after the longest wait."""
    since, waited = waited_until_now(context)
    if waited >= occupied.timeout:
        remedy = "let that run end, or mark it as failed; then clear this task"
        fail(PermanentError(f"waited {waited:,.0f} s: {occupied}; {remedy}"), context)
    run.log.info("waiting, without a worker's slot: %s", occupied)
    trigger = RunEnded(occupied.dag_id, occupied.run_id, occupied.can_ask, since.isoformat(), occupied.timeout - waited)
    raise TaskDeferred(trigger=trigger, method_name="resume") from None


def waited_until_now(context: Mapping[str, Any]) -> tuple[dt.datetime, float]:
    """Return since when the task of `context` has waited, and how many seconds that is."""
    now = dt.datetime.now(dt.UTC)
    since: dt.datetime = getattr(context["task"], "waiting_since", None) or now
    return since, (now - since).total_seconds()


@cache
def deferrable(operator_class: type[BaseOperator]) -> type[BaseOperator]:
    """Return `operator_class` with what Airflow calls after a wait, and after an answer. It keeps its name."""

    def resume(self: Any, context: Any, event: Mapping[str, str]) -> Any:
        self.waiting_since = dt.datetime.fromisoformat(event["since"])
        return self.execute(context)

    def answered(self: Any, context: Any, event: Mapping[str, Any]) -> Any:
        self.answer = event
        return self.execute(context)

    attributes = {"__module__": operator_class.__module__, "resume": resume, "answered": answered}
    return new_class(operator_class.__name__, (operator_class,), exec_body=lambda body: body.update(attributes))
