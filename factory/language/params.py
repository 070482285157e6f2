"""The params of a pipeline: a closed part of JSON Schema, from which Airflow draws the trigger form.

A schema refers to nothing outside of it. What may keep Airflow busy for hours is checked here and when a run starts
instead, in time that grows with the value alone: patterns, by RE2, and whether the items of a list are unique.
"""

from __future__ import annotations

import datetime as dt
import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeAlias

from factory.language.errors import Path, did_you_mean

TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")
FORMATS = ("date", "date-time", "duration", "email", "ipv4", "ipv6", "multiline", "time", "uuid")
"""The formats that are checked, and `multiline`, which only makes the field of the form larger."""
MAX_OPTIONS, MAX_CHOICES, MAX_ITEMS = 1000, 20, 1000
"""How many values and schemas there may be to choose from, and items in a default: each is compared with each."""
MAX_DEPTH, MAX_SCHEMAS = 5, 100
"""How deep a schema may be nested, and how many one may hold: a choice between choices is tried branch by branch."""
CHECKED_HERE = ("pattern", "uniqueItems")
"""The keys that Airflow is not given: the time that it takes for one does not grow with the value alone."""

_MAX_SHOWN = 200
"""How much of a text a problem shows."""

Found: TypeAlias = tuple[Path, str, str | None]
"""A problem: its path below the param, what is wrong, and how to mend it."""


@lru_cache(maxsize=4096)
def param_problems(schema_json: str, default_json: str, *, has_default: bool) -> tuple[Found, ...]:
    """Return what is wrong with a param. Cached, since many pipelines share params."""
    schema = json.loads(schema_json)
    wrong = tuple(_Reader().problems(schema, ()))
    default = json.loads(default_json)
    wrong += tuple(_long_lists(default, ("default",))) if has_default else ()
    if wrong or not has_default:
        return wrong
    return tuple(
        (("default", *path), f"its default {message}", None) for path, message in value_problems(schema, default)
    )


def _long_lists(value: Any, path: Path) -> Iterator[Found]:
    """Yield lists of too many items: each is compared with every value that it may have."""
    if isinstance(value, list) and len(value) > MAX_ITEMS:
        yield path, f"its default has a list of {len(value):,} items, more than {MAX_ITEMS:,}", None
    elif isinstance(value, list | dict):
        for name, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _long_lists(part, (*path, name))


def value_problems(schema: Mapping[str, Any], value: Any) -> Iterator[tuple[Path, str]]:
    """Yield what is wrong with the value of a param whose schema is sound: paths inside the value, and messages."""
    from jsonschema import Draft202012Validator, FormatChecker

    for error in Draft202012Validator(for_form(schema), format_checker=FormatChecker()).iter_errors(value):
        yield tuple(error.absolute_path), error.message
    yield from problems_unseen_by_form(schema, value)


def problems_unseen_by_form(schema: Mapping[str, Any], value: Any, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Yield what no form checks: patterns, some formats, numbers that are not finite, items that are not unique."""
    if isinstance(value, str):
        pattern, read = schema.get("pattern"), _MOMENTS.get(schema.get("format", ""))
        if pattern is not None and not _compiled(pattern).search(value):
            yield path, f"{_in_short(value)} does not match {pattern!r}"
        if read and not _is_moment(read, value):
            yield path, f"{_in_short(value)} is not a {schema['format']!r}"
    if isinstance(value, float) and not math.isfinite(value):
        yield path, f"{value} is not a finite number"
    if isinstance(value, list):
        if schema.get("uniqueItems"):
            yield from ((path, message) for message in _repetition(value))
        if isinstance(schema.get("items"), dict):
            for index, one in enumerate(value):
                yield from problems_unseen_by_form(schema["items"], one, (*path, index))
    if isinstance(value, dict):
        for name, inner in (schema.get("properties") or {}).items():
            if name in value:
                yield from problems_unseen_by_form(inner, value[name], (*path, name))


def _repetition(items: list[Any]) -> Iterator[str]:
    """Yield which two items are equal, for the first item that was there before."""
    places: dict[str, int] = {}
    for place, item in enumerate(items):
        try:  # a text, since Python salts its hashes: of integers, whoever gives them could choose some of one hash
            written = json.dumps(_plain(item), sort_keys=True)
        except RecursionError:
            yield f"has an item, [{place}], that is nested too deeply to be compared with the others"
            return
        if (first := places.setdefault(written, place)) != place:
            yield f"has two equal items, [{first}] and [{place}]; they should be unique"
            return


def _plain(value: Any) -> Any:
    """Return a value in which 1.0 is written as 1, to which it is equal."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _in_short(text: str) -> str:
    return repr(text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 1]}…")


