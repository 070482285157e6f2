"""Expressions, evaluated: once with types, by lint, and once with values, by the worker.

Both follow the tables of `functions`. Values are plain: no attribute or method of one is ever looked up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from factory.language.expressions import Call, Choice, Items, Literal, Node, Operation, Part, Path, children
from factory.language.functions import DEFAULT, FUNCTIONS, OPERATORS, SIGNS, ComputationError, Operator, limited
from factory.language.remedies import (
    call_misfit,
    choice_misfit,
    method_problem,
    missing_part,
    operation_misfit,
    source,
    unknown_function,
)
from factory.language.tokens import TemplateProblem
from factory.language.value_types import (
    ANYTHING,
    BOOLEAN,
    NULL,
    Misfit,
    Types,
    list_of,
    part_types,
    result_types,
    types_of,
    union,
)


class Absent(ComputationError):
    """A value does not exist in this run: its step was skipped or has not run."""


class CannotCompute(TemplateProblem):
    """An expression has no value: `always`, or only with these values; `absent` if what it names does not exist."""

    def __init__(self, error: ComputationError, span: tuple[int, int]) -> None:
        super().__init__(str(error), error.hint or None, span)
        self.always = error.always
        self.absent = isinstance(error, Absent)


def paths(node: Node) -> list[Path]:
    """Return every path in an expression, in the order of the text."""
    if isinstance(node, Path):
        return [node]
    return [path for child in children(node) for path in paths(child)]


# --- types ------------------------------------------------------------------------------------------------------------


def expression_types(node: Node, look_up: Callable[[Path], Types], text: str) -> Types:
    """Return the types that an expression may have; raise TemplateProblem if its parts do not fit together."""

    def types(one: Node) -> Types:
        return expression_types(one, look_up, text)

    if isinstance(node, Literal):
        return types_of(node.value)
    if isinstance(node, Path):
        return look_up(node)
    if isinstance(node, Items):
        return (list_of(union(kind for item in node.items for kind in types(item))),)
    if isinstance(node, Choice):
        _require_boolean(node, types(node.condition), text)
        return union((*types(node.then), *types(node.otherwise)))
    if isinstance(node, Operation):
        return _operation_types(node, [types(one) for one in node.operands], text)
    if isinstance(node, Call):
        return _call_types(node, [types(one) for one in node.arguments], text)
    if isinstance(node, Part):
        return _part_types(node, types(node.value), text)
    types(node.value)
    raise method_problem(node, text)


def _require_boolean(node: Choice, given: Types, text: str) -> None:
    wrong = tuple(one for one in given if one not in (BOOLEAN, ANYTHING))
    if wrong:
        raise choice_misfit(node.condition, wrong, text)


def _operator(node: Operation) -> Operator:
    return SIGNS[node.operator] if len(node.operands) == 1 and node.operator in SIGNS else OPERATORS[node.operator]


def _operation_types(node: Operation, given: Sequence[Types], text: str) -> Types:
    try:
        return result_types(_operator(node).signatures, given)
    except Misfit as misfit:
        raise operation_misfit(node, misfit.types, text) from None


def _call_types(node: Call, given: Sequence[Types], text: str) -> Types:
    function = FUNCTIONS.get(node.name)
    if function is None:
        raise unknown_function(node, text)
    if node.name == DEFAULT and len(given) == 2:
        return union((*(one for one in given[0] if one is not NULL), *given[1]))
    try:
        return result_types(function.signatures, given)
    except Misfit as misfit:
        raise call_misfit(node, function, misfit.types, text) from None


def _part_types(node: Part, given: Types, text: str) -> Types:
    found = part_types(given, node.part)
    if found is None:
        raise missing_part(source(node.value, text), node.part, given, (node.start, node.end))
    return found


# --- values -----------------------------------------------------------------------------------------------------------


def expression_value(node: Node, look_up: Callable[[Path], object], text: str) -> object:
    """Return the value of an expression; raise TemplateProblem if its parts do not fit or it cannot be computed."""
    try:
        return limited(_value(node, look_up, text))
    except ComputationError as error:
        raise CannotCompute(error, (node.start, node.end)) from None


def _value(node: Node, look_up: Callable[[Path], object], text: str) -> object:
    def value(one: Node) -> object:
        return expression_value(one, look_up, text)

    if isinstance(node, Literal):
        return node.value
    if isinstance(node, Path):
        return look_up(node)
    if isinstance(node, Items):
        return [value(one) for one in node.items]
    if isinstance(node, Choice):
        condition = value(node.condition)
        _require_boolean(node, types_of(condition), text)
        return value(node.then if condition else node.otherwise)
    if isinstance(node, Operation):
        return _operation_value(node, value, text)
    if isinstance(node, Call):
        return _call_value(node, value, text)
    if isinstance(node, Part):
        whole = value(node.value)
        _part_types(node, types_of(whole), text)
        return part_of(whole, node.part)
    raise method_problem(node, text)


def _operation_value(node: Operation, value: Callable[[Node], object], text: str) -> object:
    values = [value(node.operands[0])]
    if node.operator in _STOPS and values[0] is _STOPS[node.operator]:
        return values[0]
    values += [value(one) for one in node.operands[1:]]
    _operation_types(node, [types_of(one) for one in values], text)
    return _operator(node).apply(*values)


_STOPS: Mapping[str, bool] = {"or": True, "and": False}
"""The first value after which the second is not looked at."""


def _call_value(node: Call, value: Callable[[Node], object], text: str) -> object:
    if node.name == DEFAULT and len(node.arguments) == 2:
        return _or_default(node, value)
    values = [value(one) for one in node.arguments]
    _call_types(node, [types_of(one) for one in values], text)
    return FUNCTIONS[node.name].apply(*values)


def _or_default(node: Call, value: Callable[[Node], object]) -> object:
    try:
        found = value(node.arguments[0])
    except CannotCompute as problem:
        if not problem.absent:
            raise
        found = None
    return value(node.arguments[1]) if found is None else found


def part_of(whole: object, part: str | int) -> object:
    """Return a field or an item of a value; a part of null is null."""
    if whole is None:
        return None
    if isinstance(part, int) and isinstance(whole, list):
        if not -len(whole) <= part < len(whole):
            raise ComputationError(f"the list has no item [{part}]: it has {len(whole)}")
        return whole[part]
    if isinstance(part, str) and isinstance(whole, Mapping):
        if part not in whole:
            known = ", ".join(map(str, list(whole)[:10])) or "nothing"
            raise ComputationError(f'there is no "{part}" in it; it has {known}')
        return whole[part]
    raise ComputationError(f'a value of this type has no part "{part}"')
