"""What is killed with -9 in the middle of a step leaves the tables of an undisturbed run.

A gate in the database makes the middle: a closed one keeps a step busy after it wrote and before it commits, so that
each kill meets a step that is at work. What is killed is the task's process, the scheduler with all that is below it,
or Postgres, in which both the pipeline's tables and Airflow's own are.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from stack.airflow_api import DagRun
from stack.paths import REPOSITORY
from tests.support.pipeline import OF_A_TRY, PROD, RECORDS, REJECTS, Pipeline, Tables, content, differences
from tests.support.processes import alive, pid
from tests.support.waiting import eventually
from tests.support.whole_stack import RunningStack

pytestmark = pytest.mark.stack

DAG = "crypto_kills"
DATE = dt.date(2026, 3, 10)
PARAMS = {"window_days": 2, "rows_per_day": 2000, "vacuum": True}
VOLATILE = ("run_id", "created_at", "updated_at", "quarantined_at", *OF_A_TRY)
SQL = Path(__file__).parent / "sql"


# --- the gate ---------------------------------------------------------------------------------------------------


def close_gates(kills: Pipeline, *steps: str) -> None:
    """Let each of these steps be held when it is in the middle of its work."""
    kills.sql("INSERT INTO gate.closed SELECT unnest(%(names)s)", {"names": [session_name(step) for step in steps]})


def open_gate(kills: Pipeline, step: str) -> None:
    """Let the next attempt of a step pass; who is held now is held until it is killed."""
    kills.sql("DELETE FROM gate.closed WHERE name = %(name)s", {"name": session_name(step)})


def session_name(step: str) -> str:
    return f"taskflow {DAG}.{step}"


# --- who is killed ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of a step, held in the middle of its work."""

    step: str
    number: int
    process: psutil.Process
    session: int
    """The process of Postgres that works for it."""


Victim = Callable[[RunningStack, Attempt], None]


def task_process(_stack: RunningStack, attempt: Attempt) -> None:
    attempt.process.kill()


def scheduler(stack: RunningStack, _attempt: Attempt) -> None:
    """Kill it, and see that nothing that it ran is left."""
    killed = psutil.Process(pid(stack, "scheduler"))
    below = killed.children(recursive=True)
    killed.kill()
    eventually("what the scheduler ran to end", lambda: alive(below), lambda left: left == [])


def postgres(stack: RunningStack, _attempt: Attempt) -> None:
    psutil.Process(pid(stack, "postgres")).kill()


VICTIMS: dict[str, tuple[Victim, ...]] = {
    "create_tables": (task_process,),
    "generate_fake_history_last_5_days": (task_process,),
    "build_events_candidate": (task_process,),
    "ge_validate_raw": (task_process,),
    "ge_validate_candidate": (task_process,),
    "merge_to_prod": (task_process, scheduler, postgres),
    "vacuum_analyze_prod": (task_process, postgres),
}
"""For each step that works in the database, who is killed in its middle, an attempt each.

A task's process leaves a session that works on and holds its locks, which differ from step to step. A scheduler takes
the processes of its tasks along: to the tables no other kill, so one step will do. Postgres ends the sessions and
undoes what they began, in one step as in another; a vacuum is no transaction, and stands for itself.
"""


