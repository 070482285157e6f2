"""Run a pipeline on the scheduler, and follow it on screen step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stack.airflow_api import AirflowApi, ApiError, DagRun
from stack.screen import CONSOLE

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping

    from pydantic import JsonValue

COLOURS = {"success": "green", "failed": "red", "skipped": "magenta", "upstream_failed": "dark_orange"}
LOGIN = "its login: `make status PASSWORDS=1`"
_QUIET = frozenset({"waiting", "scheduled", "queued"})


def follow(
    api: AirflowApi, dag_id: str, title: str, conf: Mapping[str, JsonValue], date: dt.datetime | None = None
) -> DagRun:
    """Trigger a run, print each step's state as it changes, and return the run once it has ended."""
    CONSOLE.print(f"\n[bold]{title}[/]")
    run = api.trigger(dag_id, conf, logical_date=date.isoformat() if date else None)
    api.unpause(dag_id)
    shown: dict[str, str] = {}

    def show(states: Mapping[str, str]) -> None:
        for task, state in states.items():
            if shown.get(task) != state and state not in _QUIET:
                CONSOLE.print(f"  [{COLOURS.get(state, 'cyan')}]{state:16}[/] {task}")
        shown.update(states)

    ended = api.wait(run, seconds=900, told=show)
    CONSOLE.print(f"  [bold {COLOURS[ended.state]}]{ended.state}[/]  {api.run_page(run)}")
    return ended


def output(api: AirflowApi, run: DagRun, task: str) -> dict[str, Any]:
    """Return what a task returned, or nothing if it did not get that far."""
    try:
        returned = api.output(run.dag_id, run.run_id, task)
    except ApiError:
        return {}
    return returned if isinstance(returned, dict) else {}
