"""Which expression, or which column, makes a statement fail: the server names neither for a value that it cannot make.

Knows nothing of what the statement does: the caller says what computes each of its parts alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from tasks.contract import ArgumentRefused, PermanentError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from psycopg2 import DataError
    from psycopg2.extensions import cursor as Cursor  # noqa: N812  psycopg2 spells its class in lower case
    from psycopg2.sql import Composable

Place = tuple[str | int, ...]
Parts = Mapping[Place, "Composable"]
"""Statements that each compute one argument of a step alone, by its place in the arguments; in the order of blame."""
K = TypeVar("K")

_REMEDIES = {
    "22001": "shorten the values, or widen the column",
    "22003": "correct the values, or widen the column",
    "22007": "correct the values, or give null for those that are not dates",
    "22012": "divide by NULLIF(…, 0), which gives null",
    "22P02": "correct the values, or give null for those that cannot be read",
}
"""What to do about each SQLSTATE for a value that cannot be made."""


@contextmanager
def blamed(cursor: Cursor, parts: Callable[[], Parts]) -> Iterator[None]:
    """Raise ArgumentRefused for the first of `parts` that fails as the statements of the block do."""
    with _tried(cursor, parts) as found:
        yield
    for place, problem in found:
        raise ArgumentRefused(place, problem)


@contextmanager
def blamed_text(cursor: Cursor, parts: Callable[[], Mapping[str, Composable]]) -> Iterator[None]:
    """Raise PermanentError with the name of the first of `parts` that fails as the statements of the block do."""
    with _tried(cursor, parts) as found:
        yield
    for name, problem in found:
        raise PermanentError(f"{name}: {problem}")


@contextmanager
def blamed_whole(place: Place) -> Iterator[None]:
    """Raise ArgumentRefused for the argument at `place`, of which the block's only statement is made."""
    from psycopg2 import DataError

    try:
        yield
    except DataError as error:
        raise ArgumentRefused(place, _told(error)) from error


@contextmanager
def _tried(cursor: Cursor, parts: Callable[[], Mapping[K, Composable]]) -> Iterator[list[tuple[K, str]]]:
    """Run the block; where it fails for a value, give the part that fails alike, or let the error be."""
    from psycopg2 import DataError

    found: list[tuple[K, str]] = []
    try:
        yield found
    except DataError as error:
        # Not to a savepoint before the block: rows written after one do not have the transaction's own number.
        cursor.execute("ROLLBACK; BEGIN; SAVEPOINT blameless")
        for place, part in parts().items():
            cursor.execute("ROLLBACK TO SAVEPOINT blameless")
            if _fails_alike(cursor, part, error):
                found.append((place, _told(error)))
                return
        raise


def _told(error: DataError) -> str:
    problem = error.diag.message_primary or str(error).strip()
    remedy = _REMEDIES.get(error.pgcode or "")
    return f"{problem}; {remedy}" if remedy else problem


def _fails_alike(cursor: Cursor, part: Composable, error: DataError) -> bool:
    from psycopg2 import DataError

    try:
        cursor.execute(part)
    except DataError as again:
        return again.pgcode == error.pgcode
    return False
