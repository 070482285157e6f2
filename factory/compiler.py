"""A file to a plan: the stages in their order.

The same path serves the CLI, the importer in Airflow and the tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from factory.language.document import read
from factory.language.errors import Diagnostic, errors_of
from factory.language.report import Report
from factory.language.spec import parse
from factory.planning.plan import Plan
from factory.planning.project import find_root, load_project
from factory.planning.resolve import resolve
from factory.planning.rules import check
from factory.registry import Registry, load_registry


@dataclass(frozen=True, slots=True)
class Compiled:
    """The plan of a file with everything found on the way; `plan` is None where there was nothing to plan."""

    plan: Plan | None
    report: Report

    @property
    def errors(self) -> list[Diagnostic]:
        """What keeps the pipeline out of Airflow."""
        return errors_of(self.report.diagnostics)


def compile_file(path: Path, *, environment: str | None = None, registry: Registry | None = None) -> Compiled:
    """Read, resolve and judge the spec at `path`."""
    return compile_content(path.read_bytes(), path, environment=environment, registry=registry)


def compile_content(
    content: bytes, path: Path, *, environment: str | None = None, registry: Registry | None = None
) -> Compiled:
    """Do the same with what a file at `path` would hold."""
    registry = registry or load_registry()
    project = load_project(find_root(path), registry, environment)
    document, found = read(content, project.shown(path.absolute()))
    report = Report(document, found)
    if document.root is None:
        return Compiled(None, report)
    spec = parse(report)
    plan = resolve(spec, report, registry, project)
    check(plan, report, registry)
    return Compiled(plan, report)
