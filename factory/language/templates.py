"""Texts with `{{ … }}`: what they refer to, which types their value may have, and how a worker renders them.

Before a run only Jinja's syntax tree is read; nothing is rendered. In a run, a sandbox of our own renders, which holds
plain values and no object of Airflow's.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, TypeAlias

from jinja2 import Environment, StrictUndefined, TemplateSyntaxError, Undefined, nodes
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment

from factory.language.document import Value
from tasks.contract import PermanentError, Run
from tasks.postgres.sql import literal

AIRFLOW_NAMES = frozenset({"ds", "ds_nodash", "run_id", "ts", "ts_nodash", "ts_nodash_with_tz"})
"""Airflow's own template names that a template may use: those whose values are texts.

Every other one is an object or a module, and an attribute of an object leads to all of Python.
"""

CLOSED_NAMES: Mapping[str, str] = {
    "conn": "name the connection in with",
    "dag": "write {{ run.dag_id }}",
    "dag_run": "write {{ run.run_id }}; declare as a param what a trigger hands over",
    "data_interval_end": "write {{ run.interval_end }}",
    "data_interval_start": "write {{ run.interval_start }}",
    "logical_date": "write {{ run.date }}",
    "macros": "compute in SQL, or from {{ run.date }}",
    "task": "write {{ run.task_id }}",
    "task_instance": "write {{ run.task_id }}, {{ run.try_number }} or {{ steps.name.field }}",
    "ti": "write {{ run.task_id }}, {{ run.try_number }} or {{ steps.name.field }}",
    "var": "declare a param, or set a default in configs/",
}
"""Names of Airflow's that are closed to templates, each with what to write instead."""

RUN_FIELDS: Mapping[str, Value] = {
    "date": "2026-01-31",
    "dag_id": "text",
    "run_id": "text",
    "task_id": "text",
    "try_number": 1,
    "interval_start": "2026-01-30T00:00:00Z",
    "interval_end": "2026-01-31T00:00:00Z",
}
"""What `run` has, each with a value of its type."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A value that an expression may have; `exact` when it is one that really occurs, not only one of its type."""

    value: Value
    exact: bool = False


Samples: TypeAlias = tuple[Sample, ...] | None
"""A value for each type that an expression may have; None when nothing is known of it."""

Chain: TypeAlias = tuple[str, ...]
"""A dotted name as it is written, such as ("steps", "train", "auc")."""


@dataclass(frozen=True, slots=True)
class Template:
    """A text to be rendered by the worker.

    `tasks` maps each step that the text names, as written, to its task_id. `sql` makes every value enter as a literal.
    """

    text: str
    sql: bool = False
    tasks: tuple[tuple[Chain, str], ...] = ()

    def resolve(self, context: Mapping[str, Any]) -> object:
        """Render for the run of `context`; Airflow calls this for values in a template field."""
        filters = context["task"].get_template_env().filters
        return render(self, _sandbox(filters), template_names(self, context))

    def serialize(self) -> str:
        """Return what Airflow keeps of this in the serialized DAG."""
        return self.text


class TemplateProblem(Exception):
    """A template that cannot be read; `needle` is the part of its text at fault, `hint` a way out."""

    def __init__(self, message: str, hint: str | None = None, needle: str = "") -> None:
        super().__init__(message)
        self.hint = hint
        self.needle = needle


def is_template(value: object) -> bool:
    """Return whether `value` is a text that Jinja would change."""
    return isinstance(value, str) and ("{{" in value or "{%" in value or "{#" in value)


@lru_cache(maxsize=16384)
def _parsed(text: str) -> nodes.Template:
    return Environment(autoescape=False).parse(text)  # noqa: S701  # only the syntax tree is read


def syntax_tree(text: str) -> nodes.Template:
    """Return the syntax tree of `text`; raise TemplateProblem where Jinja cannot read it."""
    try:
        return _parsed(text)
    except TemplateSyntaxError as error:
        raise TemplateProblem(
            f"the template cannot be read: {(error.message or '').rstrip('.')}", "compare it with {{ params.name }}"
        ) from None


def whole_expression(text: str) -> nodes.Expr | None:
    """Return the expression of a text that is one whole `{{ … }}`, else None."""
    if not text.startswith("{{") or not text.endswith("}}"):
        return None
    body = syntax_tree(text).body
    if len(body) == 1 and isinstance(body[0], nodes.Output) and len(body[0].nodes) == 1:
        only = body[0].nodes[0]
        return None if isinstance(only, nodes.TemplateData) else only
    return None


@dataclass(frozen=True, slots=True)
class Mentions:
    """What a text names: dotted names that begin with `params`, `steps` or `run`, and every other name."""

    chains: tuple[Chain, ...]
    names: frozenset[str]


@lru_cache(maxsize=16384)
def mentions(text: str) -> Mentions:
    """Return what `text` names; a name that the text itself defines is none."""
    tree = syntax_tree(text)
    chains: list[Chain] = []
    names: set[str] = set()
    _collect(tree, chains, names)
    if not all(isinstance(node, nodes.Output) for node in tree.body):
        names = find_undeclared_variables(tree)  # blocks define names of their own; this knows their scopes
    return Mentions(tuple(chains), frozenset(names - {"params", "steps", "run"}))


