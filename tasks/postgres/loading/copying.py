"""Rows into a table by COPY, whole: the first row that does not fit stops it, and the error says where it stands.

Works on a cursor whose transaction holds the locks; opens no connection and no file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tasks.contract import DataRejected, PermanentError
from tasks.postgres.loading.rows import STOPPED, Source, Stream
from tasks.postgres.statements import names, statement

if TYPE_CHECKING:
    import psycopg2
    from psycopg2.extensions import cursor as Cursor  # noqa: N812  psycopg2 spells its class in lower case
    from psycopg2.sql import Composable

_REQUESTED = 1 << 18
"""Bytes that the driver asks for at a time."""
_OF_ROW = ("22", "23")
"""Classes of errors that a row is to blame for."""
_NOT_NULL, _BAD_ENCODING = "23502", "22021"
_CONTEXT = re.compile(r"COPY .*?, line (?P<line>\d+)(, column (?P<column>.+?))?(: (?P<value>.*))?$", re.DOTALL)


class ConstraintBroken(DataRejected):
    """A row that breaks a CHECK, unique or other constraint of the table: such rows are not set aside."""


def copy_whole(cursor: Cursor, source: Source, table: Composable) -> int:
    """Write all rows of a file to a table, and return how many there are; raise DataRejected for one that does not fit.

    What the server took is compared with what was counted in the file.
    """
    copy_stream(cursor, Stream(source.blocks()), table, source.columns, source.options, source)
    taken, read = cursor.rowcount, source.count()
    if taken != read:
        problem = f"the server took {taken:,} of the {read:,} rows of {source.address}"
        causes = r"a trigger or rule of the table holds rows back, or a line with only \. ended the file for the server"
        raise PermanentError(f"{problem}: {causes}")
    return read


def copy_stream(
    cursor: Cursor, stream: Stream, table: Composable, columns: Sequence[str], options: str, source: Source
) -> None:
    """Run COPY on a stream; raise what stopped the stream, or DataRejected with the place in the file."""
    import psycopg2

    text = "COPY {table} ({columns}) FROM STDIN WITH (" + options.replace("{", "{{").replace("}", "}}") + ")"
    copying = statement(text, table=table, columns=names(columns))
    try:
        cursor.copy_expert(copying, stream, _REQUESTED)
    except psycopg2.Error as error:
        if stream.problem is not None:
            raise stream.problem from None
        raise _placed(error, source) or error from error


def _placed(error: psycopg2.Error, source: Source) -> DataRejected | None:
    """Return the error with its place in the file; None if no row is to blame."""
    found = _CONTEXT.match(error.diag.context or "")
    if (error.pgcode or "")[:2] not in _OF_ROW or not found:
        return None
    column = found["column"] or error.diag.column_name
    where = f"{source.address}, {source.unit} {int(found['line']):,}" + (f", column {column}" if column else "")
    value = f" in {found['value']}" if found["value"] and found["value"] not in _said(error) else ""
    if (error.pgcode or "").startswith("23") and error.pgcode != _NOT_NULL:
        return ConstraintBroken(f"{where}: {_said(error)}{value}; mend the file, or let a gate judge it instead")
    return DataRejected(f"{where}: {_said(error)}{value}; {_remedy(error)}")


def _said(error: psycopg2.Error) -> str:
    detail = f" ({error.diag.message_detail})" if error.diag.message_detail else ""
    return f"{error.diag.message_primary}{detail}"


def _remedy(error: psycopg2.Error) -> str:
    return "set `csv: {encoding: …}` to what wrote the file" if error.pgcode == _BAD_ENCODING else STOPPED
