"""The ways to write when a pipeline runs: a cron or preset, a duration, assets, a timetable, or never."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Protocol, TypeAlias

from factory.language.arguments import (
    DURATION,
    Argument,
    ArgumentValue,
    AssetSpec,
    read_argument,
    read_asset,
    read_duration,
)
from factory.language.document import Value
from factory.language.errors import Path, did_you_mean

_CRON_PRESETS = ("@hourly", "@daily", "@weekly", "@monthly", "@quarterly", "@yearly")
PRESETS = ("@once", "@continuous", *_CRON_PRESETS)


@dataclass(frozen=True, slots=True)
class AssetSchedule:
    """Run when all, or any, of these assets have been updated."""

    combine: Literal["all", "any"]
    assets: tuple[AssetSpec | AssetSchedule, ...]


@dataclass(frozen=True, slots=True)
class TimetableSchedule:
    """One of Airflow's own timetables, with its arguments."""

    name: str
    arguments: Mapping[str, ArgumentValue]


Schedule: TypeAlias = str | dt.timedelta | AssetSchedule | TimetableSchedule | None


class Complain(Protocol):
    """Reports a problem at a path below `schedule`."""

    def __call__(self, path: Path, message: str, hint: str | None = None) -> None: ...


_TEXT, _DURATION, _BOOLEAN = Argument("text"), Argument("duration"), Argument("boolean")
TIMETABLES: Mapping[str, Mapping[str, Argument]] = {
    "CronTriggerTimetable": {
        "expression": _TEXT,
        "timezone": _TEXT,
        "interval": _DURATION,
        "run_immediately": _BOOLEAN,
    },
    "CronDataIntervalTimetable": {"expression": _TEXT, "timezone": _TEXT},
    "DeltaTriggerTimetable": {"delta": _DURATION, "interval": _DURATION},
    "DeltaDataIntervalTimetable": {"delta": _DURATION},
}
_REQUIRED = ("expression", "timezone", "delta")


def read_schedule(value: Value, complain: Complain) -> Schedule:
    """Return the schedule written as `value`, or report what is wrong and return None."""
    if value is None:
        return None
    if isinstance(value, str):
        return _text(value, complain)
    if isinstance(value, dict) and "assets" in value:
        return _assets(value, complain)
    if isinstance(value, dict) and "timetable" in value:
        return _timetable(value, complain)
    forms = 'write a cron ("0 6 * * *"), a preset (@daily), a duration (6h), {assets: […]}, {timetable: …} or null'
    complain((), f"schedule is {json.dumps(value, ensure_ascii=False)}, which is not a schedule", forms)
    return None


def _text(value: str, complain: Complain) -> Schedule:
    if value in PRESETS:
        return value
    if DURATION.match(value):
        return _duration(value, complain)
    if problem := cron_problem(value):
        hint = (
            did_you_mean(value, PRESETS, "presets")
            if value.startswith("@")
            else 'minute hour day month weekday, as in "30 6 * * 1-5"'
        )
        complain((), f'"{value}" is not a schedule: {problem}', hint)
        return None
    return value


def _duration(value: str, complain: Complain) -> dt.timedelta | None:
    try:
        return read_duration(value)
    except ValueError as error:
        complain((), f'"{value}" is not a schedule: it should be {error}')
        return None


@lru_cache(maxsize=1024)
def cron_problem(expression: str) -> str | None:
    """Return what is wrong with a cron expression, or None."""
    from croniter import CroniterBadDateError, CroniterError, croniter

    if expression.startswith("@"):
        return "it is not one of Airflow's presets"
    if len(expression) > _LONGEST_CRON:
        return f"it has {len(expression)} characters, more than {_LONGEST_CRON}"
    if (count := len(expression.split())) != _CRON_FIELDS:
        return f"it has {count} fields, but a cron has 5"
    try:
        croniter(expression, _SOME_DAY, max_years_between_matches=_LEAP_YEARS).get_next()
    except CroniterBadDateError:
        return "there is no such day, so it would never run"
    except CroniterError as error:
        return str(error).rpartition("] is not acceptable, ")[2].strip()
    return None


_CRON_FIELDS = 5
_LONGEST_CRON = 100
"""Airflow keeps a description of it, several times as long, in 1,000 characters."""
_SOME_DAY = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
_LEAP_YEARS = 9
"""The longest time between two days of a cron: from a 29 February to the next, over a century without one."""


def _assets(value: Mapping[str, Value], complain: Complain) -> Schedule:
    for key in value:
        if key != "assets":
            complain((key,), f'"{key}" is not allowed next to assets', "write {assets: […]} or {assets: {any: […]}}")
    return _asset_expression(value["assets"], ("assets",), complain)


def _asset_expression(value: Value, path: Path, complain: Complain) -> AssetSchedule | None:
    if isinstance(value, dict) and len(value) == 1 and next(iter(value)) in ("all", "any"):
        combine: Literal["all", "any"] = "all" if "all" in value else "any"
        return _asset_list(combine, value[combine], (*path, combine), complain)
    return _asset_list("all", value if isinstance(value, list) else [value], path, complain)


def _asset_list(combine: Literal["all", "any"], value: Value, path: Path, complain: Complain) -> AssetSchedule | None:
    if not isinstance(value, list) or not value:
        complain(path, "a list of assets is expected", "write [name, …] or [{name: …, uri: …}, …]")
        return None
    read = [_asset(asset, (*path, index), complain) for index, asset in enumerate(value)]
    return AssetSchedule(combine, tuple(asset for asset in read if asset))


def _asset(value: Value, path: Path, complain: Complain) -> AssetSpec | AssetSchedule | None:
    if isinstance(value, dict) and set(value) & {"all", "any"}:
        return _asset_expression(value, path, complain)
    try:
        return read_asset(value)
    except ValueError as error:
        complain(path, f"{json.dumps(value)} should be {error}")
        return None


def _timetable(value: Mapping[str, Value], complain: Complain) -> Schedule:
    name = value["timetable"]
    fields = TIMETABLES.get(name) if isinstance(name, str) else None
    if not isinstance(name, str) or fields is None:
        complain(
            ("timetable",), f"{json.dumps(name)} is not a timetable", did_you_mean(str(name), TIMETABLES, "timetables")
        )
        return None
    arguments = {
        key: _timetable_argument(fields, key, one, complain) for key, one in value.items() if key != "timetable"
    }
    for missing in [one for one in fields if one in _REQUIRED and one not in value]:
        complain(("timetable",), f'the timetable {name} needs "{missing}"', f"add {missing}: next to it")
    return TimetableSchedule(name, arguments)


def _timetable_argument(fields: Mapping[str, Argument], key: str, value: Value, complain: Complain) -> ArgumentValue:
    if key not in fields:
        complain((key,), f'"{key}" is not an argument of this timetable', did_you_mean(key, fields, "arguments"))
        return None
    try:
        read = read_argument(fields[key], value)
    except ValueError as error:
        complain((key,), f"{key} is {json.dumps(value)}; it should be {error}")
        return None
    is_cron = key == "expression" and isinstance(value, str) and value not in _CRON_PRESETS
    problem = cron_problem(str(value)) if is_cron else None
    if problem:
        complain((key,), f'"{value}" is not a cron: {problem}')
    return read
