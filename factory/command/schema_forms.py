"""The forms of JSON Schemas for editors: templates instead of values, choices that are told apart, shared parts.

Knows JSON Schema and nothing of pipelines. A choice is told apart by `if` and `then` where that is possible: a mistake
in the chosen alternative is then marked where it is, and not at the value that has to be one of several.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

Schema: TypeAlias = dict[str, Any]

TEMPLATE = "template"
"""The name of the definition of a text with a template in it."""
TEMPLATE_SCHEMA: Schema = {"type": "string", "pattern": r"\{\{"}
_SHARED = 60
"""The length in characters from which a part that is there twice is written once and referred to."""
_MAPPINGS = ("properties", "patternProperties")
_LISTS = ("anyOf", "allOf")
_SINGLE = ("items", "additionalProperties", "if", "then", "else", "not")


def reference(name: str) -> Schema:
    """Return a reference to a definition."""
    return {"$ref": f"#/$defs/{name}"}


def or_template(schema: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """Return `schema` with a template allowed instead of it, and instead of every value inside it."""
    inside = templates_inside(schema, definitions)
    limited = {"pattern", "format", "enum", "maxLength"} & set(inside)
    if inside == {} or ("string" in _listed(inside.get("type", [])) and not limited):
        return inside
    told = {key: inside.pop(key) for key in ("description",) if key in inside}
    return {**told, "if": reference(TEMPLATE), "else": inside}


def templates_inside(schema: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """Return `schema` with templates allowed instead of the values inside it, but not instead of itself."""
    inside = {key: one for key, one in schema.items() if key not in ("title", "default", "discriminator")}
    for named in _among(_MAPPINGS, schema):
        inside[named] = {name: or_template(one, definitions) for name, one in schema[named].items()}
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            inside[name] = or_template(schema[name], definitions)
    if "patternProperties" in schema:
        inside.setdefault("additionalProperties", False)
    options = inside.pop("anyOf", None) or inside.pop("oneOf", None)
    if options is None:
        return inside
    return inside | one_of([templates_inside(one, definitions) for one in options], definitions)


def one_of(options: list[Schema], definitions: Mapping[str, Schema]) -> Schema:
    """Return the schema of a value that is one of `options`, told apart by its type, then by its keys."""
    objects = [one for one in options if _type_of(one, definitions) == "object"]
    lists = [one for one in options if _type_of(one, definitions) == "array"]
    scalars = [one for one in options if one not in objects and one not in lists]
    schema = _scalars(scalars) if scalars else None
    for name, group in (("array", lists), ("object", objects)):
        if group:
            told = _told_by_keys(group, definitions) if name == "object" else _any(group)
            schema = told if schema is None else _chosen(name, told, schema)
    return schema or {}


def _type_of(schema: Schema, definitions: Mapping[str, Schema]) -> str | None:
    kind = _resolved(schema, definitions).get("type")
    return kind if isinstance(kind, str) else None


def _chosen(kind: str, then: Schema, otherwise: Schema) -> Schema:
    """Return the schema of what is `then` if it has the type `kind`, and else `otherwise`."""
    if set(otherwise) == {"type"} and then.get("type") == kind:  # its other words are about values of its type alone
        return {**then, "type": [kind, *_listed(otherwise["type"])]}
    if otherwise == {"type": "null"}:
        return {"if": otherwise, "else": then}
    return {"if": {"type": kind}, "then": then, "else": otherwise}


def _listed(types: str | list[str]) -> list[str]:
    return [types] if isinstance(types, str) else types


def _any(options: list[Schema]) -> Schema:
    return options[0] if len(options) == 1 else {"anyOf": options}


def _scalars(options: list[Schema]) -> Schema:
    """Return the schema of a text, a number, a boolean or null; an option that another one includes is left out."""
    plain = [kind for one in options if set(one) == {"type"} for kind in _listed(one["type"])]
    types = [kind for kind in dict.fromkeys(plain) if not (kind == "integer" and "number" in plain)]
    special = [one for one in options if set(one) != {"type"} and one.get("type") not in types]
    if not special:
        return {"type": types[0] if len(types) == 1 else types}
    kind = special[0].get("type")
    if len(special) == 1 and "enum" in special[0] and types in ([], ["null"]):
        return {"enum": [*special[0]["enum"], *(None for _ in types)]}
    limits_all = bool({"enum", "const"} & set(special[0])) or {kind, *types} >= {"integer", "number"}
    if len(special) == 1 and isinstance(kind, str) and not limits_all:
        return {**special[0], "type": [kind, *types] if types else kind}
    return _any([*special, *({"type": one} for one in types)])


def _told_by_keys(options: list[Schema], definitions: Mapping[str, Schema]) -> Schema:
    """Return the schema of a mapping that is one of `options`, told apart by a required key that no other has."""
    if len(options) == 1:
        return options[0]
    signs = [_sign(one, [other for other in options if other is not one], definitions) for one in options]
    if not all(signs):
        return {"anyOf": options}
    told: Schema = {"anyOf": options}
    for sign, option in reversed(list(zip(signs, options, strict=True))):
        told = {"if": {"required": [sign]}, "then": option, "else": told}
    return told


def _sign(option: Schema, others: list[Schema], definitions: Mapping[str, Schema]) -> str | None:
    taken = {name for other in others for name in _resolved(other, definitions).get("properties", {})}
    return next((name for name in _resolved(option, definitions).get("required", ()) if name not in taken), None)


def _resolved(schema: Schema, definitions: Mapping[str, Schema]) -> Schema:
    return definitions.get(schema["$ref"].rpartition("/")[2], {}) if "$ref" in schema else schema


# --- size --------------------------------------------------------------------------------------------------------


def shared(schema: Schema) -> Schema:
    """Return a schema of the same meaning: a long part that is there twice is a definition, and each one is used."""
    given = schema.get("$defs", {})
    counted: Counter[str] = Counter()
    for part in _parts(schema):
        counted.update({_text(part), _text(_bare(part))})
    names = _Names(set(given), {_text(one): name for name, one in given.items()})
    sharing = _Sharing(counted, names)
    for name, one in given.items():
        sharing.definitions[name] = sharing.below(one)
    root = sharing.below({key: one for key, one in schema.items() if key != "$defs"})
    used = _reached(root, sharing.definitions)
    return {**root, "$defs": {name: one for name, one in sorted(sharing.definitions.items()) if name in used}}


def _reached(root: Schema, definitions: Mapping[str, Schema]) -> set[str]:
    reached: set[str] = set()
    waiting = [root]
    while waiting:
        named = {part["$ref"].rpartition("/")[2] for part in _parts({"not": waiting.pop()}) if "$ref" in part}
        waiting += [definitions[name] for name in named - reached]
        reached |= named
    return reached


class _Names:
    """Names of definitions, by the text of what they define."""

    def __init__(self, taken: set[str], known: dict[str, str]) -> None:
        self._taken = taken
        self._known = known

    def of(self, text: str, wish: str) -> str:
        if text not in self._known:
            wish = wish or "values"
            numbered = (wish if number == 1 else f"{wish}_{number}" for number in range(1, 10_000))
            self._known[text] = next(name for name in numbered if name not in self._taken)
            self._taken.add(self._known[text])
        return self._known[text]


class _Sharing:
    def __init__(self, counted: Counter[str], names: _Names) -> None:
        self._counted = counted
        self._names = names
        self.definitions: dict[str, Schema] = {}

    def part(self, schema: Schema, wish: str) -> Schema:
        """Return a reference to `schema`, or to what it is without its description, if that is shared."""
        if self.is_shared(schema):
            return self.definition(schema, wish)
        return self.undescribed(schema, wish) or self.below(schema, wish)

    def undescribed(self, schema: Schema, wish: str) -> Schema | None:
        bare = _bare(schema)
        if bare == schema or not self.is_shared(bare):
            return None
        return {"description": schema["description"], **self.definition(bare, wish)}

    def is_shared(self, schema: Schema) -> bool:
        text = _text(schema)
        return len(text) >= _SHARED and self._counted[text] > 1

    def definition(self, schema: Schema, wish: str) -> Schema:
        name = self._names.of(_text(schema), wish)
        if name not in self.definitions:
            self.definitions[name] = {}
            self.definitions[name] = self.undescribed(schema, wish) or self.below(schema, wish)
        return reference(name)

    def below(self, schema: Schema, wish: str = "") -> Schema:
        changed = dict(schema)
        for key in _among(_MAPPINGS, schema):
            wishes = {name: name if key == "properties" else wish for name in schema[key]}
            changed[key] = {
                name: self.part(one, wishes[name]) if _is_part(one) else one for name, one in schema[key].items()
            }
        for key in _among(_LISTS, schema):
            changed[key] = [self.part(one, wish) for one in schema[key]]
        for key in _among(_SINGLE, schema):
            if _is_part(schema[key]):
                changed[key] = self.part(schema[key], wish)
        return changed


def _is_part(schema: object) -> bool:
    return isinstance(schema, dict) and "$ref" not in schema


def _parts(schema: Schema) -> Iterator[Schema]:
    """Yield every schema inside of `schema`."""
    for key, one in schema.items():
        if key in (*_MAPPINGS, "$defs"):
            inside = list(one.values())
        else:
            inside = one if key in _LISTS else [one] if key in _SINGLE else []
        for part in inside:
            if isinstance(part, dict):
                yield part
                yield from _parts(part)


def _among(words: tuple[str, ...], schema: Schema) -> list[str]:
    return [word for word in words if word in schema]


def _bare(schema: Schema) -> Schema:
    return {key: one for key, one in schema.items() if key != "description"}


def _text(schema: Schema) -> str:
    return json.dumps(schema, sort_keys=True, separators=(",", ":"))
