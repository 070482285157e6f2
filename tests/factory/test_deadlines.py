"""What people are told when something has not ended in time. The scheduler's part is tried on the whole stack."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest

from factory.bridge.deadlines import missed
from tests.support.listener import Listener, listening

DAG_RUN = {"dag_id": "late", "dag_run_id": "manual__1", "logical_date": None, "run_after": "2026-02-02T15:00:00Z"}


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    """The service that the connection `people` lists."""
    with listening() as found:
        extra = {"config": {"path": found.address}}
        monkeypatch.setenv("AIRFLOW_CONN_PEOPLE", json.dumps({"conn_type": "apprise", "extra": extra}))
        yield found


@pytest.fixture
def states(monkeypatch: pytest.MonkeyPatch) -> dict[str, str | None]:
    """What Airflow says of the steps of the run."""
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    found: dict[str, str | None] = {}

    def answer(dag_id: str, run_ids: list[str], task_ids: list[str] | None) -> dict[str, dict[str, str | None]]:
        assert (dag_id, run_ids) == ("late", ["manual__1"])
        return {"manual__1": {name: one for name, one in found.items() if task_ids is None or name in task_ids}}

    monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", staticmethod(answer))
    return found


def tell(step: str, message: str = "") -> None:
    due, zone = "2:00:00 after the run was queued", "Asia/Tokyo"
    late = {"step": step, "due": due, "connection": "people", "message": message, "timezone": zone}
    asyncio.run(missed(late, {"dag_run": DAG_RUN}))


def test_late_run_is_told(listener: Listener, states: dict[str, str | None]) -> None:
    """The text, the date where the pipeline is, the steps that have not ended, and the address of the run."""
    states.update({"first": "success", "slow": "running", "last": None, "never": "skipped"})
    tell("", "look at it")

    (heard,) = listener.heard
    assert (heard["title"], heard["type"]) == (
        "late: the run has not ended 2:00:00 after the run was queued",
        "warning",
    )
    assert heard["message"].splitlines()[:4] == ["look at it", "", "Date: 2026-02-03", "Not ended: last, slow"]
    assert heard["message"].endswith("/dags/late/runs/manual__1")


def test_some_of_many_steps_are_named(listener: Listener, states: dict[str, str | None]) -> None:
    """A run of many steps is told with the first of those that have not ended."""
    states.update({f"step_{place:04}": None for place in range(1500)})
    tell("")

    (heard,) = listener.heard
    assert heard["message"].splitlines()[1].endswith("step_0018, step_0019 and 1,480 more")


@pytest.mark.parametrize(("state", "count"), [("success", 0), ("failed", 0), ("up_for_retry", 1), (None, 1)])
def test_step_in_time_is_quiet(
    listener: Listener, states: dict[str, str | None], state: str | None, count: int
) -> None:
    """A step that has ended, however, is told of no more; one that waits for its retry has not ended."""
    states.update({"slow": state, "other": "running"})
    tell("slow")
    assert len(listener.heard) == count


def test_nobody_to_tell_is_an_error_in_the_log(states: dict[str, str | None], caplog: pytest.LogCaptureFixture) -> None:
    """A connection that is not there is told, and nothing is raised."""
    states["slow"] = "running"
    tell("slow")
    assert "nobody was told that step slow has not ended" in caplog.text
