"""The params of a pipeline: JSON Schemas that Airflow draws as a trigger form."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from factory.language.errors import Path

TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")
KEYS = (
    "const", "description", "description_md", "enum", "examples", "exclusiveMaximum", "exclusiveMinimum", "format",
    "items", "maxItems", "maxLength", "maximum", "minItems", "minLength", "minimum", "multipleOf", "pattern",
    "properties", "additionalProperties", "required", "section", "title", "type", "uniqueItems", "values_display",
    "anyOf", "oneOf", "allOf",
)  # fmt: skip


@lru_cache(maxsize=4096)
def param_problems(schema_json: str, default_json: str, *, has_default: bool) -> tuple[tuple[Path, str], ...]:
    """Return what is wrong with a param: paths below it, and messages. Cached, since many pipelines share params."""
    from jsonschema import Draft202012Validator, FormatChecker, SchemaError

    schema, default = json.loads(schema_json), json.loads(default_json)
    if unknown := [key for key in schema if key not in KEYS]:
        return tuple(
            ((key,), f'"{key}" is not a key of a param; keys: {", ".join(("default", *sorted(KEYS)))}')
            for key in unknown
        )
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        return ((tuple(error.absolute_path), _schema_message(error)),)
    checker = Draft202012Validator(schema, format_checker=FormatChecker())
    if not has_default:
        return ()
    return tuple(
        (("default", *error.absolute_path), f"its default {error.message}") for error in checker.iter_errors(default)
    )


def _schema_message(error: Any) -> str:
    where = error.absolute_path[-1] if error.absolute_path else "schema"
    if where == "type":
        return f"its type is {json.dumps(error.instance)}; it should be one of {', '.join(TYPES)}"
    return f"its {where}: {error.message}"
