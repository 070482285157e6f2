"""Expressions without end, right and wrong, over the names that a spec has."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

from factory.language.functions import FUNCTIONS
from factory.language.templates import RUN_FIELDS
from factory.language.tokens import INSTEAD, KEYWORDS, POWERS

LITERALS = (
    "0", "1", "-1", "7", "0.5", "1e308", "1e999", "9223372036854775807", "9" * 5_000, "1_000", "0x1F", "012",
    "'a'", '"b"', "''", r"'\n'", r"'\x00'", "'%Y-%m-%d'", "'%'", "'2026-02-29'", "'9999-12-31'", "'0001-01-01'", "'é'",
    "'{{'", "'}}'", "'it''s'", "'" + "a" * 5_000 + "'", "true", "false", "null", "None", "[]", "[1, 'a']", "[[1], []]",
    "[null]", "{}", "{'a': 1}",
)  # fmt: skip
FORMER = (
    "ds", "ds_nodash", "ts", "data_interval_start", "logical_date.strftime('%Y')", "macros.ds_add(ds, -1)",
    "macros.datetime", "prev_ds", "ti.xcom_pull(task_ids='first')", "var.value.region", "var.json.x.y",
    "conn.crypto_postgres.password", "dag_run.conf['x']", "dag.dag_id", "params['text']", "params.get('text', 'a')",
    "''.__class__.__mro__[1].__subclasses__()", "self._TemplateReference__context", "cycler.__init__.__globals__",
    "lipsum()", "run.date.year", "x is defined", "a ? b : c", "not", "|", "..", "**", "a b", "[x for x in y]",
)  # fmt: skip
"""What Airflow's templates and Jinja allow, and this language does not."""
_OPERATORS = (*POWERS, *INSTEAD)
_WORDS = (*FUNCTIONS, *KEYWORDS, "int", "len", "strftime", "tojson", "safe", "map", "attr", "a", "é")


def names_of(spec: Any) -> list[str]:
    """Return the names that an expression in `spec` may begin with, and some that it may not."""
    declared = spec if isinstance(spec, Mapping) else {}
    params, steps = (declared.get(key) for key in ("params", "steps"))
    return [
        *(f"params.{name}" for name in (params if isinstance(params, Mapping) else ())),
        *(f"steps.{name}.message" for name in (steps if isinstance(steps, Mapping) else ())),
        *(f"run.{name}" for name in RUN_FIELDS),
        "variables.region", "variables.max_rows", "variables.unknown", "params", "steps", "run", "variables",
        "params.unknown", "steps.group.each.message", "run.unknown", "unknown",
    ]  # fmt: skip


def expression(names: list[str], draw: random.Random, depth: int = 3) -> str:
    """Return an expression over `names`, of parts that need not fit together."""
    if depth == 0 or draw.random() < 0.2:
        return draw.choice((draw.choice(names), draw.choice(names), draw.choice(LITERALS), draw.choice(FORMER)))

    def part() -> str:
        return expression(names, draw, depth - 1)

    def parts(counts: tuple[int, ...]) -> str:
        return ", ".join(part() for _ in range(draw.choice(counts)))

    function = draw.choice((draw.choice(tuple(FUNCTIONS)), draw.choice(tuple(FUNCTIONS)), draw.choice(_WORDS)))
    forms: tuple[Callable[[], str], ...] = (
        lambda: f"{part()} | {function}",
        lambda: f"{part()} | {function}({parts((1, 1, 2))})",
        lambda: f"{function}({parts((0, 1, 1, 2, 3))})",
        lambda: f"{part()} {draw.choice(_OPERATORS)} {part()}",
        lambda: f"{part()} {draw.choice(_OPERATORS)} {part()}",
        lambda: f"{part()} if {part()} else {part()}",
        lambda: f"[{parts((0, 1, 3, 20))}]",
        lambda: f"{part()}[{draw.choice(('0', '-1', '99999999999', part()))}]",
        lambda: f"({part()}).{draw.choice((*_WORDS, '__class__', 'year'))}",
        lambda: f"{draw.choice(('-', '+', 'not ', '(' * 60, '- ' * 60))}{part()}",
    )
    return draw.choice(forms)()
