"""The files of `configs/sql/`.

Knows where they are, not what is in them.
"""

from __future__ import annotations

from tasks.contract import MissingResource, PermanentError, Run


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
