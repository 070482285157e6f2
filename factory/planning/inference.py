"""Values of the types that a param or an output may have, for checking where they are used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from factory.language.spec import ParamSpec
from factory.language.templates import Sample, Samples


def param_samples(param: ParamSpec) -> Samples:
    """Return values that the trigger form lets `param` have."""
    schema = param.schema
    values = [param.default] if param.has_default else []
    values += [schema[bound] for bound in ("minimum", "maximum") if isinstance(schema.get(bound), int | float)]
    options = schema.get("enum")
    values += options if isinstance(options, list) else []
    exact = [Sample(value, exact=True) for value in values]
    typical = schema_samples(schema, {}) or ()
    return (*exact, *(typical if not values else ())) or None


def schema_samples(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Samples:
    """Return a value of each type that a JSON Schema allows, or None where it says nothing."""
    if "$ref" in schema:
        return schema_samples(definitions.get(schema["$ref"].rpartition("/")[2], {}), definitions)
    if "anyOf" in schema:
        members = [schema_samples(one, definitions) for one in schema["anyOf"]]
        return None if any(one is None for one in members) else tuple(sample for one in members for sample in one or ())
    kinds = schema.get("type")
    names = kinds if isinstance(kinds, list) else [kinds]
    values = [_schema_value(name, schema, definitions) for name in names]
    return None if any(value is _UNKNOWN for value in values) else tuple(Sample(value) for value in values)


_UNKNOWN: Any = object()


def _schema_value(kind: Any, schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Any:
    if kind == "string":
        return {"date": "2026-01-31", "date-time": "2026-01-31T00:00:00Z"}.get(schema.get("format", ""), "text")
    if kind == "array":
        items = schema_samples(schema.get("items", {}), definitions)
        return [one.value for one in items[:1]] if items else []
    return {"integer": 1, "number": 0.5, "boolean": True, "object": {}, "null": None}.get(kind, _UNKNOWN)
