"""What another user of the machine gets from a running stack, seen from its owner's side."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import httpx
import psutil

from tests.support.mlflow_routes import PUBLIC, routes
from tests.support.processes import alive, everyone, listening
from tests.support.waiting import eventually
from tests.support.whole_stack import RunningStack

AIRFLOW = {
    "/api/v2/monitor/health": "that it is up",
    "/api/v2/version": "its release",
    "/auth/login": "the page to log in on",
    "/auth/token": "where a login is exchanged for a token; it refuses one that is wrong",
    "/auth/token/cli": "as above",
    "/api/v2/auth/login": "leads to the page to log in on",
    "/api/v2/auth/logout": "ends the session of whoever calls it",
}
"""What Airflow answers to anyone, and why that is no harm."""
SPARK = ("/", "/json/", "/static/webui.css", "/logPage/", "/metrics/json/", "/proxy/x/", "/app/?appId=x")
APP = (
    "/",
    "/_stcore/health",
    "/_stcore/host-config",
    "/_stcore/stream",
    "/static/index.js",
    "/media/x",
    "/favicon.png",
)
RPC = re.compile(r"spark|spark-worker(-\d)?")
"""Ports that speak Spark's own protocol."""
EPHEMERAL = 32768
"""From here up are ports that the kernel chose: those of drivers and executors."""


def got_by_stranger(stack: RunningStack, *drivers: int) -> list[str]:
    """Return what another user gets, and the ports that nobody tried; root only.

    `drivers` are the process ids of Spark applications that run meanwhile.
    """
    ports, home, heard = dict(stack.services.ports), stack.home, ports_of(stack)
    theirs = {port for pid in drivers for port in ports_below(pid)}
    spoken = {port for name, port in ports.items() if RPC.fullmatch(name)} & heard
    up = [name for name, port in ports.items() if port in heard]
    pages = {"mlflow": page(sorted(routes()), [path for _, path in PUBLIC]), "airflow": page(api_of(stack), AIRFLOW)}
    pages["app"] = page([("GET", path) for path in APP], ())
    pages |= {name: page([("GET", path) for path in SPARK], ()) for name in up if re.match(r"spark.*-ui", name)}
    given: dict[str, Any] = {
        "ports": ports,
        "listening": up,
        "folders": [str(home.root), str(home.sockets)],
        "pids": [process.pid for process in everyone(stack)],
        "pages": pages,
        "spark": sorted(spoken | theirs | {port for port in heard if port >= EPHEMERAL}),
    }
    command = [sys.executable, "-m", "tests.support.stranger"]
    done = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    untried = sorted(heard - set(found["tried"]))
    return [*found["got"], *(f"nobody tried port {port}" for port in untried)]


def page(requests: list[tuple[str, str]], shown: Any) -> dict[str, Any]:
    """Return what the stranger asks of a port, and the paths that answer anyone."""
    return {"requests": requests, "shown": list(shown)}


def ports_below(pid: int) -> set[int]:
    """Return the ports on which a process and its descendants listen."""
    driver = psutil.Process(pid)
    return {port for _, port in listening(alive([driver, *driver.children(recursive=True)]))}


def ports_of(stack: RunningStack) -> set[int]:
    """Return every port on which a process of the stack listens."""
    heard: set[int] = set()

    def look() -> bool:
        try:
            heard.update(port for _, port in listening(everyone(stack)))
        except (PermissionError, FileNotFoundError):  # Airflow hides the process of a task from its own user
            return False
        return True

    eventually("a moment without a task", look)
    return heard


def api_of(stack: RunningStack) -> list[tuple[str, str]]:
    """Return the methods and paths of Airflow's API and of our pages in it, with x in the place of names."""
    described = httpx.get(f"{stack.api.address}/openapi.json", trust_env=False, timeout=120).json()["paths"]
    spark = [("GET", f"/spark{path}") for path in SPARK]
    own = [*spark, ("GET", "/artifacts/ge-artifacts/x"), ("GET", "/execution/connections/mlflow_default")]
    named = {re.sub(r"\{[^}]*\}", "x", path): methods for path, methods in described.items()}
    found = [*own, *((method.upper(), path) for path, methods in named.items() for method in methods)]
    assert len(found) > 100
    return found