def _collect(node: nodes.Node, chains: list[Chain], names: set[str]) -> None:
    if chain := chain_of(node):
        chains.append(chain)
        return
    if isinstance(node, nodes.Name):
        names.add(node.name)
    for child in node.iter_child_nodes():
        _collect(child, chains, names)


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
    """Return the names in `text` that templates do not have, sorted."""
    return sorted(mentions(text).names - AIRFLOW_NAMES)


def sql_skeleton(text: str) -> str | None:
    """Return `text` with NULL for each value, or None when it has blocks; raise TemplateProblem for a quoted value."""
    pieces: list[str] = []
    for node in syntax_tree(text).body:
        if not isinstance(node, nodes.Output):
            return None
        for part in node.nodes:
            if isinstance(part, nodes.TemplateData):
                pieces.append(part.data)
                continue
            if "".join(pieces).count("'") % 2:
                raise TemplateProblem(
                    "the template stands in quotes, but a value enters SQL as a quoted literal",
                    "remove the quotes around {{ … }}",
                )
            pieces.append("NULL")
    return "".join(pieces)


def samples_of(text: str, look_up: Callable[[Chain], Samples]) -> Samples:
    """Return values that `text` may render to; `look_up` gives those of a dotted name."""
    expression = whole_expression(text)
    return (Sample("text"),) if expression is None else _Inference(look_up).samples(expression)


@dataclass(frozen=True)
class _Inference:
    """Samples of an expression from those of the names in it."""

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
        """Return true, for false too; a text and a number have no order, and the worker would fail on them."""
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
"""Comparisons by Jinja's names that need an order."""

_FILTERED: Mapping[str, Value] = {
    "int": 1, "float": 0.5, "length": 1, "count": 1, "abs": 1, "string": "text", "upper": "text", "lower": "text",
    "trim": "text", "title": "text", "capitalize": "text", "replace": "text", "join": "text", "tojson": "text",
    "ds": "text", "ds_nodash": "text", "ts": "text", "ts_nodash": "text",
}  # fmt: skip


def _kind(value: Value) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "number"
    return "text" if isinstance(value, str) else "other"


def render(template: Template, environment: Environment, names: Mapping[str, Any]) -> object:
    """Return the value of `template`; a text that is one whole `{{ … }}` keeps the type of what it names."""
    text = template.text
    if not template.sql and whole_expression(text) is not None:
        value: object = environment.compile_expression(text[2:-2].strip(" -\n"), undefined_to_none=False)(**names)
        return str(value) if isinstance(value, Undefined) else value  # the text of what is undefined is its error
    if template.sql:
        environment = environment.overlay(finalize=literal)
    return environment.from_string(text).render(**names)


def _sandbox(filters: Mapping[str, Callable[..., Any]]) -> Environment:
    """Return an environment without Jinja's own functions, in which no attribute that begins with _ can be read."""
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined)
    environment.filters.update(filters)
    environment.globals.clear()
    return environment


def template_names(template: Template, context: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `template` may name in the run of `context`: plain values, and nothing that leads on from them."""
    texts = {name: str(context[name]) for name in AIRFLOW_NAMES if name in context}
    run = run_of(context)
    fields = {name: _plain(getattr(run, name)) for name in RUN_FIELDS}
    steps = _step_outputs(template, context["ti"])
    return texts | {"params": dict(context["params"]), "run": SimpleNamespace(**fields), "steps": steps}


def _plain(value: object) -> object:
    """Return a moment of Airflow's as one of Python's, whose zone is a mere offset."""
    return dt.datetime.fromisoformat(value.isoformat()) if isinstance(value, dt.datetime) else value


def run_of(context: Mapping[str, Any]) -> Run:
    """Return the run of `context`. Its date is the logical date, or `run_after` where a run has none."""
    dag, dag_run, ti = context["dag"], context["dag_run"], context["ti"]
    moment: dt.datetime = dag_run.logical_date or dag_run.run_after
    return Run(
        dag_id=ti.dag_id,
        run_id=ti.run_id,
        task_id=ti.task_id,
        date=moment.astimezone(dag.timezone).date(),
        try_number=ti.try_number,
        map_index=-1 if ti.map_index is None else ti.map_index,
        interval_start=dag_run.data_interval_start,
        interval_end=dag_run.data_interval_end,
    )


class StepOutput:
    """The output of a step, read from XCom when a field of it is wanted."""

    def __init__(self, name: str, task_id: str, ti: Any) -> None:
        self._step = name, task_id, ti

    def __getattr__(self, field: str) -> object:
        name, task_id, ti = self._step
        output = ti.xcom_pull(task_ids=task_id)
        if isinstance(output, list):
            return [one[field] for one in output]
        if not isinstance(output, dict) or field not in output:
            raise PermanentError(f'step "{name}" has no output "{field}" in this run: it was skipped or has not run')
        return output[field]


def _step_outputs(template: Template, ti: Any) -> SimpleNamespace:
    root = SimpleNamespace()
    for chain, task_id in template.tasks:
        place = root
        for name in chain[:-1]:
            place.__dict__.setdefault(name, SimpleNamespace())
            place = getattr(place, name)
        setattr(place, chain[-1], StepOutput(".".join(chain), task_id, ti))
    return root
