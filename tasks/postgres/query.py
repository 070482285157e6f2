"""postgres.query: a few values from the database, for templates of later steps.

Knows how Postgres' texts become the values of templates; refuses what has no exact one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from tasks.contract import (
    Column,
    Conflict,
    ConnectionId,
    DataRejected,
    LockTimeout,
    Output,
    PermanentError,
    Query,
    Run,
    reusable,
)
from tasks.declared import MAX_BYTES, NOUNS, Scalar, ValueType, iso_date, iso_datetime, schemas_of
from tasks.postgres.blame import blamed_whole
from tasks.postgres.expressions import PLACEHOLDER, check_query
from tasks.postgres.reached import require_known_calls_in
from tasks.postgres.statements import EXACT_TEXTS
from tasks.services.postgres import postgres

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor  # noqa: N812  psycopg2 spells its class in lower case


class Queried(Output):
    """The result, in the types that `returns` declares."""

    value: Scalar
    """The first column of the first row."""
    row: dict[str, Scalar] | None
    """The first row, by its columns."""
    values: list[Scalar]
    """The first column of every row."""
    count: int
    """How many rows there are."""


def _outputs(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON Schema of each field whose type follows from what a step declares."""
    returns = given.get("returns")
    if not isinstance(returns, dict) or not returns:
        return {"value": {}, "row": {}, "values": {"type": "array", "items": {}}}  # known when the step runs
    may_be_null = given.get("allow_null") is not False and "allow_null" in given
    null = [{"type": "null"}] if may_be_null else []
    columns = schemas_of(returns, null)
    first, row = next(iter(columns.values())), {"type": "object", "properties": columns}
    return {"value": first, "row": {"anyOf": [row, *null]}, "values": {"type": "array", "items": first}}


def _conflicts(given: Mapping[str, Any]) -> Iterator[Conflict]:
    sql = given.get("sql")
    if isinstance(sql, str) and PLACEHOLDER in sql:
        yield ("sql",), f"{PLACEHOLDER} stands for the rows under test of a suite, and there are none; name a table"


@reusable("postgres.query", role="source", conflicts=_conflicts, outputs=_outputs)
def query(
    connection: ConnectionId,
    sql: Query,
    returns: Annotated[dict[Column, ValueType], Field(min_length=1)] | None = None,
    limit: Annotated[int, Field(ge=1, le=1000)] = 100,
    allow_null: bool = False,  # noqa: FBT001, FBT002  # a field of `with`
    lock_timeout: LockTimeout = 60,
    *,
    run: Run,
) -> Queried:
    """Run one SELECT in a read-only transaction, and hand its few values to the templates of later steps.

    `{{ steps.count.value }}` is the first column of the first row, for a branch or a text; `row.name` is a column of
    that row, and `values` the first column of every row, for `expand`. `returns` declares the columns and their types,
    in the order of the query, so that lint checks what templates do with them; without it a type is known only when the
    step runs. A `{{ … }}` in `sql` becomes a quoted literal; the query may
    call only functions that compute.

    More than `limit` rows are an error, and so are more than 65,536 bytes. So is a null, or no row at all, unless
    `allow_null`: then `value`, `row` and every column may be null. A numeric that is no integer becomes a double;
    what JSON does not have (NaN, infinity, an integer of more than 63 bits) is an error. Raises DataRejected for a
    result that is not as declared. The step waits up to `lock_timeout` seconds for a lock that no task holds.
    """
    check_query((sql,), None)
    with postgres(connection, run=run, lock_timeout=lock_timeout) as session:
        require_known_calls_in(session, sql, None, "the query", run)
        session.set_session(readonly=True)
        with session.cursor() as settings, session.cursor(name="taskflow") as cursor:
            settings.execute(EXACT_TEXTS)
            with blamed_whole(("sql",)):
                names, codes, found = _fetched(cursor, sql, limit + 1)
    _require_columns(names, returns)
    if len(found) > limit:
        raise DataRejected(f"the query returns more than {limit:,} rows; add a LIMIT or a condition, or raise `limit`")
    kinds = list(returns.values()) if returns else [_KINDS.get(code, "text") for code in codes]
    rows = [_row(number, names, kinds, texts) for number, texts in enumerate(found, start=1)]
    if not allow_null:
        _require_values(rows)
    done = _result(names, rows)
    run.log.info("%s rows: %s", f"{done.count:,}", json.dumps(rows[:3], ensure_ascii=False)[:500])
    return done


