"""The files of `configs/sql/`.

Knows where they are; knows nothing of what is in them.
"""

from __future__ import annotations

from tasks.contract import MissingResource, PermanentError, Run


def sql_text(file: str, run: Run) -> str:
    """Return the text of a `SqlFile`; raise MissingResource where there is none, PermanentError where it is empty."""
    folder = run.configs / "sql"
    try:
        text = (folder / file).read_text(encoding="utf-8")
    except FileNotFoundError:
        there = ", ".join(sorted(str(one.relative_to(folder)) for one in folder.rglob("*.sql"))) or "no file"
        raise MissingResource("file", file, str(folder), f"there is {there}; correct `file` in the step") from None
    if not text.strip():
        raise PermanentError(f"configs/sql/{file} is empty; write the statements to run")
    return text
