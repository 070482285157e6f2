"""A rolling history: the last few snapshots of a table, a parquet file for each date.

Knows how snapshots are named, kept and found, not what is in them.
"""

from __future__ import annotations

import datetime as dt
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from tasks.contract import DataFile, Output, PermanentError, Run, reusable
from tasks.files.places import Files, Place
from tasks.files.run_files import files_of

if TYPE_CHECKING:
    import pyarrow as pa

COLUMN = "snapshot_date"
_NAME = re.compile(rf"{COLUMN}=(\d{{4}}-\d\d-\d\d)\.parquet")
_BATCH = 50_000
"""Rows held in memory at a time."""


class Kept(Output):
    """The history after a snapshot was added."""

    dates: list[str]
    """Dates of the snapshots, oldest first."""
    rows: int
    """Rows of the run's own snapshot; 0 if newer ones leave no room for it."""


@reusable("files.keep_snapshot", role="transform")
def keep_snapshot(
    source: DataFile, history: DataFile, keep: Annotated[int, Field(ge=1, le=1000)], files: Files, *, run: Run
) -> Kept:
    """Add a parquet file to a history as the snapshot of the run's date, and keep the newest snapshots.

    `history` is a folder of files `snapshot_date=YYYY-MM-DD.parquet`, each a copy of `source` with that date in a new
    column `snapshot_date`. A rerun replaces its own date's snapshot. The `keep` newest dates stay: a backfilled date
    is added only if it is among them; other files in the folder are left alone. Raises PermanentError for a `source`
    that is not parquet or already has a column `snapshot_date`.
    """
    of_run, rows = files_of(files, run), 0
    place = of_run.place
    if run.date in sorted({*_dates(place, history), run.date})[-keep:]:
        found = of_run.find(source)
        with place.read(found) as old, place.write(_path(history, run.date)) as new:
            rows = _copy(old, new, run.date, place.address(found))
    newest = _trimmed(place, history, keep)
    rows = rows if run.date in newest else 0
    _log(run, place.address(history), newest, rows)
    return Kept(dates=[f"{date}" for date in newest], rows=rows)


def _trimmed(place: Place, history: str, keep: int) -> list[dt.date]:
    """Remove all but the newest snapshots and return the dates of these.

    It looks after it has written: of runs that do so at the same time, the last one sees the snapshots of all.
    """
    there = _dates(place, history)
    for date in there[:-keep]:
        place.remove(_path(history, date))
    return there[-keep:]


def snapshots(place: Place, history: str, before: dt.date, count: int) -> list[str]:
    """Return the paths of the last `count` snapshots dated `before` or earlier, oldest first."""
    known = [date for date in _dates(place, history) if date <= before]
    return [_path(history, date) for date in known[-count:]]


def _dates(place: Place, history: str) -> list[dt.date]:
    dates = []
    for name in filter(None, map(_NAME.fullmatch, place.names(history))):
        with suppress(ValueError):  # not a day in the calendar, so not one of ours
            dates.append(dt.date.fromisoformat(name[1]))
    return sorted(dates)


def _path(history: str, date: dt.date) -> str:
    return f"{history}/{COLUMN}={date}.parquet"


def _copy(old: Path, new: Path, date: dt.date, address: str) -> int:
    """Copy a parquet file a batch at a time, adding the date as a column, and return how many rows it has."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(old) as source:
            schema = _dated(source.schema_arrow, address)
            with parquet.ParquetWriter(new, schema) as target:
                for batch in source.iter_batches(_BATCH):
                    dates = pa.repeat(pa.scalar(date), len(batch))
                    target.write_batch(pa.record_batch([*batch.columns, dates], schema=schema))
            return int(source.metadata.num_rows)
    except pa.ArrowInvalid as error:
        problem = f"{address} is not a complete parquet file ({error})"
        raise PermanentError(f"{problem}; run the step that writes it again") from error


def _dated(schema: pa.Schema, address: str) -> pa.Schema:
    import pyarrow as pa

    if COLUMN in schema.names:
        remedy = "rename that column, or set `source` to a file that is not a snapshot itself"
        raise PermanentError(f"{address} already has a column {COLUMN}; {remedy}")
    return schema.append(pa.field(COLUMN, pa.date32()))


def _log(run: Run, address: str, newest: list[dt.date], rows: int) -> None:
    if run.date in newest:
        run.log.info(
            "%s: %s rows of %s added; kept from %s to %s", address, f"{rows:,}", run.date, newest[0], newest[-1]
        )
    else:
        run.log.info("%s: %s is older than the %s snapshots kept; left out", address, run.date, len(newest))
