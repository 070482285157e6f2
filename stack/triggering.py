"""What is asked of a run before Airflow is: a pipeline that exists, params that it has, a date in its own time zone.

Knows the one line of a spec that names its pipeline; the factory knows the rest.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import httpx

from stack.airflow_api import ApiError

if TYPE_CHECKING:
    from pydantic import JsonValue

    from stack.airflow_api import AirflowApi, DagRun

_DAG_ID = re.compile(r"""^dag_id:[ \t]*(["']?)([\w.-]+)\1[ \t]*(?:#.*)?$""", re.MULTILINE)


def declared(folder: Path) -> dict[str, Path]:
    """Return the specs of a folder by their dag_id."""
    specs = sorted(folder.rglob("*.y*ml"))
    found = ((_DAG_ID.search(spec.read_text(encoding="utf-8", errors="replace")), spec) for spec in specs)
    return {match[2]: spec for match, spec in found if match}


def start(
    api: AirflowApi, specs: Path, dag_id: str, params: Mapping[str, JsonValue], date: str | None = None
) -> DagRun:
    """Start a run of a pipeline whose specs are in `specs`; `date` is its day in the pipeline's time zone.

    Raises ValueError for a name that Airflow does not know, or a date that has a run; TimeoutError, with Airflow's
    import error, for a spec that it cannot read.
    """
    known = declared(specs)
    if dag_id not in known and not api.knows(dag_id):
        raise ValueError(f"there is no pipeline {dag_id!r}; {_meant(dag_id, known, 'pipelines')}")
    api.await_dag(dag_id, spec=known.get(dag_id))
    details = api.request("GET", f"/dags/{dag_id}/details")
    for name in params:
        if name not in details["params"]:
            raise ValueError(f"{name!r} is not a param of {dag_id}; {_meant(name, details['params'], 'params')}")
    moment = _moment(date, details["timezone"]) if date else None
    api.unpause(dag_id)
    try:
        return api.trigger(dag_id, params, logical_date=moment)
    except ApiError as refused:
        if refused.status != httpx.codes.CONFLICT:
            raise
        raise ValueError(f"{dag_id} has a run for {date} already; clear that one, or leave the date out") from None


def _moment(date: str, timezone: str) -> str:
    """Return a day's midnight in `timezone`, or the moment that `date` says."""
    try:
        moment = dt.datetime.fromisoformat(date)
    except ValueError:
        raise ValueError(f"{date!r} is not a date; write one such as 2026-02-03") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=ZoneInfo(timezone))).isoformat()


def _meant(word: str, known: Iterable[str], what: str) -> str:
    names = sorted(known)
    folded = {name.casefold(): name for name in names}
    if near := get_close_matches(word.casefold(), folded, n=1, cutoff=0.6):
        return f"did you mean {folded[near[0]]!r}?"
    return f"{what}: {', '.join(names)}" if names else f"there are no {what}"
