"""The JSON Schema of a spec: an editor completes and checks a spec by it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from factory.language.arguments import (
    DAG_ARGUMENTS,
    GROUP_ARGUMENTS,
    REFERENCES,
    RETRIED,
    STEP_DEADLINE,
    TASK_ARGUMENTS,
    Argument,
)
from factory.language.notices import EVENTS
from factory.language.notices import KEYS as NOTICE_KEYS
from factory.language.params import KEYS, TYPES
from factory.language.schedules import TIMETABLES
from factory.registry import Registry, TaskDefinition
from tasks.quality.lint import Batch, ExpectationSchema, Quarantine, catalogue

_LONG = 1000
"""The length in characters from which a part of the schema is written once and referred to."""
_TEMPLATE = {"type": "string", "pattern": r"\{\{"}
_DURATION = {"type": "string", "description": "30s, 5m, 1h 30m"}
_DEADLINE = {
    "type": "object",
    "required": ["interval"],
    "properties": {"interval": _DURATION, "reference": {"enum": list(REFERENCES)}},
    "additionalProperties": False,
}
_RETRY_RULE = {
    "type": "object",
    "minProperties": 1,
    "properties": {"retries": {"type": "integer", "minimum": 0}, "retry_delay": _DURATION},
    "additionalProperties": False,
}
_JSON_TYPES: Mapping[str, Any] = {
    "boolean": {"type": "boolean"},
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "text": {"type": "string"},
    "texts": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
    "duration": _DURATION,
    "datetime": {"type": "string", "description": "2026-01-01 or 2026-01-01 06:30"},
    "links": {"type": "object", "additionalProperties": {"type": "string", "pattern": "^(https?://|mailto:)"}},
    "assets": {"description": "an asset's name, {name, uri}, or a list of them"},
    "deadline": {"anyOf": [_DURATION, _DEADLINE], "description": "when people are told that it has not ended"},
    "retry_policy": {
        "type": "object",
        "minProperties": 1,
        "properties": dict.fromkeys(RETRIED, _RETRY_RULE),
        "additionalProperties": False,
        "description": "how a step is retried by the kind of its error",
    },
}


_FOR_EACH = {
    "anyOf": [
        {"type": "array", "minItems": 1, "items": {"type": "string"}},
        {"type": "object", "minProperties": 1, "additionalProperties": {"type": ["object", "null"]}},
    ],
    "description": "the names of the groups that are made of these steps, or a mapping from names to fields of each",
}
_STEP_ARGUMENTS = {**TASK_ARGUMENTS, "deadline": STEP_DEADLINE}


def json_schema(registry: Registry) -> dict[str, Any]:
    """Return the JSON Schema of a spec, with the arguments of every task."""
    parts = _SpecSchema()
    steps = [parts.step(one) for one in registry]
    branch = {"type": "array", "items": {"type": "object"}, "description": "if/then arms, and an else at the end"}
    group: dict[str, Any] = {
        "type": "object",
        "required": ["steps"],
        "properties": {
            "steps": {"$ref": "#/$defs/steps"},
            "for_each": _FOR_EACH,
            **_needs(),
            **_airflow(GROUP_ARGUMENTS),
        },
        "additionalProperties": False,
    }
    fork: dict[str, Any] = {
        "type": "object",
        "required": ["branch"],
        "properties": {"branch": branch, **_notify(), **_needs(), **_airflow(_STEP_ARGUMENTS)},
        "additionalProperties": False,
    }
    parts.definitions["suite"] = parts.suite()
    parts.definitions["steps"] = {
        "type": "object",
        "minProperties": 1,
        "additionalProperties": {"anyOf": [*steps, fork, group]},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A pipeline",
        "type": "object",
        "required": ["dag_id", "steps"],
        "additionalProperties": False,
        "properties": {
            "dag_id": {"type": "string", "pattern": r"^[A-Za-z0-9_.\-]{1,250}$"},
            "schedule": _schedule_schema(),
            "timezone": {"type": "string"},
            "default_args": {"type": "object", "properties": _airflow(TASK_ARGUMENTS), "additionalProperties": False},
            "params": {
                "type": "object",
                "additionalProperties": {
                    "type": "object",
                    "properties": {**{key: {} for key in KEYS}, "type": _param_types(), "default": {}},
                    "additionalProperties": False,
                },
            },
            "suites": {"type": "object", "additionalProperties": {"$ref": "#/$defs/suite"}},
            "steps": {"$ref": "#/$defs/steps"},
            **_notify(),
            **_airflow(DAG_ARGUMENTS),
        },
        "$defs": parts.definitions,
    }


@dataclass
class _SpecSchema:
    """Builds the schema; `definitions` are the parts that others refer to."""

    definitions: dict[str, Any] = field(default_factory=dict)

    def step(self, definition: TaskDefinition) -> dict[str, Any]:
        schema = definition.arguments.model_json_schema(ref_template="#/$defs/{model}")
        self.definitions.update({name: _templates_inside(one) for name, one in schema.pop("$defs", {}).items()})
        fields = {
            name: _or_template(_or_name(name, one, definition)) for name, one in schema.get("properties", {}).items()
        }
        given = {
            "type": "object",
            "properties": fields,
            "additionalProperties": False,
            "description": definition.summary,
        }
        return {
            "type": "object",
            "required": ["uses"],
            "description": definition.summary,
            "properties": {
                "uses": {"const": definition.name},
                "with": given,
                "expand": {"type": "object"},
                **_notify(),
                **_needs(),
                **_airflow(_STEP_ARGUMENTS),
            },
            "additionalProperties": False,
        }

    def suite(self) -> dict[str, Any]:
        parts = {}
        for name, model in (("batch", Batch), ("quarantine", Quarantine)):
            parts[name] = _templates_inside(model.model_json_schema(ref_template="#/$defs/{model}"))
            self.definitions.update(parts[name].pop("$defs", {}))
        return {
            "type": "object",
            "required": ["connection", "batch", "expectations"],
            "additionalProperties": False,
            "properties": {
                "connection": {"type": "string"},
                **parts,
                "expectations": {"type": "array", "minItems": 1, "items": self.expectation()},
            },
        }

    def expectation(self) -> dict[str, Any]:
        known = {name: self.known_expectation(one) for name, one in sorted(catalogue().items())}
        return {"type": "object", "properties": {**known, "reason": {"type": "string"}}, "additionalProperties": False}

    def known_expectation(self, known: ExpectationSchema) -> dict[str, Any]:
        arguments = {name: self.shared(name, one) for name, one in known.schema["properties"].items()}
        return {**known.schema, "properties": arguments, "description": known.description}

    def shared(self, name: str, schema: dict[str, Any]) -> dict[str, Any]:
        """Return `schema`, or a reference to it if it is long enough to be written only once."""
        if len(json.dumps(schema)) < _LONG:
            return _or_template(schema)
        self.definitions[name] = schema
        return _or_template({"$ref": f"#/$defs/{name}"})


def _notify() -> dict[str, Any]:
    full = {
        "type": "object",
        "required": ["connection"],
        "properties": {key: {"type": "string", "minLength": 1} for key in NOTICE_KEYS},
        "additionalProperties": False,
    }
    one = {"anyOf": [{"type": "string", "description": "a connection of type apprise"}, full, {"type": "null"}]}
    return {"notify": {"type": "object", "properties": dict.fromkeys(EVENTS, one), "additionalProperties": False}}


def _param_types() -> dict[str, Any]:
    one = {"enum": list(TYPES)}
    return {"anyOf": [one, {"type": "array", "items": one}]}


def _schedule_schema() -> dict[str, Any]:
    assets = {"type": "object", "required": ["assets"], "properties": {"assets": {}}, "additionalProperties": False}
    timetable = {"type": "object", "required": ["timetable"], "properties": {"timetable": {"enum": sorted(TIMETABLES)}}}
    return {
        "anyOf": [{"type": "string"}, {"type": "null"}, assets, timetable],
        "description": "a cron, a preset, a duration, {assets: …} or {timetable: …}",
    }


def _needs() -> dict[str, Any]:
    return {
        "needs": {
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
            "description": "the steps to wait for",
        }
    }


def _airflow(table: Mapping[str, Argument]) -> dict[str, Any]:
    return {
        name: _argument_schema(argument) for name, argument in table.items() if argument.kind not in ("code", "spec")
    }


def _argument_schema(argument: Argument) -> dict[str, Any]:
    if argument.kind in ("choice", "choices"):
        one = {"enum": list(argument.choices)}
        return one if argument.kind == "choice" else {"anyOf": [one, {"type": "array", "items": one}]}
    bound = {} if argument.minimum is None else {"minimum": argument.minimum}
    return {**_JSON_TYPES[argument.kind], **bound}


def _or_name(name: str, schema: dict[str, Any], definition: TaskDefinition) -> dict[str, Any]:
    if name in definition.suites:
        return {"type": "string", "description": "the name of a suite"}
    if name in definition.locations:
        return {"type": "string", "description": "the name of a place in configs/"}
    return schema


def _or_template(schema: dict[str, Any]) -> dict[str, Any]:
    """Return `schema` with a template allowed instead of it, and instead of every value inside it."""
    inside = _templates_inside(schema)
    free = schema.get("type") == "string" and not {"pattern", "format", "enum"} & set(schema)
    return inside if free else {"anyOf": [inside, _TEMPLATE]}


def _templates_inside(schema: dict[str, Any]) -> dict[str, Any]:
    """Return `schema` with templates allowed instead of the values inside it, but not instead of itself."""
    inside = dict(schema)
    for named in {"properties", "patternProperties"} & set(schema):
        inside[named] = {name: _or_template(one) for name, one in schema[named].items()}
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            inside[name] = _or_template(schema[name])
    if "anyOf" in schema:
        inside["anyOf"] = [_templates_inside(one) for one in schema["anyOf"]]
    return inside
