"""http.download, http.request and http.extract against a server that is right, wrong, slow or a liar."""

from __future__ import annotations

import datetime as dt
import gzip
import hashlib
import itertools
import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from pyarrow import parquet

from factory.bridge.runtime import call
from tasks.contract import DataRejected, MissingResource, PermanentError, Run, TransientError
from tasks.files.places import InFolder, place_of
from tasks.http.download import download
from tasks.http.extract import Cursor, HeaderLink, JsonLink, Offset, PageNumber, Paginator, extract
from tasks.http.request import request
from tasks.services.http import Answer
from tests.support.web import Asked, Said, Web, serving

DATA = InFolder(folder="data")


@pytest.fixture
def here(run: Run, tmp_path: Path) -> Run:
    """A run of a project in an empty folder."""
    return replace(run, configs=tmp_path / "configs")


@pytest.fixture(scope="module")
def _server() -> Iterator[Web]:
    with serving() as web:
        yield web


@pytest.fixture
def web(_server: Web, monkeypatch: pytest.MonkeyPatch) -> Web:
    """A server that has been asked nothing, as the connection `shop`."""
    _server.pages.clear()
    _server.asked.clear()
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", _server.connection())
    return _server


def nothing_written(run: Run) -> bool:
    """Return whether the place has no file at all, not even a half one."""
    return not [path for path in (run.configs.parent / "data").rglob("*") if path.is_file()]


# --- any request ------------------------------------------------------------------------------------------------------


def get(run: Run, path: str = "a.csv", **more: Any) -> str:
    """Download a file and return its text."""
    file = download("shop", path, "got/a.csv", DATA, **more, run=run).file
    return str(place_of(DATA, run).text(file))


