"""The item of `for_each` that a step is written for: its fields are values of the spec, and known before any run.

So a text that names nothing else becomes plain before it is checked, as if it had been written so. In SQL, where a
value is a literal, and beside other names, a worker puts the field in like any other value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from factory.language.errors import Path
from factory.language.evaluation import part_of
from factory.language.expressions import Path as Name
from factory.language.templates import Template, constant, filled
from factory.language.tokens import TemplateProblem
from factory.planning.references import References
from factory.planning.scopes import Place
from factory.planning.values import replaced, sql_form, templated
from factory.registry import TaskDefinition
from tasks.contract import TextKind


def of_item(place: Place, definition: TaskDefinition, references: References) -> Place:
    """Return `place` with the fields of its item in the arguments of its step."""
    step = place.step
    if not step.each:
        return place
    arguments, expand = (
        plain(dict(given), place, definition.kind_at, references) for given in (step.arguments, step.expand)
    )
    return replace(place, step=replace(step, arguments=arguments, expand=expand))


def plain(
    values: dict[str, Any], place: Place, kind_at: Callable[[Path], TextKind | None], references: References
) -> dict[str, Any]:
    """Return `values` with plain values for the texts that name fields of the item alone."""
    if not place.step.each:
        return values
    known = {}
    for path, text in templated(values):
        if not sql_form(kind_at(path)):
            reading = references.read(text, place)
            sources = reading.template.sources
            if sources and not reading.problems and all(source.constant for source in sources):
                try:
                    known[path] = _value(reading.template)
                except TemplateProblem:
                    continue  # a computation that fails is reported where the text is read
    return dict(replaced(values, known))


def _value(template: Template) -> object:
    fields: Mapping[str, object] = {source.parts[1]: constant(source) for source in template.sources}

    def look_up(name: Name) -> object:
        value = fields[str(name.parts[1])]
        for part in name.parts[2:]:
            value = part_of(value, part)
        return value

    return filled(template, look_up, {})
