"""Stop a run where there is nothing to do."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tasks.contract import NothingToDo, Output, reusable


class Continued(Output):
    """Why the run goes on."""

    reason: str


@reusable("flow.stop_if", role="stop")
def stop_if(*, condition: bool, reason: Annotated[str, Field(min_length=1, max_length=1000)]) -> Continued:
    """Skip this step if `condition` is true, and with it every step that needs its success: the run ends quietly.

    Such a run is a success: nothing in it has failed. `reason` is logged, and shown by Airflow. A step that has to run
    either way needs the steps that were skipped with `trigger_rule: none_failed`.
    """
    if condition:
        raise NothingToDo(reason)
    return Continued(reason=f"not so: {reason}")
