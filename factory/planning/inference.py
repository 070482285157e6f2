"""The types that an expression may have, represented by samples: one value for each type.

Knows the types of params, outputs and Jinja's operators; not where a template is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from jinja2 import nodes

from factory.language.document import Value
from factory.language.spec import ParamSpec
from factory.language.templates import Chain, TemplateProblem, chain_of, whole_expression


@dataclass(frozen=True, slots=True)
class Sample:
    """A value that an expression may have; `exact` if it can really occur and does not merely have the right type."""

    value: Value
    exact: bool = False


Samples: TypeAlias = tuple[Sample, ...] | None
"""A value for each type that an expression may have; None if nothing is known about it."""


def param_samples(param: ParamSpec) -> Samples:
    """Return values that the trigger form allows for `param`."""
    schema = param.schema
    values = [param.default] if param.has_default else []
    values += [schema[bound] for bound in ("minimum", "maximum") if isinstance(schema.get(bound), int | float)]
    options = schema.get("enum")
    values += options if isinstance(options, list) else []
    exact = [Sample(value, exact=True) for value in values]
    typical = schema_samples(schema, {}) or ()
    return (*exact, *(typical if not values else ())) or None


def schema_samples(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Samples:
    """Return a value of each type that a JSON Schema allows, or None if it does not say."""
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


def samples_of(text: str, look_up: Callable[[Chain], Samples]) -> Samples:
    """Return values that `text` may render to; `look_up` returns those of a dotted name."""
    expression = whole_expression(text)
    return (Sample("text"),) if expression is None else _Inference(look_up).samples(expression)


@dataclass(frozen=True)
class _Inference:
    """Samples of an expression, from the samples of the names in it."""

    look_up: Callable[[Chain], Samples]

    def samples(self, node: nodes.Node) -> Samples:
        if chain := chain_of(node):
            return self.look_up(chain)
        if isinstance(node, nodes.Const):
            return (Sample(node.value, exact=True),)
        if isinstance(node, nodes.Compare):
            return self.comparison(node)
        if isinstance(node, nodes.Not | nodes.Test):
            return (Sample(value=True),)
        if isinstance(node, nodes.And | nodes.Or):
            return self.either(node.left, node.right)
        if isinstance(node, nodes.CondExpr) and node.expr2 is not None:
            return self.either(node.expr1, node.expr2)
        if isinstance(node, nodes.Concat):
            return (Sample("text"),)
        if isinstance(node, nodes.Filter):
            return self.filtered(node)
        if isinstance(node, nodes.BinExpr):
            return self.arithmetic(node)
        return self.samples(node.node) if isinstance(node, nodes.Neg | nodes.Pos) else None

    def either(self, left: nodes.Node, right: nodes.Node) -> Samples:
        first, second = self.samples(left), self.samples(right)
        return None if first is None or second is None else (*first, *second)

    def filtered(self, node: nodes.Filter) -> Samples:
        if node.name in ("default", "d") and node.node is not None and node.args:
            return self.either(node.node, node.args[0])
        value = _FILTERED.get(node.name)
        return None if value is None else (Sample(value),)

    def comparison(self, node: nodes.Compare) -> Samples:
        """Return a boolean; reject an order between a text and a number, on which the worker would fail."""
        left = self.samples(node.expr)
        for operand in node.ops:
            right = self.samples(operand.expr)
            kinds = {_kind(sample.value) for sample in (*(left or ()), *(right or ()))}
            if operand.op in _ORDERS and {"number", "text"} <= kinds:
                raise TemplateProblem(
                    f"a text or date and a number cannot be compared with {_ORDERS[operand.op]}",
                    "compare numbers with numbers, texts with texts",
                )
            left = right
        return (Sample(value=True),)

    def arithmetic(self, node: nodes.BinExpr) -> Samples:
        left, right = self.samples(node.left), self.samples(node.right)
        if left is None or right is None:
            return None
        kinds = {_kind(sample.value) for sample in (*left, *right)}
        if kinds == {"number", "text"} and not isinstance(node, nodes.Mul | nodes.Mod):
            raise TemplateProblem(
                f"a text or date and a number cannot be combined with {node.operator}",
                "compute with numbers, or write it in SQL",
            )
        if kinds != {"number"}:
            return None
        whole = all(isinstance(sample.value, int) for sample in (*left, *right)) and not isinstance(node, nodes.Div)
        return (Sample(1 if whole else 0.5),)


_ORDERS = {"lt": "<", "lteq": "<=", "gt": ">", "gteq": ">="}
"""The comparisons that need an order, by Jinja's names."""

_FILTERED: Mapping[str, Value] = {
    "int": 1, "float": 0.5, "length": 1, "count": 1, "abs": 1, "string": "text", "upper": "text", "lower": "text",
    "trim": "text", "title": "text", "capitalize": "text", "replace": "text", "join": "text", "tojson": "text",
    "ds": "text", "ds_nodash": "text", "ts": "text", "ts_nodash": "text",
}  # fmt: skip


def _kind(value: Value) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "number"
    return "text" if isinstance(value, str) else "other"
