"""How a plan is shown to a person: tables of its settings and steps, each value with where it came from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from factory.compiler import Compiled
from factory.language.document import Value, value_at
from factory.language.errors import Path
from factory.planning.graph import order
from factory.planning.plan import Node, Plan, as_json
from factory.planning.project import EVERY_TASK, Layer, load_project


def explain(compiled: Compiled, environment: str | None) -> Iterator[RenderableType]:
    """Yield what `taskflow plan` prints."""
    plan = compiled.plan
    assert plan is not None
    origins = Origins(compiled, load_project(plan.root, environment).layers)
    yield Text.assemble((plan.dag_id, "bold"), f"  {plan.file}")
    yield _settings(plan, origins)
    yield from _steps(plan, origins)


class Origins:
    """Where each value was written: in the spec, or in a layer of defaults."""

    def __init__(self, compiled: Compiled, layers: tuple[Layer, ...]) -> None:
        self.document = compiled.report.document
        self.layers = layers

    def spec(self, path: Path) -> str | None:
        """Return the place of a value in the spec."""
        return f"line {self.document.span(path, key=True).line}" if _has(self.document.value, path) else None

    def of(self, spec_path: Path, *layer_paths: Path) -> str:
        """Return the place of a value: the spec's, else the last layer's that has it under the first of its paths."""
        if own := self.spec(spec_path):
            return own
        for layer in reversed(self.layers):
            for path in layer_paths:
                if _has(layer.document.value, path):
                    span = layer.document.span(path, key=True)
                    return f"{span.file}:{span.line}"
        return "Airflow's default"


def _has(value: Value, path: Path) -> bool:
    try:
        value_at(value, path)
    except LookupError:
        return False
    return True


def _grid() -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_column(style="dim")
    return grid


def _settings(plan: Plan, origins: Origins) -> Table:
    grid, shown = _grid(), as_json(plan)
    grid.add_row("schedule", _text(shown["schedule"]), origins.of(("schedule",), ()) if plan.schedule else "")
    for name, value in shown["airflow"].items():
        grid.add_row(name, _text(value), origins.of((name,), ("dag", name)))
    for name, value in shown["default_args"].items():
        grid.add_row(f"default_args.{name}", _text(value), origins.of(("default_args", name), ("default_args", name)))
    for param in plan.params:
        grid.add_row(f"params.{param.name}", _text(param.default), origins.of(("params", param.name), ()))
    return grid


def _steps(plan: Plan, origins: Origins) -> Iterator[RenderableType]:
    nodes = {node.task_id: node for node in plan.nodes}
    for task_id in order({node.task_id: node.upstream for node in plan.nodes}):
        node = nodes[task_id]
        after = f"  after {', '.join(node.upstream)}" if node.upstream else ""
        yield Text.assemble("\n", (task_id, "bold"), f"  {node.uses or 'branch'}", (after, "dim"))
        grid = _grid()
        for name, value, place in _values(node, origins):
            grid.add_row(f"  {name}", value, place)
        if grid.row_count:
            yield grid


def _values(node: Node, origins: Origins) -> Iterator[tuple[str, str, str]]:
    for index, way in enumerate(node.exits):
        condition = f"if {way.when.text}" if way.when else "else"
        yield condition, f"then {', '.join(way.then)}", origins.of((*node.path, "branch", index), ())
    for name, value in node.arguments.items():
        defaults = [("with", task, name) for task in (node.uses, EVERY_TASK)]
        yield name, _text(_plain(value)), origins.of((*node.path, "with", name), *defaults)
    for name, value in node.expand.items():
        yield f"expand {name}", _text(_plain(value)), origins.of((*node.path, "expand", name), ())
    for name, value in node.airflow.items():
        yield name, _text(_plain(value)), origins.of((*node.path, name), ("default_args", name))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return value.get("name") if "expectations" in value else {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return getattr(value, "text", value)


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 70 else f"{text[:67]}…"
