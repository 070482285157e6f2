"""What people see while the stack starts, and when they ask for its state."""

from __future__ import annotations

import datetime as dt
import sys
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from rich.progress import TaskID

    from stack.assembly import Address
    from stack.credentials import Credentials
    from stack.steps import Done, Step
    from stack.supervisor import Process

CONSOLE = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 160)
COLOURS = {"ready": "green", "starting": "yellow", "not ready": "yellow", "stopped": "dim", "failed": "red"}


class Board:
    """A live line for each step that is running, and a permanent one for each that has ended."""

    def __init__(self) -> None:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        self._progress = Progress(*columns, console=CONSOLE, transient=True, disable=not CONSOLE.is_terminal)
        self._lines: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def begun(self, step: Step) -> None:
        """Show that `step` is running and what it waits for."""
        self._lines[step.name] = self._progress.add_task(f"{step.name}: waiting for {step.awaited}", total=None)

    def ended(self, done: Done) -> None:
        """Show how a step ended."""
        self._progress.remove_task(self._lines.pop(done.step.name))
        if done.error is None:
            CONSOLE.print(f"  [green]ready[/]   {done.step.name:14} {done.text or f'in {done.seconds:.1f} s'}")
        else:
            CONSOLE.print(f"  [red]failed[/]  {done.step.name:14} after {done.seconds:.1f} s")


def services_table(rows: Sequence[tuple[str, str, Process | None, str]]) -> Table:
    """Return a table of name, state, process and note of each service."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("service", "state", "pid", "up for", ""):
        table.add_column(title, overflow="fold")
    for name, state, process, note in rows:
        lives = process is not None and process.is_up
        pid = str(process.pid) if process and lives else ""
        age = _age(process.since) if process and lives else ""
        table.add_row(name, f"[{COLOURS[state]}]{state}[/]", pid, age, note)
    return table


def addresses_table(addresses: Sequence[Address], credentials: Credentials | None) -> Table:
    """Return a table of addresses and logins, with passwords if `credentials` are given."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("service", "address", "user", "password"):
        table.add_column(title, overflow="fold")
    for address in addresses:
        table.add_row(address.service, address.url, address.login, _password(address.secret, credentials))
    return table


def _password(name: str, credentials: Credentials | None) -> str:
    if not name:
        return ""
    return str(getattr(credentials, name)) if credentials else f'"{name}" in secrets.json'


def _age(since: float) -> str:
    seconds = int(dt.datetime.now(dt.UTC).timestamp() - since)
    return str(dt.timedelta(seconds=max(0, seconds)))
