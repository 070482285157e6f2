"""The types of the values in templates, and which of them fit where.

A type is also what a value of the worker has: lint and the worker apply one rule to both.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class ValueType:
    """One type. `items` is what a list holds; an object has `fields`, and `others` for keys that are not listed."""

    name: str
    items: Types = ()
    fields: tuple[tuple[str, Types], ...] = ()
    others: Types = ()


MAX_INTEGER = 2**63 - 1
"""The largest integer of Postgres and of JSON readers."""
Types: TypeAlias = tuple[ValueType, ...]
"""The types that a value may have."""

NULL, BOOLEAN, INTEGER, NUMBER = (ValueType(name) for name in ("null", "boolean", "integer", "number"))
TEXT, DATE, DATETIME, ANYTHING = (ValueType(name) for name in ("text", "date", "datetime", "anything"))
ANY_OBJECT = ValueType("object", others=(ANYTHING,))
SCALARS: Mapping[str, ValueType] = {one.name: one for one in (BOOLEAN, INTEGER, NUMBER, TEXT, DATE, DATETIME)}
"""The types that a Variable may be declared with."""
WRITTEN = frozenset(SCALARS) | {"anything"}
"""The types that can be written in a longer text."""

_ARTICLES = {"integer": "an integer", "object": "an object", "null": "null", "anything": "anything"}


def list_of(items: Types) -> ValueType:
    """Return the type of a list of `items`."""
    return ValueType("list", items=items)


def shown(types: Iterable[ValueType]) -> str:
    """Return `types` as a person says them: "an integer or a text"."""
    return " or ".join(dict.fromkeys(_ARTICLES.get(one.name, f"a {one.name}") for one in types))


def union(types: Iterable[ValueType]) -> Types:
    """Return `types` without repetition."""
    return tuple(dict.fromkeys(types))


def types_of(value: object) -> Types:
    """Return the type of one of the worker's values."""
    return (_type_of(value),)


def _type_of(value: object) -> ValueType:
    if isinstance(value, list):
        return list_of(union(_type_of(one) for one in value))
    if isinstance(value, Mapping):
        return ANY_OBJECT
    return next(one for kind, one in _PYTHON if isinstance(value, kind))


_PYTHON: Sequence[tuple[type, ValueType]] = (
    (type(None), NULL), (bool, BOOLEAN), (int, INTEGER), (float, NUMBER), (str, TEXT),
    (dt.datetime, DATETIME), (dt.date, DATE), (object, ANYTHING),
)  # fmt: skip
"""The first that fits decides: a boolean is an int in Python, a datetime a date."""


def schema_types(schema: Any, definitions: Mapping[str, Any]) -> Types:
    """Return the types that a JSON Schema allows; one that is not a schema is reported where it is declared."""
    if not isinstance(schema, Mapping):
        return (ANYTHING,)
    if "$ref" in schema:
        return schema_types(definitions.get(str(schema["$ref"]).rpartition("/")[2], {}), definitions)
    if isinstance(options := schema.get("anyOf"), list):
        return union(one for option in options for one in schema_types(option, definitions))
    names = schema.get("type")
    listed = names if isinstance(names, list) else [names]
    return union(_schema_type(name, schema, definitions) for name in listed)


