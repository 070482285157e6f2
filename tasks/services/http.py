"""How a server is asked over HTTP, and which answers are worth a retry. Knows nothing about what it answers.

The connection alone says which server that is. A path, a redirect or a link never leads to another one: else whoever
writes a spec, or the server, could have its login sent elsewhere, or ask what only the workers can reach.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import unescape
from http import HTTPStatus
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from tasks.contract import ConnectionId, MissingResource, PermanentError, TransientError
from tasks.services.connection import airflow_connection

if TYPE_CHECKING:
    import httpx

_SEGMENT = r"\.?[A-Za-z0-9_~!$&'()*+,;=:@\-][A-Za-z0-9_~!$&'()*+,;=:@.\-]*"
HttpPath = Annotated[str, Field(pattern=rf"^/?({_SEGMENT}(/{_SEGMENT})*/?)?$", max_length=2000)]
"""A path below the address of a connection: neither a host, nor a query, nor `..`."""
Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
QueryValue = str | int | float | bool
Parameters = dict[Annotated[str, Field(min_length=1, max_length=200)], QueryValue]
"""What is appended to the path as its query."""
RequestTimeout = Annotated[float, Field(gt=0, le=86_400)]
"""Seconds until an answer must be there as a whole."""

_BLOCK = 1 << 16
_CONNECT_SECONDS, _SILENT_SECONDS = 10.0, 60.0
_REDIRECTS = 5
_SHOWN, _READ = 200, 4096
_MOVED = (301, 302, 303, 307, 308)
_TRY_AGAIN = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS)
_OPTIONS = (
    *("allow_redirects", "cert", "check_response", "max_redirects", "proxies", "proxy", "srv_lookup", "stream"),
    *("timeout", "trust_env", "verify", "verify_ssl"),
)
"""Keys of a connection's extra that Airflow's own hook does not send as headers."""
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]*")
_TITLE = re.compile(r"<title[^>]*>(.*?)</title", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer whose status is right and whose body has not been read."""

    response: httpx.Response
    asked: str
    """What was asked for, as people know it: method and address, without the query."""
    timeout: float
    ends: float
    """When it must be there as a whole, on the monotonic clock."""

    @property
    def is_page(self) -> bool:
        """Whether the body is HTML: a page for people, such as a login."""
        return str(self.response.headers.get("Content-Type", "")).lower().startswith("text/html")

    def blocks(self, limit: int) -> Iterator[bytes]:
        """Yield the body; raise PermanentError beyond `limit` bytes, TransientError if it is not there in time."""
        size = 0
        told = self.response.headers.get("Content-Length", "")
        if told.isdecimal() and int(told) > limit:
            self._refuse_size(f"{int(told):,} bytes", limit)
        with http_errors(self.asked):
            for block in self.response.iter_bytes(_BLOCK):
                size += len(block)
                if size > limit:
                    self._refuse_size("more", limit)
                if monotonic() > self.ends:
                    problem = f"only {size:,} bytes of the answer came in {self.timeout:,.0f} s"
                    raise TransientError(self.asked, f"{problem}; raise `timeout` if that is not too slow")
                yield block

    def _refuse_size(self, size: str, limit: int) -> None:
        raise PermanentError(f"{self.asked} answers with {size}, and at most {limit:,} bytes are taken")

    def require_data(self) -> None:
        """Raise PermanentError for a page."""
        if self.is_page:
            said = _said(b"".join(self.blocks(1 << 20)), is_page=True)
            remedy = "correct `path`, or the login of the connection"
            raise PermanentError(f"{self.asked} answers with a page for people, not with data: {said}; {remedy}")


