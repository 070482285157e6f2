"""Whom a run tells of its end: the spec over the environment over the defaults, with the texts read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from factory.language.notices import Notice
from factory.language.report import Report
from factory.language.spec import StepSpec
from factory.planning.defaults import Layered, Source, layered, notify_sources
from factory.planning.pipeline import Pipeline
from factory.planning.plan import Announcement
from factory.planning.scopes import Place, Scope

_ONLY = "a message may name run, params and variables: a run that failed has not run all its steps"
_OF_A_TRY = ("on_retry",)
"""Told by each step, because only a step is retried."""


def of_pipeline(pipeline: Pipeline) -> dict[str, Announcement]:
    """Return whom the pipeline tells, of every event; report mistakes in the texts."""
    own = Source(pipeline.report.document, ("notify",), pipeline.spec.notify)
    return _announcements(layered(*notify_sources(pipeline.project), own), pipeline)


def of_runs(every: Mapping[str, Announcement]) -> dict[str, Announcement]:
    """Return what of it is told at the end of a run."""
    return {event: one for event, one in every.items() if event not in _OF_A_TRY}


def of_step(step: StepSpec, every: Mapping[str, Announcement], pipeline: Pipeline) -> dict[str, Announcement]:
    """Return whom a step tells: its own `notify`, and what the pipeline wants told of every retry."""
    inherited = {event: every[event] for event in _OF_A_TRY if event in every and event not in step.notify}
    own = layered(Source(pipeline.report.document, (*step.path, "notify"), step.notify))
    return {**inherited, **_announcements(own, pipeline)}


def _announcements(given: Mapping[str, Layered], pipeline: Pipeline) -> dict[str, Announcement]:
    return {
        event: _announcement(one.value, one, pipeline) for event, one in given.items() if isinstance(one.value, Notice)
    }


def _announcement(notice: Notice, given: Layered, pipeline: Pipeline) -> Announcement:
    if notice.message is None:
        return Announcement(notice.connection)
    reading = pipeline.references.read(notice.message, _nowhere(given))
    report = Report(given.origin.document)
    for problem in reading.problems:
        is_output = problem.code == "unknown-step"
        told = replace(problem, hint=_ONLY) if is_output else problem
        report.add_problem(told, (*given.origin.path, "message"))
    pipeline.report.extend(report.diagnostics)
    return Announcement(notice.connection, reading.template)


def _nowhere(given: Layered) -> Place:
    """Return a place that sees no step: a run that has failed has not run them all."""
    return Place(StepSpec("notify", given.origin.path), Scope())
