"""The JSON Schemas of what people write: specs, suites, defaults. An editor completes and checks a file by them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, TypeAdapter

from factory.command.argument_rows import doc_of, meaning, models_in
from factory.command.schema_forms import (
    TEMPLATE,
    TEMPLATE_SCHEMA,
    Schema,
    or_template,
    reference,
    shared,
    templates_inside,
)
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
from factory.language.value_types import SCALARS
from factory.planning.project import EVERY_TASK
from factory.registry import Registry, TaskDefinition
from tasks.files.places import Files
from tasks.quality.lint import Batch, ExpectationSchema, Quarantine, catalogue

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
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
_NAMES = {"type": ["string", "array"], "items": {"type": "string"}}
_JSON_TYPES: Mapping[str, Any] = {
    "boolean": {"type": "boolean"},
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "text": {"type": "string"},
    "texts": _NAMES,
    "duration": _DURATION,
    "datetime": {"type": "string", "description": "2026-01-01 or 2026-01-01 06:30"},
    "links": {"type": "object", "additionalProperties": {"type": "string", "pattern": "^(https?://|mailto:)"}},
    "assets": {"description": "an asset's name, {name, uri}, or a list of them"},
    "deadline": {
        **_DEADLINE,
        "type": ["string", "object", "null"],
        "description": "when people are told that it has not ended",
    },
    "retry_policy": {
        "type": ["object", "null"],
        "minProperties": 1,
        "properties": dict.fromkeys(RETRIED, _RETRY_RULE),
        "additionalProperties": False,
        "description": "how a step is retried by the kind of its error",
    },
}
_FOR_EACH = {
    "type": ["array", "object"],
    "minItems": 1,
    "items": {"type": "string"},
    "minProperties": 1,
    "additionalProperties": {"type": ["object", "null"]},
    "description": "the names of the groups that are made of these steps, or a mapping from names to fields of each",
}
_STEP_ARGUMENTS = {**TASK_ARGUMENTS, "deadline": STEP_DEADLINE}
_TARGET = {**_NAMES, "type": ["string", "array", "null"]}
_ARMS = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "properties": {
            "if": {"type": "string", "pattern": r"^\s*\{\{"},
            "then": _TARGET,
            "else": _TARGET,
        },
        "additionalProperties": False,
        "if": {"required": ["else"]},
        "then": {"maxProperties": 1},
        "else": {"required": ["if", "then"]},
    },
    "description": "if/then arms, and an else at the end",
}


def pipeline_schema(registry: Registry, given: Mapping[str, Collection[str]]) -> Schema:
    """Return the JSON Schema of a spec; a step may leave out the arguments that are `given`, by the name of a task."""
    parts = _Parts()
    for definition in registry:
        parts.step(definition, {*given.get(EVERY_TASK, ()), *given.get(definition.name, ())})
    parts.suite()
    parts.steps(registry)
    return parts.document(
        "A pipeline",
        ["dag_id", "steps"],
        {
            "dag_id": {"type": "string", "pattern": r"^[A-Za-z0-9_.\-]{1,250}$"},
            "schedule": _schedule_schema(),
            "timezone": {"type": "string"},
            "default_args": _object(_airflow(TASK_ARGUMENTS)),
            "params": {"type": "object", "additionalProperties": _param()},
            "suites": {"type": "object", "additionalProperties": reference("suite")},
            "steps": reference("steps"),
            **_notify(),
            **_airflow(DAG_ARGUMENTS),
        },
    )


def suite_schema() -> Schema:
    """Return the JSON Schema of a file of `configs/suites/`."""
    parts = _Parts()
    suite = parts.suite()
    del parts.definitions["suite"]
    return parts.document("A suite", suite["required"], suite["properties"])


def defaults_schema(registry: Registry) -> Schema:
    """Return the JSON Schema of `configs/defaults.yaml`, and of a file of `configs/environments/`."""
    parts = _Parts()
    fields = {definition.name: parts.fields(definition, as_default=True) for definition in registry}
    every: dict[str, list[Schema]] = {}
    for taken in fields.values():
        for name, one in taken.items():
            if one not in every.setdefault(name, []):
                every[name].append(one)
    everywhere = {name: found[0] if len(found) == 1 else {} for name, found in every.items()}
    names: Schema = {"type": "array", "items": {"type": "string"}}
    scalar = {"enum": list(SCALARS)}
    variable = _object({"type": scalar, "default": {}}, ["type"])
    return parts.document(
        "Defaults of every pipeline",
        [],
        {
            "dag": _object(_airflow(DAG_ARGUMENTS)),
            "default_args": _object(_airflow(TASK_ARGUMENTS)),
            **dict.fromkeys(("functions", "pools", "queues"), names),
            "places": {"type": "object", "additionalProperties": parts.place()},
            "variables": {
                "type": "object",
                "additionalProperties": {"if": {"type": "object"}, "then": variable, "else": scalar},
            },
            "with": _object({EVERY_TASK: _object(everywhere), **{name: _object(one) for name, one in fields.items()}}),
            **_notify(),
        },
    )


@dataclass
class _Parts:
    """Builds a schema; `definitions` are the parts that others refer to."""

    definitions: dict[str, Schema] = field(default_factory=lambda: {TEMPLATE: TEMPLATE_SCHEMA})

    def document(self, title: str, required: list[str], properties: Mapping[str, Schema]) -> Schema:
        whole = _object(dict(properties), required)
        return shared({"$schema": _DIALECT, "title": title, **whole, "$defs": self.definitions})

    def steps(self, registry: Registry) -> None:
        """Define what is below `steps`: the key of a step says its form, and `uses` the arguments of a task."""
        waiting = {**_needs(), **_airflow(_STEP_ARGUMENTS), **_notify()}
        task = _object(
            {
                "uses": {"enum": [one.name for one in registry]},
                "with": {"type": "object"},
                "expand": {"type": "object"},
                **waiting,
            },
            ["uses"],
        )
        task["allOf"] = [
            {"if": {"required": ["uses"], "properties": {"uses": {"const": one.name}}}, "then": reference(one.name)}
            for one in registry
        ]
        group = {"steps": reference("steps"), "for_each": _FOR_EACH, **_needs(), **_airflow(GROUP_ARGUMENTS)}
        self.definitions |= {
            "task": task,
            "branch": _object({"branch": _ARMS, **waiting}, ["branch"]),
            "group": _object(group, ["steps"]),
            "step": {
                "type": "object",
                "if": {"required": ["branch"]},
                "then": reference("branch"),
                "else": {"if": {"required": ["steps"]}, "then": reference("group"), "else": reference("task")},
            },
            "steps": {"type": "object", "minProperties": 1, "additionalProperties": reference("step")},
        }

    def step(self, definition: TaskDefinition, given: Collection[str]) -> None:
        """Define what `uses` says of the other keys of a step."""
        fields = self.fields(definition)
        items = {"if": reference(TEMPLATE), "else": {"type": "array", "minItems": 1}}
        mapped = {name: items for name in fields if name not in definition.suites | definition.locations}
        schema: Schema = {
            "description": definition.summary,
            "properties": {"with": _object(fields), "expand": _object(mapped)},
        }
        required = [
            name for name, one in definition.arguments.model_fields.items() if one.is_required() and name not in given
        ]
        if required:
            schema["if"] = {"not": {"required": ["expand"]}}
            schema["then"] = {"required": ["with"], "properties": {"with": {"required": required}}}
        self.definitions[definition.name] = schema

    def fields(self, definition: TaskDefinition, *, as_default: bool = False) -> dict[str, Schema]:
        """Return the schema of each argument of a task."""
        schema = definition.arguments.model_json_schema(ref_template="#/$defs/{model}")
        models = schema.get("$defs", {})
        self.define(models, models_in(definition.arguments))
        fields = {
            name: _described(or_template(one, models), definition.function, name, definition.description)
            for name, one in schema.get("properties", {}).items()
        }
        suite = {"type": "string", "description": "the name of a suite"}
        place: Schema = {"type": "string", "description": "the name of a place in configs/"}
        if as_default and definition.locations:
            place = {"if": {"type": "string"}, "else": self.place()}
        named = {**dict.fromkeys(definition.suites, suite), **dict.fromkeys(definition.locations, place)}
        return {name: named.get(name, one) for name, one in fields.items()}

    def define(self, models: Mapping[str, Schema], classes: Mapping[str, type[BaseModel]] | None = None) -> None:
        for name, one in models.items():
            schema = templates_inside(one, models)
            model = (classes or {}).get(name)
            for key, inner in schema.get("properties", {}).items() if model else ():
                schema["properties"][key] = _described(inner, model, key, doc_of(model))
            self.definitions[name] = schema

    def model(self, model: Any) -> Schema:
        """Return the schema of a model, and define those inside it."""
        schema = TypeAdapter(model).json_schema()
        models = schema.pop("$defs", {})
        self.define(models)
        return templates_inside(schema, models)

    def place(self) -> Schema:
        return self.model(Files)

    def suite(self) -> Schema:
        """Define a suite."""
        self.definitions["suite"] = _object(
            {
                "connection": {"type": "string"},
                "batch": self.model(Batch),
                "quarantine": self.model(Quarantine),
                "expectations": {"type": "array", "minItems": 1, "items": self.expectation()},
            },
            ["connection", "batch", "expectations"],
        )
        return self.definitions["suite"]

    def expectation(self) -> Schema:
        known = catalogue()
        properties = {name: self.known_expectation(one) for name, one in sorted(known.items())}
        written = _object({**properties, "reason": {"type": "string", "pattern": "^[a-z][a-z0-9_]*$"}})
        return {"if": {"type": "string"}, "then": {"enum": sorted(known)}, "else": written}

    def known_expectation(self, known: ExpectationSchema) -> Schema:
        schema = {**known.schema, "description": known.description}
        return templates_inside(schema, {})


def _object(properties: dict[str, Schema], required: list[str] | None = None) -> Schema:
    schema: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**schema, "required": required} if required else schema


def _described(schema: Schema, owner: object, name: str, text: str) -> Schema:
    """Return `schema` with what an editor shows of a field."""
    said = schema.get("description") or meaning(owner, name, text)
    return {**schema, "description": said} if said else schema


def _notify() -> dict[str, Schema]:
    full = _object({key: {"type": "string", "minLength": 1} for key in NOTICE_KEYS}, ["connection"])
    one = {**full, "type": ["string", "object", "null"], "description": "a connection of type apprise"}
    return {"notify": _object(dict.fromkeys(EVENTS, one))}


def _param() -> Schema:
    one = {"enum": list(TYPES)}
    types = {"if": {"type": "array"}, "then": {"items": one}, "else": one}
    return _object({**{key: {} for key in KEYS}, "type": types, "default": {}})


def _schedule_schema() -> Schema:
    assets = _object({"assets": {}}, ["assets"])
    timetables = [
        _object({"timetable": {"const": name}, **{key: _argument_schema(one) for key, one in arguments.items()}})
        for name, arguments in sorted(TIMETABLES.items())
    ]
    timetable: Schema = {
        "properties": {"timetable": {"enum": sorted(TIMETABLES)}},
        "required": ["timetable"],
        "allOf": [
            {"if": {"properties": {"timetable": one["properties"]["timetable"]}}, "then": one} for one in timetables
        ],
    }
    return {
        "type": ["string", "null", "object"],
        "if": {"type": "object"},
        "then": {"if": {"required": ["assets"]}, "then": assets, "else": timetable},
        "description": "a cron, a preset, a duration, {assets: …} or {timetable: …}",
    }


def _needs() -> dict[str, Schema]:
    return {"needs": {**_NAMES, "description": "the steps to wait for"}}


def _airflow(table: Mapping[str, Argument]) -> dict[str, Schema]:
    return {
        name: _argument_schema(argument) for name, argument in table.items() if argument.kind not in ("code", "spec")
    }


def _argument_schema(argument: Argument) -> Schema:
    if argument.kind in ("choice", "choices"):
        one = {"enum": list(argument.choices)}
        return one if argument.kind == "choice" else {"if": {"type": "array"}, "then": {"items": one}, "else": one}
    bound = {} if argument.minimum is None else {"minimum": argument.minimum}
    return {**_JSON_TYPES[argument.kind], **bound}
