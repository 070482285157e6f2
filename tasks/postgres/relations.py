"""What the database says about a table: its columns, and what makes a row unique."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

from tasks.contract import MissingResource, PermanentError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from psycopg2.extensions import cursor as Cursor  # noqa: N812  psycopg2 spells its class in lower case


@dataclass(frozen=True, slots=True)
class ColumnFacts:
    """One column as the catalogue describes it."""

    type: str
    required: bool
    """Whether an INSERT must set it: NOT NULL, without a default."""
    generated: bool
    """Whether the server computes it, so an INSERT may not set it."""


_COLUMNS = """
    SELECT attname, format_type(atttypid, atttypmod), attnotnull AND NOT atthasdef AND attidentity = '',
           attgenerated <> '' OR attidentity = 'a'
    FROM pg_attribute
    WHERE attrelid = format('%%I.%%I', %s, %s)::regclass AND attnum > 0 AND NOT attisdropped
    ORDER BY attnum
"""

# An index that is partial, on an expression, or checked at commit cannot decide an ON CONFLICT.
_UNIQUE_KEYS = """
    SELECT array_agg(attname::text)
    FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey[:indnkeyatts - 1])
    WHERE indrelid = format('%%I.%%I', %s, %s)::regclass
      AND indisunique AND indisvalid AND indimmediate AND indpred IS NULL AND indexprs IS NULL
    GROUP BY indexrelid
    HAVING bool_and(attnotnull)
"""


def columns_of(cursor: Cursor, table: str) -> dict[str, ColumnFacts]:
    """Return the columns of `schema.table`, in order."""
    cursor.execute(_COLUMNS, table.split("."))
    return {column: ColumnFacts(*facts) for column, *facts in cursor.fetchall()}


def require_columns(table: str, there: Mapping[str, ColumnFacts], wanted: Iterable[str]) -> None:
    """Raise MissingResource for the first column of `wanted` that the table does not have."""
    for column in wanted:
        if column not in there:
            near = get_close_matches(column, there, n=1)
            meant = f'did you mean "{near[0]}"? ' if near else ""
            remedy = f"{meant}It has {', '.join(there)}"
            raise MissingResource("column", column, f"table {table}", remedy)


def require_unique_key(cursor: Cursor, table: str, keys: Sequence[str]) -> None:
    """Raise PermanentError unless a constraint keeps `keys` unique and not null."""
    cursor.execute(_UNIQUE_KEYS, table.split("."))
    if set(keys) in [set(columns) for (columns,) in cursor.fetchall()]:
        return
    listed = ", ".join(f'"{key}"' for key in keys)
    schema, name = table.split(".")
    raise PermanentError(
        f"{table} has no unique constraint on exactly ({', '.join(keys)}) with NOT NULL columns, which a merge needs; "
        f'create it: ALTER TABLE "{schema}"."{name}" ADD PRIMARY KEY ({listed})'
    )
