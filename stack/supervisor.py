"""Keep services running: supervisord, as one private process, controlled over a socket in the state folder.

Knows how services are started, restarted and stopped, but not what they are for.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import time
import xmlrpc.client
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil

from stack.launch import Plan, end_group, kill_trees, launch_command
from stack.paths import private_folder, write_private
from stack.service import StartFailed, await_ready

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from stack.paths import Home
    from stack.service import Service

NAME = "supervisor"
RETRIES = 3
"""A service that dies before it has settled is restarted this often, after 1, 2 and 3 s; then it is given up."""
DOWN = frozenset({"STOPPED", "FATAL", "UNKNOWN"})
"""Not EXITED: a service that ended by itself is about to be restarted."""
RPC_FACTORY = "supervisor.rpcinterface:make_main_rpcinterface"
LOG_BYTES, LOG_FILES = 10_000_000, 3


@dataclass(frozen=True, slots=True)
class Process:
    """What the supervisor knows about a service."""

    name: str
    state: str
    """supervisord's name for it: STOPPED, STARTING, RUNNING, BACKOFF, STOPPING, EXITED, FATAL."""
    pid: int
    since: float
    """When it was last started, in seconds since the epoch; 0 if never."""
    note: str

    @property
    def is_up(self) -> bool:
        """Whether there is a process, or is about to be."""
        return self.state not in DOWN


