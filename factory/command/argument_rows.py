"""The arguments of a task as rows: one for each field, however deep, with its type, its default and its meaning."""

from __future__ import annotations

import json
import re
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pydantic import BaseModel

from factory.command.attribute_docs import field_doc, type_doc
from factory.registry import TaskDefinition

Schema = Mapping[str, Any]


class Row(NamedTuple):
    """An argument, or a field inside of one: `*` stands for any key of a mapping, `[]` for each item of a list."""

    path: str
    type: str
    default: str = ""
    """As JSON; "required" if there is none."""
    meaning: str = ""


class Note(NamedTuple):
    """What is said of a mapping besides its first line."""

    path: str
    text: str


def argument_rows(definition: TaskDefinition) -> tuple[list[Row], list[Note]]:
    """Return the rows of what a step sets below `with`, and what is said of its mappings besides."""
    schema = definition.arguments.model_json_schema()
    walk = _Walk(schema.get("$defs", {}), models_in(definition.arguments))
    required = set(schema.get("required", ()))
    rows: list[Row] = []
    for name, one in schema.get("properties", {}).items():
        default = "required" if name in required else json.dumps(one.get("default"), ensure_ascii=False)
        said = meaning(definition.function, name, definition.description)
        if name in definition.suites:
            rows.append(Row(name, "the name of a suite", default, said))
        elif name in definition.locations:
            rows.append(Row(name, "the name of a place in `configs/`", default, said))
        else:
            rows += walk.rows(name, one, default, said)
    return rows, walk.notes


def output_rows(definition: TaskDefinition) -> list[Row]:
    """Return the rows of what other steps can refer to."""
    schema = definition.output_schema
    definitions = schema.get("$defs", {})
    return [
        Row(name, type_name(one, definitions), "", meaning(definition.output, name, ""))
        for name, one in schema.get("properties", {}).items()
    ]


@dataclass
class _Walk:
    definitions: Schema
    models: Mapping[str, type[BaseModel]]
    notes: list[Note] = field(default_factory=list)
    shown: dict[str, str] = field(default_factory=dict)
    """Where the fields of each model are, by its name."""

    def rows(self, path: str, schema: Schema, default: str, said: str) -> Iterator[Row]:
        """Yield the row of one field, and those of the fields inside of it."""
        inside = list(self.inside(path, schema))
        names = [name for _, name in inside]
        if len(names) == 1:
            said = said or self.summary(names[0])
        if names and all(name in self.shown for name in names):
            said = f"{said} Its fields are those of `{self.shown[names[0]]}`.".strip()
            inside = []
        yield Row(path, type_name(schema, self.definitions), default, said)
        for where, name in inside:
            if len(inside) > 1:
                yield Row(f"{where} with {self.sign(name, names)}", "mapping", "", self.summary(name))
            yield from self.fields(where, name)

    def fields(self, path: str, name: str) -> Iterator[Row]:
        self.shown[name] = path
        model, schema = self.models.get(name), self.definitions[name]
        text = doc_of(model)
        if rest := text.partition("\n\n")[2]:
            self.notes.append(Note(path, rest))
        for one, inner in schema.get("properties", {}).items():
            default = "required" if one in schema.get("required", ()) else _default(model, one, inner)
            yield from self.rows(f"{path}.{one}", inner, default, meaning(model, one, text))

    def inside(self, path: str, schema: Schema) -> Iterator[tuple[str, str]]:
        """Yield the models inside of a field, with their paths."""
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            if self.definitions.get(name, {}).get("properties"):
                yield path, name
        for option in schema.get("anyOf") or schema.get("oneOf") or ():
            yield from self.inside(path, option)
        if isinstance(schema.get("items"), dict):
            yield from self.inside(f"{path}[]", schema["items"])
        for inner in _values(schema):
            yield from self.inside(f"{path}.*", inner)

    def summary(self, name: str) -> str:
        return doc_of(self.models.get(name)).partition("\n\n")[0]

    def sign(self, name: str, names: list[str]) -> str:
        """Return the key that only this one of several models requires."""
        others = {key for other in names if other != name for key in self.definitions[other].get("properties", {})}
        keys = self.definitions[name].get("required") or self.definitions[name]["properties"]
        return str(next((key for key in keys if key not in others), next(iter(keys))))