@dataclass(frozen=True, slots=True)
class HttpServer:
    """The server of a connection."""

    connection: str
    address: httpx.URL
    """Ends in a slash; the paths are below it."""
    client: httpx.Client = field(repr=False)

    def url(self, path: str) -> httpx.URL:
        """Return the address of a path of the connection."""
        return self.address.join(f"./{path.lstrip('/')}")

    def linked(self, link: str, page: httpx.URL) -> httpx.URL:
        """Return the address that a page links to; raise PermanentError if it is another server's."""
        import httpx

        try:
            url = page.join(link)
        except httpx.InvalidURL as error:
            raise PermanentError(f"{_shown(page)} links to {link[:_SHOWN]!r}, which is not an address") from error
        if _origin(url) != _origin(self.address) or url.userinfo:
            problem = f"{_shown(page)} leads to {_shown(url)}, and connection {self.connection!r} is for {self.address}"
            raise PermanentError(f"{problem}; a step asks no other server. If that is right, make a connection for it")
        return url

    @contextmanager
    def ask(
        self,
        url: httpx.URL,
        *,
        timeout: float,
        method: Method = "GET",
        params: Mapping[str, QueryValue] | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[Answer]:
        """Send a request and provide its answer, whose body is read in the block.

        Raises TransientError for a server that does not answer or has failed, and PermanentError for one that refuses.
        """
        ends = monotonic() + timeout
        asked = f"{method} {_shown(url)}"
        sent = {**(headers or {}), **({"Content-Type": "application/json"} if body is not None else {})}
        content = None if body is None else json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
        for _ in range(_REDIRECTS + 1):
            with http_errors(asked):
                whole = url.copy_merge_params(_texts(params)) if params else url
                request = self.client.build_request(
                    method, whole, content=content, headers=sent, timeout=_waits(timeout)
                )
                response = self.client.send(request, stream=True)
            try:
                answer = Answer(response, asked, timeout, ends)
                if response.status_code not in _MOVED or "Location" not in response.headers:
                    _require_success(answer, self.connection)
                    yield answer
                    return
                if method != "GET":
                    raise PermanentError(f"{asked} is redirected; only a GET may be: correct `path`")
                url, params = self.linked(response.headers["Location"], response.url), None
            finally:
                response.close()
        raise PermanentError(f"{asked} is redirected more than {_REDIRECTS} times; correct `path`")


@contextmanager
def http_server(connection: ConnectionId) -> Iterator[HttpServer]:
    """Provide the server of an Airflow connection of type http.

    Its host, schema (http or https) and port are the address; login and password are sent as basic authentication, and
    each entry of its extra as a header, as by Airflow's own hook: `{"Authorization": "Bearer …"}`.
    """
    import httpx

    conn = airflow_connection(connection, "http")
    auth = httpx.BasicAuth(conn.login or "", conn.password or "") if conn.login or conn.password else None
    headers = {"User-Agent": "taskflow", "Accept-Encoding": "gzip, identity", **_headers(connection, conn.extra_dejson)}
    with httpx.Client(auth=auth, headers=headers, follow_redirects=False) as client:
        yield HttpServer(connection, _address(conn), client)


def _address(conn: Any) -> httpx.URL:
    import httpx

    host = conn.host or ""
    text = host if "://" in host else f"{conn.schema or 'http'}://{host}"
    try:
        url = httpx.URL(text)
        url = url.copy_with(port=conn.port) if conn.port else url
    except httpx.InvalidURL:
        url = httpx.URL("")
    if url.scheme not in ("http", "https") or not url.host or url.query or url.userinfo:
        problem = "needs a host, and http or https as its schema"
        raise PermanentError(f"connection {conn.conn_id!r} {problem}; correct it in the UI under Admin > Connections")
    return url.copy_with(path=f"{url.path.rstrip('/')}/", query=None, fragment=None)


def _headers(connection: str, extra: Mapping[str, Any]) -> dict[str, str]:
    """Return the headers of a connection, masked in the logs: they may have a key to the server."""
    from airflow.sdk.log import mask_secret

    nested = extra.get("headers")
    given = {**extra, **nested} if isinstance(nested, dict) else dict(extra)
    given.pop("headers", None)
    for name, value in given.items():
        mask_secret(value)
        where = f"connection {connection!r}: {name!r} in its extra"
        if name in _OPTIONS:
            raise PermanentError(f"{where} is not used here; remove it, or make another connection")
        if not (isinstance(value, str) and _HEADER_NAME.fullmatch(name) and _HEADER_VALUE.fullmatch(value)):
            raise PermanentError(f"{where} cannot be sent as a header; it should be one line of ASCII text")
    return given


def _waits(timeout: float) -> httpx.Timeout:
    """Return for how long a server may be silent."""
    import httpx

    return httpx.Timeout(min(timeout, _SILENT_SECONDS), connect=min(timeout, _CONNECT_SECONDS))


def _texts(params: Mapping[str, QueryValue]) -> dict[str, str]:
    """Return the values of a query as texts; a boolean is true or false."""
    return {name: json.dumps(value) if isinstance(value, bool) else str(value) for name, value in params.items()}


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port or {"http": 80, "https": 443}.get(url.scheme)


def _shown(url: httpx.URL) -> str:
    """Return an address without a login or a query: either may have a secret."""
    return str(url.copy_with(query=None, fragment=None, userinfo=b""))


# --- what goes wrong --------------------------------------------------------------------------------------------------


@contextmanager
def http_errors(asked: str) -> Iterator[None]:
    """Translate what httpx raises in the block."""
    import httpx

    try:
        yield
    except httpx.ConnectError as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            remedy = "correct the host of the connection, or let the workers trust the certificate (SSL_CERT_FILE)"
            raise PermanentError(f"{asked}: {error}; {remedy}") from error
        raise TransientError(asked, str(error)) from error
    except httpx.TimeoutException as error:
        raise TransientError(asked, "no answer in time") from error
    except (httpx.TransportError, httpx.DecodingError) as error:
        raise TransientError(asked, f"the answer broke off: {error}") from error
    except httpx.InvalidURL as error:
        raise PermanentError(f"{asked}: {error}") from error


def _require_success(answer: Answer, connection: str) -> None:
    status, asked = answer.response.status_code, answer.asked
    if 200 <= status < 300:
        return
    problem = f"{status} {answer.response.reason_phrase}".strip() + f": {_first_line(answer)}"
    if status >= 500 or status in _TRY_AGAIN:
        raise TransientError(asked, problem)
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise PermanentError(f"{asked}: {problem}; check login, password and extra of connection {connection!r}")
    if status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        raise MissingResource("path", answer.response.url.path, f"{asked}: {problem}", "correct `path` in the step")
    raise PermanentError(f"{asked}: {problem}; correct what the step asks for")


def _first_line(answer: Answer) -> str:
    """Return what a server says of its refusal, in one line."""
    body = b""
    try:
        for block in answer.blocks(1 << 30):
            body += block
            if len(body) >= _READ:
                break
    except (TransientError, PermanentError):
        return _said(body, is_page=answer.is_page) if body else "(an answer that broke off)"
    return _said(body, is_page=answer.is_page)


def _said(body: bytes, *, is_page: bool) -> str:
    text = body[:_READ].decode(errors="replace")
    if is_page:
        title = _TITLE.search(text)
        text = unescape(title[1]) if title else "(a page without a title)"
    lines = (" ".join("".join(one if one.isprintable() else " " for one in line).split()) for line in text.splitlines())
    return next(filter(None, lines), "(an empty answer)")[:_SHOWN]
