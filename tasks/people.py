"""Ask people, and go on when they have answered: the run holds no worker's slot meanwhile."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tasks.contract import Answer, Asking, DataRejected, NothingToDo, Output, Run, reusable

APPROVE, REJECT = "Approve", "Reject"
_DEFAULTS = {"fail": None, "approve": APPROVE, "reject": REJECT}


class Approval(Output):
    """How it was decided."""

    approved: bool
    by: str
    """Who decided; `nobody` if that was so in time."""
    at: str


@reusable("people.approve", role="stop", kind="deferrable")
def approve(
    subject: Annotated[str, Field(min_length=1, max_length=1000)],
    body: Annotated[str, Field(max_length=100_000)] = "",
    people: list[Annotated[str, Field(min_length=1, max_length=200)]] | None = None,
    timeout: Annotated[float, Field(ge=1, le=31_536_000)] = 604_800,
    on_timeout: Literal["fail", "approve", "reject"] = "fail",
    on_reject: Literal["fail", "skip", "continue"] = "fail",
    *,
    run: Run,
) -> Approval:
    """Ask people to approve: Airflow shows `subject` and `body`, which is Markdown, among its required actions.

    Whoever may edit the run decides, or only `people`, by the ids of Airflow's users. If nobody does in `timeout`
    seconds (a week), `on_timeout` is to fail, or to take it for approved or rejected. A rejection fails the step, with
    `on_reject: skip` skips it and what needs its success, and with `continue` goes on with `approved: false`, for a
    branch. A step that is cleared asks again.
    """
    answer = run.answer
    if answer is None:
        raise Asking(subject, body, (APPROVE, REJECT), _DEFAULTS[on_timeout], tuple(people or ()), timeout)
    if answer.chosen == APPROVE or on_reject == "continue":
        run.log.info("%s: %s", subject, _told(answer))
        return Approval(approved=answer.chosen == APPROVE, by=answer.by or "nobody", at=answer.at.isoformat())
    if on_reject == "skip":
        raise NothingToDo(f"{subject}: {_told(answer)}")
    raise DataRejected(f"{subject}: {_told(answer)}")


def _told(answer: Answer) -> str:
    done = "approved" if answer.chosen == APPROVE else "rejected"
    who = f"by {answer.by}" if answer.by else "because nobody answered in time"
    return f"{done} {who} at {answer.at:%Y-%m-%d %H:%M} UTC"
