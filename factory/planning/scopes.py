"""Which step a name means: the step at the nearest level that has the name, from inside a group outwards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from factory.language.spec import StepSpec
from factory.language.templates import Chain


@dataclass(frozen=True)
class Place:
    """A step and its place in the pipeline: its groups and its siblings."""

    step: StepSpec
    scope: Scope

    @property
    def task_id(self) -> str:
        """The task_id in Airflow, or the group_id of a group."""
        return ".".join((*self.scope.groups, self.step.id))


@dataclass(frozen=True)
class Scope:
    """The steps of one level, and the level around it."""

    groups: tuple[str, ...] = ()
    outer: Scope | None = None
    places: dict[str, Place] = field(default_factory=dict)
    inner: dict[str, Scope] = field(default_factory=dict)

    def find(self, names: Chain) -> Place | None:
        """Return the step that a dotted name means here; the nearest level that has its first part decides."""
        if names and names[0] in self.places:
            return self.inside(names)
        return self.outer.find(names) if self.outer else None

    def inside(self, names: Chain) -> Place | None:
        """Return the step that a dotted name means at this level."""
        place = self.places.get(names[0])
        if place is None or len(names) == 1:
            return place
        scope = self.inner.get(names[0])
        return scope.inside(names[1:]) if scope else None

    def known(self) -> set[str]:
        """Return the names that may be used here."""
        return set(self.places) | (self.outer.known() if self.outer else set())


def scope_of(steps: tuple[StepSpec, ...], groups: tuple[str, ...] = (), outer: Scope | None = None) -> Scope:
    """Return the scope of one level, with the scopes of its groups."""
    scope = Scope(groups, outer)
    for step in steps:
        scope.places[step.id] = Place(step, scope)
        if step.steps is not None:
            scope.inner[step.id] = scope_of(step.steps, (*groups, step.id), scope)
    return scope


def places(scope: Scope) -> Iterator[Place]:
    """Yield every step, a group before its steps."""
    for place in scope.places.values():
        yield place
        if place.step.id in scope.inner:
            yield from places(scope.inner[place.step.id])
