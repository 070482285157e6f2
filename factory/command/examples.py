"""The example of each task: a spec of its own in the folder `examples` of the package that declares the task.

The catalogue shows its steps; a test lints the whole of it.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

from factory.language.document import Document, Value, content_of, read
from factory.language.errors import Path as Place
from factory.registry import TaskDefinition


def example_file(definition: TaskDefinition) -> Path:
    """Return where the example of a task is: `examples/<name>.yaml` in its package."""
    package = sys.modules[definition.function.__module__.partition(".")[0]]
    return Path(package.__path__[0]) / "examples" / f"{definition.name}.yaml"


def example_of(definition: TaskDefinition) -> str:
    """Return the first step of the example that uses the task, as it is written; an empty text if there is none."""
    file = example_file(definition)
    if not file.is_file():
        return ""
    document, _ = read(content_of(file), file.name)
    place = next(_steps(document.value, (), definition.name), None)
    return _written(document, place) if place else ""


def _steps(value: Value, path: Place, uses: str) -> Iterator[Place]:
    if isinstance(value, dict):
        if value.get("uses") == uses and path[-2:-1] == ("steps",):
            yield path
        for key, inner in value.items():
            yield from _steps(inner, (*path, key), uses)


def _written(document: Document, place: Place) -> str:
    """Return the lines of a key and its value, without the indent of the key."""
    first = document.span(place, key=True).line - 1
    indent = _indent(document.lines[first])
    rest = document.lines[first + 1 :]
    last = next((number for number, line in enumerate(rest) if line.strip() and _indent(line) <= indent), len(rest))
    return textwrap.dedent("\n".join(document.lines[first : first + 1 + last])).rstrip() + "\n"


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
