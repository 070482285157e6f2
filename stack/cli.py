"""The command line of the stack: `python -m stack up | down | status | logs | destroy | env | dag-run | psql`."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import shutil
import time
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import JsonValue, TypeAdapter, ValidationError
from rich.markup import escape

from stack import assembly, paths
from stack.airflow_api import AirflowAway, ApiError, RunTimeout
from stack.assembly import NotMade, Stack
from stack.database import binaries
from stack.ports import PortTaken
from stack.profiles import Profile
from stack.screen import CONSOLE, Board, addresses_table, services_table
from stack.service import NotReady, Service, StartFailed
from stack.steps import Done, chosen_with_needs, do_all
from stack.supervisor import Supervisor
from stack.triggering import start

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stack.supervisor import Process

app = typer.Typer(add_completion=False, no_args_is_help=True, help="The real services, on this machine.")

Services = Annotated[list[str] | None, typer.Argument(help="Some of the services; all by default.")]

Shape = Annotated[Profile | None, typer.Option(help="Where tasks run; by default as in the running stack, else local.")]


@app.command()
def up(services: Services = None, *, profile: Shape = None) -> None:
    """Start the services, and wait until each is ready."""
    with _alone():
        stack, moves = assembly.plan(paths.home(), profile)
        names = _chosen(stack, services)
        for move in moves:
            CONSOLE.print(f"[yellow]{move}[/]")
        stack.supervisor.start(stack.services())
        started = time.monotonic()
        steps = chosen_with_needs(stack.steps(), names)
        with Board() as board:
            failed = do_all(steps, begun=board.begun, ended=board.ended)
        if failed:
            _print_failures(failed)
            raise typer.Exit(1)
    CONSOLE.print(f"The stack is up after {time.monotonic() - started:.1f} s; `make status` shows more.\n")
    _print_addresses(stack, passwords=False)


@app.command()
def down() -> None:
    """Stop everything, and leave no process behind."""
    with _alone():
        _stop_all(paths.home())


@app.command()
def status(*, passwords: Annotated[bool, typer.Option("--passwords", help="Print the passwords too.")] = False) -> None:
    """Show the state of each service and its address; exit with 3 unless all are ready."""
    stack = assembly.existing(paths.home())
    processes = stack.supervisor.processes()
    rows = [(service.name, *_state(service, processes.get(service.name))) for service in stack.services()]
    CONSOLE.print(services_table(rows))
    CONSOLE.print()
    _print_addresses(stack, passwords=passwords)
    if any(state != "ready" for _, state, _, _ in rows):
        raise typer.Exit(3)


@app.command()
def logs(
    services: Services = None,
    *,
    lines: Annotated[int, typer.Option("--lines", "-n", help="How many lines.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing new lines.")] = False,
) -> None:
    """Print the last lines of the services' logs."""
    stack = assembly.existing(paths.home())
    files = [str(stack.home.log(name)) for name in _chosen(stack, services) if stack.home.log(name).exists()]
    if not files:
        raise NotMade(f"there is no log in {stack.home.logs} yet; `make up` writes them")
    command = ["tail", "-n", str(lines), *(["-F"] if follow else []), *files]
    os.execvp(command[0], command)  # noqa: S606 - there is no shell, which is the point


@app.command()
def destroy() -> None:
    """Stop everything and remove its data, its logs and its passwords."""
    home = paths.home()
    with _alone():
        _stop_all(home)
    for path in home.everything():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # it has files that are not the stack's
        home.root.rmdir()
    CONSOLE.print(f"The stack in {home.root} is gone, with its data.")


@app.command()
def env() -> None:
    """Print connections and settings as shell exports, to run a task outside Airflow as it runs inside.

    They include passwords: `eval "$(python -m stack env)"` keeps them off the screen.
    """
    stack = assembly.existing(paths.home())
    stack.prepare_clients()
    for name, value in stack.exports().items():
        print(f"export {name}={shlex.quote(value)}")


@app.command()
def dag_run(
    dag: Annotated[str, typer.Argument(help="The dag_id.")] = "crypto_events_dag",
    conf: Annotated[str, typer.Option(help="The run's params, as a JSON object.", envvar="CONF")] = "{}",
    date: Annotated[
        str | None, typer.Option(help="The run's day in the pipeline's time zone; none by default.", envvar="DATE")
    ] = None,
    seconds: Annotated[float, typer.Option(help="How long to wait for the run to end.")] = 900,
) -> None:
    """Trigger a run through Airflow's API and wait until it ends; exit with 1 unless it succeeds."""
    stack = assembly.existing(paths.home())
    api = stack.api()
    run = start(api, stack.pipelines, dag, _params(conf or "{}"), date or None)
    CONSOLE.print(f"{dag} run {run.run_id}")
    shown: dict[str, str] = {}

    def show(states: dict[str, str]) -> None:
        for task, state in states.items():
            if shown.get(task) != state and state != "waiting":
                CONSOLE.print(f"  {state:16} {task}")
        shown.update(states)

    ended = api.wait(run, seconds=seconds, told=show)
    CONSOLE.print(f"[{'green' if ended.state == 'success' else 'red'}]{ended.state}[/]  {api.run_page(run)}")
    if ended.state != "success":
        raise typer.Exit(1)