def for_form(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema as Airflow gets it."""
    kept: dict[str, Any] = {key: value for key, value in schema.items() if key not in CHECKED_HERE}
    if isinstance(kept.get("items"), dict):
        kept["items"] = for_form(kept["items"])
    if isinstance(kept.get("properties"), dict):
        kept["properties"] = {name: for_form(inner) for name, inner in kept["properties"].items()}
    return kept


_MOMENTS: Mapping[str, Callable[[str], object]] = {
    "date-time": dt.datetime.fromisoformat,
    "time": dt.time.fromisoformat,
}
"""Formats that the library checks only where another one is installed."""


def _is_moment(read: Callable[[str], object], text: str) -> bool:
    try:
        read(text)
    except ValueError:
        return False
    return True


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> Any:
    """Return the pattern for RE2; raise ValueError if RE2 cannot read it."""
    import re2

    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        detail = error.args[0]
        raise ValueError(detail.decode("utf-8", "replace") if isinstance(detail, bytes) else str(detail)) from None


# --- the schema itself ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads a schema: `depth` schemas around it, and whether one of them is a choice."""

    depth: int = 0
    is_choice: bool = False
    read: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    """Counts the schemas of the whole param."""

    def problems(self, schema: Any, path: Path) -> Iterator[Found]:
        if not isinstance(schema, dict):
            yield path, f"{_shown(schema)} is not a schema", "write a mapping such as {type: string}"
        elif self.depth > MAX_DEPTH:
            yield path, f"more than {MAX_DEPTH} schemas are around this one", "make it flatter"
        elif (count := next(self.read)) > MAX_SCHEMAS:
            too_many = f"more than {MAX_SCHEMAS} schemas are in it, and each may be tried on each value"
            yield from [(path, too_many, "make several params of it")] if count == MAX_SCHEMAS + 1 else []
        else:
            for key, value in schema.items():
                yield from self.of_key(key, value, (*path, key))

    def of_key(self, key: str, value: Any, path: Path) -> Iterator[Found]:
        if key not in _KEYS:
            hint = did_you_mean(key, _KEYS, "keys of a param")
            if key.startswith("$"):
                hint = "a param refers to nothing outside of itself: write the schema here"
            yield path, f'"{key}" is not a key of a param', hint
        elif key in CHECKED_HERE and self.is_choice:
            yield path, f"{key} cannot be inside anyOf, oneOf or allOf", "write it beside the type"
        elif wanted := _KEYS[key](value):
            yield path, f"its {key} is {_shown(value)}; it should be {wanted}", None
        else:
            yield from self.inside(key, value, path)

    def inside(self, key: str, value: Any, path: Path) -> Iterator[Found]:
        deeper = _Reader(self.depth + 1, self.is_choice or key in _CHOICES, self.read)
        if key in _CHOICES:
            for index, one in enumerate(value):
                yield from deeper.problems(one, (*path, index))
        elif key == "properties":
            for name, one in value.items():
                yield from deeper.problems(one, (*path, name))
        elif key == "items":
            yield from deeper.problems(value, path)
        elif key == "pattern":
            yield from _unreadable(value, path)


def _unreadable(pattern: str, path: Path) -> Iterator[Found]:
    try:
        _compiled(pattern)
    except ValueError as error:
        hint = "write it without backreferences and lookarounds: RE2 reads it"
        yield path, f"its pattern {pattern!r} cannot be read: {error}", hint


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:59]}…"


_Wanted: TypeAlias = str | None
"""What was expected, if a value is not that."""
_MAX_COUNT = 1_000_000


def _text(value: Any) -> _Wanted:
    return None if isinstance(value, str) else "a text"


def _boolean(value: Any) -> _Wanted:
    return None if isinstance(value, bool) else "true or false"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1e300


def _number(value: Any) -> _Wanted:
    return None if _is_number(value) else "a number"


def _divisor(value: Any) -> _Wanted:
    return None if _is_number(value) and value >= 1e-9 else "a number of at least 1e-9"


def _count(value: Any) -> _Wanted:
    fits = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_COUNT
    return None if fits else f"a whole number from 0 to {_MAX_COUNT:,}"


def _list(value: Any) -> _Wanted:
    return None if isinstance(value, list) else "a list"


def _options(value: Any) -> _Wanted:
    fits = isinstance(value, list) and 0 < len(value) <= MAX_OPTIONS
    return None if fits else f"a list of the values to choose from, {MAX_OPTIONS} at most"


def _schemas(value: Any) -> _Wanted:
    fits = isinstance(value, list) and 0 < len(value) <= MAX_CHOICES
    return None if fits else f"a list of schemas to choose from, {MAX_CHOICES} at most"


def _texts(value: Any) -> _Wanted:
    return None if isinstance(value, list) and all(isinstance(one, str) for one in value) else "a list of texts"


def _mapping(value: Any) -> _Wanted:
    return None if isinstance(value, dict) else "a mapping"


def _texts_by_name(value: Any) -> _Wanted:
    fits = isinstance(value, dict) and all(isinstance(one, str) for one in value.values())
    return None if fits else "a mapping from values to texts"


def _types(value: Any) -> _Wanted:
    names = value if isinstance(value, list) and value else [value]
    fits = all(isinstance(one, str) and one in TYPES for one in names) and len(set(names)) == len(names)
    return None if fits else f"one of {', '.join(TYPES)}, or a list of some"


def _format(value: Any) -> _Wanted:
    return None if isinstance(value, str) and value in FORMATS else f"one of {', '.join(FORMATS)}"


def _any(_value: Any) -> _Wanted:
    return None


_CHOICES = ("allOf", "anyOf", "oneOf")
_KEYS: Mapping[str, Callable[[Any], _Wanted]] = {
    "additionalProperties": _boolean,
    "allOf": _schemas,
    "anyOf": _schemas,
    "const": _any,
    "description": _text,
    "description_md": _text,
    "enum": _options,
    "examples": _list,
    "exclusiveMaximum": _number,
    "exclusiveMinimum": _number,
    "format": _format,
    "items": _mapping,
    "maxItems": _count,
    "maxLength": _count,
    "maximum": _number,
    "minItems": _count,
    "minLength": _count,
    "minimum": _number,
    "multipleOf": _divisor,
    "oneOf": _schemas,
    "pattern": _text,
    "properties": _mapping,
    "required": _texts,
    "section": _text,
    "title": _text,
    "type": _types,
    "uniqueItems": _boolean,
    "values_display": _texts_by_name,
}
"""The keys of a schema, each with what its value must be."""
KEYS = tuple(_KEYS)
