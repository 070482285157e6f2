"""What the database says about a table: its kind, its columns, and what makes a row unique."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.contract import MissingResource, PermanentError
from tasks.names import nearest
from tasks.postgres.sql import table_identifier
from tasks.postgres.statements import name, statement

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from psycopg2.extensions import cursor as Cursor  # noqa: N812  psycopg2 spells its class in lower case
    from psycopg2.sql import Composable


@dataclass(frozen=True, slots=True)
class ColumnFacts:
    """One column as the catalogue describes it."""

    type: str
    required: bool
    """Whether an INSERT must set it: NOT NULL, without a default."""
    generated: bool
    """Whether the server computes it, so an INSERT may not set it."""
    not_null: bool
    has_default: bool


_COLUMNS = """
    SELECT attname, format_type(atttypid, atttypmod), attnotnull AND NOT atthasdef AND attidentity = '',
           attgenerated <> '' OR attidentity = 'a', attnotnull, atthasdef OR attidentity <> ''
    FROM pg_attribute
    WHERE attrelid = format('%%I.%%I', %s, %s)::regclass AND attnum > 0 AND NOT attisdropped
    ORDER BY attnum
"""

# An index that is partial or checked at commit cannot decide an ON CONFLICT, nor can one that permits two nulls.
_UNIQUE_KEYS = """
    SELECT array_agg(attname::text), conname, pg_get_constraintdef(max(pg_constraint.oid)),
           indimmediate, indpred IS NULL, indisvalid, array_agg(attname::text) FILTER (WHERE NOT attnotnull),
           coalesce(bool_or((to_jsonb(pg_index) ->> 'indnullsnotdistinct')::boolean), false)  -- new in Postgres 15
    FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey[:indnkeyatts - 1])
    LEFT JOIN pg_constraint ON conindid = indexrelid AND contype IN ('p', 'u')
    WHERE indrelid = format('%%I.%%I', %s, %s)::regclass AND indisunique AND NOT indisexclusion AND indexprs IS NULL
    GROUP BY indexrelid, conname, indimmediate, indpred IS NULL, indisvalid
"""


def kind_of(cursor: Cursor, table: str) -> str | None:
    """Return what `schema.table` is, by the letter of the catalogue.

    r(elation), p(artitioned), v(iew), m(aterialized view) or f(oreign).
    """
    cursor.execute("SELECT relkind FROM pg_class WHERE oid = to_regclass(format('%%I.%%I', %s, %s))", table.split("."))
    row = cursor.fetchone()
    return str(row[0]) if row else None


_FOREIGN_PART = """
    WITH RECURSIVE parts (part) AS (
        SELECT to_regclass(format('%%I.%%I', %s, %s))::oid
        UNION ALL SELECT inhrelid FROM parts JOIN pg_inherits ON inhparent = part
    )
    SELECT concat_ws('.', relnamespace::regnamespace, relname)
    FROM parts JOIN pg_class ON oid = part WHERE relkind = 'f' ORDER BY 1 LIMIT 1
"""


def foreign_part(cursor: Cursor, table: str) -> str | None:
    """Return the foreign table that `schema.table` is, or that is a part of it: its rows know no transaction."""
    cursor.execute(_FOREIGN_PART, table.split("."))
    row = cursor.fetchone()
    return str(row[0]) if row else None


def columns_of(cursor: Cursor, table: str) -> dict[str, ColumnFacts]:
    """Return the columns of `schema.table`, in order."""
    cursor.execute(_COLUMNS, table.split("."))
    return {column: ColumnFacts(*facts) for column, *facts in cursor.fetchall()}


def columns_alone(cursor: Cursor, table: str) -> dict[str, Composable]:
    """Return what computes each column of a table or view alone, by its name for people."""
    text = "SELECT count({column}) FROM {table}"
    return {
        f'column "{column}" of {table}': statement(text, column=name(column), table=table_identifier(table))
        for column in columns_of(cursor, table)
    }


# Not the value that a column added with a default has in older rows: a VACUUM FULL writes it into them and forgets it.
# The column's number tells that it was added.
_COLUMN_FORMS = """
    SELECT attnum, attname::text, atttypid, atttypmod, attcollation, attgenerated
    FROM pg_attribute
    WHERE attrelid = format('%%I.%%I', %s, %s)::regclass AND attnum > 0 AND NOT attisdropped
    ORDER BY attnum
"""
_COMPUTATIONS = """
    SELECT adnum, pg_get_expr(adbin, adrelid) FROM pg_attrdef WHERE adrelid = format('%%I.%%I', %s, %s)::regclass
"""
_TYPE_FORMS = """
    WITH RECURSIVE types (type) AS (
        SELECT unnest(%(types)s::oid[])
        UNION
        SELECT part FROM types JOIN pg_type ON oid = type CROSS JOIN LATERAL (
            SELECT unnest(ARRAY[typelem, typbasetype])
            UNION ALL SELECT rngsubtype FROM pg_range WHERE type IN (rngtypid, rngmultitypid)
            UNION ALL SELECT atttypid FROM pg_attribute WHERE attrelid = typrelid AND attnum > 0
        ) AS parts (part) WHERE part <> 0
    )
    SELECT enumtypid, enumsortorder::text, enumlabel::text, NULL, NULL
    FROM pg_enum WHERE enumtypid IN (TABLE types)
    UNION ALL
    SELECT attrelid, attnum::text, attname::text, atttypid, atttypmod
    FROM pg_attribute JOIN pg_type ON typrelid = attrelid
    WHERE pg_type.oid IN (TABLE types) AND attnum > 0 AND NOT attisdropped
    ORDER BY 1, 2
