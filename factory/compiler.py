"""From a file to a plan: the stages in order.

The CLI, the importer in Airflow and the tests all go this way.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from factory.language.document import content_of, read
from factory.language.errors import Diagnostic, errors_of
from factory.language.report import Report
from factory.language.spec import parse
from factory.planning.guards import with_guards
from factory.planning.plan import Plan
from factory.planning.project import find_root, load_project
from factory.planning.resolve import resolve
from factory.planning.rules import check
from factory.registry import Registry, load_registry


@dataclass(frozen=True, slots=True)
class Compiled:
    """The plan of a file and everything reported on the way; `plan` is None if there was nothing to plan."""

    plan: Plan | None
    report: Report

    @property
    def errors(self) -> list[Diagnostic]:
        """The diagnostics that keep the pipeline out of Airflow."""
        return errors_of(self.report.diagnostics)


def compile_file(path: Path, *, environment: str | None = None, registry: Registry | None = None) -> Compiled:
    """Read, resolve and check the spec at `path`."""
    return compile_content(content_of(path), path, environment=environment, registry=registry)


def compile_content(
    content: bytes, path: Path, *, environment: str | None = None, registry: Registry | None = None
) -> Compiled:
    """Do the same for `content`, as if it were the file at `path`."""
    registry = registry or load_registry()
    project = load_project(find_root(path), registry, environment)
    document, diagnostics = read(content, project.shown(path.absolute()))
    report = Report(document, diagnostics)
    if document.root is None:
        return Compiled(None, report)
    spec = parse(report)
    plan = resolve(spec, report, registry, project)
    check(plan, report, registry)
    return Compiled(plan if report.has_errors else with_guards(plan, registry), report)
