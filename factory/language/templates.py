"""Texts with `{{ … }}`: how they are read, and which names they may use.

This module only reads Jinja's syntax tree; it renders nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from jinja2 import Environment, TemplateSyntaxError, nodes
from jinja2.meta import find_undeclared_variables

from factory.language.document import Value

AIRFLOW_NAMES = frozenset({"ds", "ds_nodash", "run_id", "ts", "ts_nodash", "ts_nodash_with_tz"})
"""The Airflow names that a template may use: those whose values are texts.

The others are objects or modules, whose attributes lead to all of Python.
"""

CLOSED_NAMES: Mapping[str, str] = {
    "conn": "name the connection in `with`",
    "dag": "write {{ run.dag_id }}",
    "dag_run": "write {{ run.run_id }}; declare a param for each value that a trigger passes",
    "data_interval_end": "write {{ run.interval_end }}",
    "data_interval_start": "write {{ run.interval_start }}",
    "logical_date": "write {{ run.date }}",
    "macros": "compute in SQL, or from {{ run.date }}",
    "task": "write {{ run.task_id }}",
    "task_instance": "write {{ run.task_id }}, {{ run.try_number }} or {{ steps.name.field }}",
    "ti": "write {{ run.task_id }}, {{ run.try_number }} or {{ steps.name.field }}",
    "var": "declare a param, or set a default in configs/",
}
"""The Airflow names that templates cannot use, each with what to write instead."""

RUN_FIELDS: Mapping[str, Value] = {
    "date": "2026-01-31",
    "dag_id": "text",
    "run_id": "text",
    "task_id": "text",
    "try_number": 1,
    "interval_start": "2026-01-30T00:00:00Z",
    "interval_end": "2026-01-31T00:00:00Z",
}
"""The fields of `run`, each with a value of its type."""


Chain: TypeAlias = tuple[str, ...]
"""A dotted name as it is written, such as ("steps", "train", "auc")."""


@dataclass(frozen=True, slots=True)
class Template:
    """A text that the worker renders.

    `tasks` pairs each step that the text names, as written, with its task_id. With `sql`, values become SQL literals.
    """

    text: str
    sql: bool = False
    tasks: tuple[tuple[Chain, str], ...] = ()


class TemplateProblem(Exception):
    """A template that cannot be read; `needle` is the part of its text at fault, `hint` how to fix it."""

    def __init__(self, message: str, hint: str | None = None, needle: str = "") -> None:
        super().__init__(message)
        self.hint = hint
        self.needle = needle


class QuotedTemplate(TemplateProblem):
    """A template in quotes inside SQL."""


def is_template(value: object) -> bool:
    """Return whether `value` is a text that Jinja would change."""
    return isinstance(value, str) and ("{{" in value or "{%" in value or "{#" in value)


@lru_cache(maxsize=16384)
def _parsed(text: str) -> nodes.Template:
    return Environment(autoescape=False).parse(text)  # noqa: S701  # only the syntax tree is read


def syntax_tree(text: str) -> nodes.Template:
    """Return the syntax tree of `text`; raise TemplateProblem if Jinja cannot read it."""
    try:
        return _parsed(text)
    except TemplateSyntaxError as error:
        raise TemplateProblem(
            f"the template cannot be read: {(error.message or '').rstrip('.')}", "compare it with {{ params.name }}"
        ) from None


def whole_expression(text: str) -> nodes.Expr | None:
    """Return the expression of a text that is a single `{{ … }}`, else None."""
    if not text.startswith("{{") or not text.endswith("}}"):
        return None
    body = syntax_tree(text).body
    if len(body) == 1 and isinstance(body[0], nodes.Output) and len(body[0].nodes) == 1:
        only = body[0].nodes[0]
        return None if isinstance(only, nodes.TemplateData) else only
    return None


@dataclass(frozen=True, slots=True)
class Mentions:
    """The names in a text: dotted names that begin with `params`, `steps` or `run`, and all other names."""

    chains: tuple[Chain, ...]
    names: frozenset[str]


@lru_cache(maxsize=16384)
def mentions(text: str) -> Mentions:
    """Return the names in `text`; names defined in the text itself do not count."""
    tree = syntax_tree(text)
    named = list(_named(tree))
    chains = tuple(chain for chain in named if isinstance(chain, tuple))
    names = {name for name in named if isinstance(name, str)}
    if not all(isinstance(node, nodes.Output) for node in tree.body):
        names = find_undeclared_variables(tree)  # blocks can define names; this function knows their scopes
    return Mentions(chains, frozenset(names - {"params", "steps", "run"}))


def _named(node: nodes.Node) -> Iterator[Chain | str]:
    """Yield the names in `node`: dotted names, and all other names."""
    if chain := chain_of(node):
        yield chain
        return
    if isinstance(node, nodes.Name):
        yield node.name
    for child in node.iter_child_nodes():
        yield from _named(child)


def chain_of(node: nodes.Node) -> Chain | None:
    """Return the dotted name that `node` is, or None."""
    if isinstance(node, nodes.Name):
        return (node.name,) if node.name in ("params", "steps", "run") else None
    name = _attribute(node)
    inner = chain_of(node.node) if name is not None and isinstance(node, nodes.Getattr | nodes.Getitem) else None
    return (*inner, name) if inner and name is not None else None


def _attribute(node: nodes.Node) -> str | None:
    if isinstance(node, nodes.Getattr):
        return node.attr
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str):
        return node.arg.value
    return None


def unknown_names(text: str) -> list[str]:
    """Return the names in `text` that templates do not know, sorted."""
    return sorted(mentions(text).names - AIRFLOW_NAMES)


def sql_skeleton(text: str) -> str | None:
    """Return `text` with NULL for each value, or None if it has blocks; raise QuotedTemplate for a quoted value."""
    pieces: list[str] = []
    for node in syntax_tree(text).body:
        if not isinstance(node, nodes.Output):
            return None
        for part in node.nodes:
            if isinstance(part, nodes.TemplateData):
                pieces.append(part.data)
                continue
            if "".join(pieces).count("'") % 2:
                raise QuotedTemplate(
                    "the template is in quotes, but its value is inserted as a quoted literal",
                    "remove the quotes around {{ … }}",
                )
            pieces.append("NULL")
    return "".join(pieces)
