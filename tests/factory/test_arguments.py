"""Airflow's arguments as a spec may write them."""

import datetime as dt
import inspect

import airflow.sdk
import pytest
from airflow.sdk import DAG, BaseOperator, TriggerRule, WeightRule
from airflow.utils.types import DagRunType

from factory.language.arguments import DAG_ARGUMENTS, TASK_ARGUMENTS, read_argument, read_datetime, read_duration
from factory.language.schedules import TIMETABLES


def test_dag_table_is_complete() -> None:
    """Every parameter of Airflow's DAG is in the table, and nothing else."""
    assert set(inspect.signature(DAG.__init__).parameters) - {"self"} == set(DAG_ARGUMENTS)


def test_task_table_is_complete() -> None:
    """Every parameter of Airflow's BaseOperator is in the table, and nothing else."""
    assert set(inspect.signature(BaseOperator.__init__).parameters) - {"self", "kwargs"} == set(TASK_ARGUMENTS)


def test_choices_are_airflows() -> None:
    """The rules and types that may be chosen are those of Airflow."""
    assert set(TASK_ARGUMENTS["trigger_rule"].choices) == {rule.value for rule in TriggerRule}
    assert set(TASK_ARGUMENTS["weight_rule"].choices) == {rule.value for rule in WeightRule}
    assert set(DAG_ARGUMENTS["allowed_run_types"].choices) == {kind.value for kind in DagRunType}


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("5m", 300), ("1h 30m", 5400), ("2d", 172800), ("250ms", 0.25), ("1w", 604800)]
)
def test_durations_are_read(text: str, seconds: float) -> None:
    """A duration is a number with its unit, or several."""
    assert read_duration(text) == dt.timedelta(seconds=seconds)


@pytest.mark.parametrize("value", ["5", 5, "5 minutes", "", "m5", None, "-5m"])
def test_other_durations_are_refused(value: object) -> None:
    """A duration without its unit is no duration."""
    with pytest.raises(ValueError, match="a duration such as 30s"):
        read_duration(value)


def test_dates_are_read() -> None:
    """A date may have a time and a zone."""
    assert read_datetime("2026-01-01") == dt.datetime(2026, 1, 1)  # noqa: DTZ001  # a spec's timezone comes later
    assert read_datetime("2026-01-01T06:30+02:00").utcoffset() == dt.timedelta(hours=2)


def test_boolean_is_no_number() -> None:
    """true is not taken for 1."""
    with pytest.raises(ValueError, match="a whole number of at least 0"):
        read_argument(TASK_ARGUMENTS["retries"], value=True)


def test_timetables_are_airflows() -> None:
    """The arguments of each timetable are those of Airflow's class."""
    for name, arguments in TIMETABLES.items():
        assert set(inspect.signature(getattr(airflow.sdk, name)).parameters) == set(arguments)
