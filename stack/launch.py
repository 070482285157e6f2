"""Become a service: `python -m stack.launch PLAN` reads a plan, prepares this process and turns into the command.

The plan is a file that only its owner may read, to keep passwords off command lines and out of the supervisor's
configuration. Processes left behind when an earlier process of the same service was killed are ended first, and a
service does not outlive the supervisor that started it.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from stack.identity import become
from stack.paths import private_folder, write_private

if TYPE_CHECKING:
    from collections.abc import Mapping

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


@dataclass(frozen=True, slots=True)
class Plan:
    """How a process is started."""

    command: tuple[str, ...]
    environment: Mapping[str, str]
    directory: str
    pid_file: str
    identity: str = "same"
    """Who it becomes (`stack.identity`); that identity gets the directory."""
    signal_at_parents_death: int = 0
    adopts_orphans: bool = False
    """Whether descendants whose parent died become its children, so none can escape."""
    emptied: tuple[str, ...] = ()
    """Folders to empty at every start, of what a killed process left there."""

    def write(self, path: Path) -> tuple[str, ...]:
        """Write the plan and return the command that carries it out."""
        write_private(path, json.dumps(asdict(self)))
        return launch_command(path)


def launch_command(plan: Path | str) -> tuple[str, ...]:
    """Return the command that carries out a plan file."""
    return (sys.executable, "-P", "-m", "stack.launch", str(plan))


def read_plan(path: Path) -> Plan:
    """Return the plan in `path`."""
    return Plan(**json.loads(path.read_text(encoding="utf-8")))


def carry_out(plan: Plan) -> None:
    """Turn this process into the planned one."""
    pid_file = Path(plan.pid_file)
    end_group(pid_file)
    end_adopted(pid_file, Path(plan.directory))
    for folder in plan.emptied:
        empty(Path(folder))
    write_private(pid_file, json.dumps({"pid": os.getpid(), "started": psutil.Process().create_time()}))
    os.umask(0o077)
    os.chdir(plan.directory)
    become(plan.identity, Path(plan.directory))
    if plan.adopts_orphans:
        _control(_PR_SET_CHILD_SUBREAPER, 1)
    _control(_PR_SET_PDEATHSIG, plan.signal_at_parents_death)  # after the identity: a change of user clears it
    os.execve(plan.command[0], plan.command, dict(plan.environment))  # noqa: S606 - no shell, which is the point


def empty(folder: Path) -> None:
    """Make an empty private folder."""
    shutil.rmtree(folder, ignore_errors=True)
    private_folder(folder)


def end_group(pid_file: Path) -> list[int]:
    """Kill what is left of the process group in `pid_file`, with all descendants, and return their pids.

    An unrelated process that happens to have the same number (after a reboot, say) is left alone.
    """
    if not pid_file.exists():
        return []
    noted = json.loads(pid_file.read_text(encoding="utf-8"))
    pid, started = int(noted["pid"]), float(noted["started"])
    members = [process for process in psutil.process_iter(["create_time"]) if _group(process.pid) == pid]
    leaders = [process for process in members if process.pid == pid]
    strangers = [process for process in leaders if abs(process.info["create_time"] - started) > 1]
    older = [process for process in members if process.info["create_time"] < started - 1]
    return [] if strangers or older else kill_trees(members)


def end_adopted(pid_file: Path, directory: Path) -> list[int]:
    """Kill the orphans in `directory` that were adopted by the process that starts this service, and return their pids.

    Postgres puts each session into its own process group. A busy session does not notice that the server was killed,
    and a new server cannot start next to it. Services are not orphans: each writes its pid file before it enters its
    directory.
    """
    noted = {int(json.loads(path.read_text(encoding="utf-8"))["pid"]) for path in pid_file.parent.glob("*.pid")}
    children = psutil.Process(os.getppid()).children()
    return kill_trees([child for child in children if child.pid not in noted and _works_in(child, directory)])


def _works_in(process: psutil.Process, directory: Path) -> bool:
    try:
        return Path(process.cwd()).is_relative_to(directory.resolve())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def kill_trees(roots: list[psutil.Process]) -> list[int]:
    """Kill processes with all their descendants and return the pids of those that were alive."""
    everyone = {process.pid: process for root in roots for process in (root, *_descendants(root))}
    for process in everyone.values():
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(list(everyone.values()), timeout=5)
    return sorted(everyone)


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except (ProcessLookupError, PermissionError):
        return None


def _control(option: int, value: int) -> None:
    if sys.platform == "linux":
        arguments = map(ctypes.c_ulong, (value, 0, 0, 0))
        if ctypes.CDLL(None, use_errno=True).prctl(ctypes.c_int(option), *arguments) != 0:
            code = ctypes.get_errno()
            raise OSError(code, f"prctl {option}: {os.strerror(code)}")


def main() -> None:
    """Carry out the plan that the first argument names."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    carry_out(read_plan(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
