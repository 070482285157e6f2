"""What is wrong with an expression whose parts do not fit together, and the nearest right way to write it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from factory.language.errors import Hint, did_you_mean
from factory.language.expressions import Call, Literal, Method, Node, Operation, Path
from factory.language.functions import FUNCTIONS, Function
from factory.language.tokens import TemplateProblem
from factory.language.value_types import (
    DATE,
    DATETIME,
    INTEGER,
    NULL,
    NUMBER,
    TEXT,
    Types,
    ValueType,
    field_names,
    shown,
)

_DAYS, _NUMBERS = (DATE, DATETIME), (INTEGER, NUMBER)
_COMPARISONS = frozenset({"==", "!=", "<", "<=", ">", ">="})


class UnknownName(TemplateProblem):
    """A name that the language does not have."""

    code = "unknown-name"


class UnknownField(TemplateProblem):
    """A field that a value does not have."""

    code = "unknown-field"


def source(node: Node, text: str) -> str:
    """Return an expression as it is written."""
    return text[node.start : node.end]


def _operand(node: Node, text: str) -> str:
    """Return an expression as it is written before a `|`."""
    return f"({source(node, text)})" if isinstance(node, Operation) else source(node, text)


def operation_misfit(node: Operation, types: Types, text: str) -> TemplateProblem:
    """Return the problem of an operator between values that it does not take."""
    span = (node.start, node.end)
    if NULL in types and node.operator not in ("==", "!="):
        return _may_be_null(node.operands[types.index(NULL)], text)
    if len(types) == 1:
        message = f"{node.operator} takes {'a boolean' if node.operator == 'not' else 'a number'}, not {shown(types)}"
        hint = _as_boolean(node.operands[0], types[0], text) if node.operator == "not" else None
        return TemplateProblem(message, hint, span)
    verb = "compared" if node.operator in (*_COMPARISONS, "in", "not in") else "combined"
    message = f"{shown(types[:1])} and {shown(types[1:])} cannot be {verb} with {node.operator}"
    return TemplateProblem(message, _hint(node, types, text), span)


def _hint(node: Operation, types: Types, text: str) -> str | None:
    if node.operator in ("and", "or"):
        wrong = 0 if types[0].name != "boolean" else 1
        instead = f"; or, for a value in place of null, {source(node.operands[0], text)} | default(…)"
        compared = _as_boolean(node.operands[wrong], types[wrong], text)
        return compared + instead if node.operator == "or" and wrong == 0 else compared
    if node.operator in ("in", "not in"):
        return "write x in [a, b], or a text in a text; all of one type"
    if node.operator in _COMPARISONS:
        return _comparable(node, types, text)
    if node.operator in ("+", "-") and types[0] in _DAYS:
        return _other_day(node, types, text)
    if node.operator == "~":
        return "join the items of a list with join(', '), and name a field of an object"
    if TEXT in types:
        left, right = (_operand(one, text) for one in node.operands)
        return f"join texts with {left} ~ {right}" if node.operator in ("+", "%") else "read a number with int(…)"
    return "compute with numbers"


def _other_day(node: Operation, types: Types, text: str) -> str:
    left, right = node.operands
    if types[1] in _DAYS:
        return f"write {{{{ days_between({source(right, text)}, {source(left, text)}) }}}}"
    count = source(right, text)
    if node.operator == "-":
        count = f"-{count}" if isinstance(right, Literal | Path) else f"-({count})"
    day = "yesterday" if (source(left, text), count) == ("run.date", "-1") else "another day"
    return f"for {day} write {{{{ {_operand(left, text)} | add_days({count}) }}}}"


def _comparable(node: Operation, types: Types, text: str) -> str:
    if types[0] == types[1]:
        return "numbers, texts and dates have an order" if node.operator not in ("==", "!=") else "compare their fields"
    other = {one: _operand(operand, text) for one, operand in zip(types, node.operands, strict=True)}
    for one, operand in other.items():
        if one in _DAYS and TEXT in types:
            return f"compare texts: {operand} | text"
        if one in _NUMBERS and TEXT in types:
            return f"compare numbers: {other[TEXT]} | int, or texts: {operand} | text"
    if set(types) == set(_DAYS):
        return f"compare texts: {other[DATETIME]} | format('%Y-%m-%d')"
    return "compare values of one type"


def _as_boolean(node: Node, one: ValueType, text: str) -> str:
    written = source(node, text)
    conditions = {
        "text": f"{written} != ''",
        "integer": f"{written} != 0",
        "number": f"{written} != 0",
        "list": f"length({written}) > 0",
    }
    if one.name in conditions:
        return f"compare it: {conditions[one.name]}"
    return f"compare it, for example {written} == …"


def _may_be_null(node: Node, text: str) -> TemplateProblem:
    written = source(node, text)
    hint = f"write {_operand(node, text)} | default(…) with the value to use instead"
    return TemplateProblem(f"{written} may be null", hint, (node.start, node.end))


def choice_misfit(condition: Node, types: Types, text: str) -> TemplateProblem:
    """Return the problem of a condition that is not a boolean."""
    if NULL in types:
        return _may_be_null(condition, text)
    message = f"the condition of a choice is {shown(types)}, not a boolean"
    return TemplateProblem(message, _as_boolean(condition, types[0], text), (condition.start, condition.end))


def call_misfit(node: Call, function: Function, types: Types, text: str) -> TemplateProblem:
    """Return the problem of a function that does not take its values."""
    hint = f"for example {function.example}"
    span = (node.start, node.end)
    counts = sorted({len(one.takes) for one in function.signatures})
    if len(types) not in counts:
        few = " or ".join(map(str, counts))
        message = f"{node.name} takes {few} value{'' if few == '1' else 's'}, not {len(types)}"
        return TemplateProblem(message, hint, span)
    if NULL in types:
        return _may_be_null(node.arguments[types.index(NULL)], text)
    signatures = " or ".join(f"({', '.join(one.takes)})" for one in function.signatures)
    message = f"{node.name} does not take ({', '.join(shown((one,)) for one in types)})"
    return TemplateProblem(message, f"it takes {signatures}: {hint}", span)


OTHER_WORDS: Mapping[str, str] = {
    "capitalize": "upper", "count": "length", "d": "default", "endswith": "a text in a text", "float": "number",
    "get": "params.name", "isoformat": "text", "len": "length", "startswith": "a text in a text", "str": "text",
    "strftime": "format", "string": "text", "strip": "trim", "title": "upper", "tojson": "text",
    "ds": "format('%Y-%m-%d')", "ds_nodash": "format('%Y%m%d')", "ts": "text",
    "ts_nodash": "format('%Y%m%dT%H%M%S')", "ts_nodash_with_tz": "format('%Y%m%dT%H%M%S%z')",
}  # fmt: skip
"""What Jinja, Python and Airflow call it, and what it is here."""


def unknown_function(node: Call, text: str) -> TemplateProblem:
    """Return the problem of a function that does not exist."""
    instead = OTHER_WORDS.get(node.name)
    hint: Hint
    if instead and node.arguments and instead.partition("(")[0] in FUNCTIONS:
        hint = f"write {_operand(node.arguments[0], text)} | {instead}"
    else:
        hint = f"write {instead}" if instead else partial(did_you_mean, node.name, FUNCTIONS, "functions")
    return UnknownName(f'there is no function "{node.name}"', hint, node.name_at)


def method_problem(node: Method, text: str) -> TemplateProblem:
    """Return the problem of a method: values have none."""
    arguments = [source(one, text) for one in node.arguments]
    hint = _function_instead(node.name, _operand(node.value, text), arguments)
    if node.name == "format" and isinstance(node.value, Literal):
        hint = "join texts with ~"
    return TemplateProblem(f'a value has no methods, such as "{node.name}"', hint, (node.start, node.end))


def _function_instead(name: str, written: str, arguments: list[str]) -> Hint:
    function = OTHER_WORDS.get(name, name)
    if function not in FUNCTIONS:
        return f"write {function}" if name in OTHER_WORDS else partial(did_you_mean, name, FUNCTIONS, "functions")
    if function == "join" and len(arguments) == 1:
        written, arguments = arguments[0], [written]
    return f"write {written} | {function}" + (f"({', '.join(arguments)})" if arguments else "")


def missing_part(whole: str, part: str | int, types: Types, span: tuple[int, int]) -> TemplateProblem:
    """Return the problem of a field or an item that `whole`, as it is written, does not have."""
    if isinstance(part, int):
        return UnknownField(f"[{part}] is the item of a list, but {whole} is {shown(types)}", None, span)
    message = f'{shown(types)} has no field "{part}"'
    if part in FUNCTIONS or part in OTHER_WORDS:
        return UnknownField(message, _function_instead(part, whole, []), span)
    known = field_names(types)
    hint = partial(did_you_mean, part, known, "fields") if known else f"write {whole} alone"
    return UnknownField(message, hint, span)
