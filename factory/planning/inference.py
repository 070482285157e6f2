"""The values that a text may have, represented by samples: lint computes with them as the worker does with real ones.

Knows the types of params and outputs; not where a template is used.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain, product
from typing import TypeAlias

from factory.language.document import Value
from factory.language.evaluation import CannotCompute, expression_value, part_of
from factory.language.expressions import Node, Path, has_call
from factory.language.functions import ComputationError, size
from factory.language.spec import ParamSpec
from factory.language.tokens import TemplateProblem
from factory.language.value_types import ANYTHING, NULL, Types, ValueType, accepts, typed

MAX_COMBINATIONS = 27
"""The maximum number of combinations of samples for which an expression is computed: three values of three params."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A value that an expression may have; `exact` if it can really occur and does not merely have the right type."""

    value: Value
    exact: bool = False


Samples: TypeAlias = tuple[Sample, ...] | None
"""A value for each type that an expression may have; None if nothing is known about it."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of the value behind a path: its types, and values that it can really have."""

    types: Types
    exact: tuple[Value, ...] = ()


def param_values(param: ParamSpec) -> tuple[Value, ...]:
    """Return values that the trigger form allows for `param`: its default, its bounds, its options."""
    schema = param.schema
    values = [param.default] if param.has_default else []
    values += [schema[bound] for bound in ("minimum", "maximum") if isinstance(schema.get(bound), int | float)]
    options = schema.get("enum")
    values += options if isinstance(options, list) else []
    return tuple(values)


def typical(types: Types) -> Samples:
    """Return a value of each type, or None if it could be anything."""
    return None if ANYTHING in types else tuple(Sample(_as_json(_typical(one))) for one in types)


_TYPICAL: Mapping[str, object] = {
    "null": None, "boolean": True, "integer": 1, "number": 0.5, "text": "text",
    "date": dt.date(2026, 1, 31), "datetime": dt.datetime(2026, 1, 31, tzinfo=dt.UTC),
}  # fmt: skip


def _typical(one: ValueType) -> object:
    if one.name == "list":
        return [_typical(item) for item in one.items[:1] if item is not ANYTHING]
    return {} if one.name == "object" else _TYPICAL[one.name]


def _as_json(value: object) -> Value:
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, list):
        return [_as_json(one) for one in value]
    if isinstance(value, dict):
        return {str(name): _as_json(one) for name, one in value.items()}
    assert value is None or isinstance(value, bool | int | float | str)
    return value


@dataclass
class Computation:
    """What lint computes for one pipeline; when nothing is left of its steps, types alone must do."""

    left: int = 1_000_000
    """Steps of about a microsecond: characters of an expression and of its values, for each combination."""

    def samples(self, node: Node, text: str, types: Types, known: Mapping[Path, Known]) -> Samples:
        """Return values that an expression of `types` may have; raise TemplateProblem if it cannot be computed.

        It is computed for values that the paths in it can really have; a failure that depends on others is not judged.
        """
        by_parts = {path.parts: one for path, one in known.items()}
        if by_parts and not has_call(node) and not any(one.exact for one in by_parts.values()):
            return typical(types)
        candidates = [values for one in by_parts.values() if (values := _candidates(one)) is not None]
        if len(candidates) < len(by_parts):
            return typical(types)
        combinations = list(product(*_few(candidates)))
        if not isinstance(node, Path) and not self.spend(len(combinations), node, candidates):
            return typical(types)
        found: dict[str, Sample] = {}
        for chosen in combinations:
            sample = _sample(node, text, dict(zip(by_parts, chosen, strict=True)))
            for one in (sample,) if sample else typical(types) or ():
                found.setdefault(repr(one), one)
        return None if ANYTHING in types and not all(one.exact for one in found.values()) else tuple(found.values())

    def spend(self, combinations: int, node: Node, candidates: Iterable[Candidates]) -> bool:
        """Return whether the steps for an expression are left, and take them."""
        values = sum(size(value) for value, _ in chain(*candidates))
        self.left -= combinations * (node.end - node.start + values)
        return self.left >= 0


Candidates: TypeAlias = list[tuple[object, bool]]
"""Values to compute with, each with whether it can really occur."""


def _candidates(known: Known) -> Candidates | None:
    """Return the values of a path to compute with: those it can really have, and one of each other type."""
    if not known.exact:
        samples = typical(known.types)
        return None if samples is None else [(_typical(one), False) for one in known.types]
    exact = list(_read(known))
    others = [
        one for one in known.types if one is not ANYTHING and not any(accepts((one,), value) for value, _ in exact)
    ]
    return [*exact, *((_typical(one), one is NULL) for one in others)]


def _read(known: Known) -> Iterable[tuple[object, bool]]:
    for value in known.exact:
        try:
            yield typed(value, known.types), True
        except ValueError:
            yield value, False  # the declaration is wrong, and reported there


def _few(candidates: list[Candidates]) -> list[Candidates]:
    """Return the first of each, as many as can be combined: the bounds of a param come before its options."""
    if len(candidates) < 2:
        return candidates
    each = max(1, int(MAX_COMBINATIONS ** (1 / len(candidates))))
    return [one[:each] for one in candidates]


def _sample(node: Node, text: str, chosen: Mapping[tuple[str | int, ...], tuple[object, bool]]) -> Sample | None:
    exact = all(real for _, real in chosen.values())
    try:
        return Sample(_as_json(expression_value(node, lambda path: chosen[path.parts][0], text)), exact=exact)
    except CannotCompute as problem:
        if exact or problem.always:
            raise TemplateProblem(_with_values(problem, chosen), problem.given_hint, problem.span) from None
    except TemplateProblem:
        pass  # a type that another value of the same param has; the types are checked by themselves
    return None


def _with_values(problem: CannotCompute, chosen: Mapping[tuple[str | int, ...], tuple[object, bool]]) -> str:
    given = [f"{Path(0, 0, parts)} is {value!r}" for parts, (value, real) in chosen.items() if real]
    return f"{problem}{' if ' if given else ''}{' and '.join(given)}"


def part_values(values: Iterable[Value], parts: tuple[str | int, ...]) -> tuple[Value, ...]:
    """Return a part of each of `values`."""
    found: list[Value] = []
    for value in values:
        part: object = value
        try:
            for name in parts:
                part = part_of(part, name)
        except ComputationError:
            continue
        found.append(_as_json(part))
    return tuple(found)
