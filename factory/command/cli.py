"""The command line: `taskflow lint | plan | run | tasks | schema`.

Knows how results are shown and which exit code they give; the stages decide what is right or wrong.
"""

from __future__ import annotations

import datetime as dt
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from factory.compiler import Compiled, compile_file
from factory.language.errors import Diagnostic, FactoryError, did_you_mean, errors_of
from factory.planning.config_files import FORMS, check_config, configs_below, is_config, kind_of
from factory.planning.project import ENVIRONMENT, find_root, specs_below
from factory.planning.rules import same_dag_id
from factory.registry import load_registry

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help="Airflow pipelines from YAML."
)
out = Console(soft_wrap=True, highlight=False, emoji=False)
err = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)

Paths = Annotated[list[Path], typer.Argument(help="Specs, files of configs/, or folders of them.")]
Pipeline = Annotated[str, typer.Argument(help="A spec's path, or a dag_id in pipelines/.")]
Environment = Annotated[
    str | None, typer.Option("--environment", "-e", envvar=ENVIRONMENT, help="A file of configs/environments/.")
]


def main() -> None:
    """Run the command line."""
    try:
        app()
    except FactoryError as error:
        err.print(Text(str(error)))
        sys.exit(1)


@app.command()
def lint(
    paths: Paths = [Path("pipelines")],  # noqa: B006  # typer copies it
    output_format: Annotated[Literal["text", "json", "github"], typer.Option("--format")] = "text",
    environment: Environment = None,
    *,
    fix: Annotated[bool, typer.Option("--fix", help="Rewrite what is written in Airflow's way.")] = False,
) -> None:
    """Check specs and files of configs/, and report every mistake with its line. Exits with 1 on any error."""
    files = list(dict.fromkeys(_checked(paths)))
    if not files:
        _stop(f"there is no spec in {', '.join(map(str, paths))}; a spec is a .yaml file")
    specs = [file for file in files if not is_config(file)]
    if fix:
        _fix(specs, environment)
    compiled = [compile_file(path, environment=environment) for path in specs]
    _tell_strays(specs)
    same_dag_id((one.plan, one.report) for one in compiled if one.plan)
    reports = [one.report for one in compiled]
    reports += [check_config(file, load_registry(), environment) for file in files if file not in specs]
    diagnostics = sorted({diagnostic for one in reports for diagnostic in one.diagnostics})
    _PRINTERS[output_format](diagnostics)
    if output_format == "text":
        _summary(len(files), "spec" if len(files) == len(specs) else "file", diagnostics)
    raise typer.Exit(1 if errors_of(diagnostics) else 0)


def _fix(files: list[Path], environment: str | None) -> None:
    """Rewrite the files, and say on stderr what was rewritten: stdout is for the report that follows."""
    from factory.command.fixing import fix

    for file in files:
        root = find_root(file)
        while lines := fix(compile_file(file, environment=environment).report.diagnostics, root):  # it shows only some
            for line in lines:
                err.print(Text(line))


@app.command()
def plan(
    pipeline: Pipeline,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="The whole plan as JSON.")] = False,
    environment: Environment = None,
) -> None:
    """Show what a spec becomes: its steps in order, with every value and where it comes from."""
    from factory.command.plan_tables import plan_tables

    compiled = _compiled(pipeline, environment)
    assert compiled.plan is not None
    if as_json:
        from factory.planning.plan import as_json as plan_json

        typer.echo(json.dumps(plan_json(compiled.plan), indent=2, ensure_ascii=False))
        return
    for part in plan_tables(compiled.plan, compiled.report.document):
        out.print(part)


@app.command()
def run(
    pipeline: Pipeline,
    date: Annotated[
        dt.datetime | None, typer.Option(formats=["%Y-%m-%d"], help="The logical date; today by default.")
    ] = None,
    param: Annotated[
        list[str] | None, typer.Option("--param", "-p", metavar="NAME=VALUE", help="A param of the trigger form.")
    ] = None,
    environment: Environment = None,
) -> None:
    """Run a pipeline here and now, without a scheduler but with a worker's code. Exits with 1 if a step fails.

    Connections are those in AIRFLOW_CONN_… variables, else those of the stack if it is running.
    """
    from factory.bridge.local import run_here
    from factory.command.connections import use_running_stack
    from factory.command.run_table import log_handler, run_table

    compiled = _compiled(pipeline, environment)
    assert compiled.plan is not None
    day = (date or dt.datetime.now(dt.UTC)).date()
    params = _params(param or [], compiled)
    if stack := use_running_stack():
        err.print(f"[dim]with the connections of the stack in {escape(stack)}[/]")
    outcome = run_here(compiled, _file(pipeline), day, params, log=log_handler(out))
    out.print(run_table(compiled.plan.dag_id, outcome))
    raise typer.Exit(0 if outcome.state == "success" else 1)


@app.command()
def tasks(name: Annotated[str | None, typer.Argument(help="The task to show in full.")] = None) -> None:
    """List the tasks that a step may use, or show one with its arguments and output."""
    from factory.command.reference import catalogue_table, task_page, task_view
    from factory.registry import load_registry

    registry = load_registry()
    if name is None:
        out.print(catalogue_table(registry))
    elif name not in registry:
        _stop(f'there is no task "{name}"; {did_you_mean(name, registry.tasks, "tasks")}')
    elif out.is_terminal:
        for part in task_view(registry[name]):
            out.print(part)
    else:
        out.print(Text(task_page(registry[name])))


