"""How a task waits for something outside without a worker's slot: the triggerer calls it again and again.

The call that counts is the worker's: when the triggerer has seen the task end, in whatever way, it is called once more.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from airflow.sdk.exceptions import AirflowSkipException, TaskDeferred
from airflow.triggers.base import BaseTrigger, TriggerEvent
from pydantic_core import to_json

from factory.bridge import runtime
from factory.bridge.failures import fail
from factory.bridge.waiting import waited_until_now
from tasks.contract import NotYet, PermanentError, Run

_FIELDS = ("dag_id", "run_id", "task_id", "try_number", "map_index", "deployment")


class Poke(BaseTrigger):
    """Fires when a task no longer says that it has to wait, or when it has waited long enough."""

    def __init__(self, uses: str, arguments: str, run: dict[str, Any], times: dict[str, Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.uses, self.arguments, self.run_fields, self.times = uses, arguments, run, times

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what the triggerer makes it from."""
        given = {"uses": self.uses, "arguments": self.arguments, "run": self.run_fields, "times": self.times}
        return f"{__name__}.{type(self).__name__}", given

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event: since when the task has waited."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self.times["left"]
        while (left := end - loop.time()) > 0:
            await asyncio.sleep(min(left, self.times["interval"]))
            if await asyncio.to_thread(self.is_there):
                break
        yield TriggerEvent({"since": self.times["since"]})  # type: ignore[no-untyped-call]

    def is_there(self) -> bool:
        """Return whether the task would end: with its result, or with an error that it will raise itself."""
        try:
            functions = frozenset(self.run_fields["functions"])
            runtime.call(self.uses, json.loads(self.arguments), _run(self.run_fields), {}, functions)
        except NotYet:
            return False
        except Exception:  # noqa: BLE001  # the task meets it again, and tells it where people look
            return True
        return True


def wait_for(
    not_yet: NotYet, step: Mapping[str, Any], run: Run, functions: frozenset[str], context: Mapping[str, Any]
) -> NoReturn:
    """Give the worker's slot back until what the task waits for may be there; end after the longest wait."""
    since, waited = waited_until_now(context)
    if waited >= not_yet.timeout:
        message = f"waited {waited:,.0f} s: {not_yet}"
        if not_yet.soft_fail:
            run.log.warning("skipped: %s", message)
            raise AirflowSkipException(message) from None
        remedy = "clear this task to wait again, or give it a longer `timeout`"
        fail(PermanentError(f"{message}; {remedy}"), context)
    run.log.info("waiting, without a worker's slot: %s", not_yet)
    times = {"interval": not_yet.poke_interval, "since": since.isoformat(), "left": not_yet.timeout - waited}
    trigger = Poke(step["uses"], to_json(step["arguments"]).decode(), _fields(run, functions), times)
    raise TaskDeferred(trigger=trigger, method_name="resume") from None


def _fields(run: Run, functions: frozenset[str]) -> dict[str, Any]:
    moments = (run.interval_start, run.interval_end)
    return {
        **{name: getattr(run, name) for name in _FIELDS},
        "date": run.date.isoformat(),
        "configs": str(run.configs),
        "functions": sorted(functions),
        "interval": [moment and moment.isoformat() for moment in moments],
    }


def _run(fields: Mapping[str, Any]) -> Run:
    start, end = (moment and dt.datetime.fromisoformat(moment) for moment in fields["interval"])
    return Run(
        **{name: fields[name] for name in _FIELDS},
        date=dt.date.fromisoformat(fields["date"]),
        configs=Path(fields["configs"]),
        interval_start=start,
        interval_end=end,
    )