def _schema_type(name: Any, schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> ValueType:
    if name == "string":
        return {"date": DATE, "date-time": DATETIME}.get(str(schema.get("format")), TEXT)
    if name == "array":
        items = schema.get("items")
        return list_of(schema_types(items, definitions))
    if name == "object":
        return _object_type(schema, definitions)
    return {"integer": INTEGER, "number": NUMBER, "boolean": BOOLEAN, "null": NULL}.get(str(name), ANYTHING)


def _object_type(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> ValueType:
    properties, others = schema.get("properties"), schema.get("additionalProperties", not schema.get("properties"))
    fields = properties if isinstance(properties, dict) else {}
    return ValueType(
        "object",
        fields=tuple((name, schema_types(one, definitions)) for name, one in fields.items()),
        others=schema_types(others, definitions) if isinstance(others, dict) else ((ANYTHING,) if others else ()),
    )


# --- what fits where ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Signature:
    """What an operator or a function takes and gives: names of types, `T` for any, `list of …`, `a | b`."""

    takes: tuple[str, ...]
    gives: str

    def __str__(self) -> str:
        return f"({', '.join(self.takes)}) → {self.gives}"


class Misfit(Exception):
    """The types of the values, none of which a signature takes together."""

    def __init__(self, types: Types) -> None:
        super().__init__()
        self.types = types


def result_types(signatures: Sequence[Signature], given: Sequence[Types]) -> Types:
    """Return what comes out for every combination of the `given` types; raise Misfit for one that nothing takes."""
    return union(one for chosen in product(*given) for one in _result(signatures, chosen))


def _result(signatures: Sequence[Signature], chosen: Types) -> Types:
    results: list[ValueType] = []
    for signature in signatures:
        bound: dict[str, Types] = {}
        if len(signature.takes) == len(chosen) and _take(signature.takes, chosen, bound):
            results += _given(signature.gives, bound)
            if ANYTHING not in chosen:
                break
    if not results:
        raise Misfit(chosen)
    return tuple(results)


def _take(patterns: tuple[str, ...], chosen: Types, bound: dict[str, Types]) -> bool:
    return all(_fits(pattern, one, bound) for pattern, one in zip(patterns, chosen, strict=True))


def _fits(pattern: str, one: ValueType, bound: dict[str, Types]) -> bool:
    """Return whether a value of a type fits a part of a signature; a `T` is bound to the type."""
    if pattern.startswith("list of "):
        inner = pattern.removeprefix("list of ")
        if one.name != "list":
            return one is ANYTHING
        return _bind((*one.items,), bound) if inner == "T" else all(_fits(inner, item, bound) for item in one.items)
    if pattern == "T":
        return one.name != "object" and _bind((one,), bound)
    return one is ANYTHING or one.name in pattern.split(" | ") or (one is INTEGER and "number" in pattern.split(" | "))


def _bind(types: Types, bound: dict[str, Types]) -> bool:
    """Bind T to `types`; return whether they can be compared with what it was bound to before."""
    known = bound.get("T", ())
    bound["T"] = union((*known, *types))
    return all(_comparable(one, other) for one in known for other in types)


def _comparable(one: ValueType, other: ValueType) -> bool:
    if ANYTHING in (one, other) or {one.name, other.name} <= {"integer", "number"}:
        return True
    if one.name == other.name == "list":
        return all(_comparable(first, second) for first in one.items for second in other.items)
    return one.name == other.name != "object"


def _given(pattern: str, bound: Mapping[str, Types]) -> Types:
    if pattern == "T":
        return bound.get("T") or (ANYTHING,)
    if pattern.startswith("list of "):
        return (list_of(_given(pattern.removeprefix("list of "), bound)),)
    return (SCALARS[pattern],)


def accepts(declared: Types, value: object) -> bool:
    """Return whether a value of the worker has one of the `declared` types."""
    return any(_accepts(one, value) for one in declared)


def _accepts(declared: ValueType, value: object) -> bool:
    actual = _type_of(value)
    if declared is ANYTHING or (declared is NUMBER and actual is INTEGER):
        return True
    if declared.name == "list" and isinstance(value, list):
        return not declared.items or all(accepts(declared.items, one) for one in value)
    return declared.name == actual.name


def typed(value: object, declared: Types) -> object:
    """Return a JSON value with its dates read; raise ValueError if it is not of a declared type."""
    if isinstance(value, str) and not any(one.name in ("text", "anything") for one in declared):
        return _read(value, declared)
    if isinstance(value, float) and value.is_integer() and INTEGER in declared and NUMBER not in declared:
        return int(value)  # 5.0 is an integer in JSON Schema
    if isinstance(value, list):
        items = union(item for one in declared if one.name == "list" for item in one.items)
        value = [typed(one, items) for one in value] if items else value
    elif isinstance(value, dict):
        objects = [one for one in declared if one.name == "object"]
        value = {name: typed(one, _field_types(objects, name) or (ANYTHING,)) for name, one in value.items()}
    if not accepts(declared, value):
        raise ValueError(f"{value!r} is not {shown(declared)}")
    return value


def _read(text: str, declared: Types) -> object:
    for reader in (_READERS[one.name] for one in declared if one.name in _READERS):
        try:
            return reader(text)
        except ValueError:
            continue
    raise ValueError(f"{text!r} is not {shown(declared)}")


def _datetime(text: str) -> dt.datetime:
    """Return a moment; without a zone it is in UTC, as Airflow takes it."""
    moment = dt.datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)


_READERS: Mapping[str, Callable[[str], object]] = {"date": dt.date.fromisoformat, "datetime": _datetime}


def _field_types(objects: Iterable[ValueType], name: str) -> Types:
    return union(found for one in objects for found in dict(one.fields).get(name, one.others))


def part_types(types: Types, part: str | int) -> Types | None:
    """Return the types of a field or an item of a value, or None if it has no such part; a part of null is null."""
    found: list[ValueType] = []
    for one in types:
        inner = (one,) if one in (ANYTHING, NULL) else one.items if isinstance(part, int) else _field_types([one], part)
        if not inner and not (one.name == "list" and isinstance(part, int)):
            return None
        found += inner or (ANYTHING,)
    return union(found)


def field_names(types: Types) -> list[str]:
    """Return the fields of an object that are listed."""
    return [name for one in types for name, _ in one.fields]
