"""What the guide says of a run's date: Airflow's own timetables are asked."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from factory import load_dag

MONDAY = dt.datetime(2026, 1, 5, tzinfo=dt.UTC)
TUESDAY = dt.datetime(2026, 1, 6, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("schedule", "start", "logical_date", "interval"),
    [
        ('"@daily"', "2026-01-06", TUESDAY, (TUESDAY, TUESDAY)),
        (
            '{timetable: CronDataIntervalTimetable, expression: "@daily", timezone: UTC}',
            "2026-01-05",
            MONDAY,
            (MONDAY, TUESDAY),
        ),
    ],
)
def test_run_at_midnight_is_of_that_date(
    tmp_path: Path, schedule: str, start: str, logical_date: dt.datetime, interval: tuple[dt.datetime, dt.datetime]
) -> None:
    """The run that begins on Tuesday at midnight is of Tuesday, or of Monday where the timetable has intervals."""
    from airflow.serialization.serialized_objects import DagSerialization
    from airflow.timetables.base import TimeRestriction

    (tmp_path / "configs").mkdir()
    spec = tmp_path / "daily.yaml"
    steps = "steps: {say: {uses: messages.log, with: {message: hello}}}"
    spec.write_text(f"dag_id: daily\nschedule: {schedule}\nstart_date: {start}\n{steps}\n")
    dag = DagSerialization.from_dict(DagSerialization.to_dict(load_dag(spec)))

    restriction = TimeRestriction(earliest=dag.start_date, latest=None, catchup=True)
    first = dag.timetable.next_dagrun_info(last_automated_data_interval=None, restriction=restriction)
    assert first is not None
    assert (first.run_after, first.logical_date) == (TUESDAY, logical_date)
    assert (first.data_interval.start, first.data_interval.end) == interval
