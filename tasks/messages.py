"""Say something in the log of a run."""

from __future__ import annotations

import logging
from typing import Annotated, Literal

from pydantic import Field

from tasks.contract import Output, Run, reusable

Level = Literal["debug", "info", "warning", "error"]


class Logged(Output):
    """What was said."""

    message: str


@reusable("messages.log", role="notify")
def log(message: Annotated[str, Field(min_length=1)], level: Level = "info", *, run: Run) -> Logged:
    """Write `message` to the task's log.

    `level` is debug, info, warning or error; it marks the line in the log and nothing else: an error does not fail
    the step.
    """
    run.log.log(logging.getLevelNamesMapping()[level.upper()], "%s", message)
    return Logged(message=message)