@dataclass(frozen=True, slots=True)
class Supervisor:
    """The supervisor of a state folder."""

    home: Home

    @property
    def socket(self) -> Path:
        """The socket where it listens."""
        return self.home.sockets / "supervisor.sock"

    def is_running(self) -> bool:
        """Return whether it answers."""
        try:
            with self._control() as control:
                return bool(control.getState()["statename"] == "RUNNING")
        except (OSError, xmlrpc.client.Error):
            return False

    def start(self, services: Sequence[Service]) -> None:
        """Start the supervisor with `services`, but do not start them yet; if it is running, add new ones to it."""
        if self.is_running():
            self._learn(services)
            return
        self.end_leftovers()
        for folder in (self.home.logs, self.home.plans, self.home.sockets):
            private_folder(folder)
        self._write_configuration(services)
        command = (sys.executable, "-P", "-m", "supervisor.supervisord", "-c", str(self._configuration))
        environment = _bare_environment()
        self._start_process(
            Plan(command, environment, str(self.home.root), str(self.home.pid_file(NAME)), adopts_orphans=True)
        )

    def process(self, name: str) -> Process:
        """Return what is known about the service `name`."""
        with self._control() as control:
            return _process(control.getProcessInfo(name))

    def processes(self) -> dict[str, Process]:
        """Return what is known about every service, or nothing if the supervisor is not running."""
        if not self.is_running():
            return {}
        with self._control() as control:
            return {info["name"]: _process(info) for info in control.getAllProcessInfo()}

    def run(self, service: Service, *, seconds: float) -> float | None:
        """Start `service` and wait until it is ready; return how long that took, or None if it was up already."""
        fresh = not self.process(service.name).is_up
        if fresh:
            self._start_service(service)
        log = self.home.log(service.name)
        waited = await_ready(service, log, died=lambda: self._death(service.name), seconds=seconds)
        service.settle()
        return waited if fresh else None

    def stop(self, services: Sequence[Service]) -> None:
        """Stop services together, and wait until each has ended."""
        seconds = 5 + max(service.stop_seconds for service in services)

        def all_stopped() -> bool:
            return False not in [self._is_stopped(service.name) for service in services]  # tells each at once

        if not _await(all_stopped, seconds=seconds):
            names = ", ".join(service.name for service in services)
            raise TimeoutError(f"some of {names} still run after {seconds} s; see {self.home.log(NAME)}")
        for service in services:
            service.clear()

    def shut_down(self) -> list[int]:
        """End the supervisor and all its remaining children; return the pids of strays that had to be killed."""
        own = psutil.Process(self._pid())
        strays = kill_trees(own.children(recursive=True))
        with self._control() as control, contextlib.suppress(OSError, xmlrpc.client.Error):
            control.shutdown()
        own.wait(timeout=30)
        self._forget()
        return strays

    def end_leftovers(self) -> list[int]:
        """Kill what a killed supervisor left running; return the pids."""
        pids = sorted(pid for pid_file in self.home.plans.glob("*.pid") for pid in end_group(pid_file))
        self._forget()
        return pids

    def _forget(self) -> None:
        for folder in (self.home.plans, self.home.sockets):
            shutil.rmtree(folder, ignore_errors=True)

    def _is_stopped(self, name: str) -> bool:
        """Return whether the service has stopped; tell it to stop if it was not told yet."""
        state = self.process(name).state
        if state not in DOWN | {"STOPPING"}:
            with self._control() as control, contextlib.suppress(xmlrpc.client.Fault):  # it ended by itself just now
                control.stopProcess(name, False)
        return state in DOWN

    def _start_service(self, service: Service) -> None:
        pid_file = self.home.pid_file(service.name)
        end_group(pid_file)
        pid_file.unlink(missing_ok=True)  # rewritten at the start: its age is the age of the process
        service.prepare()
        service.plan(pid_file).write(self._plan(service.name))
        with self._control() as control:
            control.startProcess(service.name, False)

    def _start_process(self, plan: Plan) -> None:
        log = self.home.log(NAME)
        command = plan.write(self._plan(NAME))
        with log.open("ab") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        started = time.monotonic()
        _await(lambda: self.is_running() or process.poll() is not None, seconds=20)
        if not self.is_running():
            reason = "it does not answer" if process.poll() is None else f"its process ended with code {process.poll()}"
            raise StartFailed(NAME, f"an answer at {self.socket}", time.monotonic() - started, reason, log)

    def _learn(self, services: Sequence[Service]) -> None:
        unknown = {service.name for service in services} - set(self.processes())
        if not unknown:
            return
        self._write_configuration(services)
        with self._control() as control:
            control.reloadConfig()
            for name in sorted(unknown):
                control.addProcessGroup(name)

    @property
    def _configuration(self) -> Path:
        return self.home.plans / "supervisord.conf"

    def _write_configuration(self, services: Sequence[Service]) -> None:
        sections = (*self._own_sections(), *map(self._program, services))
        lines = (
            line
            for title, settings in sections
            for line in (f"[{title}]", *(f"{name}={value}" for name, value in settings.items()), "")
        )
        write_private(self._configuration, "\n".join(lines))

    def _own_sections(self) -> tuple[tuple[str, dict[str, str]], ...]:
        own = {
            "nodaemon": "true",  # it already has its own session
            "silent": "true",
            "pidfile": self._inside(self.home.plans / "supervisord.process"),
            "logfile": self._inside(self.home.log(NAME)),
            "logfile_maxbytes": str(LOG_BYTES),
            "logfile_backups": str(LOG_FILES),
            "umask": "077",
        }
        if os.geteuid() == 0:
            own["user"] = "root"  # unless it is set, supervisord warns
        return (
            ("supervisord", own),
            ("unix_http_server", {"file": self._inside(self.socket), "chmod": "0600"}),
            ("rpcinterface:supervisor", {"supervisor.rpcinterface_factory": RPC_FACTORY}),
        )

    def _program(self, service: Service) -> tuple[str, dict[str, str]]:
        return f"program:{service.name}", {
            "command": shlex.join(launch_command(self._inside(self._plan(service.name)))).replace("%", "%%"),
            "autostart": "false",
            "autorestart": "true",
            "startsecs": str(service.settled_after),
            "startretries": str(RETRIES),
            "stopsignal": service.stop_signal.name.removeprefix("SIG"),
            "stopasgroup": str(service.signal_group).lower(),
            "killasgroup": "true",
            "stopwaitsecs": str(service.stop_seconds),
            "redirect_stderr": "true",
            "stdout_logfile": self._inside(self.home.log(service.name)),
            "stdout_logfile_maxbytes": str(LOG_BYTES),
            "stdout_logfile_backups": str(LOG_FILES),
        }

    def _inside(self, path: Path) -> str:
        """Return `path` relative to the state folder, its working directory: a `%` in the path would be a variable."""
        return str(path.relative_to(self.home.root)) if path.is_relative_to(self.home.root) else str(path)

    def _death(self, name: str) -> str | None:
        process = self.process(name)
        return None if process.is_up else f"its process is gone: {process.note or process.state}"

    def _plan(self, name: str) -> Path:
        return self.home.plans / f"{name}.json"

    def _pid(self) -> int:
        with self._control() as control:
            return int(control.getPID())

    @contextlib.contextmanager
    def _control(self) -> Iterator[Any]:
        from supervisor.xmlrpc import SupervisorTransport

        transport = SupervisorTransport(None, None, f"unix://{self.socket}")
        with xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport) as server:
            yield server.supervisor


def _process(info: dict[str, Any]) -> Process:
    return Process(info["name"], info["statename"], info["pid"], float(info["start"]), info["spawnerr"])


def _bare_environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath)}


def _await(condition: Callable[[], bool], *, seconds: float) -> bool:
    """Return whether `condition` became true within `seconds`."""
    deadline = time.monotonic() + seconds
    while not (holds := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return holds