def _values(schema: Schema) -> list[Schema]:
    named = list(schema.get("patternProperties", {}).values())
    return [*named, schema["additionalProperties"]] if isinstance(schema.get("additionalProperties"), dict) else named


def models_in(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """Return every model inside of `model`, by its name."""
    models: dict[str, type[BaseModel]] = {}
    waiting: list[object] = [one.annotation for one in model.model_fields.values()]
    while waiting:
        annotation = waiting.pop()
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            if models.setdefault(annotation.__name__, annotation) is annotation:
                waiting += [
                    one.annotation for one in annotation.model_fields.values() if one.annotation not in models.values()
                ]
        else:
            waiting += typing.get_args(annotation)
    return models


def doc_of(model: type[BaseModel] | None) -> str:
    """Return the docstring of a model."""
    return (model.__doc__ or "").strip().replace("\n    ", "\n") if model else ""


def _default(model: type[BaseModel] | None, name: str, schema: Schema) -> str:
    if "default" in schema or model is None:
        return json.dumps(schema.get("default"), ensure_ascii=False)
    return json.dumps(model.model_fields[name].get_default(call_default_factory=True), ensure_ascii=False, default=str)


def meaning(owner: object, name: str, text: str) -> str:
    """Return what is said of a field: below it, in a sentence of the docstring `text`, or below its type."""
    said = field_doc(owner, name)
    begins, names = _sentences(text, name) if not said else ("", "")
    of_type = type_doc(owner, name) if not (said or begins) else ""
    if of_type and (len(names) > _LONG or text.startswith(names)):  # the first line is about the whole
        names = ""
    return _INTERNAL.sub("", " ".join((said or begins or names or of_type).split()))


_INTERNAL = re.compile(r" \(`tasks\.[a-z_.]+`\)")
"""Where the code is: nothing to whoever writes a spec."""
_LONG = 250
_SENTENCE = re.compile(r"(?<=[.;])\s+(?=[A-Z`])|\n\n")


def _sentences(text: str, name: str) -> tuple[str, str]:
    """Return the sentence of a docstring that begins with the name of a field, and the first one that has it."""
    begins = re.compile(rf"((An?|The|With|Each of|Of) )?`{re.escape(name)}\b[^`]*`")
    holds = re.compile(rf"`{re.escape(name)}(: [^`]*)?`")
    sentences = [re.sub(r"[;:]$", ".", one.strip()) for one in _SENTENCE.split(text)]
    return (
        next((one for one in sentences if begins.match(one)), ""),
        next((one for one in sentences if holds.search(one)), ""),
    )


# --- types -------------------------------------------------------------------------------------------------------


def type_name(schema: Schema, definitions: Schema) -> str:
    """Return a type in a few words: that of a mapping's fields is said in rows of their own."""
    if "$ref" in schema:
        return type_name(definitions.get(schema["$ref"].rpartition("/")[2], {}), definitions)
    if options := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(dict.fromkeys(type_name(one, definitions) for one in options))
    if "enum" in schema or "const" in schema:
        return " or ".join(
            f"`{json.dumps(one, ensure_ascii=False)}`" for one in schema.get("enum", [schema.get("const")])
        )
    if schema.get("type") == "array":
        return f"list of {_plural(type_name(schema.get('items', {}), definitions))}"
    if schema.get("type") == "object":
        inner = [] if schema.get("properties") else [type_name(one, definitions) for one in _values(schema)]
        return f"mapping to {_plural(inner[0])}" if inner else "mapping"
    name = _NAMES.get(schema.get("format", ""), _NAMES.get(schema.get("type", ""), schema.get("type", "any")))
    return f"{name}{_bounds(schema)}"


_NAMES = {"string": "text", "date": "date", "date-time": "time"}


def _plural(name: str) -> str:
    plural = {"text": "texts", "integer": "integers", "number": "numbers", "mapping": "mappings"}.get(name, name)
    return f"({plural})" if " or " in plural else plural


def _bounds(schema: Schema) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return "".join(f" {sign} {schema[name]:,g}" for name, sign in signs.items() if name in schema)
