"""What a cleaning did, told: a table for the log, a JSON report, and the reasons for which it is refused.

Knows counts and words only; reads no data.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tasks.contract import Run
from tasks.spark.reach import Parts

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Dropped:
    """Rows of a source that one thing was wrong with: dropped, or kept with the value made null."""

    column: str
    """The CSV's name of the column; empty where it is the row as a whole."""
    problem: str
    rows: int
    examples: tuple[str, ...]
    drops: bool

    def __str__(self) -> str:
        return f"{self.column} {self.problem}".strip() + f" {self.rows:,}" + self.shown

    @property
    def shown(self) -> str:
        """The examples, in parentheses."""
        quoted = ", ".join(f'"{one}"' for one in self.examples)
        return f" ({quoted})" if quoted else ""


@dataclass(frozen=True, slots=True)
class Sifted:
    """A source after it was read: what was kept, and what was wrong with the rest."""

    name: str
    file: str
    read: int
    kept: int
    tallies: tuple[Dropped, ...]
    hollow: tuple[str, ...]
    """Columns that cannot be used at all, and why."""
    parts: Parts
    """Where the rows are that were kept."""

    @property
    def dropped(self) -> float:
        """The share of the rows that was dropped."""
        return (self.read - self.kept) / self.read if self.read else 0.0

    def __str__(self) -> str:
        dropped = f"{self.read - self.kept:,} dropped ({self.dropped:.1%})"
        return f"{self.name} ({self.file}): {self.read:,} rows read, {self.kept:,} kept, {dropped}"


def rejection(sifted: Sequence[Sifted], max_dropped: float | None) -> list[str]:
    """Return why the sources are refused, one line for each reason; nothing where they are not."""
    return [f"{one.name} ({one.file}): {reason}" for one in sifted for reason in _reasons(one, max_dropped)]


def _reasons(one: Sifted, max_dropped: float | None) -> Iterator[str]:
    yield from one.hollow
    worst = sorted((tally for tally in one.tallies if tally.drops), key=lambda tally: -tally.rows)[:_SHOWN]
    why = "; ".join(map(str, worst))
    if one.hollow:
        return
    if not one.kept:
        yield f"none of {one.read:,} rows is left: {why}"
    elif max_dropped is not None and one.dropped > max_dropped:
        yield (
            f"{one.read - one.kept:,} of {one.read:,} rows were dropped ({one.dropped:.1%}), "
            f"where `max_dropped` allows {max_dropped:.1%}: {why}"
        )


def table(sifted: Sequence[Sifted]) -> str:
    """Return what the log shows: a line for each source, and below it one for each thing that was wrong."""
    return "\n".join(line for one in sifted for line in (str(one), *_lines(one.tallies)))


def _lines(tallies: Sequence[Dropped]) -> Iterator[str]:
    subjects = [f"{tally.column or '(row)'} {tally.problem}" for tally in tallies]
    width = max(map(len, subjects), default=0)
    for subject, tally in zip(subjects, tallies, strict=True):
        yield f"  {subject:<{width}}  {tally.rows:>9,} {'dropped' if tally.drops else 'made null'}{tally.shown}"


def as_json(sifted: Sequence[Sifted], written: Mapping[str, int], run: Run, max_dropped: float | None) -> bytes:
    """Return the report; a rerun on the same files gives the same bytes."""
    report = {
        "dag_id": run.dag_id,
        "run_id": run.run_id,
        "task_id": run.task_id,
        "run_date": run.date.isoformat(),
        "max_dropped": max_dropped,
        "sources": {one.name: _account(one) for one in sifted},
        "outputs": dict(written),
    }
    return (json.dumps(report, indent=2, ensure_ascii=False) + "\n").encode()


def _account(one: Sifted) -> dict[str, object]:
    return {
        "file": one.file,
        "rows_read": one.read,
        "rows_kept": one.kept,
        "rows_dropped": one.read - one.kept,
        "dropped": [_entry(tally) for tally in one.tallies if tally.drops],
        "made_null": [_entry(tally) for tally in one.tallies if not tally.drops],
        "unusable": list(one.hollow),
    }


def _entry(tally: Dropped) -> dict[str, object]:
    column = {"column": tally.column} if tally.column else {}
    return {**column, "reason": tally.problem, "rows": tally.rows, "examples": list(tally.examples)}
