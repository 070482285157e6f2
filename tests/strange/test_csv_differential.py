"""CSV files by chance, read by the cleaner and by Python's `csv`: where they differ, a table says why."""

from __future__ import annotations

import csv
import datetime as dt
import logging
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tasks.contract import Run
from tasks.spark.csv_records import NUL
from tasks.spark.csv_rows import BROKEN, LINE, CsvFile, is_blank, rows
from tasks.spark.csv_text import opened_text
from tasks.spark.reach import Source, shared_parts
from tasks.spark.session import spark_session
from tests.support.csv_generator import Generated, generated

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Rows = list[list[str]]


@pytest.fixture(scope="module")
def session(spark_connection: str) -> Iterator[SparkSession]:
    """One session for all files."""
    with spark_session(spark_connection, Run("strange", "manual__1", "differ", dt.date(2026, 1, 5))) as opened:
        yield opened


def by_python(file: Generated, folder: Path) -> Rows:
    """Return the rows of Python's `csv`, without those that have no fields."""
    before = csv.field_size_limit(1 << 30)
    try:
        with (folder / file.name).open("rb") as content, opened_text(content, file.encoding) as text:
            return [row for row in csv.reader(text, delimiter=file.separator) if row][1:]
    finally:
        csv.field_size_limit(before)


def by_cleaner(session: SparkSession, file: Generated, folder: Path) -> tuple[Rows, int]:
    """Return the rows of the cleaner, with empty texts for nulls, and how many lines are no rows."""
    path = folder / file.name
    source = Source(path.as_uri(), str(path), lambda: path.open("rb"))
    described = CsvFile("s", source, file.header, file.separator, file.encoding, file.multiline)
    found = rows(session, described, shared_parts(folder / f"{file.seed}.rows"), logging.getLogger("strange"))
    texts = [f"t{place}" for place in range(len(file.header))]
    lines = found.where(~is_blank(described)).orderBy(LINE).select(BROKEN, *texts).toArrow().to_pylist()
    sound = [[(line[text] or "").replace(NUL, "\0") for text in texts] for line in lines if line[BROKEN] is None]
    return sound, len(lines) - len(sound)


def first_difference(there: Rows, wanted: Rows) -> str | None:
    """Return the first row that is another one."""
    pairs = zip_longest(there, wanted)
    return next((f"{str(one)[:300]} for {str(other)[:300]}" for one, other in pairs if one != other), None)


def test_python_and_cleaner_differ_only_as_written(
    session: SparkSession, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """The generator knows the rows: Python reads them, and so does the cleaner, but for the table of differences."""
    first, count = int(pytestconfig.getoption("seed")), int(pytestconfig.getoption("csv_files"))
    print(f"seeds {first} to {first + count - 1}")
    wrong = []
    for seed in range(first, first + count):
        file = generated(seed)
        (tmp_path / file.name).write_bytes(file.content)
        if different := first_difference(by_python(file, tmp_path), file.python):
            wrong.append(f"seed {seed}: Python reads {different}")
        sound, broken = by_cleaner(session, file, tmp_path)
        if different := first_difference(sound, file.cleaner):
            wrong.append(f"seed {seed}: the cleaner reads {different}")
        elif broken != file.broken:
            wrong.append(f"seed {seed}: {broken} lines are no rows, for {file.broken}")
    assert not wrong, "\n".join(wrong)
