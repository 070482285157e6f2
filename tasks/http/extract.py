"""http.extract: the rows that a server answers page by page, as a file.

Knows how pages follow each other, and when a server does not keep to that; how rows are written is `rows`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import Field

from tasks.contract import Column, Conflict, ConnectionId, DataRejected, Link, Model, Output, Run, WrittenFile, reusable
from tasks.declared import ValueType
from tasks.files.places import Files
from tasks.files.run_files import files_of
from tasks.http.rows import Format, Row, Rows, written
from tasks.http.values import Absent, JsonPath, json_of, required_at, shown, value_at
from tasks.services.http import HttpPath, HttpServer, Parameters, QueryValue, RequestTimeout, http_server

if TYPE_CHECKING:
    import httpx

_PAGE_BYTES = 64 << 20
Parameter = Annotated[str, Field(min_length=1, max_length=200)]


class JsonLink(Model):
    """Each page has the address of the next one, at `next_url_path`; the last one has null there, or nothing."""

    type: Literal["json_link"]
    next_url_path: JsonPath = "next"


class HeaderLink(Model):
    """Each answer has the address of the next page in its header `Link`, with `rel="next"`."""

    type: Literal["header_link"]


class PageNumber(Model):
    """Pages are counted from `base_page`; the page after the last one is empty."""

    type: Literal["page_number"]
    page_param: Parameter = "page"
    base_page: Annotated[int, Field(ge=0, le=1)] = 1


class Offset(Model):
    """A page begins after so many rows, and has `limit` at most; the page after the last one is empty."""

    type: Literal["offset"]
    limit: Annotated[int, Field(ge=1, le=100_000)]
    offset_param: Parameter = "offset"
    limit_param: Parameter = "limit"


class Cursor(Model):
    """Each page has at `cursor_path` what to ask for as `cursor_param`; the last one has null there, or nothing."""

    type: Literal["cursor"]
    cursor_path: JsonPath
    cursor_param: Parameter = "cursor"


Paginator = Annotated[JsonLink | HeaderLink | PageNumber | Offset | Cursor, Field(discriminator="type")]
"""How pages follow each other."""


class Extracted(Output):
    """The file that was written."""

    file: str
    rows: int
    pages: int
    address: Link
    """Where people find the run's own file."""


def _conflicts(given: Mapping[str, Any]) -> Iterator[Conflict]:
    if given.get("format") == "parquet" and given.get("columns") is None:
        yield ("format",), "parquet has a type for each column; declare them as `columns`, or take json_lines"


@reusable("http.extract", role="source", conflicts=_conflicts)
def extract(
    connection: ConnectionId,
    path: HttpPath,
    output: WrittenFile,
    files: Files,
    format: Format,  # noqa: A002  a field of `with`
    params: Parameters | None = None,
    data_selector: JsonPath | None = None,
    paginator: Paginator | None = None,
    total_path: JsonPath | None = None,
    columns: Annotated[dict[Column, ValueType], Field(min_length=1)] | None = None,
    max_pages: Annotated[int, Field(ge=1, le=100_000)] = 1000,
    timeout: RequestTimeout = 60,
    allow_empty: bool = False,  # noqa: FBT001, FBT002  # a field of `with`
    *,
    run: Run,
) -> Extracted:
    """Write the rows that a server answers as JSON, page by page, to a file that has its name only when it is complete.

    `connection` is an Airflow connection of type http, as in http.download. The rows of a page are the list of objects
    at `data_selector`, or the answer itself. Without a `paginator` there is one page. `output` is the run's own file;
    `files` is the place.

    Rows are JSON lines, as the server gave them, or Parquet. `columns` declares names and types: only these are kept,
    one that a row lacks is null, and a value of another type is an error.

    Raises TransientError for a server that does not answer, fails (5xx), breaks off or takes more than `timeout`
    seconds for a page, and PermanentError with what it says for one that refuses (4xx) or leads to another server.
    Raises DataRejected for pages that are not JSON, that have no rows where they should be, or that come again; for
    more than `max_pages`; for another number of rows than the first page tells at `total_path`; and, unless
    `allow_empty`, for none. Nothing is written then.
    """
    started, of_run = monotonic(), files_of(files, run)
    with http_server(connection) as server, of_run.write(output) as file:
        asked = f"{connection}: {path}"
        pages = _Pages(server, path, params or {}, paginator, data_selector, total_path, max_pages, timeout, run)
        rows = written(pages.rows(), file, format, columns)
        if not rows and not allow_empty:
            raise DataRejected(f"{asked} answers with no rows; say `allow_empty: true` where that is right")
        if pages.total is not None and pages.total != rows:
            problem = f"{asked} tells of {shown(pages.total)} rows at {total_path!r}, and its pages have {rows:,}"
            raise DataRejected(f"{problem}; they may change while they are read: clear the step, or bound `params`")
    address = of_run.address(output)
    run.log.info("%s: %s rows of %s pages in %.1f s", address, f"{rows:,}", pages.count, monotonic() - started)
    return Extracted(file=output, rows=rows, pages=pages.count, address=address)


