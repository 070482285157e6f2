"""How a run in this process is shown: the log of its tasks while it runs, then how each step ended."""

from __future__ import annotations

from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table
from rich.text import Text

from factory.bridge.local import RunOutcome

_COLOURS = {"success": "green", "failed": "red", "upstream_failed": "dark_orange", "skipped": "magenta"}


def log_handler(console: Console) -> RichHandler:
    """Return a handler that shows the log of tasks on `console`."""
    return RichHandler(console=console, show_path=False, log_time_format="%H:%M:%S")


def run_table(dag_id: str, outcome: RunOutcome) -> Table:
    """Return a table with a row for each step: its state, and the seconds it took."""
    table = Table("step", "state", "seconds", title=f"{dag_id} {outcome.date:%Y-%m-%d}", title_justify="left")
    for step in outcome.steps:
        colour = _COLOURS.get(step.state, "default")
        seconds = f"{step.seconds:.1f}" if step.seconds else ""
        table.add_row(Text(step.name), f"[{colour}]{step.state}[/]", seconds)
    return table