@app.command()
def psql(
    sql: Annotated[
        str | None, typer.Option(help="Statements to run; without them psql asks for some.", envvar="SQL")
    ] = None,
    database: Annotated[str, typer.Option(help="crypto, airflow or mlflow.", envvar="DB")] = "crypto",
) -> None:
    """Open a database of the stack in psql, as its owner; statements may come from stdin too."""
    accounts = {account.dbname: account for account in assembly.existing(paths.home()).cluster.accounts}
    if database not in accounts:
        raise typer.BadParameter(f"{database!r} is no database of the stack; there are {', '.join(accounts)}")
    account = accounts[database]
    command = [str(binaries() / "psql"), "-v", "ON_ERROR_STOP=1", *(["-c", sql] if sql else [])]
    os.execve(command[0], command, os.environ | account.environment)  # noqa: S606 - there is no shell


def main() -> None:
    """Run the command line."""
    os.umask(0o077)
    with one_message():
        app()


@contextlib.contextmanager
def one_message() -> Iterator[None]:
    """Turn an error of the block into one message and exit code 1."""
    try:
        yield
    except (NotMade, PortTaken, StartFailed, ApiError, AirflowAway, RunTimeout, ValueError, OSError) as error:
        CONSOLE.print(f"[red]error[/]   {escape(str(error))}")
        raise SystemExit(1) from None


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Hold the lock of the state folder, to keep two commands from starting or stopping the same services."""
    home = paths.home()
    home.make()
    with home.lock.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            CONSOLE.print(f"Waiting for another command that is starting or stopping the stack in {home.root}.")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _chosen(stack: Stack, names: list[str] | None) -> list[str]:
    """Return the services for `names`, each a service or a group of services."""
    groups = stack.groups()
    every = {service: [service] for services in groups.values() for service in services}
    known = groups | every
    for name in names or ():
        if name not in known:
            raise typer.BadParameter(f"{name!r} is no service of the stack; there are {', '.join(sorted(known))}")
    return [service for name in names or groups for service in known[name]]


def _params(conf: str) -> dict[str, JsonValue]:
    try:
        return TypeAdapter(dict[str, JsonValue]).validate_json(conf)
    except ValidationError:
        raise typer.BadParameter(
            f'--conf holds {conf!r}; a JSON object is expected, such as {{"window_days": 3}}'
        ) from None


def _stop_all(home: paths.Home) -> None:
    supervisor = Supervisor(home)
    if not supervisor.is_running():
        left = supervisor.end_leftovers()
        CONSOLE.print(f"The stack was killed; ended its remaining processes: {left}" if left else "The stack is down.")
        return
    stack = assembly.existing(home)
    for services in stack.stop_order():
        supervisor.stop(services)
        CONSOLE.print(f"  [dim]stopped[/] {', '.join(service.name for service in services)}")
    if strays := supervisor.shut_down():
        CONSOLE.print(f"  [yellow]killed[/]  processes that services left behind: {strays}")
    CONSOLE.print("The stack is down; its data is kept.")


def _state(service: Service, process: Process | None) -> tuple[str, Process | None, str]:
    if process is None or process.state in {"STOPPED", "STOPPING"}:
        return "stopped", process, ""
    if not process.is_up:
        return "failed", process, process.note or f"see {service.name}.log"
    try:
        service.probe()
    except NotReady as error:
        return ("starting" if process.state == "STARTING" else "not ready"), process, str(error)
    return "ready", process, ""


def _print_failures(failed: list[Done]) -> None:
    for done in failed:
        CONSOLE.print(f"\n[red]error[/]   {escape(_reason(done))}")


def _reason(done: Done) -> str:
    if isinstance(done.error, StartFailed):
        return str(done.error)
    return f"{done.step.name}: {done.error}"


def _print_addresses(stack: Stack, *, passwords: bool) -> None:
    CONSOLE.print(addresses_table(stack.addresses(), stack.credentials if passwords else None))
    CONSOLE.print(f"\nSpark runs on {stack.java.origin}, with {stack.spark.memory:,} MiB per application.")
    CONSOLE.print(f"Passwords: `make status PASSWORDS=1`, or {stack.home.secrets}. Logs: {stack.home.logs}")