class _Page(NamedTuple):
    """An answer: its JSON, its rows, and what it was asked for."""

    number: int
    url: httpx.URL
    link: str | None
    """The next page by its header."""
    json: Any
    rows: list[Row]


class _Next(NamedTuple):
    """What to ask for."""

    url: httpx.URL
    query: Mapping[str, QueryValue]


@dataclass(slots=True)
class _Pages:
    """The pages of a server; iterated once."""

    server: HttpServer
    path: str
    params: Mapping[str, QueryValue]
    paginator: Paginator | None
    data_selector: str | None
    total_path: str | None
    max_pages: int
    timeout: float
    run: Run
    count: int = 0
    read: int = 0
    """Rows up to now."""
    total: Any = None

    def rows(self) -> Iterator[Rows]:
        """Yield where a page comes from, and its rows."""
        asking: _Next | None = _Next(self.server.url(self.path), {**self.params, **self._first()})
        asked: dict[str, int] = {}
        contents: dict[bytes, int] = {}
        while asking:
            if self.count == self.max_pages:
                problem = f"{self.path} has more than {self.max_pages:,} pages"
                raise DataRejected(f"{problem}; raise `max_pages`, or ask for less with `params`")
            self.count += 1
            asked[f"{asking}"] = self.count
            page = self._page(asking)
            if self.count == 1 and self.total_path:
                self.total = required_at(page.json, self.total_path, self.path, "total_path")
            _require_new(contents, hashlib.sha256(json.dumps(page.rows).encode()).digest(), page)
            self.read += len(page.rows)
            yield Rows(f"page {self.count:,} of {self.path}", page.rows)
            asking = self._next(page)
            if again := asked.get(f"{asking}"):
                problem = f"page {self.count:,} of {self.path} leads back to page {again:,}"
                raise DataRejected(f"{problem}: the server does not turn the pages as `paginator` says; correct it")

    def _page(self, asking: _Next) -> _Page:
        with self.server.ask(asking.url, timeout=self.timeout, params=asking.query) as answer:
            body, url = json_of(answer, _PAGE_BYTES), answer.response.url
            link = answer.response.links.get("next", {}).get("url")
        where = f"page {self.count:,} of {self.path}"
        rows = body if self.data_selector is None else required_at(body, self.data_selector, where, "data_selector")
        if not isinstance(rows, list):
            problem = f"{where} has {shown(rows)} where a list of rows should be"
            raise DataRejected(f"{problem}; correct `data_selector`")
        if wrong := [one for one in rows if not isinstance(one, dict)]:
            problem = f"{where} has {shown(wrong[0])} among its rows, which is not an object"
            raise DataRejected(f"{problem}; correct `data_selector`")
        return _Page(self.count, url, link, body, rows)

    def _first(self) -> dict[str, QueryValue]:
        match self.paginator:
            case PageNumber(page_param=param, base_page=base):
                return {param: base}
            case Offset(offset_param=offset, limit_param=param, limit=limit):
                return {offset: 0, param: limit}
        return {}

    def _next(self, page: _Page) -> _Next | None:
        """Return what to ask for after a page; None after the last one."""
        match self.paginator:
            case JsonLink(next_url_path=path):
                return self._linked(self._text_at(page, path), page)
            case HeaderLink():
                return self._linked(page.link, page)
            case PageNumber(page_param=param, base_page=base) if page.rows:
                return self._asked({param: base + self.count})
            case Offset(offset_param=offset, limit_param=param, limit=limit) if page.rows:
                return self._asked({offset: self.read, param: limit})
            case Cursor(cursor_path=path, cursor_param=param):
                cursor = self._text_at(page, path)
                return self._asked({param: cursor}) if cursor else None
        return None

    def _linked(self, link: str | None, page: _Page) -> _Next | None:
        return _Next(self.server.linked(link, page.url), {}) if link else None

    def _asked(self, changed: Mapping[str, QueryValue]) -> _Next:
        return _Next(self.server.url(self.path), {**self.params, **changed})

    def _text_at(self, page: _Page, path: str) -> str | None:
        """Return the link or cursor of a page; the last page has none."""
        try:
            value = value_at(page.json, path)
        except Absent as absent:
            if page.number == 1:  # a path that is wrong would look the same
                self.run.log.warning("page 1 of %s is taken for the only one, without %r: %s", self.path, path, absent)
            return None
        if value is None or value == "" or value is False:
            return None
        if isinstance(value, bool) or not isinstance(value, str | int):
            problem = f"page {page.number:,} of {self.path} has {shown(value)} at {path!r}, which is not a text"
            raise DataRejected(f"{problem}; correct `paginator`")
        return str(value)


def _require_new(contents: dict[bytes, int], digest: bytes, page: _Page) -> None:
    if page.rows and digest in contents:
        problem = f"page {page.number:,} has the same rows as page {contents[digest]:,}"
        raise DataRejected(f"{problem}: the server does not turn the pages as `paginator` says; correct it")
    contents[digest] = page.number
