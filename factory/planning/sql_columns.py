"""The columns that a query of `configs/sql/` returns, read from its text.

Knows the syntax of Spark's SQL; it opens no connection and knows no table.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path


def columns_of(file: Path) -> frozenset[str]:
    """Return the names of the result's columns; none if the text does not say, as with `SELECT *`, or does not exist.

    This module does not report mistakes in the SQL: Spark knows its own language better.
    """
    try:
        status = file.stat()
    except FileNotFoundError:
        return frozenset()
    return _columns(file, status.st_mtime_ns)


@lru_cache(maxsize=256)
def _columns(file: Path, _changed: int) -> frozenset[str]:
    import sqlglot
    from sqlglot import exp

    try:
        query = sqlglot.parse_one(file.read_text(encoding="utf-8"), dialect="spark")
    except sqlglot.errors.SqlglotError:
        return frozenset()
    if not isinstance(query, exp.Query) or query.is_star:
        return frozenset()
    return frozenset(query.named_selects)
