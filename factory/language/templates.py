"""Texts with `{{ … }}`: the pieces that they are made of, and how a worker fills them in.

A text has expressions and nothing else: no blocks, no comments. What it is filled with is never read again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

from factory.language.evaluation import CannotCompute, expression_value
from factory.language.expressions import Node, Path, parse
from factory.language.functions import MAX_SIZE, ComputationError, written
from factory.language.tokens import TemplateProblem
from factory.language.value_types import DATE, DATETIME, INTEGER, NULL, TEXT, WRITTEN, Types, shown, types_of

RUN_FIELDS: dict[str, Types] = {
    "date": (DATE,),
    "logical_date": (DATETIME,),
    "interval_start": (DATETIME,),
    "interval_end": (DATETIME,),
    "dag_id": (TEXT,),
    "run_id": (TEXT,),
    "task_id": (TEXT,),
    "try_number": (INTEGER,),
}
"""The fields of `run`."""
ROOTS = ("each", "params", "run", "steps", "variables")
"""The names that a path may begin with."""

Chain: TypeAlias = tuple[str, ...]
"""A dotted name as it is written, such as ("steps", "train", "auc")."""


SqlForm: TypeAlias = Literal["", "sql", "query"]
"""What SQL a text is, if any."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A `{{ … }}` in a text; the positions are those of its braces."""

    start: int
    end: int
    node: Node


Piece: TypeAlias = str | Expression


@dataclass(frozen=True, slots=True)
class Source:
    """Where a worker gets the value of a dotted name from: `parts` are its first names, the rest are fields of it."""

    parts: Chain
    types: Types
    task_id: str = ""
    """The step whose output it is."""
    is_mapped: bool = False
    """Whether that step is mapped: the value is then a list, with an item for each of its runs."""
    default: object = None
    """The value of a Variable that is not set, if its declaration has one."""
    constant: str = ""
    """The value itself as JSON, of a field of `each`."""


@dataclass(frozen=True, slots=True)
class Template:
    """A text that the worker fills in. In SQL, values become literals."""

    text: str
    sql: SqlForm = ""
    sources: tuple[Source, ...] = ()


_OPENING = re.compile(r"\{[{%#]")


def is_template(value: object) -> bool:
    """Return whether `value` is a text with an expression, or with a block or comment of Jinja's, which is an error."""
    return isinstance(value, str) and _OPENING.search(value) is not None


@lru_cache(maxsize=16384)
def pieces(text: str) -> tuple[Piece, ...]:
    """Return the pieces of `text`: plain texts and expressions; raise TemplateProblem if it cannot be read."""
    return tuple(_pieces(text))


def _pieces(text: str) -> Iterator[Piece]:
    position = 0
    while opening := _OPENING.search(text, position):
        start, opened = opening.span()
        if opening.group() != "{{":
            what = "blocks" if opening.group() == "{%" else "comments"
            signs = f"{{{{ '{opening.group()}' }}}}"
            hint = f"write an expression, {{{{ a if b else c }}}}; for the signs alone, {signs}"
            raise TemplateProblem(f"a template has no {what}", hint, (start, opened))
        if start > position:
            yield text[position:start]
        node, position = parse(text, opened)
        yield Expression(start, position, node)
    if position < len(text):
        yield text[position:]


def whole_expression(text: str) -> Expression | None:
    """Return the expression of a text that is a single `{{ … }}`, else None."""
    if not text.startswith("{{") or not text.endswith("}}"):
        return None
    only, *others = pieces(text)
    return only if isinstance(only, Expression) and not others else None


def sql_pieces(text: str) -> tuple[str, ...]:
    """Return the plain text before, between and after the values of `text`."""
    found = [""]
    for piece in pieces(text):
        if isinstance(piece, str):
            found[-1] += piece
        else:
            found.append("")
    return tuple(found)


def piece_starts(text: str) -> list[int]:
    """Return where each of the pieces that `sql_pieces` gives begins in `text`."""
    return [0, *(piece.end for piece in pieces(text) if isinstance(piece, Expression))]


def check_written(types: Types, expression: Expression, text: str, *, sql: bool) -> None:
    """Raise TemplateProblem if a value of one of these types cannot be put into a longer text, or into SQL."""
    span = (expression.node.start, expression.node.end)
    source = text[slice(*span)]
    wrong = tuple(one for one in types if one.name not in WRITTEN)
    if sql:
        wrong = tuple(one for one in wrong if one.name == "object")
    if any(one is NULL for one in wrong):
        hint = f"write {source} | default('…') with what to put there instead"
        raise TemplateProblem("null cannot be put into a text, and this value may be null", hint, span)
    if wrong:
        hint = f"join its items: {source} | join(', ')" if wrong[0].name == "list" else "name one of its fields"
        raise TemplateProblem(f"{shown(wrong)} cannot be put into {'SQL' if sql else 'a text'}", hint, span)


def constant(source: Source) -> object:
    """Return the value of a field of `each`."""
    return json.loads(source.constant)


def filled(
    template: Template,
    look_up: Callable[[Path], object],
    sql: Mapping[str, Callable[[tuple[str, ...], list[object]], str]],
) -> object:
    """Return the value of `template`; a text that is a single `{{ … }}` keeps the type of its expression.

    `look_up` gives the value of a path; `sql` puts values between the pieces of SQL, by its form.
    """
    text = template.text
    if not template.sql and (whole := whole_expression(text)) is not None:
        return expression_value(whole.node, look_up, text)
    expressions = [piece for piece in pieces(text) if isinstance(piece, Expression)]
    values = [_value(one, template, look_up) for one in expressions]
    if template.sql:
        try:
            return sql[template.sql](sql_pieces(text), values)
        except (TypeError, ValueError) as error:
            raise TemplateProblem(f"the SQL {error}", None, (0, len(text))) from None
    return _joined(text, expressions, values)


def _value(expression: Expression, template: Template, look_up: Callable[[Path], object]) -> object:
    value = expression_value(expression.node, look_up, template.text)
    check_written(types_of(value), expression, template.text, sql=bool(template.sql))
    return value


def _joined(text: str, expressions: list[Expression], values: list[object]) -> str:
    left = iter(zip(expressions, values, strict=True))
    found: list[str] = []
    size = 0
    for piece in pieces(text):
        found.append(piece if isinstance(piece, str) else _written(*next(left)))
        size += len(found[-1])
        if size > MAX_SIZE:
            raise TemplateProblem(f"the text would have more than {MAX_SIZE:,} characters", None, (0, len(text)))
    return "".join(found)


def _written(expression: Expression, value: object) -> str:
    try:
        return written(value)
    except ComputationError as error:
        raise CannotCompute(error, (expression.node.start, expression.node.end)) from None
