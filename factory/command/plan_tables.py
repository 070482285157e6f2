"""How a plan is shown to people: tables of its settings and steps, each value with where it comes from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from factory.language.document import Document
from factory.language.errors import Path
from factory.planning.defaults import Origin
from factory.planning.graph import order
from factory.planning.plan import Node, Plan, as_json, in_json


def plan_tables(plan: Plan, document: Document) -> Iterator[RenderableType]:
    """Yield what `taskflow plan` prints for the spec in `document`."""
    yield Text.assemble((plan.dag_id, "bold"), f"  {plan.file}")
    yield _settings(plan, document)
    nodes = {node.task_id: node for node in plan.nodes}
    for task_id in order({node.task_id: node.upstream for node in plan.nodes}):
        yield from _step(nodes[task_id], document)


def _own(document: Document, path: Path) -> str:
    return f"line {document.span(path, key=True).line}"


def _written(origin: Origin, document: Document) -> str:
    """Return where a value is written: a line of the spec, or the place in a file of `configs/`."""
    return _own(document, origin.path) if origin.document is document else str(origin)


def _grid() -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_column(style="dim")
    return grid


def _settings(plan: Plan, document: Document) -> Table:
    grid, shown = _grid(), as_json(plan)
    grid.add_row("schedule", _text(shown["schedule"]), _own(document, ("schedule",)) if plan.schedule else "")
    for name, value in shown["airflow"].items():
        grid.add_row(name, _text(value), _written(plan.dag_origins[name], document))
    for name, value in shown["default_args"].items():
        grid.add_row(f"default_args.{name}", _text(value), _written(plan.default_args_origins[name], document))
    for param in plan.params:
        grid.add_row(f"params.{param.name}", _text(param.default), _own(document, param.path))
    return grid


def _step(node: Node, document: Document) -> Iterator[RenderableType]:
    after = f"  after {', '.join(node.upstream)}" if node.upstream else ""
    yield Text.assemble("\n", (node.task_id, "bold"), f"  {node.uses or 'branch'}", (after, "dim"))
    grid = _grid()
    for name, value, place in _values(node, document):
        grid.add_row(f"  {name}", value, place)
    if grid.row_count:
        yield grid


def _values(node: Node, document: Document) -> Iterator[tuple[str, str, str]]:
    for index, way in enumerate(node.exits):
        condition = f"if {way.when.text}" if way.when else "else"
        yield condition, f"then {', '.join(way.then) or 'nowhere'}", _own(document, (*node.path, "branch", index))
    for name, value in node.arguments.items():
        yield name, _text(_plain(value)), _written(node.origins[name], document)
    for name, value in node.expand.items():
        yield f"expand {name}", _text(_plain(value)), _own(document, (*node.path, "expand", name))
    for name, value in node.airflow.items():
        yield name, _text(in_json(value)), _own(document, (*node.path, name))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return value.get("name") if "expectations" in value else {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return getattr(value, "text", value)


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 70 else f"{text[:67]}…"
