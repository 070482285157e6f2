"""The processes of a running stack, and where they listen."""

from __future__ import annotations

import json
from pathlib import Path

import psutil

from tests.support.waiting import eventually
from tests.support.whole_stack import RunningStack

LOOPBACK, LOOPBACK_IN_IPV6 = "0100007F", "0000000000000000FFFF00000100007F"
"""127.0.0.1 as the kernel writes it; the second for Java, whose sockets take both families."""


def pid(stack: RunningStack, service: str) -> int:
    """Return the process id of a service, or of the supervisor."""
    return int(json.loads(stack.home.pid_file(service).read_text())["pid"])


def kill(stack: RunningStack, service: str) -> None:
    """Kill a service with -9, and wait until another process has taken its place."""
    killed = pid(stack, service)
    psutil.Process(killed).kill()
    eventually(f"a successor of {service}", lambda: pid(stack, service), lambda seen: seen != killed)


def everyone(stack: RunningStack) -> list[psutil.Process]:
    """Return every process of the stack."""
    supervisor = psutil.Process(pid(stack, "supervisor"))
    return [supervisor, *alive(supervisor.children(recursive=True))]


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Return those that run: below a JVM, the script that started it stays as an entry without a process."""
    return [one for one in processes if lives(one)]


def below_worker(stack: RunningStack) -> list[psutil.Process]:
    """Return the executors of the Spark cluster, and what is below them."""
    return alive(psutil.Process(pid(stack, "spark-worker")).children(recursive=True))


def lives(process: psutil.Process) -> bool:
    """Return whether there is more of a process than its entry."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def words(process: psutil.Process) -> list[str]:
    """Return the command line of a process; of one that has ended since it was listed, none."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def listening(processes: list[psutil.Process]) -> set[tuple[str, int]]:
    """Return the addresses on which these processes listen, as the kernel has them in /proc."""
    sockets = {
        link.removeprefix("socket:[").removesuffix("]")
        for process in processes
        for link in (str(path.readlink()) for path in Path(f"/proc/{process.pid}/fd").iterdir() if path.is_symlink())
        if link.startswith("socket:[")
    }
    found: set[tuple[str, int]] = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state == "0A" and rest[5] in sockets:  # 0A is LISTEN, the field is the inode
                address, _, port = local.partition(":")
                found.add((address, int(port, 16)))
    return found
