"""How people are told of the end of a run, a step or a try: Airflow's callbacks, sending through a connection.

A message that cannot be sent is an error in the log and changes no state. Airflow calls a step's callbacks in its own
process, and a pipeline's in a child of the dag-processor, seconds later.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.sdk.exceptions import AirflowSkipException

from factory.bridge.rendering import filled_in, run_of
from factory.planning.plan import Announcement, Node, Plan
from tasks.contract import PermanentError, TransientError

if TYPE_CHECKING:
    from tasks.messages import Level

REASON = "reason"
"""The XCom key under which a step that fails leaves why, for the message of its pipeline."""
_LEVELS: Mapping[str, Level] = {"on_failure": "error", "on_success": "info", "on_retry": "warning"}
_ENDS = {"on_failure": "failed", "on_success": "succeeded", "on_retry": "failed and will be retried"}
_COUNTED = ("gate", "load")
"""The roles of steps whose counts a pipeline's message has."""
_MAX_REASON = 300
_log = logging.getLogger(__name__)

Context = Mapping[str, Any]
Facts = Callable[[Context], Iterator[str]]


@dataclass(frozen=True, slots=True)
class Notifier:
    """One of Airflow's callbacks: sends what happened to the services that a connection lists."""

    event: str
    about: str
    announcement: Announcement
    facts: Facts

    def __call__(self, context: Context) -> None:
        """Send the message; log why if that is not possible."""
        what = f"{self.about} {_ENDS[self.event]}"
        lines = chain(self.text(context), self.facts(context))
        tell(self.announcement.connection, lines, f"{context['dag'].dag_id}: {what}", _LEVELS[self.event], what)

    def text(self, context: Context) -> Iterator[str]:
        """Yield the text that the spec gives, with an empty line below it; the facts are told without it, too."""
        message = self.announcement.message
        if message is None:
            return
        try:
            yield filled_in(message, context) if "ti" in context else message.text
        except PermanentError as error:
            yield f"{message.text} ({error})"
        yield ""


def tell(connection: str, lines: Iterable[str], title: str, level: Level, what: str) -> None:
    """Send a message to the services that a connection lists; if that is not possible, log why nobody knows of `what`.

    The lines may be made on the way: a PermanentError or TransientError of theirs is logged like one of the services.
    """
    from tasks.messages import send

    try:
        sent = send(connection, "\n".join(lines), title, level)
    except (PermanentError, TransientError) as error:
        _log.error("nobody was told that %s: %s", what, error)  # the reason is all
    else:
        _log.info("told %s by connection %r", f"{sent} service{'s' * (sent != 1)}", connection)


def step_callbacks(node: Node) -> dict[str, Any]:
    """Return the callbacks of a step, as Airflow's arguments."""
    return _callbacks(node.notify, f"step {node.task_id}", _step_facts)


def pipeline_callbacks(plan: Plan) -> dict[str, Any]:
    """Return the callbacks of a pipeline, as Airflow's arguments."""
    counted = [node.task_id for node in plan.nodes if node.role in _COUNTED]

    def facts(context: Context) -> Iterator[str]:
        return _run_facts(context, counted)

    return _callbacks(plan.notify, "the run", facts)


def _callbacks(notify: Mapping[str, Announcement], about: str, facts: Facts) -> dict[str, Any]:
    return {
        f"{event}_callback": [Notifier(event, about, one, facts)] for event, one in notify.items() if event in _ENDS
    }


@contextmanager
def reason_kept(context: Context) -> Iterator[None]:
    """Keep why the block failed, for the message of the pipeline."""
    try:
        yield
    except AirflowSkipException:
        raise
    except Exception as error:
        context["ti"].xcom_push(REASON, _one_line(error))
        raise


def _one_line(error: object) -> str:
    text = getattr(error, "reason", "") or str(error)
    first = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    return first if len(first) <= _MAX_REASON else f"{first[: _MAX_REASON - 1]}…"


# --- the facts --------------------------------------------------------------------------------------------------------


def _step_facts(context: Context) -> Iterator[str]:
    ti = context["ti"]
    yield f"Date: {run_of(context).date}"
    yield f"Try: {ti.try_number} of {ti.max_tries + 1}"
    if error := context.get("exception"):
        yield f"Reason: {_one_line(error)}"
    yield from _counts(ti, ti.task_id, -1 if ti.map_index is None else ti.map_index)
    yield f"Log: {ti.log_url}"


def _run_facts(context: Context, counted: list[str]) -> Iterator[str]:
    ti = context.get("ti")
    if ti is None:  # Airflow has no step to tell of
        yield f"Run: {context['run_id']}"
        yield f"Reason: {context.get('reason')}"
        return
    yield f"Date: {run_of(context).date}"
    states = ti.get_task_states(dag_id=ti.dag_id, run_ids=[ti.run_id]).get(ti.run_id, {})
    for failed in sorted(name for name, state in states.items() if state == "failed"):
        yield f"Failed: {failed}: {_reason(ti, failed)}"
    if "failed" not in states.values() and context.get("reason") not in (None, "success"):
        yield f"Reason: {context['reason']}"
    for task_id in counted:
        yield from (f"{task_id}: {line}" for line in _counts(ti, task_id))
    yield f"Run: {run_url(ti.dag_id, ti.run_id)}"


def _reason(ti: Any, name: str) -> str:
    """Return why a step failed; Airflow calls the item 2 of a mapped step `step_2`."""
    kept = ti.xcom_pull(task_ids=name, key=REASON)
    step, _, item = name.rpartition("_")
    if kept is None and step and item.isdigit():
        kept = ti.xcom_pull(task_ids=step, map_indexes=int(item), key=REASON)
    return str(kept) if kept else "its process ended without a reason; see its log"


def _counts(ti: Any, task_id: str, item: int = -1) -> Iterator[str]:
    """Yield the whole numbers of a step's output in one line, if it has any; those of one item of a mapped step."""
    output = ti.xcom_pull(task_ids=task_id, map_indexes=item)
    if isinstance(output, dict):
        numbers = {name: one for name, one in output.items() if isinstance(one, int) and not isinstance(one, bool)}
        if numbers:
            yield ", ".join(f"{name.replace('_', ' ')} {one:,}" for name, one in numbers.items())


def run_url(dag_id: str, run_id: str) -> str:
    """Return the address of a run's page."""
    from airflow.sdk.configuration import conf

    base = str(conf.get("api", "base_url", fallback="http://localhost:8080/")).rstrip("/")
    return f"{base}/dags/{dag_id}/runs/{quote(run_id)}"
