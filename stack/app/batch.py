"""A CSV of people in, the same CSV with their scores out.

Read in chunks: a long file needs little memory apart from its own text. A row that cannot be scored stays in the
result, with the reason; a file that cannot be read at all is refused with one sentence.
"""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import pandas as pd

from stack.app.scoring import Field, Scorer

if TYPE_CHECKING:
    from numpy.typing import NDArray

RESULTS = ("probability", "prediction", "problem")
"""The columns that scoring adds to a file."""
CHUNK_ROWS = 20_000
SHOWN_PROBLEMS = 100
PREVIEW_ROWS = 50
BINS = 20
_BOOLEANS = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}
_LARGEST_INTEGER = 2**53
"""Beyond this a float no longer holds every whole number."""

Row = list[str]
Progress = Callable[[float], None]


class Unreadable(Exception):
    """The file cannot be scored at all; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why one row has no score."""

    line: int
    column: str
    value: str
    expected: str


@dataclass(slots=True)
class Scored:
    """A scored file."""

    content: bytes = b""
    rows: int = 0
    scored: int = 0
    churning: int = 0
    problems: list[Problem] = field(default_factory=list)
    """The first `SHOWN_PROBLEMS`."""
    problem_count: int = 0
    unknown: dict[str, int] = field(default_factory=dict)
    """By column: how many texts the scorer does not know."""
    preview: pd.DataFrame = field(default_factory=pd.DataFrame)
    histogram: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, dtype="int64"))
    """How many probabilities are in each of `BINS` equal parts of 0 to 1."""


def template(fields: Iterable[Field]) -> bytes:
    """Return a CSV with the right header and one row of example values."""
    text = io.StringIO()
    columns = list(fields)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([column.name for column in columns])
    writer.writerow(["" if column.example is None else _written(column.example) for column in columns])
    return text.getvalue().encode()


def score_csv(
    file: BinaryIO, scorer: Scorer, *, chunk_rows: int = CHUNK_ROWS, progress: Progress = lambda _: None
) -> Scored:
    """Score each row of a CSV; `progress` gets the share of the file that is done. Raises Unreadable."""
    size = max(file.seek(0, io.SEEK_END), 1)
    file.seek(0)
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    try:
        table = Table(text)
        return _scored(table, scorer, chunk_rows, lambda: progress(min(file.tell() / size, 1.0)))
    except UnicodeDecodeError as error:
        byte = f"0x{error.object[error.start]:02x}"
        raise Unreadable(f"The file is not UTF-8 text: it has the byte {byte}. Save it as CSV in UTF-8.") from error
    finally:
        text.detach()  # closing the file is up to its owner


class Table:
    """A CSV's header, and its rows with their line numbers."""

    def __init__(self, text: Iterable[str]) -> None:
        lines = iter(text)
        first = next(lines, "")
        if not first.strip():
            raise Unreadable("The file is empty: its first line must name the columns.")
        self.delimiter = max(",;\t", key=first.count)
        self._reader = csv.reader(itertools.chain([first], lines), delimiter=self.delimiter, strict=True)
        self.header = [name.strip() for name in next(self._rows())[1]]
        twice = sorted({name for name in self.header if self.header.count(name) > 1})
        if twice:
            raise Unreadable(f"The header names a column twice: {', '.join(map(repr, twice))}. Rename or remove one.")

    def chunks(self, size: int) -> Iterator[list[tuple[int, Row]]]:
        """Yield the rows that are not blank, `size` at a time."""
        rows = self._rows()
        while chunk := list(itertools.islice(rows, size)):
            yield chunk

    def _rows(self) -> Iterator[tuple[int, Row]]:
        try:
            for row in self._reader:
                if row:
                    yield self._reader.line_num, row
        except csv.Error as error:
            raise Unreadable(f"Line {self._reader.line_num} is not CSV: {error}. Correct its quotes.") from error


def _scored(table: Table, scorer: Scorer, chunk_rows: int, advance: Callable[[], None]) -> Scored:
    _refuse_missing_columns(table.header, scorer)
    kept = [name for name in table.header if name not in RESULTS]
    text, done = io.StringIO(newline=""), Scored()
    writer = csv.writer(text, delimiter=table.delimiter, lineterminator="\n")
    writer.writerow([*kept, *RESULTS])
    for chunk in table.chunks(chunk_rows):
        scores = _score_chunk(chunk, table.header, scorer, done)
        writer.writerows(scores[[*kept, *RESULTS]].itertuples(index=False, name=None))
        if done.preview.empty:
            done.preview = _preview(scores[[*kept, *RESULTS]])
        advance()
    if not done.rows:
        raise Unreadable("The file has a header, but no rows below it.")
    done.content = text.getvalue().encode()
    return done


