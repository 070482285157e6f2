"""What another user of the machine gets from a running stack: `python -m tests.support.stranger`, started as root.

Reads from standard input where the stack is, changes its user for good, tries every port and file, and writes what it
got as JSON. It imports all it needs while it may still read this project, and is given no secret.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg2

from stack.identity import NOBODY
from stack.objects import ObjectPorts
from tests.support.inner_ports import called, fetched, opened
from tests.support.spark_frames import MESSAGES, answered
from tests.support.spark_frames import called as jvm_called

HOST = "127.0.0.1"
REFUSED = {401, 403, 404, 405}
"""Answers that give nothing away: log in, you may not, and there is no such address."""
SECONDS = 30
SECONDS_OF_SILENCE = 5
"""After which a port counts as one that does not speak HTTP."""
THREADS = 16
PAGES = ("/", "/jobs/", "/environment/", "/executors/", "/json/", "/static/webui.css", "/api/v1/applications")
"""What Spark's pages would show of an application."""


@dataclass
class Stranger:
    """Somebody without any login, and what they got."""

    ports: dict[str, int]
    tried: list[int]
    got: list[str]

    def look(self, name: str, *requests: tuple[str, str], shown: frozenset[str] = frozenset()) -> None:
        """Send requests to a port by HTTP, and note which are answered, apart from those that are shown to anyone."""
        address = f"http://{HOST}:{self.ports[name]}"
        with httpx.Client(base_url=address, trust_env=False, timeout=SECONDS) as client:
            for method, path in requests:
                try:
                    answer = client.request(method, path, json=None if method == "GET" else {})
                except httpx.HTTPError as error:
                    self.got.append(f"{name}: {method} {path}: no refusal, but {type(error).__name__}")
                    continue
                if answer.status_code not in REFUSED and path.partition("?")[0] not in shown and not is_login(answer):
                    self.got.append(f"{name}: {method} {path}: {answer.status_code} {answer.text[:100]}")
        self.tried.append(self.ports[name])

    def postgres(self) -> None:
        """Try every account, without a password and with the name as a password."""
        for user in ("postgres", "airflow", "crypto", "mlflow", "nobody"):
            for password in ("", user):
                login = {"host": HOST, "port": self.ports["postgres"], "user": user, "password": password}
                try:
                    psycopg2.connect(dbname=user, **login, connect_timeout=5).close()
                except psycopg2.OperationalError:
                    continue
                self.got.append(f"postgres: a session of {user}")
        self.tried.append(self.ports["postgres"])

    def redis(self) -> None:
        """Ask the broker for its keys."""
        with socket.create_connection((HOST, self.ports["redis"]), timeout=5) as session:
            session.sendall(b"KEYS *\r\nCONFIG GET *\r\n")
            answer = session.recv(1000)
        if not answer.startswith(b"-NOAUTH"):
            self.got.append(f"redis: {answer!r}")
        self.tried.append(self.ports["redis"])

    def objects(self) -> None:
        """Try the object store's inner ports, and S3 and the admin's pages without a login."""
        names = ("admin", "master", "volume", "filer")
        self.got += opened(ObjectPorts(self.ports["objects"], *(self.ports[f"objects-{name}"] for name in names)))
        self.tried += [self.ports[f"objects-{name}"] + twin for name in names for twin in (0, 10_000)]
        self.tried.append(self.ports["objects"] + 10_000)
        keys = ("/", "/ge-artifacts", "/ge-artifacts/probe", "/mlflow-artifacts?list-type=2", "/readiness/probe")
        written = (("PUT", "/ge-artifacts/stranger"), ("DELETE", "/readiness/probe"), ("PUT", "/a-bucket-of-mine"))
        self.look("objects", *(("GET", key) for key in keys), *written)
        pages = ("/", "/object-store/buckets", "/files", "/api/s3/buckets", "/api/files/list?path=/", "/maintenance")
        self.look("objects-admin", *(("GET", page) for page in pages))

    def spark(self, ports: list[int]) -> None:
        """Speak to ports without a fixed number as a browser does, and in Spark's own protocol without its secret."""
        with ThreadPoolExecutor(THREADS) as threads:
            for got in (*threads.map(browsed, ports), *threads.map(spoken_to, ports)):
                self.got += got
        self.tried += ports

    def files(self, folders: list[str]) -> None:
        """Try to see what is in the folders of the stack."""
        for folder in folders:
            for path in (Path(folder), Path(folder) / "secrets.json", Path(folder) / "run", Path(folder) / "mlflow"):
                try:
                    seen = list(map(str, path.iterdir())) if path.is_dir() else path.read_text()
                except (PermissionError, FileNotFoundError):
                    continue
                self.got.append(f"{path}: {seen!r:.100}")
        for path in Path("/tmp").glob("seaweedfs-*.sock"):
            with socket.socket(socket.AF_UNIX) as session:
                try:
                    session.connect(str(path))
                except OSError:
                    continue
                self.got.append(f"{path}: a connection")

    def processes(self, pids: list[int]) -> None:
        """Try to read the environment of the services, where some have their passwords."""
        for pid in pids:
            for name in ("environ", "mem", "fd"):
                try:
                    path = Path(f"/proc/{pid}/{name}")
                    seen = list(path.iterdir()) if name == "fd" else [path.read_bytes()]
                except OSError:
                    continue
                if any(seen):
                    self.got.append(f"{path}: {len(seen)} read")


def browsed(port: int) -> list[str]:
    """Return what a port gives to a browser, if it speaks HTTP at all."""
    got = []
    with httpx.Client(base_url=f"http://{HOST}:{port}", trust_env=False, timeout=SECONDS_OF_SILENCE) as client:
        for page in PAGES:
            try:
                answer = client.get(page)
            except httpx.HTTPError:
                continue
            if answer.status_code not in REFUSED:
                got.append(f"port {port}: {page}: {answer.status_code} {answer.text[:100]}")
    return got


def spoken_to(port: int) -> list[str]:
    """Return what a port gives to messages of Spark's protocols."""
    answers = {what: answered(port, *message) for what, message in MESSAGES.items()}
    answers["a call by Python"] = jvm_called(port)
    return [f"port {port}: {what}: {seen}" for what, seen in answers.items() if seen]


def is_login(answer: httpx.Response) -> bool:
    """Return whether an answer leads to a page to log in on."""
    return answer.is_redirect and "login" in answer.headers["location"]


def warm_up() -> None:
    """Have the libraries import what they import at their first use, on a port where nobody listens."""
    with httpx.Client(trust_env=False) as client, contextlib.suppress(httpx.ConnectError):
        client.get(f"http://{HOST}:9", headers={"Accept": "*/*"})
    with contextlib.suppress(psycopg2.OperationalError):
        psycopg2.connect(host=HOST, port=9)
    called(9, "/x")
    browsed(9)
    fetched(f"https://{HOST}:9")


def become_nobody() -> None:
    """Change to an ordinary user, for good."""
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


def main() -> None:
    """Try everything, and print what was tried and what was got."""
    given: dict[str, Any] = json.load(sys.stdin)
    warm_up()
    become_nobody()
    assert os.getresuid() == (NOBODY, NOBODY, NOBODY)
    one = Stranger(given["ports"], [], [])
    one.postgres()
    one.objects()
    if "redis" in given["listening"]:
        one.redis()
    for name, pages in given["pages"].items():
        one.look(name, *map(tuple, pages["requests"]), shown=frozenset(pages["shown"]))
    one.spark(given["spark"])
    one.files(given["folders"])
    one.processes(given["pids"])
    print(json.dumps({"tried": one.tried, "got": one.got}))


if __name__ == "__main__":
    main()
