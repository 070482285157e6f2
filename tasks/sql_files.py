"""The files of `configs/sql/`, and what can be wrong in one.

Knows where they are, not what is in them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from tasks.contract import MissingResource, PermanentError, Run


@dataclass(frozen=True, slots=True)
class FileProblem:
    """Something wrong in the text of a SQL file, from the index `start` to `end`."""

    message: str
    hint: str
    start: int
    end: int
    code: Literal["bad-sql-file", "unbound-value", "unknown-function", "unknown-view"] = "bad-sql-file"


def sql_text(file: str, run: Run) -> str:
    """Return the text of a `SqlFile`; raise MissingResource if it does not exist, PermanentError if it is empty."""
    folder = run.configs / "sql"
    try:
        text = (folder / file).read_text(encoding="utf-8")
    except FileNotFoundError:
        there = ", ".join(sorted(str(path.relative_to(folder)) for path in folder.rglob("*.sql"))) or "no files"
        raise MissingResource("file", file, str(folder), f"it has {there}; correct `file` in the step") from None
    if not text.strip():
        raise PermanentError(f"configs/sql/{file} is empty; write the statements to run")
    return text


def refuse(file: str, text: str, problems: Iterable[FileProblem]) -> None:
    """Raise PermanentError for the first of `problems`, with its line."""
    for problem in problems:
        line = text.count("\n", 0, problem.start) + 1
        raise PermanentError(f"configs/sql/{file}, line {line}: {problem.message}; {problem.hint}")
