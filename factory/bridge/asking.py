"""How a task asks people: Airflow shows its question and keeps the run without a worker's slot until somebody answers.

Airflow's own operators for that render their texts with its Jinja; here the texts of a spec are filled in already.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any, NoReturn

from factory.bridge.failures import fail
from tasks.contract import Answer, Asking, PermanentError, Run


def ask(asking: Asking, run: Run, context: Mapping[str, Any]) -> NoReturn:
    """Put the question before people, and end this process; the task is called again with the answer."""
    from airflow.sdk.exceptions import TaskAwaitingInput
    from airflow.sdk.execution_time.hitl import HITLUser, upsert_hitl_detail

    if run.is_local:
        fail(PermanentError("taskflow run has nobody to ask; run the pipeline in Airflow"), context)
    upsert_hitl_detail(
        ti_id=context["ti"].id,
        options=list(asking.options),
        subject=asking.subject,
        body=asking.body or None,
        defaults=[asking.default] if asking.default else None,
        params={},
        assigned_users=[HITLUser(id=one, name=one) for one in asking.people],
    )
    run.log.info("asking, without a worker's slot: %s", asking.subject)
    raise TaskAwaitingInput(method_name="answered", timeout=dt.timedelta(seconds=asking.timeout))


def answer_of(context: Mapping[str, Any]) -> Answer | None:
    """Return what people chose; fail the task if nobody did in time and it says so. None before it has asked."""
    event: Mapping[str, Any] | None = getattr(context["task"], "answer", None)
    if event is None:
        return None
    if "error" in event:
        remedy = "clear this task to ask again, or give it a longer `timeout`, or `on_timeout`"
        fail(PermanentError(f"nobody answered in time; {remedy}"), context)
    user = event["responded_by_user"]
    return Answer(event["chosen_options"][0], user and user["name"], event["responded_at"])