def test_login_and_headers_are_the_connections(web: Web, here: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Basic authentication by its login, headers by its extra, and the path below that of its host."""
    web.pages["/v1/a.csv"] = Said("id\n1\n")
    host = f"http://{web.host}/v1/"
    extra = {"X-API-Key": "k3y", "headers": {"Accept": "text/csv"}}
    given = {"conn_type": "http", "host": host, "login": "ana", "password": "s3cret", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", json.dumps(given))
    assert get(here, "/a.csv", params={"day": "2026-01-05 ä&b", "all": True, "n": 1.5}) == "id\n1\n"
    asked = web.asked[0]
    assert asked.query == {"day": "2026-01-05 ä&b", "all": "true", "n": "1.5"}
    assert asked.headers["authorization"] == "Basic YW5hOnMzY3JldA=="
    assert (asked.headers["x-api-key"], asked.headers["accept"]) == ("k3y", "text/csv")


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"conn_type": "postgres", "host": "h"}, "is of type 'postgres', not 'http'"),
        ({"conn_type": "http"}, "needs a host, and http or https as its schema"),
        ({"conn_type": "http", "host": "h", "schema": "file"}, "needs a host, and http or https as its schema"),
        ({"conn_type": "http", "host": "http://a:b@h"}, "needs a host, and http or https as its schema"),
        ({"conn_type": "http", "host": "h", "extra": {"verify": False}}, "'verify' in its extra is not used here"),
        ({"conn_type": "http", "host": "h", "extra": {"X-Key": "a\r\nHost: b"}}, "'X-Key' in its extra cannot be sent"),
        ({"conn_type": "http", "host": "h", "extra": {"X-Key": 7}}, "'X-Key' in its extra cannot be sent"),
    ],
)
def test_wrong_connection_is_named(
    here: Run, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], problem: str
) -> None:
    """Nobody is asked, and no secret is told."""
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", json.dumps(given))
    with pytest.raises(PermanentError, match=problem) as caught:
        get(here)
    assert "'shop'" in str(caught.value)
    assert "a\r" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "kind", "problem"),
    [
        (400, PermanentError, "/a.csv: 400 Bad Request: no such page; correct what the step asks for"),
        (401, PermanentError, "401 Unauthorized: no such page; check login, password and extra of connection 'shop'"),
        (404, MissingResource, "/a.csv: 404 Not Found: no such page; correct `path` in the step"),
        (429, TransientError, "/a.csv: 429 Too Many Requests: no such page"),
        (503, TransientError, "/a.csv: 503 Service Unavailable: no such page"),
        (304, PermanentError, "304 Not Modified: "),
    ],
)
def test_refusal_is_told(web: Web, here: Run, status: int, kind: type[Exception], problem: str) -> None:
    """With the server's first line; only what may pass is retried, and nothing is written."""
    web.pages["/a.csv"] = Said("\n  no such \x1b page\nat line 7", status) if status != 304 else Said(status=304)
    with pytest.raises(kind) as caught:
        get(here, params={"token": "s3cret"})
    assert problem in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert type(caught.value) is kind
    assert nothing_written(here)


def test_silent_server_is_retried(web: Web, here: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that refuses the connection, that breaks off before its length, or that is too slow."""
    web.pages["/a.csv"] = Said("id\n1\n", length=100)
    with pytest.raises(TransientError, match=r"broke off: .*received 5 bytes, expected 100"):
        get(here)
    web.pages["/slow.csv"] = Said("id\n1\n", holds_back=True)
    with pytest.raises(TransientError, match=r"/slow\.csv: no answer in time"):
        get(here, "slow.csv", timeout=0.1)
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", json.dumps({"conn_type": "http", "host": "127.0.0.1", "port": 1}))
    with pytest.raises(TransientError, match="Connection refused"):
        get(here)
    assert nothing_written(here)


def test_answer_has_an_end() -> None:
    """A server that sends something every few seconds is not read for ever."""
    answer = Answer(httpx.Response(200, content=b"id\n"), "GET http://shop/a.csv", timeout=60, ends=0)
    with pytest.raises(TransientError, match="only 3 bytes of the answer came in 60 s; raise `timeout`"):
        list(answer.blocks(1000))


def test_path_stays_below_the_address(web: Web, here: Run) -> None:
    """A value that only a run knows is checked like one that is written: the server is asked for nothing."""
    for path in ("//127.0.0.1/a", "http://127.0.0.1/a", "a/../../b", "a\r\nX: y", "a?b=1", "%2e%2e/a", "a b"):
        values = {"connection": "shop", "path": path, "output": "a.csv", "files": {"folder": "data"}}
        with pytest.raises(PermanentError, match=r"the rendered values do not fit http\.download: path is"):
            call("http.download", values, here, {})
    assert web.asked == []


def test_redirect_stays_at_its_server(web: Web, here: Run) -> None:
    """Within the server it is followed, with the login; another host, port or scheme is never asked."""
    web.pages["/a.csv"] = Said(status=302, headers={"Location": "/new/a.csv?v=2"})
    web.pages["/new/a.csv"] = Said("id\n1\n")
    assert get(here) == "id\n1\n"
    assert web.asked[-1].query == {"v": "2"}
    with serving() as other:
        for elsewhere in (f"http://{other.host}/a.csv", f"//{other.host}/a.csv", f"http://u:p@{web.host}/new/a.csv"):
            web.pages["/a.csv"] = Said(status=307, headers={"Location": elsewhere})
            with pytest.raises(PermanentError, match="a step asks no other server"):
                get(here)
        assert other.asked == []
    for elsewhere in ("file:///etc/passwd", f"https://{web.host}/a.csv"):
        web.pages["/a.csv"] = Said(status=301, headers={"Location": elsewhere})
        with pytest.raises(PermanentError, match="a step asks no other server"):
            get(here)
    web.pages["/a.csv"] = Said(status=302, headers={"Location": "/a.csv"})
    with pytest.raises(PermanentError, match="redirected more than 5 times"):
        get(here)


# --- http.download ----------------------------------------------------------------------------------------------------


def test_file_is_downloaded(web: Web, here: Run, caplog: pytest.LogCaptureFixture) -> None:
    """As it is, with its digest; again, with the same result."""
    body = bytes(range(256)) * 1000
    web.pages["/a.bin"] = Said(body)
    digest = hashlib.sha256(body).hexdigest()
    with caplog.at_level(logging.INFO, "tasks"):
        done = [download("shop", "a.bin", "got/a.bin", DATA, sha256=digest, run=here) for _ in range(2)]
    assert done[0] == done[1]
    assert (done[0].bytes, done[0].sha256) == (256_000, digest)
    assert Path(done[0].address).read_bytes() == body
    assert "256,000 bytes in" in caplog.text


def test_packed_answer_is_unpacked(web: Web, here: Run) -> None:
    """What a server packs for the way is not in the file; it counts as it is unpacked."""
    packed = gzip.compress(b"id\n" + b"1\n" * 1_000)
    web.pages["/a.csv"] = Said(packed, headers={"Content-Encoding": "gzip"})
    assert len(get(here)) == 2_003
    with pytest.raises(PermanentError, match="answers with more, and at most 1,000 bytes are taken"):
        get(here, max_bytes=1_000)
    web.pages["/a.csv"] = Said(b"not packed", headers={"Content-Encoding": "gzip"})
    with pytest.raises(TransientError, match="broke off"):
        get(here)


@pytest.mark.parametrize(
    ("said", "more", "problem"),
    [
        (Said(b""), {}, "answers with an empty file; say `allow_empty: true`"),
        (Said("id\n"), {"sha256": "0" * 64}, "has the SHA-256 .*, and the step declares 000"),
        (Said("id\n1\n"), {"max_bytes": 4}, "answers with 5 bytes, and at most 4 bytes are taken"),
        (
            Said("<title>Log in\n</title>", headers={"Content-Type": "text/html; charset=utf-8"}),
            {},
            "answers with a page for people, not with data: Log in; correct `path`, or the login",
        ),
    ],
)
def test_wrong_file_is_not_kept(web: Web, here: Run, said: Said, more: dict[str, Any], problem: str) -> None:
    """The error says what came instead, and there is no file."""
    web.pages["/a.csv"] = said
    with pytest.raises(PermanentError, match=problem):
        get(here, **more)
    assert nothing_written(here)


def test_failure_leaves_what_was_there(web: Web, here: Run) -> None:
    """A second try that breaks off does not touch the file of the first."""
    web.pages["/a.csv"] = Said("id\n1\n")
    get(here)
    web.pages["/a.csv"] = Said("id\n2\n", length=9)
    with pytest.raises(TransientError):
        get(here)
    assert place_of(DATA, here).text("got/a.csv") == "id\n1\n"


# --- http.request -----------------------------------------------------------------------------------------------------


def test_answer_is_handed_on(web: Web, here: Run) -> None:
    """What is declared of the part that is selected, in the types that templates have; nothing else is kept."""
    job = {
        "id": 7,
        "state": "done",
        "at": "2026-01-05T06:00:00Z",
        "share": 1,
        "day": "2026-01-05",
        "ok": True,
        "x": None,
    }
    web.pages["/jobs/7"] = Said.of({"jobs": [job]})
    assert request("shop", "jobs/7", run=here).answer is None
    returns = {"id": "integer", "at": "datetime", "share": "number", "day": "date", "ok": "boolean"}
    found = request("shop", "jobs/7", data_selector="jobs.0", returns=returns, run=here)  # type: ignore[arg-type]
    given = {"id": 7, "at": "2026-01-05T06:00:00+00:00", "share": 1, "day": "2026-01-05", "ok": True}
    assert (found.status, found.answer) == (200, given)
    more = request("shop", "jobs/7", data_selector="jobs.0", returns={"x": "text"}, allow_null=True, run=here)
    assert more.answer == {"x": None}


def test_change_has_one_key(web: Web, here: Run) -> None:
    """A POST sends its body as JSON, and each try of a step the same key; another step another one."""
    web.pages["/jobs"] = Said(status=204)
    for who in (here, replace(here, try_number=2), replace(here, map_index=1)):
        assert request("shop", "jobs", "POST", body={"name": "ä", "n": [1]}, run=who).answer is None
    keys = [asked.headers["idempotency-key"] for asked in web.asked]
    assert keys[0] == keys[1] != keys[2]
    assert web.asked[0].method == "POST"
    assert json.loads(web.asked[0].body) == {"name": "ä", "n": [1]}
    assert web.asked[0].headers["content-type"] == "application/json"
    web.pages["/jobs"] = Said(status=302, headers={"Location": "/other"})
    with pytest.raises(PermanentError, match="only a GET may be"):
        request("shop", "jobs", "POST", run=here)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ('{"id": ', "does not answer with JSON"),
        ("[" * 20_000, "does not answer with JSON"),
        ('{"id": NaN}', "NaN is not a number"),
        ('{"id": 1e999}', "1e999 is not a number that 64 bits keep"),
        ('{"id": 0.1234567890123456789}', "is not a number that 64 bits keep"),
        ("", "answers with null, and `returns` are values of an object"),
        ("[1]", "answers with a list of 1, and `returns` are values of an object"),
        ('{"key": 1}', "answers without id: an object with key; correct `returns`"),
        ('{"id": null}', "answers without id"),
        ('{"id": "7"}', 'has "7" as id, which is not an integer; correct the declared type'),
        ('{"id": true}', "has true as id, which is not an integer"),
        ('{"id": 7.5}', "has 7.5 as id, which is not an integer"),
        ('{"id": 9223372036854775808}', "has 9223372036854775808 as id"),
        ('"' + "a" * 70_000 + '"', "answers with 70,002 bytes, and at most 65,536 bytes are taken"),
    ],
)
def test_wrong_answer_is_rejected(web: Web, here: Run, body: str, problem: str) -> None:
    """The error shows what came."""
    web.pages["/a"] = Said(body)
    with pytest.raises(PermanentError, match=problem):
        request("shop", "a", returns={"id": "integer"}, run=here)


def test_moment_is_not_cut(web: Web, here: Run) -> None:
    """Nanoseconds, and what has no date."""
    for at in ("2026-01-05T06:00:00.123456789Z", "06:00", 7):
        web.pages["/a"] = Said.of({"at": at})
        with pytest.raises(DataRejected, match="as at, which is not a datetime"):
            request("shop", "a", returns={"at": "datetime"}, run=here)


def test_page_for_people_is_no_answer(web: Web, here: Run) -> None:
    """A login page, with status 200."""
    web.pages["/a"] = Said("<html><title>Log &amp; in</title>", headers={"Content-Type": "text/html"})
    with pytest.raises(PermanentError, match="not with data: Log & in; correct `path`"):
        request("shop", "a", run=here)


def test_selected_part_is_missing(web: Web, here: Run) -> None:
    """The error says what is there."""
    web.pages["/a"] = Said.of({"data": {"jobs": []}})
    with pytest.raises(DataRejected, match=r"nothing at 'data\.items': no 'items' in an object with jobs; correct"):
        request("shop", "a", data_selector="data.items", returns={"id": "integer"}, run=here)


# --- http.extract -----------------------------------------------------------------------------------------------------

ORDERS = [{"id": number, "note": "ä\nb", "price": number / 2} for number in range(1, 6)]


def orders(asked: Asked) -> Said:
    """Two orders a page, by whichever way of turning pages."""
    query, host = asked.query, asked.headers["host"]
    start = int(query.get("offset", 0)) or int(query.get("cursor", 0)) or (int(query.get("page", 1)) - 1) * 2
    more = start + 2 < len(ORDERS)
    link = f"http://{host}/orders?cursor={start + 2}&day={query.get('day', '')}"
    body = {"data": {"rows": ORDERS[start : start + 2]}, "count": 5, "after": start + 2 if more else None}
    body |= {"next": link} if more else {}
    said = Said.of(body)
    return replace(said, headers={**said.headers, **({"Link": f'<{link}>; rel="next"'} if more else {})})


@pytest.mark.parametrize(
    ("paginator", "asks"),
    [
        (JsonLink(type="json_link"), 3),
        (HeaderLink(type="header_link"), 3),
        (PageNumber(type="page_number"), 4),
        (Offset(type="offset", limit=3), 4),
        (Cursor(type="cursor", cursor_path="after"), 3),
    ],
    ids=lambda value: getattr(value, "type", ""),
)
def test_all_pages_are_written(web: Web, here: Run, paginator: Paginator, asks: int) -> None:
    """In their order, whichever way they follow each other, and also where the server gives fewer than asked for."""
    web.pages["/orders"] = orders
    done = extract(
        "shop",
        "orders",
        "o.jsonl",
        DATA,
        "json_lines",
        {"day": "2026-01-05"},
        "data.rows",
        paginator,
        "count",
        run=here,
    )
    assert (done.rows, done.pages, len(web.asked)) == (5, asks, asks)
    assert [json.loads(line) for line in Path(done.address).read_text().splitlines()] == ORDERS
    assert {asked.query["day"] for asked in web.asked} == {"2026-01-05"}


def test_declared_columns_become_parquet(web: Web, here: Run) -> None:
    """With their types; those that are not declared are left out, and one that a row lacks is null."""
    rows = [
        {"id": 1, "at": "2026-01-05T06:00:00+01:00", "day": "2026-01-05", "share": 1, "ok": False, "other": [1]},
        {"id": 2, "name": "ä"},
    ]
    web.pages["/a"] = Said.of(rows)
    kinds = {"id": "integer", "at": "datetime", "day": "date", "share": "number", "ok": "boolean", "name": "text"}
    done = extract("shop", "a", "a.parquet", DATA, "parquet", columns=kinds, run=here)  # type: ignore[arg-type]
    table = parquet.read_table(done.address)
    assert [f"{one}" for one in table.schema.types] == [
        *("int64", "timestamp[us, tz=UTC]", "date32[day]", "double", "bool", "string"),
    ]
    at = dt.datetime(2026, 1, 5, 5, tzinfo=dt.UTC)
    assert table.to_pylist() == [
        {"id": 1, "at": at, "day": dt.date(2026, 1, 5), "share": 1.0, "ok": False, "name": None},
        {"id": 2, "at": None, "day": None, "share": None, "ok": None, "name": "ä"},
    ]


def pages(*bodies: object) -> Any:
    """Return what gives these pages one after the other, whatever is asked for, the last one again and again."""
    left = itertools.chain(bodies, itertools.repeat(bodies[-1]))
    return lambda _: one if isinstance(one := next(left), Said) else Said.of(one)


NUMBERED = {"paginator": PageNumber(type="page_number")}
LINKED = {"paginator": JsonLink(type="json_link"), "data_selector": "rows"}


@pytest.mark.parametrize(
    ("bodies", "more", "problem"),
    [
        ([[{"id": 1}]], NUMBERED, "page 2 has the same rows as page 1: the server does not turn the pages"),
        (
            [{"rows": [{"id": 1}], "next": "/a?n=2"}, {"rows": [], "next": "/a?n=2"}],
            LINKED,
            "page 2 of a leads back to page 2",
        ),
        ([{"rows": [], "next": "http://127.0.0.2/a"}], LINKED, "a step asks no other server"),
        ([{"rows": [], "next": ["/a"]}], LINKED, "page 1 of a has a list of 1 at 'next', which is not a text"),
        ([[{"id": 1}], [{"id": 2}], []], {**NUMBERED, "max_pages": 2}, "a has more than 2 pages; raise `max_pages`"),
        ([{"rows": [{"id": 1}]}], {}, "page 1 of a has an object with rows where a list of rows should be"),
        ([None], {}, "page 1 of a has null where a list of rows should be"),
        ([[{"id": 1}, 2]], {}, "page 1 of a has 2 among its rows, which is not an object"),
        ([[{"id": 1}, 0]], {}, "page 1 of a has 0 among its rows, which is not an object"),
        ([[]], {}, "shop: a answers with no rows; say `allow_empty: true`"),
        ([{"rows": [{"id": 1}], "n": 2}], {"data_selector": "rows", "total_path": "n"}, "tells of 2 rows at 'n', and"),
        (
            [[{"id": "x"}]],
            {"columns": {"id": "integer"}},
            'row 1 on page 1 of a has "x" as id, which is not an integer',
        ),
        ([Said("<p>", headers={"Content-Type": "text/html"})], {}, "with a page for people, not with data"),
        ([[{"id": 1}], Said('[{"id": 2', headers={})], NUMBERED, "does not answer with JSON"),
        ([Said('[{"id": "\\ud800"}]')], {}, "row 1 has a text with half a character"),
    ],
)
def test_wrong_pages_are_rejected(
    web: Web, here: Run, bodies: list[object], more: dict[str, Any], problem: str
) -> None:
    """The error names the page, and there is no file."""
    web.pages["/a"] = pages(*bodies)
    with pytest.raises(PermanentError, match=problem):
        extract("shop", "a", "a.jsonl", DATA, "json_lines", **more, run=here)
    assert nothing_written(here)


def test_broken_page_is_retried(web: Web, here: Run) -> None:
    """The pages before it are not kept either."""
    web.pages["/a"] = pages([{"id": 1}], Said("[", length=100))
    with pytest.raises(TransientError, match="broke off"):
        extract("shop", "a", "a.jsonl", DATA, "json_lines", **NUMBERED, run=here)  # type: ignore[arg-type]
    assert nothing_written(here)


def test_number_too_long_for_parquet(web: Web, here: Run) -> None:
    """An integer that a double would round."""
    web.pages["/a"] = Said.of([{"n": 2**53 + 1}])
    with pytest.raises(DataRejected, match="n has a value that parquet does not have: 9007199254740993"):
        extract("shop", "a", "a.parquet", DATA, "parquet", columns={"n": "number"}, run=here)
    assert nothing_written(here)
