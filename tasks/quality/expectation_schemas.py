"""The catalogue of expectations, made from the installed library.

Knows the library's models, and where their schemas say less than the library requires.
`tasks.quality.expectations` writes the result to a file, and reads it back without the library.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_OWN_AFFAIRS = frozenset(
    {"id", "meta", "notes", "rendered_content", "batch_id", "windows", "result_format", "catch_exceptions"}
    | {"severity", "library_metadata", "metadata"}
)
"""Fields that the gate sets itself, or does not honour: a broken rule of any severity stops the run."""

_SCALAR = {"type": ["string", "number", "boolean", "null"]}
_KNOWN = {"type": ["string", "number", "boolean"]}
_COLUMN = {"type": "string", "minLength": 1}
_TEXTS = {"type": "array", "items": {"type": "string"}, "minItems": 1}


def _mapping(*required: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


_COMPARISON = _mapping(
    *("type", "column", "operator", "parameter"),
    type={"enum": ["comparison"]},
    column=_mapping("name", name=_COLUMN),
    operator={"enum": ["==", "!=", "<", "<=", ">", ">=", "IN", "NOT_IN"]},
    parameter={
        "anyOf": [{"type": ["string", "number", "boolean"]}, {"type": "array", "items": _SCALAR, "minItems": 1}]
    },
)
_NULLITY = _mapping(
    *("type", "column", "is_null"),
    type={"enum": ["nullity"]},
    column=_mapping("name", name=_COLUMN),
    is_null={"type": "boolean"},
)
_ALL_OF = _mapping(
    *("type", "conditions"),
    type={"enum": ["and"]},
    conditions={"type": "array", "items": {"anyOf": [_COMPARISON, _NULLITY]}, "minItems": 1},
)
_ANY_OF = _mapping(
    *("type", "conditions"),
    type={"enum": ["or"]},
    conditions={"type": "array", "items": {"anyOf": [_COMPARISON, _NULLITY, _ALL_OF]}, "minItems": 1},
)

_PLAINER: Mapping[str, dict[str, Any]] = {
    "column_list": {"type": "array", "items": _COLUMN, "minItems": 2, "uniqueItems": True},
    "column_set": {"type": "array", "items": _COLUMN, "minItems": 1, "uniqueItems": True},
    "condition_parser": {"enum": ["great_expectations", "great_expectations__experimental__"]},
    "like_pattern_list": _TEXTS,
    "quantile_ranges": _mapping(
        *("quantiles", "value_ranges"),
        quantiles={"type": "array", "items": {"type": "number", "minimum": 0, "maximum": 1}, "minItems": 1},
        value_ranges={
            "type": "array",
            "items": {"type": "array", "items": {"type": ["number", "null"]}, "minItems": 2, "maxItems": 2},
            "minItems": 1,
        },
    ),
    "regex_list": _TEXTS,
    "row_condition": {"anyOf": [{"type": "string"}, _COMPARISON, _NULLITY, _ALL_OF, _ANY_OF]},
    "type_list": _TEXTS,
    "value_pairs_set": {
        "type": "array",
        "items": {"type": "array", "items": _SCALAR, "minItems": 2, "maxItems": 2},
        "minItems": 1,
    },
    "value_set": {"type": "array", "items": _SCALAR, "minItems": 1},
}
"""Arguments whose schema says less than the library requires, or allows more than a database can do."""

_IN_EFFECT_REQUIRED = frozenset({"column_list", "column_set", "type_list", "regex"})
"""Arguments without which the library would accept everything."""


SHARED = ("condition_parser", "row_condition")
"""Arguments that are the same everywhere: written once."""


def describe() -> dict[str, Any]:
    """Return the installed library's catalogue: description, schema of the arguments, where it runs."""
    from great_expectations.expectations.registry import (
        get_expectation_impl,
        list_registered_expectation_implementations,
    )

    names = sorted(list_registered_expectation_implementations())
    return {
        "expectations": {name: _described(name, get_expectation_impl(name)) for name in names},
        "shared": {name: {"anyOf": [*_options(_PLAINER[name]), {"type": "null"}]} for name in SHARED},
    }


def _options(schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list(schema.get("anyOf", [schema]))


def _described(name: str, implementation: Any) -> dict[str, Any]:
    from tasks.quality.on_postgres.metrics import ADDED

    written = implementation.schema()["properties"]
    known = written["metadata"]["properties"]
    fields = {field.alias: field for field in implementation.__fields__.values() if field.name not in _OWN_AFFAIRS}
    required = [alias for alias, field in fields.items() if field.required or alias in _IN_EFFECT_REQUIRED]
    arguments = {
        alias: _argument_schema(name, alias, written[alias], nullable=field.allow_none and alias not in required)
        for alias, field in fields.items()
    }
    return {
        "description": _first_sentence(known, implementation),
        "schema": _mapping(*required, **arguments),
        "runs_in_sql": name in ADDED or "PostgreSQL" in known.get("supported_data_sources", {}).get("const", ()),
    }


def _first_sentence(known: Mapping[str, Any], implementation: Any) -> str:
    described = known.get("short_description", {}).get("const") or implementation.__doc__.strip().split("\n\n")[0]
    return " ".join(described.split())


def _argument_schema(name: str, argument: str, written: Mapping[str, Any], *, nullable: bool) -> dict[str, Any]:
    if argument in SHARED:
        return {}
    plain = _plain(name, argument, written)
    if nullable:
        plain = {"anyOf": [*_options(plain), {"type": "null"}]}
    if description := " ".join(written.get("description", "").split()):
        plain = {"description": description, **plain}
    return plain


def _plain(name: str, argument: str, written: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of an argument without the library's own parameters, {"$PARAMETER": …}, and its titles."""
    if name == "expect_table_columns_to_match_ordered_list" and argument == "column_list":
        return _PLAINER["column_set"]
    if argument in _PLAINER:
        return dict(_PLAINER[argument])
    if argument == "ignore_row_if" and written.get("anyOf", [{}])[0] == {"type": "string"}:
        return {"enum": ["all_values_are_missing", "any_value_is_missing", "never"]}
    options = [dict(option) for option in written.get("anyOf", [written]) if option != {"type": "object"}]
    if name.startswith("expect_table") or {"type": "integer"} in options:
        options = [option for option in options if "format" not in option]  # a count is not a date
    kept = [{key: value for key, value in option.items() if key not in _DECORATION} for option in options]
    return kept[0] if len(kept) == 1 else {"anyOf": kept}


_DECORATION = frozenset({"title", "default", "description", "multipleOf"})


_DECORATION = frozenset({"title", "default", "description", "multipleOf"})