def _fetched(cursor: Cursor, sql: str, count: int) -> tuple[list[str], list[int], list[tuple[str | None, ...]]]:
    """Return the columns, their types' numbers, and the first rows as the server's own texts."""
    from psycopg2.errors import ReadOnlySqlTransaction
    from psycopg2.extensions import new_type, register_type, string_types

    register_type(new_type(tuple(string_types), "TEXT", lambda text, _: text), cursor)
    try:
        cursor.execute(sql)
        rows = cursor.fetchmany(count)
    except ReadOnlySqlTransaction as error:
        raise PermanentError(
            f"the query would change something: {error.diag.message_primary}; let it only read"
        ) from error
    described = cursor.description or ()
    return [one.name for one in described], [one.type_code for one in described], rows


def _require_columns(names: Sequence[str], returns: Mapping[str, str] | None) -> None:
    if len(set(names)) < len(names):
        raise DataRejected(f"the query returns two columns of one name ({', '.join(names)}); name them with AS")
    if returns and list(names) != list(returns):
        problem = f"the query returns {', '.join(names)}, and the step declares {', '.join(returns)}"
        raise DataRejected(f"{problem}; correct `returns`, or the query, in the same order")


def _require_values(rows: Sequence[Mapping[str, Scalar]]) -> None:
    remedy = "set `allow_null: true`, and say in templates what then: `| default(…)`"
    if not rows:
        raise DataRejected(f"the query returns no row; {remedy}")
    for number, row in enumerate(rows, start=1):
        if nulls := [name for name, value in row.items() if value is None]:
            raise DataRejected(
                f"row {number:,} has null as {', '.join(nulls)}; use coalesce() in the query, or {remedy}"
            )


def _result(names: Sequence[str], rows: list[dict[str, Scalar]]) -> Queried:
    values = [row[names[0]] for row in rows]
    done = Queried(value=values[0] if values else None, row=rows[0] if rows else None, values=values, count=len(rows))
    if (size := len(done.model_dump_json())) > MAX_BYTES:
        problem = f"the result has {size:,} bytes, and the maximum is {MAX_BYTES:,}"
        raise DataRejected(f"{problem}: it is kept with the run. Select less, or hand it on as a table")
    return done


# --- a value ----------------------------------------------------------------------------------------------------------


def _row(number: int, names: Sequence[str], kinds: Sequence[str], texts: Sequence[str | None]) -> dict[str, Scalar]:
    row = {}
    for name, kind, text in zip(names, kinds, texts, strict=True):
        try:
            row[name] = None if text is None else _READERS[kind](text)
        except (ValueError, OverflowError):
            shown = str(text)[:100]
            problem = f"row {number:,} has {shown!r} as {name}, which is not {_NOUNS[kind]} that a template can have"
            raise DataRejected(f"{problem}; correct `returns`, or convert it in the query") from None
    return row


_BOOLEANS = {"t": True, "f": False}


def _boolean(text: str) -> bool:
    if text not in _BOOLEANS:
        raise ValueError(text)
    return _BOOLEANS[text]


def _integer(text: str) -> int:
    whole, _, rest = text.partition(".")
    if rest.strip("0") or abs(number := int(whole)) >= 2**63:
        raise ValueError(text)
    return number


def _number(text: str) -> int | float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _numeric(text: str) -> int | float:
    return _number(text) if "." in text else _integer(text)


_READERS: Mapping[str, Callable[[str], Scalar]] = {
    "boolean": _boolean,
    "integer": _integer,
    "number": _number,
    "numeric": _numeric,
    "text": str,
    "date": iso_date,
    "datetime": iso_datetime,
}
_NOUNS = {**NOUNS, "numeric": "a number"}
_KINDS: Mapping[int, str] = {
    16: "boolean",
    **dict.fromkeys((20, 21, 23, 26), "integer"),
    **dict.fromkeys((700, 701), "number"),
    1700: "numeric",
    1082: "date",
    **dict.fromkeys((1114, 1184), "datetime"),
}
"""What the types of Postgres are in templates, by their numbers; any other is a text."""