"""
_FIRST_OWN_OID = 16_384
"""The least that an object has which does not come with the server: only such types can be altered."""


def form_of(cursor: Cursor, table: str) -> str:
    """Return a digest of what gives the stored bytes of `schema.table` their meaning: DDL can change that and no row.

    It covers the names, numbers, types, collations and computations of the columns, the labels of enumerations and the
    fields of composite types.
    """
    cursor.execute(_COLUMN_FORMS, table.split("."))
    columns = cursor.fetchall()
    computed = _computations(cursor, table) if any(generated for *_, generated in columns) else {}
    form = [(*column, computed.get(column[0]) if column[-1] else None) for column in columns]
    if own := [type_id for _, _, type_id, *_ in form if type_id >= _FIRST_OWN_OID]:
        cursor.execute(_TYPE_FORMS, {"types": own})
        form += cursor.fetchall()
    return hashlib.sha256(json.dumps(form).encode()).hexdigest()[:32]


def _computations(cursor: Cursor, table: str) -> dict[int, str]:
    """Return what computes each column that has a default or is generated, by its number; in the same words always."""
    cursor.execute("SELECT current_setting('search_path'), set_config('search_path', '', true)")
    ((path, _),) = cursor.fetchall()  # without it, computations are shown with their schemas, whoever asks
    cursor.execute(_COMPUTATIONS, table.split("."))
    computed = dict(cursor.fetchall())
    cursor.execute("SELECT set_config('search_path', %s, true)", (path,))
    return computed


def require_columns(table: str, there: Mapping[str, ColumnFacts], wanted: Iterable[str]) -> None:
    """Raise MissingResource for the first column of `wanted` that the table does not have."""
    for column in wanted:
        if column not in there:
            near = nearest(column, there)
            meant = f'did you mean "{near}"? ' if near else ""
            remedy = f"{meant}It has {', '.join(there)}"
            raise MissingResource("column", column, f"table {table}", remedy)


def require_own_rows(cursor: Cursor, table: str) -> None:
    """Raise PermanentError for a target whose keys its own constraints do not decide: a view, or one with heirs."""
    if kind_of(cursor, table) == "v":
        raise PermanentError(f"{table} is a view, and a merge needs a table: name the table that it shows")
    cursor.execute(_HEIRS, table.split("."))
    if heirs := ", ".join(heir for (heir,) in cursor.fetchall()):
        problem = f"{table} also shows the rows of {heirs}, for which its unique constraint does not count"
        raise PermanentError(f"{problem}; merge into a table that no other inherits from, or a partitioned one")


_HEIRS = """
    SELECT inhrelid::regclass::text FROM pg_inherits JOIN pg_class ON oid = inhparent
    WHERE inhparent = format('%%I.%%I', %s, %s)::regclass AND relkind = 'r' ORDER BY 1
"""


def require_unique_key(cursor: Cursor, table: str, keys: Sequence[str]) -> None:
    """Raise PermanentError, with a statement that mends it, unless a constraint keeps `keys` unique and not null."""
    cursor.execute(_UNIQUE_KEYS, table.split("."))
    found = [_Unique(*rest) for columns, *rest in cursor.fetchall() if set(columns) == set(keys)]
    if any(one.is_enough for one in found):
        return
    problem = f"{table} has no unique constraint on exactly ({', '.join(keys)}), which a merge needs"
    lack, changes = found[0].lack() if found else ("", "")
    first = "" if changes else "once no two rows share these keys, "
    if not changes:
        cursor.execute(_NULLABLE, [*table.split("."), list(keys)])
        nullable = [column for (column,) in cursor.fetchall()]
        listed = ", ".join(map(_quoted, keys))
        changes = ", ".join([*map(_not_null, nullable), f"ADD UNIQUE ({listed})"])
    problem = (
        f"{table} has a unique constraint on ({', '.join(keys)}) that a merge cannot use: {lack}" if lack else problem
    )
    target = ".".join(map(_quoted, table.split(".")))
    raise PermanentError(f"{problem}; {first}mend it: ALTER TABLE {target} {changes}")


_NULLABLE = """
    SELECT attname FROM pg_attribute
    WHERE attrelid = format('%%I.%%I', %s, %s)::regclass AND attname = ANY (%s) AND NOT attnotnull
"""


def _not_null(column: str) -> str:
    return f"ALTER COLUMN {_quoted(column)} SET NOT NULL"


def _quoted(name: str) -> str:
    """Return a name as SQL spells it."""
    return '"' + name.replace('"', '""') + '"'


@dataclass(frozen=True, slots=True)
class _Unique:
    """A unique index on the keys of a merge."""

    constraint: str | None
    definition: str | None
    is_immediate: bool
    is_whole: bool
    is_valid: bool
    nullable: list[str] | None
    permits_one_null: bool

    @property
    def is_enough(self) -> bool:
        return self.is_immediate and self.is_whole and self.is_valid and not self.nullable

    def lack(self) -> tuple[str, str]:
        """Return why a merge cannot use it, and the changes that help; none where another constraint is needed."""
        if not self.is_whole:
            return "its index has a WHERE, and says nothing of the other rows", ""
        if not self.is_valid:
            return "its index is not valid", ""
        if not self.is_immediate:
            definition = str(self.definition).partition(" DEFERRABLE")[0]
            name = _quoted(str(self.constraint))
            return "it is deferrable", f"DROP CONSTRAINT {name}, ADD CONSTRAINT {name} {definition}"
        nullable = self.nullable or []
        why = "a merge finds rows by =, which finds no null" if self.permits_one_null else "nulls count as different"
        return f"{', '.join(nullable)} may be null, and {why}", ", ".join(map(_not_null, nullable))
