"""What a spec becomes in Airflow, in any release: a DAG with warnings, or one problem with the whole report.

Knows what Airflow has to know about a spec; it knows no release's importer.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow.sdk import DAG

    from factory.language.errors import Diagnostic


@dataclass(frozen=True, slots=True)
class ImportProblem:
    """Why there is no DAG, in the words of Airflow's `DagImportError`.

    Airflow shows `stacktrace or message` and keeps one error per file, so that text has the whole report.
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
    """What is wrong with a DAG that is imported all the same, in the words of Airflow's `DagImportWarning`."""

    message: str
    warning_type: str
    line_number: int


@dataclass(frozen=True, slots=True)
class Imported:
    """A DAG, or the problem that there is instead."""

    dag: DAG | None = None
    problem: ImportProblem | None = None
    warnings: tuple[Warned, ...] = ()


def import_spec(path: Path, shown: str) -> Imported:
    """Return what the spec at `path` becomes. Never raises: Airflow would only log the error, and show nothing."""
    try:
        return _import(path, shown)
    except Exception as error:  # noqa: BLE001  # an importer that raises leaves no trace in the UI
        return Imported(problem=_internal_problem(shown, error))


def _import(path: Path, shown: str) -> Imported:
    from factory.bridge.asset_rules import report_refused_assets
    from factory.bridge.dag import build
    from factory.compiler import compile_file
    from factory.planning.project import ENVIRONMENT
    from factory.planning.rules import report_taken

    compiled = compile_file(path, environment=os.environ.get(ENVIRONMENT))
    if compiled.plan and (other := _earlier_spec(path, compiled.plan.dag_id)):
        report_taken(compiled.plan, compiled.report, os.path.relpath(other, compiled.plan.root))
    report_refused_assets(compiled)
    errors = compiled.errors
    if errors or compiled.plan is None:
        return Imported(problem=_problem(errors))
    dag = build(compiled.plan)
    dag.fileloc = str(path)
    dag.relative_fileloc = shown
    return Imported(dag, warnings=_warnings(compiled.report.diagnostics))


_dag_ids: dict[Path, dict[Path, tuple[int, str | None]]] = {}
"""By folder, the dag_id of each spec that the dag-processor has found in it, and when the file was changed."""


def learn_dag_ids(folder: Path, specs: Iterable[Path]) -> None:
    """Learn which spec has which dag_id, in the dag-processor, before it forks a child for each file.

    Airflow itself lets two files with one dag_id replace each other's DAG. A worker learns nothing and reads only its
    own spec.
    """
    before, found = _dag_ids.get(folder, {}), {}
    for spec in specs:
        try:
            changed = spec.stat().st_mtime_ns
        except FileNotFoundError:  # removed since it was listed
            continue
        known = before.get(spec)
        found[spec] = known if known and known[0] == changed else (changed, _dag_id(spec))
    _dag_ids[folder] = found


def _dag_id(spec: Path) -> str | None:
    from factory.language.document import content_of, scalar_at_top

    try:
        return scalar_at_top(content_of(spec), "dag_id")
    except OSError:  # it is gone: it has no dag_id
        return None


def _earlier_spec(path: Path, dag_id: str) -> Path | None:
    """Return the spec that has the dag_id and comes first in the order of paths, if that is not `path`."""
    listed = next((specs for specs in _dag_ids.values() if path in specs), {})
    others = sorted(spec for spec, (_, known) in listed.items() if known == dag_id and spec < path)
    return next((spec for spec in others if _dag_id(spec) == dag_id), None)


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

    head = f"{shown}: the factory failed on this spec; this is a bug in the factory, not in the spec"
    text = f"{head}\n{traceback.format_exc()}"
    return ImportProblem(message=f"{type(error).__name__}: {error}", error_type="internal", stacktrace=text)


def _warnings(diagnostics: list[Diagnostic]) -> tuple[Warned, ...]:
    """Return one warning per code: Airflow 3.4's UI shows only types with a namespace, and one warning of each type."""
    return tuple(
        Warned(
            message="\n".join(_line(diagnostic) for diagnostic in diagnostics if diagnostic.code == code),
            warning_type=f"taskflow:{code}",
            line_number=next(diagnostic.span.line for diagnostic in diagnostics if diagnostic.code == code),
        )
        for code in dict.fromkeys(diagnostic.code for diagnostic in diagnostics)
    )


def _line(diagnostic: Diagnostic) -> str:
    hint = f" ({diagnostic.hint})" if diagnostic.hint else ""
    return f"line {diagnostic.span.line}: {diagnostic.message}{hint}"
