"""The table that rows arrive in: its columns, compared with what is declared, or made of it.

Knows types as the server spells them; knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tasks.contract import MissingResource, PermanentError
from tasks.postgres.loading.rows import Field
from tasks.postgres.relations import columns_of, kind_of
from tasks.postgres.sql import table_identifier
from tasks.postgres.statements import joined, name, only_row, statement

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor  # noqa: N812  psycopg2 spells its class in lower case


def target_fields(cursor: Cursor, target: str, columns: Mapping[str, str] | None) -> list[Field]:
    """Return the columns that are filled; make the table if it is missing and its columns are declared."""
    kind = kind_of(cursor, target)
    if kind is None and columns:
        make_table(cursor, target, columns)
    elif kind is None:
        remedy = "create it (postgres.run_sql runs a file of configs/sql/), or declare `columns`, with which it is made"
        raise MissingResource("table", target, "the database of the connection", remedy)
    fields = fields_of(cursor, target)
    if columns:
        _require_declared(cursor, target, columns, fields)
    return fields


def fields_of(cursor: Cursor, target: str) -> list[Field]:
    """Return the columns of a table that an INSERT may set; raise PermanentError if it is a view."""
    if kind_of(cursor, target) not in ("r", "p"):
        raise PermanentError(f"{target} is not a table, so it cannot be filled; name a table")
    there = columns_of(cursor, target)
    return [
        Field(column, one.type, one.not_null, one.has_default) for column, one in there.items() if not one.generated
    ]


def make_table(cursor: Cursor, target: str, columns: Mapping[str, str]) -> None:
    """Make a table of columns with their types; raise MissingResource for a type that the database does not have."""
    from psycopg2.sql import SQL

    for kind in columns.values():
        _require_type(cursor, kind)
    listed = (statement("{column} {kind}", column=name(column), kind=SQL(kind)) for column, kind in columns.items())
    text = "CREATE TABLE {target} ({listed})"
    cursor.execute(statement(text, target=table_identifier(target), listed=joined(", ", listed)))


def _require_type(cursor: Cursor, kind: str) -> None:
    """Raise MissingResource unless a text is the name of a type, and nothing more."""
    cursor.execute("SELECT to_regtype(%s) IS NULL", [kind])
    if only_row(cursor)[0]:
        raise MissingResource("type", kind, "the database of the connection", "correct `columns` in the step")


def _require_declared(cursor: Cursor, target: str, columns: Mapping[str, str], fields: Sequence[Field]) -> None:
    declared = {column: _spelled(cursor, kind) for column, kind in columns.items()}
    there = {one.name: one.type for one in fields if one.name in declared or not one.may_be_absent}
    if declared != there:
        shown = ", ".join(differences(declared, "not declared", there, "missing"))
        raise PermanentError(
            f"{target} has other columns than the step declares: {shown}; correct `columns` or the table"
        )


def differences(wanted: Mapping[str, str], lacking: str, there: Mapping[str, str], missing: str) -> list[str]:
    """Return the columns that two tables do not have alike, with both types."""
    every = [*wanted, *(one for one in there if one not in wanted)]
    return [
        f"{one} ({wanted.get(one, lacking)}, in the table {there.get(one, missing)})"
        for one in every
        if wanted.get(one) != there.get(one)
    ]


def _spelled(cursor: Cursor, kind: str) -> str:
    """Return a type as the server spells it, with its digits or length."""
    from psycopg2.sql import SQL

    _require_type(cursor, kind)
    cursor.execute(statement("CREATE TEMPORARY TABLE pg_temp.spelling (one {kind}) ON COMMIT DROP", kind=SQL(kind)))
    spelled = columns_of(cursor, "pg_temp.spelling")["one"].type
    cursor.execute("DROP TABLE pg_temp.spelling")
    return spelled