def _preview(scores: pd.DataFrame) -> pd.DataFrame:
    first = scores.head(PREVIEW_ROWS)
    numbers = {name: pd.to_numeric(first[name]) for name in ("probability", "prediction")}  # missing, not ""
    return first.assign(**numbers)


def _refuse_missing_columns(header: list[str], scorer: Scorer) -> None:
    missing = [field.name for field in scorer.fields if field.name not in header]
    if not missing:
        return
    folded = {name.casefold(): name for name in header}
    hints = {name: get_close_matches(name.casefold(), folded, n=1) for name in missing}
    named = ", ".join(f"{name} (is it {folded[hints[name][0]]}?)" if hints[name] else name for name in missing)
    raise Unreadable(
        f"The file lacks {len(missing)} of {len(scorer.fields)} columns: {named}. It has: {', '.join(header)}. "
        "The template has the right header."
    )


def _score_chunk(chunk: list[tuple[int, Row]], header: list[str], scorer: Scorer, done: Scored) -> pd.DataFrame:
    """Return the rows as they were read, with their results, and count them in `done`."""
    width = len(header)
    rows = pd.DataFrame([(row + [""] * width)[:width] for _, row in chunk], columns=header, dtype="object")
    problems, reported = pd.Series("", index=rows.index), []
    for position, (line, row) in enumerate(chunk):
        if len(row) != width:
            expected = f"{width} values, as the header has; there are {len(row)}"
            problems[position] = f"expected {expected}"
            reported.append(Problem(line, "(the row)", _short(row), expected))
    people = pd.DataFrame(index=rows.index)
    for asked in scorer.fields:
        people[asked.name], bad = convert(rows[asked.name], asked)
        bad &= problems.eq("")
        problems[bad] = f"{asked.name}: expected {asked.expected}"
        reported += [Problem(chunk[at][0], asked.name, rows[asked.name][at], asked.expected) for at in bad[bad].index]
    _report(done, reported)
    return _with_results(rows, people[problems.eq("")], problems, scorer, done)


def _with_results(
    rows: pd.DataFrame, people: pd.DataFrame, problems: pd.Series[str], scorer: Scorer, done: Scored
) -> pd.DataFrame:
    results = rows.assign(probability="", prediction="", problem=problems)
    if len(people):
        scores = scorer.score(people)
        results.loc[people.index, "probability"] = scores["probability"].astype("object")
        results.loc[people.index, "prediction"] = scores["prediction"].astype("object")
        done.churning += int((scores["prediction"] == 1).sum())
        done.histogram += np.histogram(scores["probability"], bins=BINS, range=(0, 1))[0]
        _count_unknown(people, scorer, done)
    done.rows += len(rows)
    done.scored += len(people)
    return results


def _count_unknown(people: pd.DataFrame, scorer: Scorer, done: Scored) -> None:
    for asked in scorer.fields:
        texts = people[asked.name]
        if asked.levels and (count := int((~texts.isin(asked.levels) & texts.notna()).sum())):
            done.unknown[asked.name] = done.unknown.get(asked.name, 0) + count


def _report(done: Scored, problems: list[Problem]) -> None:
    done.problem_count += len(problems)
    done.problems += sorted(problems, key=lambda problem: problem.line)[: SHOWN_PROBLEMS - len(done.problems)]


def _short(row: Row) -> str:
    text = ", ".join(row)
    return text if len(text) <= 60 else f"{text[:59]}…"


def convert(texts: pd.Series[str], asked: Field) -> tuple[pd.Series, pd.Series[bool]]:
    """Return the texts as values of a field, and which of them are invalid."""
    texts = texts.str.strip()
    empty = texts.eq("")
    values, good = _CONVERSIONS[asked.kind](texts)
    return values, ~good & ~(empty & asked.optional)


def _numbers(texts: pd.Series[str]) -> tuple[pd.Series, pd.Series[bool]]:
    values = pd.to_numeric(texts, errors="coerce").astype("float64")
    return values, pd.Series(np.isfinite(values), index=texts.index)


def _integers(texts: pd.Series[str]) -> tuple[pd.Series, pd.Series[bool]]:
    values, good = _numbers(texts)
    good &= values.mod(1).eq(0) & values.abs().le(_LARGEST_INTEGER)
    return values.where(good), good


def _booleans(texts: pd.Series[str]) -> tuple[pd.Series, pd.Series[bool]]:
    values = texts.str.lower().map(_BOOLEANS)
    return values.eq(True), values.notna()


def _texts(texts: pd.Series[str]) -> tuple[pd.Series, pd.Series[bool]]:
    given = texts.ne("")
    return texts.where(given, None), given


_CONVERSIONS: dict[str, Callable[[pd.Series[str]], tuple[pd.Series, pd.Series[bool]]]] = {
    "number": _numbers,
    "integer": _integers,
    "boolean": _booleans,
    "text": _texts,
}


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
