"""What a service is: its command, and how to tell that it is ready.

Knows no particular service, and not how the whole stack is kept running (`stack.supervisor`).
"""

from __future__ import annotations

import contextlib
import functools
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil

from stack.launch import Plan, empty, kill_trees

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    import httpx


class NotReady(Exception):
    """The service is not ready yet; the text says what was seen instead."""


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Service:
    """A long-running process, and the condition for others to use it."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    directory: Path
    awaited: str
    """The condition that `probe` tests, in words."""
    probe: Callable[[], None]
    """Raises NotReady until the service is ready."""
    prepare: Callable[[], None] = _nothing
    """Run before a start; does nothing if it was done before."""
    settle: Callable[[], None] = _nothing
    """Run once the service is ready: makes its accounts or its buckets."""
    tidy: Callable[[], None] = _nothing
    """Run after it has stopped."""
    emptied: tuple[Path, ...] = ()
    """Folders that are emptied whenever it starts, whatever starts it, and once it has been stopped."""
    group: str = ""
    """The name that chooses several services together."""
    needs: tuple[str, ...] = ()
    """The steps that must be done before this one starts."""
    uses: tuple[str, ...] = ()
    """The services that it may use but starts without; they are stopped after it."""
    identity: str = "same"
    """Who runs it (`stack.identity`): Postgres refuses root."""
    stop_signal: signal.Signals = signal.SIGTERM
    signal_group: bool = True
    """Whether the stop signal goes to the whole process group, or only to its leader."""
    stop_seconds: int = 20
    settled_after: int = 10
    """Seconds after which it counts as started: if it ends sooner, several times in a row, it is given up."""

    def plan(self, pid_file: Path) -> Plan:
        """Return the plan for a process to become this service."""
        return Plan(
            command=self.command,
            environment=self.environment,
            directory=str(self.directory),
            pid_file=str(pid_file),
            identity=self.identity,
            signal_at_parents_death=self.stop_signal,
            emptied=tuple(map(str, self.emptied)),
        )

    def clear(self) -> None:
        """Clean up after it has stopped."""
        for folder in self.emptied:
            empty(folder)
        self.tidy()


@dataclass
class StartFailed(Exception):
    """A service did not become ready."""

    service: str
    awaited: str
    seconds: float
    reason: str
    log: Path
    log_lines: int = 15

    def __str__(self) -> str:
        lines = last_lines(self.log, self.log_lines)
        tail = "\n".join(f"  | {line}" for line in lines) or "  | (nothing)"
        return (
            f"{self.service} did not start: waited {self.seconds:.0f} s for {self.awaited}; {self.reason}\n"
            f"The last lines of {self.log}:\n{tail}"
        )


@functools.cache
def client() -> httpx.Client:
    """Return the client by which services are asked, one for all: making it reads every certificate authority there is.

    It keeps no connection open: the service at its other end may be another process by then.
    """
    import httpx

    return httpx.Client(timeout=5, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))


def fetch(url: str, headers: Mapping[str, str] | None = None) -> httpx.Response:
    """Return the answer of a service's page; raise NotReady for no answer, or an error."""
    import httpx

    try:
        return client().get(url, headers=headers).raise_for_status()
    except httpx.HTTPError as error:
        raise NotReady(f"{type(error).__name__}: {error}") from error


def fetch_json(url: str, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the JSON object on a service's page; raise NotReady if there is none."""
    try:
        return dict(fetch(url, headers).json())
    except ValueError as error:
        raise NotReady(f"{type(error).__name__}: {error}") from error


def last_lines(path: Path, count: int) -> list[str]:
    """Return the last `count` lines of a log, or an empty list if there is no such file."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 64 * 1024))
        return file.read().decode("utf-8", errors="replace").splitlines()[-count:]


def await_ready(service: Service, log: Path, *, died: Callable[[], str | None], seconds: float) -> float:
    """Wait until `service` is ready and return how long that took.

    `died` returns why the process is gone for good, or None while it may still become ready. Raises StartFailed.
    """
    started = time.monotonic()
    pause = 0.02
    while True:
        try:
            service.probe()
        except NotReady as error:
            reason = f"the last answer was: {error}"
        else:
            return time.monotonic() - started
        waited = time.monotonic() - started
        if (death := died()) is not None or waited > seconds:
            raise StartFailed(service.name, service.awaited, waited, death or reason, log)
        time.sleep(pause)
        pause = min(pause * 1.5, 0.5)


@contextlib.contextmanager
def running(service: Service, folder: Path, *, seconds: float = 60) -> Iterator[subprocess.Popen[bytes]]:
    """Run `service` during the `with` block, without restarting it; its log is in `folder`."""
    service.prepare()
    log = folder / f"{service.name}.log"
    command = service.plan(folder / f"{service.name}.pid").write(folder / f"{service.name}.json")
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        await_ready(service, log, died=lambda: _exit(process), seconds=seconds)
        service.settle()
        yield process
    finally:
        _stop(process, service)
        service.clear()


def _exit(process: subprocess.Popen[bytes]) -> str | None:
    return None if process.poll() is None else f"its process ended with code {process.returncode}"


def _stop(process: subprocess.Popen[bytes], service: Service) -> None:
    process.send_signal(service.stop_signal)
    try:
        process.wait(service.stop_seconds)
    except subprocess.TimeoutExpired:
        kill_trees([psutil.Process(process.pid)])
        process.wait()
