"""http.download: one file from a server, as it is."""

from __future__ import annotations

import hashlib
from pathlib import Path
from time import monotonic
from typing import Annotated

from pydantic import Field

from tasks.contract import ConnectionId, DataRejected, Link, Output, Run, WrittenFile, reusable
from tasks.files.places import Files
from tasks.files.run_files import files_of
from tasks.services.http import Answer, HttpPath, Parameters, RequestTimeout, http_server

_PAGES = (".html", ".htm")
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""A SHA-256 as 64 hexadecimal digits in lower case."""


class Downloaded(Output):
    """The file that was written."""

    file: str
    bytes: int
    sha256: str
    address: Link
    """Where people find the run's own file."""


@reusable("http.download", role="source")
def download(
    connection: ConnectionId,
    path: HttpPath,
    output: WrittenFile,
    files: Files,
    params: Parameters | None = None,
    sha256: Sha256 | None = None,
    max_bytes: Annotated[int, Field(ge=1, le=1 << 40)] = 1 << 30,
    timeout: RequestTimeout = 3600,
    allow_empty: bool = False,  # noqa: FBT001, FBT002  # a field of `with`
    *,
    run: Run,
) -> Downloaded:
    """Download a file from a server; it has its name only when it is complete.

    `connection` is an Airflow connection of type http: its host, schema and port are the server, its login and the
    headers in its extra are sent with the request. `path` is below its address and `params` are the query. `output` is
    the run's own file, and `files` the place. A redirect to another server is refused.

    A server that does not answer, fails (5xx) or breaks off is asked again as `retries` say; so is one that has not
    sent all after `timeout` seconds. Raises PermanentError with what it says if it refuses (4xx) or sends more than
    `max_bytes`, and DataRejected for an empty file, unless `allow_empty`, for one with another digest than `sha256`,
    and for a page (HTML) where `output` is not named `.html`.
    """
    started, of_run = monotonic(), files_of(files, run)
    with http_server(connection) as server, of_run.write(output) as file:
        with server.ask(server.url(path), params=params, timeout=timeout) as answer:
            if not output.lower().endswith(_PAGES):
                answer.require_data()
            size, digest = _written(answer, file, max_bytes)
        if not size and not allow_empty:
            raise DataRejected(f"{answer.asked} answers with an empty file; say `allow_empty: true` if that is right")
        if sha256 not in (None, digest):
            raise DataRejected(f"{answer.asked} has the SHA-256 {digest}, and the step declares {sha256}")
    run.log.info("%s: %s bytes in %.1f s", of_run.address(output), f"{size:,}", monotonic() - started)
    return Downloaded(file=output, bytes=size, sha256=digest, address=of_run.address(output))


def _written(answer: Answer, file: Path, limit: int) -> tuple[int, str]:
    """Write the body to `file`; return how many bytes it has and their SHA-256."""
    size, digest = 0, hashlib.sha256()
    with file.open("wb") as out:
        for block in answer.blocks(limit):
            size += out.write(block)
            digest.update(block)
    return size, digest.hexdigest()
