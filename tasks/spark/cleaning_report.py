"""What a cleaning did, in words: a table for the log, a JSON report, and the reasons why it is refused.

Knows only counts and words; reads no data.
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
    """Rows of a source with the same problem: dropped, or kept with the value made null."""

    column: str
    """The column's name in the CSV; empty for the row as a whole."""
    problem: str
    rows: int
    examples: tuple[str, ...]
    drops: bool

    def __str__(self) -> str:
        return f"{self.column} {self.problem}".strip() + f" {self.rows:,}" + self.shown

    @property
    def shown(self) -> str:
        """The examples, in parentheses."""
        quoted = ", ".join(f'"{_visible(text)}"' for text in self.examples)
        return f" ({quoted})" if quoted else ""


def _visible(text: str) -> str:
    """Return a text with the characters that nobody would see as their numbers: a space of no width is <U+200B>."""
    return "".join(one if one.isprintable() else f"<U+{ord(one):04X}>" for one in text)


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
    notes: tuple[str, ...]
    """What is not certain, or not exact, in the kept rows."""
    blank: int
    """Lines with nothing but spaces, which are not rows."""
    parts: Parts
    """The kept rows."""

    @property
    def dropped(self) -> float:
        """The share of rows that was dropped."""
        return (self.read - self.kept) / self.read if self.read else 0.0

    def __str__(self) -> str:
        dropped = f"{self.read - self.kept:,} dropped ({self.dropped:.1%})"
        blank = f"; blank lines: {self.blank:,}" if self.blank else ""
        return f"{self.name} ({self.file}): {self.read:,} rows read, {self.kept:,} kept, {dropped}{blank}"


def rejection(sifted: Sequence[Sifted], max_dropped: float | None) -> list[str]:
    """Return why the sources are refused, one line per reason; nothing if they are not."""
    return [f"{source.name} ({source.file}): {reason}" for source in sifted for reason in _reasons(source, max_dropped)]


def _reasons(source: Sifted, max_dropped: float | None) -> Iterator[str]:
    yield from source.hollow
    worst = sorted((tally for tally in source.tallies if tally.drops), key=lambda tally: -tally.rows)[:_SHOWN]
    why = "; ".join(map(str, worst))
    if source.hollow:
        return
    if not source.kept:
        yield f"none of {source.read:,} rows is left: {why}"
    elif max_dropped is not None and source.dropped > max_dropped:
        yield (
            f"{source.read - source.kept:,} of {source.read:,} rows were dropped ({source.dropped:.1%}), "
            f"but `max_dropped` allows only {max_dropped:.1%}: {why}"
        )


def table(sifted: Sequence[Sifted]) -> str:
    """Return the text for the log: a line for each source, and below it one for each problem and each note."""
    return "\n".join(line for source in sifted for line in (str(source), *_lines(source.tallies), *_notes(source)))


def _notes(source: Sifted) -> Iterator[str]:
    return (f"  {note}" for note in source.notes)


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
        "sources": {source.name: _account(source) for source in sifted},
        "outputs": dict(written),
    }
    return (json.dumps(report, indent=2, ensure_ascii=False) + "\n").encode()


def _account(source: Sifted) -> dict[str, object]:
    return {
        "file": source.file,
        "rows_read": source.read,
        "rows_kept": source.kept,
        "rows_dropped": source.read - source.kept,
        "dropped": [_entry(tally) for tally in source.tallies if tally.drops],
        "made_null": [_entry(tally) for tally in source.tallies if not tally.drops],
        "unusable": list(source.hollow),
        "notes": list(source.notes),
        "blank_lines": source.blank,
    }


def _entry(tally: Dropped) -> dict[str, object]:
    column = {"column": tally.column} if tally.column else {}
    return {**column, "reason": tally.problem, "rows": tally.rows, "examples": list(tally.examples)}
