"""`people.approve`: what is asked, and what an answer does. Airflow's part is tried on the whole stack."""

from __future__ import annotations

import dataclasses
import datetime as dt
import uuid
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.contract import Answer, Asking, DataRejected, NothingToDo, Run
from tasks.people import approve

NOON = dt.datetime(2026, 2, 3, 12, tzinfo=dt.UTC)


def answered(run: Run, chosen: str, by: str | None = "ana") -> Run:
    return dataclasses.replace(run, answer=Answer(chosen, by, NOON))


def test_question_is_asked(run: Run) -> None:
    """Without an answer the task asks, with what counts if nobody answers in time."""
    with pytest.raises(Asking) as raised:
        approve("Load it?", "**3** rows", ["ana"], 60, "reject", run=run)
    asking = raised.value
    assert (asking.subject, asking.body, asking.options) == ("Load it?", "**3** rows", ("Approve", "Reject"))
    assert (asking.default, asking.people, asking.timeout) == ("Reject", ("ana",), 60)


def test_approval_goes_on(run: Run) -> None:
    """Who approved, and when, is the output."""
    done = approve("Load it?", run=answered(run, "Approve"))
    assert (done.approved, done.by, done.at) == (True, "ana", "2026-02-03T12:00:00+00:00")


def test_rejection_does_what_the_step_says(run: Run) -> None:
    """It fails the step without a retry, skips it, or goes on for a branch."""
    with pytest.raises(DataRejected, match=r"^Load it\?: rejected by ana at 2026-02-03 12:00 UTC$"):
        approve("Load it?", run=answered(run, "Reject"))
    with pytest.raises(NothingToDo, match="rejected because nobody answered in time"):
        approve("Load it?", on_reject="skip", run=answered(run, "Reject", None))
    assert not approve("Load it?", on_reject="continue", run=answered(run, "Reject")).approved


def context(**more: Any) -> dict[str, Any]:
    return {"ti": SimpleNamespace(id="some-uuid", task_id="sure"), "task": SimpleNamespace(**more)}


def test_answer_is_read() -> None:
    """Airflow's event becomes the answer; before the question there is none."""
    from factory.bridge.asking import answer_of

    event = {"chosen_options": ["Approve"], "responded_by_user": {"id": "1", "name": "ana"}, "responded_at": NOON}
    assert answer_of(context()) is None
    assert answer_of(context(answer=event)) == Answer("Approve", "ana", NOON)
    assert answer_of(context(answer={**event, "responded_by_user": None})) == Answer("Approve", None, NOON)


def test_no_answer_fails() -> None:
    """Where nobody answers and nothing is taken for an answer, the step fails with what to do."""
    from factory.bridge.asking import answer_of
    from factory.bridge.failures import StepFailed

    late = {"error": "The Human-in-the-loop response timeout has passed", "error_type": "timeout"}
    with pytest.raises(StepFailed, match='step "sure": nobody answered in time; clear this task to ask again'):
        answer_of(context(answer=late))


def test_airflow_takes_the_question(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is sent is what the server of Airflow accepts, and the task then waits for input."""
    from airflow.api_fastapi.execution_api.datamodels.hitl import HITLDetailRequest
    from airflow.sdk.exceptions import TaskAwaitingInput
    from airflow.sdk.execution_time import task_runner

    from factory.bridge.asking import ask

    sent: list[Any] = []
    supervisor = SimpleNamespace(send=lambda *, msg: sent.append(msg))
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", supervisor, raising=False)
    asking = Asking("Load it?", "", ("Approve", "Reject"), "Reject", ("ana",), 60)
    instance = {"ti": SimpleNamespace(id=uuid.uuid4(), task_id="sure")}
    with pytest.raises(TaskAwaitingInput) as waiting:
        ask(asking, run, instance)

    assert (waiting.value.method_name, waiting.value.timeout) == ("answered", dt.timedelta(seconds=60))
    taken = HITLDetailRequest.model_validate_json(sent[0].model_dump_json(exclude={"type"}))
    assert (taken.subject, taken.options, taken.defaults) == ("Load it?", ["Approve", "Reject"], ["Reject"])
    assert [one.id for one in taken.assigned_users] == ["ana"]


def test_nobody_is_asked_here(run: Run) -> None:
    """`taskflow run` has no Airflow that shows a question."""
    from factory.bridge.asking import ask
    from factory.bridge.failures import StepFailed

    asking = Asking("Load it?", "", ("Approve", "Reject"), None, (), 60)
    with pytest.raises(StepFailed, match="taskflow run has nobody to ask"):
        ask(asking, dataclasses.replace(run, is_local=True), context())
