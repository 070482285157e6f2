"""`python -m stack.demo [DAG…]`: start what the pipelines need, run them, and show the results."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from stack import assembly, paths
from stack.cli import Shape, one_message, up
from stack.demo import churn, crypto, drift
from stack.demo.runs import COLOURS
from stack.screen import CONSOLE, addresses_table

if TYPE_CHECKING:
    from stack.airflow_api import AirflowApi, DagRun
    from stack.assembly import Stack

SHOWS = {crypto.DAG: crypto, churn.DAG: churn, drift.DAG: drift}
"""The demo of each pipeline, in the order they are run."""
NEEDS = {drift.DAG: churn.DAG}
"""Which pipeline must run before another."""

Dags = Annotated[list[str] | None, typer.Argument(help=f"Which pipelines: {', '.join(SHOWS)}; all by default.")]


def main(dags: Dags = None, *, profile: Shape = None) -> None:
    """Start the stack, run the pipelines, and show the results; exit with 1 unless all went as expected."""
    os.umask(0o077)
    chosen = _chosen(dags or list(SHOWS))
    up(sorted({service for dag in chosen for service in SHOWS[dag].SERVICES}), profile=profile)
    stack = assembly.existing(paths.home())
    api = stack.api()
    shown = [SHOWS[dag].show(stack, api) for dag in chosen]
    _show_addresses(stack, api, [run for _, runs in shown for run in runs])
    if not all(as_expected for as_expected, _ in shown):
        CONSOLE.print("\n[red]error[/]   the demo did not go as expected; the pages above show why")
        raise typer.Exit(1)


def _chosen(dags: list[str]) -> list[str]:
    unknown = [dag for dag in dags if dag not in SHOWS]
    if unknown:
        raise typer.BadParameter(f"there is no demo of {unknown[0]}; there are demos of {', '.join(SHOWS)}")
    wanted = {*dags, *(NEEDS[dag] for dag in dags if dag in NEEDS)}
    return [dag for dag in SHOWS if dag in wanted]


def _show_addresses(stack: Stack, api: AirflowApi, runs: list[DagRun]) -> None:
    CONSOLE.print("\n[bold]Where to look[/]")
    CONSOLE.print(addresses_table(stack.addresses(), stack.credentials))
    for run in runs:
        CONSOLE.print(f"  [{COLOURS[run.state]}]{run.state:8}[/] {api.run_page(run)}")
    CONSOLE.print(
        "\n`make status` shows how the services are, `make down` stops them, `make destroy` removes their data."
    )


if __name__ == "__main__":
    with one_message():
        typer.run(main)
