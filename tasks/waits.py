"""Wait for a moment, a file, a row or an answer, without a worker's slot.

Each looks once and raises `NotYet`; how a task waits between two looks is the factory's.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any

from pydantic import AwareDatetime, Field

from tasks.contract import (
    Conflict,
    ConnectionId,
    MissingResource,
    NotYet,
    Output,
    PermanentError,
    QueryFile,
    Run,
    TransientError,
    reusable,
)
from tasks.files.places import Entry, Files, place_of
from tasks.http.values import Absent, JsonPath, json_of, shown, value_at
from tasks.postgres.file_text import query_problems
from tasks.postgres.reached import require_known_calls_in
from tasks.postgres.tables import Bound, check_values
from tasks.services.http import HttpPath, Parameters, http_server
from tasks.services.postgres import postgres
from tasks.sql_files import refuse, sql_text

PokeInterval = Annotated[float, Field(ge=1, le=86_400)]
"""Seconds between two looks."""
WaitTimeout = Annotated[float, Field(gt=0, le=31_536_000)]
"""Seconds to wait at most."""
_NAME = r"[A-Za-z0-9_*?][A-Za-z0-9_.=*?\-]*"
_FOLDER = r"[A-Za-z0-9_][A-Za-z0-9_.=\-]*"
PatternPath = Annotated[str, Field(pattern=rf"^({_FOLDER}/)*{_NAME}$")]
"""A file's path below its place; its name may have `*` for any characters and `?` for one."""
_SHOWN = 5
_ANSWER_BYTES = 1 << 20


class Come(Output):
    """The moment that has come."""

    moment: str


class Arrived(Output):
    """The files that are there."""

    files: list[str]
    """Their paths below the place, sorted."""
    count: int


class Returned(Output):
    """What the query or the server returned."""

    value: str
    """The first column of the first row, or what is at `data_selector`, as text."""


def _http_conflicts(given: Mapping[str, Any]) -> Iterator[Conflict]:
    if given.get("equals") is not None and given.get("data_selector") is None:
        yield ("equals",), "equals has no effect without `data_selector`, which says where in the answer the value is"


@reusable("wait.until", role="wait", kind="deferrable")
def until(moment: AwareDatetime, timeout: WaitTimeout = 86_400, *, soft_fail: bool = False) -> Come:
    """Wait until a moment, such as `"{{ run.interval_end }}"` or `"2026-01-31T06:00+00:00"`, with its offset from UTC.

    A past moment is not waited for. After `timeout` seconds the step fails, or is skipped if `soft_fail` is true.
    """
    left = (moment - dt.datetime.now(dt.UTC)).total_seconds()
    if left > 0:
        raise NotYet(f"{moment.isoformat()} has not come", max(left, 1), timeout, soft_fail)
    return Come(moment=moment.isoformat())


@reusable("wait.file", role="wait", kind="deferrable")
def file(
    path: PatternPath,
    files: Files,
    at_least: Annotated[int, Field(ge=1, le=10_000)] = 1,
    at_rest: Annotated[float, Field(ge=0, le=86_400)] = 10,
    poke_interval: PokeInterval = 60,
    timeout: WaitTimeout = 86_400,
    *,
    soft_fail: bool = False,
    run: Run,
) -> Arrived:
    """Wait until files are there and complete: `path` may be a pattern, as in `incoming/sales_{{ run.date }}_*.csv`.

    `at_least` files must match, and none of those that match may have changed for `at_rest` seconds: whoever writes one
    has finished. A file is looked for every `poke_interval` seconds in the place that `files` names; those that steps
    hand to each other are below its `runs`, so it is for files from outside. After `timeout` seconds the step fails, or
    with `soft_fail: true` is skipped.
    """
    place = place_of(files, run)
    there = [entry for entry in place.directly_in(_folder(path)) if _matches(entry.path, path)]
    resting = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=at_rest)
    if problem := _what_is_missing(there, at_least, resting):
        raise NotYet(f"{place.address(path)}: {problem}", poke_interval, timeout, soft_fail)
    run.log.info("%d files at %s", len(there), place.address(path))
    return Arrived(files=[entry.path for entry in there], count=len(there))


