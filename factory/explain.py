"""How a plan is shown to a person: tables of its settings and steps, each value with where it came from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from factory.compiler import Compiled
from factory.document import Value, value_at
from factory.errors import Path, Span
from factory.graph import order
from factory.plan import Node, Plan, as_json
from factory.settings import Layer, load_project


def explain(compiled: Compiled, environment: str | None) -> Iterator[RenderableType]:
    """Yield what `taskflow plan` prints."""
    plan = compiled.plan
    assert plan is not None
    origins = Origins(compiled, load_project(plan.root, environment).layers)
    yield Text.assemble((plan.dag_id, "bold"), f"  {plan.file}")
    yield _settings(plan, origins)
    yield _steps(plan, origins)


class Origins:
    """Where each value was written: in the spec, or in a layer of defaults."""

    def __init__(self, compiled: Compiled, layers: tuple[Layer, ...]) -> None:
        self.document = compiled.report.document
        self.layers = layers

    def spec(self, path: Path) -> str | None:
        """Return the place of a value in the spec."""
        return _place(self.document.span(path, key=True)) if _has(self.document.value, path) else None

    def of(self, spec_path: Path, layer_path: Path) -> str:
        """Return the place of a value: the spec's, else the last layer's that has it."""
        if own := self.spec(spec_path):
            return own
        for layer in reversed(self.layers):
            if _has(layer.document.value, layer_path):
                return _place(layer.document.span(layer_path, key=True))
        return "Airflow's default"


def _has(value: Value, path: Path) -> bool:
    try:
        value_at(value, path)
    except LookupError:
        return False
    return True


def _place(span: Span) -> str:
    return f"{span.file}:{span.line}"


def _settings(plan: Plan, origins: Origins) -> Table:
    table = Table("setting", "value", "from", box=None, header_style="dim", pad_edge=False)
    shown = as_json(plan)
    table.add_row("schedule", _text(shown["schedule"]), origins.of(("schedule",), ()) if plan.schedule else "")
    for name, value in shown["airflow"].items():
        table.add_row(name, _text(value), origins.of((name,), ("dag", name)))
    for name, value in shown["default_args"].items():
        table.add_row(f"default_args.{name}", _text(value), origins.of(("default_args", name), ("default_args", name)))
    for param in plan.params:
        table.add_row(f"params.{param.name}", _text(param.default), origins.of(("params", param.name), ()))
    return table


def _steps(plan: Plan, origins: Origins) -> Table:
    table = Table("step", "uses", "waits for", "value", "from", header_style="dim")
    nodes = {node.task_id: node for node in plan.nodes}
    for task_id in order({node.task_id: node.upstream for node in plan.nodes}):
        node = nodes[task_id]
        values = list(_values(node, origins))
        table.add_row(
            Text(task_id, "bold"),
            node.uses or "branch",
            "\n".join(node.upstream),
            "\n".join(value for value, _ in values),
            "\n".join(place for _, place in values),
        )
        table.add_section()
    return table


def _values(node: Node, origins: Origins) -> Iterator[tuple[str, str]]:
    for way in node.exits:
        yield f"{way.when.text if way.when else 'else'} -> {', '.join(way.then)}", ""
    for name, value in node.arguments.items():
        yield f"{name}: {_text(_plain(value))}", origins.of((*node.path, "with", name), ("with", node.uses, name))
    for name, value in node.airflow.items():
        yield f"{name}: {_text(_plain(value))}", origins.of((*node.path, name), ("default_args", name))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return value.get("name") if "expectations" in value else {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return getattr(value, "text", value)


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 70 else f"{text[:67]}…"
