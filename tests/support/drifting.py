"""What the tests of drift share: small tables of users, and the steps of a monitor on them."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.contract import Run
from tasks.drift.columns import Columns
from tasks.drift.compared_rows import FromFile, FromHistory, Source
from tasks.drift.monitor import Drift, Publication, Recording, report
from tasks.files.history import keep_snapshot
from tasks.files.places import InFolder

NOW, HISTORY = "now.parquet", "history.parquet"
COLUMNS = Columns.model_validate(
    {"numeric": {"columns": ["spent", "payments"]}, "categorical": {"columns": ["city", "active"]}}
)


def users(seed: int = 0, rows: int = 1500, spent: float = 0) -> pa.Table:
    """Return invented users; `spent` moves the mean of what they spent, whose deviation is 1."""
    chance = np.random.default_rng(seed)
    return pa.table(
        {
            "user_id": pa.array(range(rows), pa.int64()),
            "spent": chance.normal(spent, 1, rows),
            "payments": pa.array(chance.poisson(9, rows), pa.int32()),
            "city": chance.choice(["Cordoba", "Rosario", "Salta"], rows, p=[0.5, 0.3, 0.2]),
            "active": pa.array(chance.random(rows) < 0.7),
        }
    )


def keep(folder: Path, run: Run, *dates: dt.date, table: pa.Table | None = None) -> None:
    """Add a snapshot of each date to the history, of `table` or of users of that date's own."""
    for date in dates:
        pq.write_table(users(date.toordinal()) if table is None else table, folder / "week.parquet")
        keep_snapshot("week.parquet", HISTORY, 100, InFolder(folder=str(folder)), run=replace(run, date=date))


def weeks(run: Run, *before: int) -> list[dt.date]:
    """Return the dates so many weeks before the run's own."""
    return [run.date - dt.timedelta(weeks=one) for one in before]


def compared(
    folder: Path,
    run: Run,
    *,
    current: Source | None = None,
    reference: Source | None = None,
    columns: Columns = COLUMNS,
    publish: Publication | None = None,
    record: Recording | None = None,
    **named: Any,
) -> Drift:
    """Report on the current users of a folder against its history."""
    return report(
        current or FromFile(file=NOW),
        reference or FromHistory(history=HISTORY, written_by="churn_training_dag"),
        columns,
        "drift_reports",
        InFolder(folder=str(folder)),
        publish=publish,
        record=record,
        **named,
        run=run,
    )