@reusable("wait.sql", role="wait", kind="deferrable")
def sql(
    connection: ConnectionId,
    query: QueryFile,
    values: dict[str, Bound] | None = None,
    poke_interval: PokeInterval = 60,
    timeout: WaitTimeout = 86_400,
    *,
    soft_fail: bool = False,
    run: Run,
) -> Returned:
    """Wait until a query of `configs/sql/` returns a row whose first column is not null, false, 0 or empty.

    Each of `values` is bound to `%(name)s` in the file. The query is asked every `poke_interval` seconds, in a session
    that cannot write. An error of the query fails the step at once. After `timeout` seconds the step fails, or with
    `soft_fail: true` is skipped.
    """
    text = sql_text(query, run)
    refuse(query, text, query_problems(text, values or {}, run.functions))
    check_values(query, text, values or {})
    row = _first_row(connection, query, text, values, run)
    if row is None or row[0] in (None, False, 0, ""):
        seen = "no row" if row is None else f"a row that begins with {row[0]!r}"
        raise NotYet(f"configs/sql/{query} returns {seen}", poke_interval, timeout, soft_fail)
    return Returned(value=str(row[0]))


@reusable("wait.http", role="wait", kind="deferrable", conflicts=_http_conflicts)
def http(
    connection: ConnectionId,
    path: HttpPath,
    params: Parameters | None = None,
    data_selector: JsonPath | None = None,
    equals: str | float | bool | None = None,  # noqa: FBT001  # a field of `with`
    poke_interval: PokeInterval = 60,
    timeout: WaitTimeout = 86_400,
    *,
    soft_fail: bool = False,
    run: Run,
) -> Returned:
    """Wait until a server answers a GET with success and, with `data_selector`, with the value that is waited for.

    `connection` is an Airflow connection of type http, as in http.download. Without `data_selector` any answer will do.
    With it, what is there in the JSON must be the value `equals`, or, without `equals`, not null, false, 0 or empty. A
    server that does not answer, has failed (5xx), has no such path (404) or has another value is asked again every
    `poke_interval` seconds; one that refuses otherwise (4xx), or answers with a page for people, fails the step.
    After `timeout` seconds the step fails, or with `soft_fail: true` is skipped.
    """
    try:
        value = _answered(connection, path, params, data_selector)
    except TransientError as error:
        raise NotYet(str(error), poke_interval, timeout, soft_fail) from None
    except MissingResource as error:
        if error.kind != "path":
            raise
        raise NotYet(error.where, poke_interval, timeout, soft_fail) from None
    if data_selector and (value in _NOTHING if equals is None else not _same(value, equals)):
        raise NotYet(f"{connection}: {path} has {shown(value)} at {data_selector}", poke_interval, timeout, soft_fail)
    run.log.info("%s: %s answers%s", connection, path, f" {shown(value)} at {data_selector}" if data_selector else "")
    return Returned(value=_as_text(value))


_NOTHING: tuple[object, ...] = (None, False, 0, "", [], {})


def _answered(connection: str, path: str, params: Parameters | None, data_selector: str | None) -> Any:
    """Return the value that a server has now, null if it has none; an empty text if none is asked for."""
    with http_server(connection) as server, server.ask(server.url(path), params=params, timeout=60) as answer:
        answer.require_data()
        if data_selector is None:
            return ""
        found = json_of(answer, _ANSWER_BYTES)
    try:
        return value_at(found, data_selector)
    except Absent:
        return None


def _same(value: object, wanted: object) -> bool:
    """Return whether two values are one in JSON, where true is not 1."""
    return value == wanted and isinstance(value, bool) == isinstance(wanted, bool)


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else shown(value)


def _first_row(
    connection: str, query: str, text: str, values: dict[str, Bound] | None, run: Run
) -> tuple[Any, ...] | None:
    from psycopg2.errors import ReadOnlySqlTransaction

    with postgres(connection, run=run) as session:
        require_known_calls_in(session, text, values, f"configs/sql/{query}", run)
        session.set_session(readonly=True)
        with session.cursor(name="taskflow") as cursor:  # of the server: only the first row comes here
            try:
                cursor.execute(text, values or None)
                found = cursor.fetchmany(1)
            except ReadOnlySqlTransaction as error:
                raise PermanentError(
                    f"configs/sql/{query}: {error.diag.message_primary}; a wait may only read"
                ) from None
    return found[0] if found else None


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _matches(path: str, pattern: str) -> bool:
    """Return whether the name of a file in the pattern's folder has that form."""
    return fnmatchcase(path.rpartition("/")[2], pattern.rpartition("/")[2])


def _what_is_missing(there: list[Entry], at_least: int, resting: dt.datetime) -> str | None:
    if len(there) < at_least:
        return f"{len(there)} of at least {at_least} files are there" if at_least > 1 else "there is no such file"
    if changing := [entry.path for entry in there if entry.modified > resting]:
        return f"{', '.join(changing[:_SHOWN])} changed at {max(entry.modified for entry in there):%H:%M:%S} UTC"
    return None
