"""One spec with its context: its report, the project it belongs to, the tasks it may use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from factory.language.report import Report
from factory.language.spec import PipelineSpec, SuiteSpec
from factory.planning.project import Project
from factory.planning.references import References
from factory.registry import Registry


@dataclass(frozen=True)
class Pipeline:
    """A spec that is being planned."""

    spec: PipelineSpec
    report: Report
    registry: Registry
    project: Project

    @cached_property
    def references(self) -> References:
        """The names that its texts may use."""
        params = {param.name: param for param in self.spec.params}
        is_utc = self.spec.timezone in (None, "UTC", "Etc/UTC")
        project = self.project
        return References(params, self.registry, project.variables, project.functions, is_utc=is_utc)

    def suite(self, name: str) -> tuple[SuiteSpec, Report] | None:
        """Return a suite and the report of its file: the spec, or a file of `configs/suites/`."""
        if name in self._suites:
            return self._suites[name], self.report
        shared = self.project.suite(name)
        if shared is None:
            return None
        spec, read = shared
        return spec, Report(read.document, list(read.diagnostics))

    def suite_names(self) -> set[str]:
        """Return the names of all suites that a step may use."""
        return set(self._suites) | set(self.project.suite_names())

    @cached_property
    def _suites(self) -> Mapping[str, SuiteSpec]:
        return {suite.name: suite for suite in self.spec.suites}