# --- the run ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kills(stack: RunningStack) -> Iterator[Pipeline]:
    """A copy of the pipeline that retries at once and often, in a database that has gates."""
    spec = yaml.safe_load((REPOSITORY / "pipelines" / "crypto_events.yaml").read_text())
    spec |= {"dag_id": DAG, "schedule": None, "default_args": {"retries": 20, "retry_delay": "1s"}}
    (stack.dags_folder / "crypto_kills.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    pipeline = Pipeline(DAG, stack.api, stack.services.crypto)
    pipeline.api.await_dag(DAG, seconds=180)
    pipeline.api.unpause(DAG)
    superuser = stack.services.cluster.superuser.named(pipeline.database.dbname)
    with superuser.connect() as session, session.cursor() as cursor:
        cursor.execute((SQL / "gate.sql").read_text())
    yield pipeline
    with superuser.connect() as session, session.cursor() as cursor:
        cursor.execute("DROP EVENT TRIGGER gate; DROP SCHEMA gate CASCADE")
    (stack.dags_folder / "crypto_kills.yaml").unlink()


def prepare(kills: Pipeline) -> None:
    """Lay out what the run finds: something to insert, update, switch off and bring back, and half of the tables."""
    kills.end_all()
    kills.sql("TRUNCATE gate.closed; DROP SCHEMA IF EXISTS raw, staging, prod, dqm CASCADE")
    kills.sql((REPOSITORY / "configs" / "sql" / "crypto" / "tables.sql").read_text())
    kills.sql((SQL / "before_kills.sql").read_text(), {"date": DATE})
    kills.sql("DROP SCHEMA staging, dqm CASCADE")


@pytest.fixture(scope="module")
def undisturbed(kills: Pipeline) -> Tables:
    """The tables after a run that nobody disturbed."""
    prepare(kills)
    run = kills.run(DATE, hour=0, **PARAMS)
    assert set(kills.states(run).values()) == {"success"}
    found = content(kills, *VOLATILE)
    merged = {"inserted": 3800, "updated": 50, "reactivated": 50, "deactivated": 100, "unchanged": 100}
    assert kills.output(run, "merge_to_prod") == merged
    return found


def held(kills: Pipeline, run: DagRun, step: str, *, after: Attempt | None = None) -> Attempt:
    """Return the attempt of a step once it is held by its gate; the session of one that was killed lives on a while."""
    text = "SELECT pid FROM pg_stat_activity WHERE application_name = %(name)s AND pid <> %(former)s"
    values = {"name": f"held {session_name(step)}", "former": after.session if after else 0}
    ((session,),) = eventually(f"{step} to be in the middle of its work", lambda: kills.sql(text, values))
    instance = kills.instance(run, step)
    assert instance["state"] == "running"
    return Attempt(step, instance["try_number"], psutil.Process(instance["pid"]), session)


def await_next(kills: Pipeline, run: DagRun, attempt: Attempt) -> None:
    """Wait for the attempt after this one, and see that this one is over."""
    step, number = attempt.step, attempt.number

    def is_next(instance: dict[str, Any]) -> bool:
        return instance["try_number"] > number and instance["state"] in {"running", "success", "failed"}

    eventually(f"an attempt of {step} after number {number}", lambda: kills.instance(run, step), is_next)
    assert alive([attempt.process]) == [], f"attempt {number} of {step} works on beside the next"


def kill_in_turn(stack: RunningStack, kills: Pipeline, run: DagRun, step: str, victims: tuple[Victim, ...]) -> None:
    """Kill somebody in the middle of each attempt of a step; the attempt after the last passes."""
    attempt: Attempt | None = None
    for kill in victims:
        attempt = held(kills, run, step, after=attempt)
        if kill is victims[-1]:
            open_gate(kills, step)
        kill(stack, attempt)
        await_next(kills, run, attempt)


def test_kill_changes_nothing(stack: RunningStack, kills: Pipeline, undisturbed: Tables) -> None:
    """A run in which each step was killed in its middle ends green, with the tables of an undisturbed run."""
    prepare(kills)
    close_gates(kills, *VICTIMS)
    run = kills.start(DATE, hour=1, **PARAMS)
    for step, victims in VICTIMS.items():
        kill_in_turn(stack, kills, run, step, victims)
    assert kills.api.wait(run, seconds=300).state == "success"
    assert differences(undisturbed, content(kills, *VOLATILE)) == {}
    unmoved = f"SELECT count(*) FROM {PROD} WHERE updated_at = '2020-01-01'"
    assert kills.sql(unmoved) == [(110,)]  # 100 that were as in the history, 10 outside the window


def test_killed_quarantine_keeps_rejects(stack: RunningStack, kills: Pipeline) -> None:
    """A gate that was killed twice while it set bad rows aside leaves each of them once, and stops the run.

    The record of a killed try stays, without an end.
    """
    spoilt = PARAMS | {"bad_share": 0.2}
    prepare(kills)
    assert kills.run(DATE, hour=10, **spoilt).state == "failed"
    expected = content(kills, *VOLATILE)

    prepare(kills)
    close_gates(kills, "ge_validate_raw")
    run = kills.start(DATE, hour=11, **spoilt)
    kill_in_turn(stack, kills, run, "ge_validate_raw", (task_process, postgres))
    assert kills.api.wait(run, seconds=300).state == "failed"
    assert kills.states(run)["ge_validate_candidate"] == "upstream_failed"
    assert expected[REJECTS].total() > 0
    text = f"SELECT passed, ended_at IS NULL FROM {RECORDS} WHERE run_id = %(run)s ORDER BY started_at"
    recorded = kills.sql(text, {"run": run.run_id})
    assert (recorded[0], recorded[-1]) == ((None, True), (False, False))
    assert differences(expected, content(kills, *VOLATILE)) == {}
