"""The SQL files that steps name, compared with the steps: syntax, bound names, views, and the columns of a result.

Every problem is shown with its line in the SQL file. Opens no connection; asks the families of tasks about the text.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path as FilePath
from typing import Any

from factory.language.document import MAX_BYTES, Document, content_of
from factory.language.errors import Diagnostic, Span
from factory.language.templates import is_template
from tasks.contract import TextKind
from tasks.postgres import definitions, file_text
from tasks.postgres.definitions import Columns
from tasks.spark import query_text
from tasks.sql_files import FileProblem


def file_diagnostics(
    file: FilePath,
    shown: str,
    kind: TextKind,
    given: Given,
) -> Iterator[Diagnostic]:
    """Yield what is wrong in `file` for a step with `given`."""
    text = _text(file, file.stat().st_mtime_ns)
    lines = text.split("\n")
    document, starts = Document(shown, lines, None, None), [0, *accumulate(len(line) + 1 for line in lines)]
    for problem in _problems(text, kind.of, given.known, given.views, given.functions):
        yield document.diagnostic_at(_span(shown, starts, problem), problem.code, problem.message, problem.hint)


def unused_values(file: FilePath, kind: TextKind, values: Mapping[str, Any]) -> list[str]:
    """Return the names of `values` that `file` does not use."""
    text = _text(file, file.stat().st_mtime_ns)
    return query_text.unused(text, values) if kind.of == "spark" else file_text.unused(text, values)


def columns_of(folder: FilePath, name: str, kind: TextKind) -> frozenset[str]:
    """Return the names of the result's columns; none if the text does not say, or is no readable file of the folder."""
    text = _text_in(folder, name)
    return frozenset() if text is None else _columns(text, kind.of)


def tables_of(folder: FilePath, name: str) -> Mapping[str, Columns | None]:
    """Return the tables that a file of statements defines; none if it is no readable file of the folder."""
    text = _text_in(folder, name)
    return {} if text is None else _tables(text)


def _text_in(folder: FilePath, name: str) -> str | None:
    """Return the text of a file; None for one that is not readable, which is reported as the step's mistake."""
    try:
        file = folder / name
        return _text(file, file.stat().st_mtime_ns) if file.resolve().is_relative_to(folder.resolve()) else None
    except (OSError, ValueError):
        return None


Known = tuple[tuple[str, Any], ...] | None


@dataclass(frozen=True, slots=True)
class Given:
    """What a step gives its SQL file: values and views, None where they are not known before the run."""

    known: Known
    views: tuple[str, ...] | None
    functions: frozenset[str]

    @classmethod
    def of(cls, values: Mapping[str, Any] | None, views: Mapping[str, Any] | None, functions: frozenset[str]) -> Given:
        """Return what a step gives, with the functions that the project allows."""
        return cls(_known(values), None if views is None else tuple(views), functions)


def _known(values: Mapping[str, Any] | None) -> Known:
    """Return values as a key of a cache; those of templates are not known yet."""
    if values is None:
        return None
    return tuple((name, value if _is_known(value) else file_text.ANY) for name, value in values.items())


def _is_known(value: object) -> bool:
    return isinstance(value, str | int | float | None) and not is_template(value)


@lru_cache(maxsize=256)
def _text(file: FilePath, _changed: int) -> str:
    content = content_of(file)
    if len(content) > MAX_BYTES:
        raise ValueError(f"{file} is larger than {MAX_BYTES:,} bytes")
    return content.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")


_tables = lru_cache(maxsize=256)(definitions.tables_of)


@lru_cache(maxsize=256)
def _columns(text: str, of: str) -> frozenset[str]:
    if of == "spark":
        return query_text.columns_of(text)
    return file_text.columns_of(text, dict.fromkeys(file_text.names(text), file_text.ANY))


@lru_cache(maxsize=256)
def _problems(
    text: str, of: str, known: Known, views: tuple[str, ...] | None, functions: frozenset[str]
) -> list[FileProblem]:
    if of == "spark":
        names = None if known is None else [name for name, _ in known]
        return query_text.query_problems(text, names, views, functions)
    values = dict.fromkeys(file_text.names(text), file_text.ANY) if known is None else dict(known)
    if of == "query":
        return file_text.query_problems(text, values, functions)
    return file_text.statement_problems(text, values)


def _span(file: str, starts: Sequence[int], problem: FileProblem) -> Span:
    """Return where a problem is; `starts` has the index at which each line begins, and one after the last."""
    line = min(bisect_right(starts, problem.start), len(starts) - 1)
    begin, end = starts[line - 1], min(problem.end, starts[line] - 1)
    return Span(file, line, problem.start - begin + 1, max(end, problem.start + 1) - begin + 1)
