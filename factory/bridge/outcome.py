"""What becomes of a spec in Airflow, whatever its release: a DAG with warnings, or one problem that holds the report.

Knows what Airflow is told of a spec; it knows no release's importer.
"""

from __future__ import annotations

import gc
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow.sdk import DAG

    from factory.language.errors import Diagnostic


@dataclass(frozen=True, slots=True)
class ImportProblem:
    """Why there is no DAG, in the words of Airflow's `DagImportError`.

    Airflow shows `stacktrace or message` and keeps one error for a file: all that is wrong stands in that text.
    """

    message: str
    error_type: str
    stacktrace: str
    line_number: int | None = None
    column_number: int | None = None
    context: str | None = None
    suggestion: str | None = None


@dataclass(frozen=True, slots=True)
class Warned:
    """What does not keep a DAG out, in the words of Airflow's `DagImportWarning`."""

    message: str
    warning_type: str
    line_number: int


@dataclass(frozen=True, slots=True)
class Imported:
    """A DAG, or the problem in its place."""

    dag: DAG | None = None
    problem: ImportProblem | None = None
    warnings: tuple[Warned, ...] = ()


def import_spec(path: Path, shown: str) -> Imported:
    """Return what the spec at `path` becomes. It never raises: Airflow would only log that, and show nothing."""
    try:
        return _import(path, shown)
    except Exception as error:  # noqa: BLE001  # an importer that raises leaves no trace in the UI
        return Imported(problem=_internal_problem(shown, error))


def _import(path: Path, shown: str) -> Imported:
    from factory.bridge.dag import build
    from factory.compiler import compile_file
    from factory.planning.project import ENVIRONMENT

    compiled = compile_file(path, environment=os.environ.get(ENVIRONMENT))
    errors = compiled.errors
    if errors or compiled.plan is None:
        return Imported(problem=_problem(errors))
    dag = build(compiled.plan)
    dag.fileloc = str(path)
    dag.relative_fileloc = shown
    return Imported(dag, warnings=_warnings(compiled.report.diagnostics))


def _problem(errors: list[Diagnostic]) -> ImportProblem:
    from factory.language.errors import render

    first = errors[0]
    report = render(errors)
    return ImportProblem(
        message=report,
        error_type=first.code,
        stacktrace=report,
        line_number=first.span.line,
        column_number=first.span.column,
        context=first.source,
        suggestion=first.hint,
    )


def _internal_problem(shown: str, error: Exception) -> ImportProblem:
    import traceback

    head = f"{shown}: the factory failed on this spec; this is a bug of the factory, not of the spec"
    text = f"{head}\n{traceback.format_exc()}"
    return ImportProblem(message=f"{type(error).__name__}: {error}", error_type="internal", stacktrace=text)


def _warnings(diagnostics: list[Diagnostic]) -> tuple[Warned, ...]:
    """Return one warning for each code: Airflow 3.4 shows in its UI those of a namespace, and one of each type."""
    return tuple(
        Warned(
            message="\n".join(_line(one) for one in diagnostics if one.code == code),
            warning_type=f"taskflow:{code}",
            line_number=next(one.span.line for one in diagnostics if one.code == code),
        )
        for code in dict.fromkeys(one.code for one in diagnostics)
    )


def _line(diagnostic: Diagnostic) -> str:
    hint = f" ({diagnostic.hint})" if diagnostic.hint else ""
    return f"line {diagnostic.span.line}: {diagnostic.message}{hint}"


def warm_up() -> None:
    """Import what checking a spec needs, so that the children which Airflow forks for each file and task have it.

    Half a second once in each process of Airflow, instead of before every task.
    """
    import sqlglot

    import factory.compiler
    import factory.registry
    from tasks.quality.lint import catalogue

    factory.registry.load_registry()
    catalogue()
    sqlglot.parse("true", dialect="postgres")


_REHEARSAL = b"""
dag_id: rehearsal
schedule: "0 0 * * *"
start_date: 2026-01-01
params: {go: {type: boolean, default: true}}
steps:
  first: {uses: messages.log, with: {message: "{{ run.date }}"}}
  choose: {needs: first, branch: [{if: "{{ params.go }}", then: second}, {else: third}]}
  second: {uses: messages.log, with: {message: second}}
  third: {uses: messages.log, with: {message: third}}
"""


def rehearse(directory: Path) -> None:
    """Build one DAG in the dag-processor, before it forks a child for each file: no child then does it a first time.

    What is there by then is frozen, so that the children's garbage collections copy no page of it.
    """
    from factory.bridge.dag import build
    from factory.compiler import compile_content

    plan = compile_content(_REHEARSAL, directory / "rehearsal.yaml").plan
    assert plan is not None
    build(plan)
    gc.collect()
    gc.freeze()
