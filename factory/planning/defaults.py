"""Which value wins if several files set it: the spec over the environment over the defaults.

Precedence is decided only here: the plan's values, `taskflow plan` and the messages about a default all use it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from factory.language.document import Document
from factory.language.errors import Path
from factory.planning.project import EVERY_TASK, Project
from factory.registry import TaskDefinition


class Origin(NamedTuple):
    """Where a value is written."""

    document: Document
    path: Path

    def __str__(self) -> str:
        span = self.document.span(self.path, key=True)
        return f"{span.file}:{span.line}"


class Layered(NamedTuple):
    """A value, and where it is written."""

    value: Any
    origin: Origin


class Source(NamedTuple):
    """A mapping in a file that may set values, with its path in that file."""

    document: Document
    path: Path
    values: Mapping[str, Any]


def layered(*sources: Source) -> dict[str, Layered]:
    """Return every name that a source sets, with the value from the last source that sets it."""
    return {
        name: Layered(value, Origin(source.document, (*source.path, name)))
        for source in sources
        for name, value in source.values.items()
    }


def values(given: Mapping[str, Layered]) -> dict[str, Any]:
    """Return the values alone."""
    return {name: layer.value for name, layer in given.items()}


def origins(given: Mapping[str, Layered]) -> dict[str, Origin]:
    """Return the origins alone."""
    return {name: layer.origin for name, layer in given.items()}


def dag_sources(project: Project) -> Iterator[Source]:
    """Yield what `configs/` sets for every DAG."""
    for layer in project.layers:
        yield Source(layer.document, ("dag",), layer.dag)


def default_args_sources(project: Project) -> Iterator[Source]:
    """Yield the Airflow arguments that `configs/` sets for every task."""
    for layer in project.layers:
        yield Source(layer.document, ("default_args",), layer.default_args)


def notify_sources(project: Project) -> Iterator[Source]:
    """Yield whom `configs/` lets every pipeline tell."""
    for layer in project.layers:
        yield Source(layer.document, ("notify",), layer.notify)


def argument_sources(project: Project, definition: TaskDefinition) -> Iterator[Source]:
    """Yield the arguments that `configs/` sets for a task, limited to those that the task takes."""
    for layer in project.layers:
        for task in (EVERY_TASK, definition.name):
            given = layer.arguments.get(task, {})
            taken = {name: value for name, value in given.items() if name in definition.parameters}
            yield Source(layer.document, ("with", task), taken)
