"""Whom a run tells of its end: the spec over the environment over the defaults, with the texts read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from factory.language.document import Value
from factory.language.notices import ON_DEADLINE, Notice
from factory.language.report import Report
from factory.language.spec import StepSpec
from factory.language.templates import is_template
from factory.planning.defaults import Layered, Source, layered, notify_sources
from factory.planning.pipeline import Pipeline
from factory.planning.plan import Announcement
from factory.planning.scopes import Place, Scope

_ONLY = "a message may name run, params and variables: a run that failed has not run all its steps"


def of_pipeline(pipeline: Pipeline) -> dict[str, Announcement]:
    """Return whom the pipeline tells, of every event; report mistakes in the texts."""
    own = Source(pipeline.report.document, ("notify",), pipeline.spec.notify)
    return _announcements(layered(*notify_sources(pipeline.project), own), pipeline, {})


def of_runs(every: Mapping[str, Announcement], *, has_deadline: bool) -> dict[str, Announcement]:
    """Return what of it is told of a run: only a step is retried, and only what has a deadline can miss it."""
    left_out = {"on_retry"} if has_deadline else {"on_retry", ON_DEADLINE}
    return {event: one for event, one in every.items() if event not in left_out}


def of_step(step: StepSpec, every: Mapping[str, Announcement], pipeline: Pipeline) -> dict[str, Announcement]:
    """Return whom a step tells: its own `notify`, and what the pipeline wants told of every retry and deadline."""
    inherited = {event: every[event] for event in _told_by(step) if event in every and event not in step.notify}
    own = layered(Source(pipeline.report.document, (*step.path, "notify"), step.notify))
    return {**inherited, **_announcements(own, pipeline, step.each)}


def _told_by(step: StepSpec) -> Iterator[str]:
    yield "on_retry"
    if step.deadline:
        yield ON_DEADLINE


def _announcements(
    given: Mapping[str, Layered], pipeline: Pipeline, each: Mapping[str, Value]
) -> dict[str, Announcement]:
    return {
        event: _announcement(event, one, pipeline, each)
        for event, one in given.items()
        if isinstance(one.value, Notice)
    }


def _announcement(event: str, given: Layered, pipeline: Pipeline, each: Mapping[str, Value]) -> Announcement:
    notice: Notice = given.value
    if notice.message is None:
        return Announcement(notice.connection)
    path, report = (*given.origin.path, "message"), Report(given.origin.document)
    if event == ON_DEADLINE and is_template(notice.message):
        report.add("wrong-value", path, "the message of a deadline is sent as it is written", "write it without {{ }}")
    reading = pipeline.references.read(notice.message, _nowhere(given, each))
    for problem in reading.problems:
        is_output = problem.code == "unknown-step"
        told = replace(problem, hint=_ONLY) if is_output else problem
        report.add_problem(told, path)
    pipeline.report.extend(report.diagnostics)
    return Announcement(notice.connection, reading.template)


def _nowhere(given: Layered, each: Mapping[str, Value]) -> Place:
    """Return a place that sees no step: a run that has failed has not run them all."""
    return Place(StepSpec("notify", given.origin.path, each=each), Scope())