@app.command()
def schema(
    kind: Annotated[
        Literal["pipeline", "suite", "defaults"], typer.Argument(help="What a file declares.")
    ] = "pipeline",
) -> None:
    """Print a JSON Schema for editors; a step may leave out the arguments that this project's defaults give."""
    from factory.command.reference import schema_of
    from factory.registry import load_registry

    here = find_root(Path("pipelines") / "x.yaml")
    typer.echo(json.dumps(schema_of(kind, here, load_registry()), indent=1, ensure_ascii=False))


# --- what is read ------------------------------------------------------------------------------------------------


def _checked(paths: list[Path]) -> Iterator[Path]:
    """Yield the specs in `paths`, and the files of `configs/` that are named or in a named folder inside of it."""
    for path in paths:
        if path.exists() and is_config(path):
            yield from _configs(path)
        else:
            yield from _specs([path])


def _configs(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from configs_below(path)
    elif kind_of(path):
        yield path
    else:
        _stop(f"{path} is not a file that lint knows; in configs/ it checks {FORMS}")


def _specs(paths: list[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from specs_below(path)
        elif path.is_file():
            yield path
        else:
            _stop(f"there is no file or folder {path}")


def _tell_strays(files: list[Path]) -> None:
    """Say which specs belong to no project, on stderr: their suites, SQL files and defaults are not found."""
    for file in files:
        root = find_root(file)
        if not (root / "configs").is_dir():
            err.print(Text(f"note: {file} is of no project: neither {root} nor a folder above has configs/"))


def _file(pipeline: str) -> Path:
    path = Path(pipeline)
    if path.is_file():
        return path
    known = (
        {dag_id: spec for spec in _specs([Path("pipelines")]) if (dag_id := _dag_id(spec))}
        if Path("pipelines").is_dir()
        else {}
    )
    if pipeline not in known:
        _stop(
            f'"{pipeline}" is neither a file nor a dag_id in {Path("pipelines").absolute()}; '
            f"{did_you_mean(pipeline, known, 'pipelines')}"
        )
    return known[pipeline]


def _dag_id(path: Path) -> str | None:
    from factory.language.document import content_of, scalar_at_top

    return scalar_at_top(content_of(path), "dag_id")


def _compiled(pipeline: str, environment: str | None) -> Compiled:
    file = _file(pipeline)
    compiled = compile_file(file, environment=environment)
    _tell_strays([file])
    compiled.report.require_no_errors()
    return compiled


def _params(written: list[str], compiled: Compiled) -> dict[str, object]:
    assert compiled.plan is not None
    known = {param.name for param in compiled.plan.params}
    values: dict[str, object] = {}
    for option in written:
        name, sign, text = option.partition("=")
        if not sign:
            _stop(f"--param {option} has no =; write --param {option}=VALUE")
        if name not in known:
            _stop(f'"{name}" is not a param of {compiled.plan.dag_id}; {did_you_mean(name, known, "params")}')
        values[name] = _json_or_text(text)
    return values


def _json_or_text(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


# --- what is shown -----------------------------------------------------------------------------------------------


def _print_text(diagnostics: list[Diagnostic]) -> None:
    for diagnostic in diagnostics:
        head, _, rest = str(diagnostic).partition("\n")
        colour = "red" if diagnostic.severity == "error" else "yellow"
        place, _, message = head.partition(f" {diagnostic.severity}: ")
        out.print(f"[bold]{escape(place)}[/] [{colour}]{diagnostic.severity}:[/] {escape(message)}")
        out.print(f"{escape(rest)}\n" if rest else "")


def _print_json(diagnostics: list[Diagnostic]) -> None:
    rows = [
        {
            "file": diagnostic.span.file,
            "line": diagnostic.span.line,
            "column": diagnostic.span.column,
            "severity": diagnostic.severity,
            "code": diagnostic.code,
            "message": diagnostic.message,
            "hint": diagnostic.hint,
        }
        for diagnostic in diagnostics
    ]
    typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))


def _print_github(diagnostics: list[Diagnostic]) -> None:
    for diagnostic in diagnostics:
        span = diagnostic.span
        place = f"file={span.file},line={span.line},col={span.column},endColumn={span.end},title={diagnostic.code}"
        text = f"{diagnostic.message} ({diagnostic.hint})" if diagnostic.hint else diagnostic.message
        typer.echo(f"::{diagnostic.severity} {place}::{text.replace('%', '%25').replace(chr(10), '%0A')}")


_PRINTERS = {"text": _print_text, "json": _print_json, "github": _print_github}


def _summary(count: int, what: str, diagnostics: list[Diagnostic]) -> None:
    errors, specs = len(errors_of(diagnostics)), f"{count} {what}{'s' if count != 1 else ''}"
    warnings = len(diagnostics) - errors
    tail = f", {warnings} warning{'s' if warnings != 1 else ''}" if warnings else ""
    if errors:
        out.print(f"[red]{errors} error{'s' if errors != 1 else ''}[/]{tail} in {specs}")
    else:
        out.print(f"[green]{specs} checked, no errors[/]{tail}")


def _stop(message: str) -> None:
    err.print(f"[red]error:[/] {escape(message)}")
    raise typer.Exit(2)
