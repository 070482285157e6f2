"""Deadlines: people are told that a run, or a step of it, has not ended, and Airflow's page of the run shows it.

The scheduler sees that a deadline has passed, and the triggerer tells; a missed deadline changes no state.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from factory.bridge.notifying import run_url, tell
from factory.language.arguments import Deadline
from factory.language.notices import ON_DEADLINE
from factory.planning.plan import Announcement, Plan

if TYPE_CHECKING:
    from airflow.sdk.definitions.deadline import DeadlineAlert

_SINCE = {
    "queued_at": "after the run was queued",
    "logical_date": "after its logical date",
    "average_runtime": "beyond the average of the last runs",
}
_ENDED = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
_MAX_NAMED = 20
"""How many of the steps that have not ended a message names."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Late:
    """What is late, and who is told: kept by Airflow with the deadline, as JSON."""

    step: str
    """Nothing for the run itself."""
    due: str
    connection: str
    message: str
    timezone: str
    """The pipeline's, of which the date of the run is told."""

    @property
    def about(self) -> str:
        return f"step {self.step}" if self.step else "the run"


def deadlines(plan: Plan) -> dict[str, Any]:
    """Return the deadlines of a pipeline and of its steps, as Airflow's argument, if there are any."""
    deadline = plan.airflow.get("deadline")
    zone = plan.timezone or "UTC"
    found = [_alert(deadline, plan.notify, "", zone)] if isinstance(deadline, Deadline) else []
    found += [_alert(node.deadline, node.notify, node.task_id, zone) for node in plan.nodes if node.deadline]
    return {"deadline": found} if found else {}


def _alert(deadline: Deadline, notify: Mapping[str, Announcement], step: str, zone: str) -> DeadlineAlert:
    from airflow.sdk.definitions.callback import AsyncCallback
    from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference

    references = {
        "queued_at": DeadlineReference.DAGRUN_QUEUED_AT,
        "logical_date": DeadlineReference.DAGRUN_LOGICAL_DATE,
        "average_runtime": DeadlineReference.AVERAGE_RUNTIME(),
    }
    told = notify.get(ON_DEADLINE)
    due = f"{deadline.interval} {_SINCE[deadline.reference]}"
    message = told.message.text if told and told.message else ""
    late = _Late(step, due, told.connection if told else "", message, zone)
    name = late.about if step else None
    callback = AsyncCallback(missed, {"late": asdict(late)})
    return DeadlineAlert(references[deadline.reference], deadline.interval, callback, name)


async def missed(late: Mapping[str, str], context: Mapping[str, Any]) -> None:
    """Tell that a run, or one step of it, has not ended; Airflow calls it in the triggerer."""
    await asyncio.to_thread(_tell, _Late(**late), context["dag_run"])


def _tell(late: _Late, dag_run: Mapping[str, Any]) -> None:
    waiting = _not_ended(late.step, dag_run)
    if not waiting:
        return
    title = f"{dag_run['dag_id']}: {late.about} has not ended {late.due}"
    _log.warning("%s, run %s", title, dag_run["dag_run_id"])
    if late.connection:
        text = [late.message, ""] if late.message else []
        tell(
            late.connection,
            chain(text, _facts(late, dag_run, waiting)),
            title,
            "warning",
            f"{late.about} has not ended",
        )


def _not_ended(step: str, dag_run: Mapping[str, Any]) -> list[str]:
    """Return which steps of a run have not ended; of one step, its mapped items."""
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    run_id = dag_run["dag_run_id"]
    states = RuntimeTaskInstance.get_task_states(
        dag_id=dag_run["dag_id"], run_ids=[run_id], task_ids=[step] if step else None
    )
    return sorted(name for name, state in states.get(run_id, {}).items() if state not in _ENDED)


def _facts(late: _Late, dag_run: Mapping[str, Any], waiting: list[str]) -> Iterator[str]:
    moment = dt.datetime.fromisoformat(dag_run["logical_date"] or dag_run["run_after"])
    yield f"Date: {moment.astimezone(ZoneInfo(late.timezone)).date()}"
    more = f" and {len(waiting) - _MAX_NAMED:,} more" if len(waiting) > _MAX_NAMED else ""
    yield f"Not ended: {', '.join(waiting[:_MAX_NAMED])}{more}"
    yield f"Run: {run_url(dag_run['dag_id'], dag_run['dag_run_id'])}"
