"""A snapshot of a table as it is now, with optional noise and shifts: none for real data.

Knows how numbers are moved; knows nothing about drift.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from tasks.contract import (
    Column,
    DataFile,
    DataRejected,
    MissingResource,
    Output,
    PermanentError,
    Run,
    WrittenFile,
    reusable,
)
from tasks.draws import draw_key
from tasks.drift.compared_rows import BATCH, PipelineId, opened_parquet
from tasks.files.places import Files
from tasks.files.run_files import Dated, files_of

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa
    from numpy.random import Generator

Shift = Annotated[float, Field(ge=-100, le=100)]


class Snapshot(Output):
    """What was written."""

    file: str
    rows: int
    moved: list[str]
    """The columns whose values were moved; none if the snapshot is a plain copy."""


@dataclass(frozen=True, slots=True)
class Move:
    """How the values of one column are moved, in the order of the rows."""

    noise: float
    """Standard deviation of the factor that a value is multiplied by, around 1."""
    offset: float
    """The number added to each value."""
    chance: Generator


@reusable("drift.snapshot", role="transform")
def snapshot(
    source: DataFile,
    output: WrittenFile,
    files: Files,
    noise: Annotated[float, Field(ge=0, le=1)] = 0,
    shifts: dict[Column, Shift] | None = None,
    unchanged: list[Column] | None = None,
    written_by: PipelineId | None = None,
    dated: Dated = "up_to_run",
    *,
    run: Run,
) -> Snapshot:
    """Write a parquet file as the current snapshot: as it is, or with noise and shifts for a rehearsal.

    With `noise` every number is off by about that share of itself: 0.02 is two per cent, and a zero stays a zero.
    `shifts` moves a column's values by that many of its standard deviations. Whole numbers stay whole, and the columns
    in `unchanged`, such as a key, get no noise. The run's date is the seed, so a rerun writes the same file; if both
    are zero the file is a copy. Of a `source` that another pipeline writes (`written_by`), the one of its latest run
    dated up to the run's date is taken; with `dated: any`, of its latest run. Raises MissingResource for a missing
    `source`, naming the pipeline to run first, and DataRejected if it has no rows.
    """
    of_run = files_of(files, run)
    found = of_run.find(source, written_by, dated)
    address = of_run.place.address(found)
    with of_run.place.read(found) as old, opened_parquet(old, address) as table:
        if not table.metadata.num_rows:
            raise DataRejected(f"{address} has no rows; run {written_by or 'what writes it'} again")
        moves = _moves(table, address, noise, _shifts(shifts), set(unchanged or ()), run)
        with of_run.write(output) as new:
            if moves:
                _write(table, new, moves)
            else:
                shutil.copyfile(old, new)
        rows = int(table.metadata.num_rows)
    run.log.info("%s: %s rows, moved: %s", of_run.address(output), f"{rows:,}", ", ".join(moves) or "nothing")
    return Snapshot(file=output, rows=rows, moved=sorted(moves))


def _shifts(shifts: Mapping[str, float] | None) -> dict[str, float]:
    return {name: shift for name, shift in (shifts or {}).items() if shift}


def _moves(
    table: Any, address: str, noise: float, shifts: Mapping[str, float], unchanged: set[str], run: Run
) -> dict[str, Move]:
    there = {field.name: field.type for field in table.schema_arrow}
    for name in sorted({*shifts, *unchanged} - set(there)):
        raise MissingResource("column", name, address, f"correct the name in the step; it has {', '.join(there)}")
    for name in shifts:
        if not _is_moved(there[name]):
            raise PermanentError(f"{name} of {address} is {there[name]}, which cannot be shifted; name only numbers")
    noisy = {name for name, kind in there.items() if noise and _is_moved(kind)} - unchanged
    deviations = _deviations(table, list(shifts)) if shifts else {}
    return {
        name: Move(
            noise if name in noisy else 0,
            shifts.get(name, 0) * deviations.get(name, 0),
            _chance(run, name),
        )
        for name in there
        if name in noisy or name in shifts
    }


def _is_moved(kind: pa.DataType) -> bool:
    from pyarrow import types

    return bool(types.is_integer(kind) or types.is_floating(kind))


def _chance(run: Run, column: str) -> Generator:
    import numpy as np

    return np.random.Generator(np.random.PCG64(draw_key("drift.snapshot", run.date, column)))


def _deviations(table: Any, columns: list[str]) -> dict[str, float]:
    """Return the standard deviation of each column, from one pass over the file."""
    import numpy as np

    totals = {name: np.zeros(3) for name in columns}
    for batch in table.iter_batches(BATCH, columns=columns):
        for name in columns:
            values = batch.column(name).drop_null().to_numpy(zero_copy_only=False).astype(float)
            values = values[np.isfinite(values)]
            totals[name] += len(values), values.sum(), np.square(values).sum()
    return {name: _deviation(*sums) for name, sums in totals.items()}


def _deviation(count: float, total: float, squares: float) -> float:
    return float(max(squares / count - (total / count) ** 2, 0) ** 0.5) if count else 0.0


def _write(table: Any, new: Path, moves: Mapping[str, Move]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    schema = table.schema_arrow
    with parquet.ParquetWriter(new, schema, compression="zstd") as writer:
        for batch in table.iter_batches(BATCH):
            columns = [
                _moved(values, moves[field.name]) if field.name in moves else values
                for field, values in zip(schema, batch.columns, strict=True)
            ]
            writer.write_batch(pa.record_batch(columns, schema=schema))


def _moved(values: pa.Array, move: Move) -> pa.Array:
    """Return the moved values in their own type; nulls stay null, and whole numbers within their type's bounds."""
    import numpy as np
    import pyarrow as pa

    missing = np.asarray(values.is_null())
    numbers = values.fill_null(0).to_numpy(zero_copy_only=False)
    moved = numbers * (1 + move.noise * move.chance.standard_normal(len(numbers))) + move.offset
    if np.issubdtype(numbers.dtype, np.integer):
        bounds = np.iinfo(numbers.dtype)
        highest = float(bounds.max)  # with 64 bits it is rounded up, beyond the bound
        highest = highest if int(highest) == bounds.max else np.nextafter(highest, 0)
        moved = np.rint(moved).clip(float(bounds.min), highest)
    return pa.array(moved.astype(numbers.dtype), values.type, mask=missing)
