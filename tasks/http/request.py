"""http.request: one question to a server, and the few values that it answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import Field, JsonValue

from tasks.contract import Column, Conflict, ConnectionId, DataRejected, Output, Run, reusable
from tasks.declared import MAX_BYTES, Scalar, ValueType, schemas_of
from tasks.http.values import JsonPath, declared, json_of, required_at, shown
from tasks.services.http import HttpPath, Method, Parameters, RequestTimeout, http_server


class Requested(Output):
    """What the server answered."""

    status: int
    """Between 200 and 299."""
    answer: dict[str, Scalar] | None
    """The declared values; null if a step declares none."""


def _outputs(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON Schema of the answer, which follows from what a step declares."""
    returns = given.get("returns")
    if not isinstance(returns, dict) or not returns:
        return {"answer": {"type": "null"}}
    null = [{"type": "null"}] if given.get("allow_null") not in (None, False) else []
    return {"answer": {"type": "object", "properties": schemas_of(returns, null)}}


def _conflicts(given: Mapping[str, Any]) -> Iterator[Conflict]:
    if given.get("body") is not None and given.get("method", "GET") in ("GET", "DELETE"):
        yield ("body",), "only a POST, PUT or PATCH has a body; set `method`, or ask with `params`"
    for argument in ("data_selector", "allow_null"):
        if given.get(argument) not in (None, False) and given.get("returns") is None:
            yield (argument,), f"{argument} has no effect without `returns`, which says what is kept of the answer"


@reusable("http.request", role="source", conflicts=_conflicts, outputs=_outputs)
def request(
    connection: ConnectionId,
    path: HttpPath,
    method: Method = "GET",
    params: Parameters | None = None,
    body: dict[str, JsonValue] | None = None,
    data_selector: JsonPath | None = None,
    returns: Annotated[dict[Column, ValueType], Field(min_length=1)] | None = None,
    allow_null: bool = False,  # noqa: FBT001, FBT002  # a field of `with`
    timeout: RequestTimeout = 60,
    *,
    run: Run,
) -> Requested:
    """Ask a server once, with `body` as JSON, and hand what it answers to the templates of later steps.

    `connection` is an Airflow connection of type http, as in http.download. `{{ steps.ask.answer.state }}` is a value
    of the object that it answers, or of the one at `data_selector`. `returns` declares the values that are kept,
    and their types, so that lint checks what templates do with them; without it only the status is kept.

    A step may be tried again, and then asks again: a request that is not a GET has the header `Idempotency-Key`, the
    same for every try of the step in its run, and should have the same effect when it is repeated.

    Raises TransientError for a server that does not answer, fails (5xx) or takes more than `timeout` seconds, and
    PermanentError with what it says for one that refuses (4xx). Raises DataRejected for an answer that is not JSON, of
    more than 65,536 bytes, or not as declared: a declared value that is missing or null is an error, unless
    `allow_null`.
    """
    with http_server(connection) as server:
        headers = {} if method == "GET" else {"Idempotency-Key": _key(run)}
        asking = server.ask(server.url(path), timeout=timeout, method=method, params=params, body=body, headers=headers)
        with asking as answer:
            answer.require_data()
            found = json_of(answer, MAX_BYTES) if returns else None
    if data_selector is not None:
        found = required_at(found, data_selector, answer.asked, "data_selector")
    kept = _declared(found, returns, answer.asked, allow_null=allow_null) if returns else None
    run.log.info("%s: %s, %s", answer.asked, answer.response.status_code, json.dumps(kept, ensure_ascii=False)[:500])
    return Requested(status=answer.response.status_code, answer=kept)


def _declared(found: Any, returns: Mapping[str, ValueType], asked: str, *, allow_null: bool) -> dict[str, Scalar]:
    if not isinstance(found, dict):
        raise DataRejected(f"{asked} answers with {shown(found)}, and `returns` are values of an object")
    if not allow_null and (absent := [name for name in returns if found.get(name) is None]):
        remedy = "correct `returns`, or set `allow_null: true` and say in templates what then: `| default(…)`"
        raise DataRejected(f"{asked} answers without {', '.join(absent)}: {shown(found)}; {remedy}")
    return declared(found, returns, asked)


def _key(run: Run) -> str:
    """Return what tells a server that it is asked again."""
    whose = (run.deployment, run.dag_id, run.run_id, run.task_id, str(run.map_index))
    return hashlib.sha256("\0".join(whose).encode()).hexdigest()[:32]
