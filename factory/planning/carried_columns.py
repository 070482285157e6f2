"""Which columns a load leaves behind, where its step insists on all: as far as the SQL files and the builds say it.

What the tables really have, only the worker sees: it looks again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from factory.language.report import Report
from factory.planning.guards import Guards
from factory.planning.plan import Node, Plan
from factory.planning.sql_files import tables_of
from factory.planning.values import texts
from factory.registry import Registry
from tasks.postgres.definitions import Columns


@dataclass(frozen=True, slots=True)
class _Table:
    """What is known of a table: its columns, all of them or only some."""

    columns: Columns
    is_whole: bool


def uncarried_columns(plan: Plan, report: Report, registry: Registry) -> None:
    """Report a load with `every_column` that would leave a column of its source or its target behind."""
    insisting = [node for node in plan.nodes if node.role == "load" and node.arguments.get("every_column") is True]
    if not insisting:
        return
    defined, guards = _defined(plan, registry), Guards(plan, registry)
    for node in insisting:
        tables = [_known(node.arguments.get(name), defined, guards) for name in ("source", "target")]
        if others := _left_behind(node, *tables):
            message = f'step "{node.task_id}": {" and ".join(others)} would not be carried'
            hint = "give both tables the same columns, or remove every_column"
            report.add("uncarried-column", (*node.path, "with", "every_column"), message, hint)


def _defined(plan: Plan, registry: Registry) -> dict[str, Columns | None]:
    """Return the tables that the SQL files of the steps define, None for one that several statements change."""
    found: dict[str, Columns | None] = {}
    files = dict.fromkeys(
        text
        for node in plan.nodes
        if node.uses in registry
        for path, text in texts(node.arguments)
        if (kind := registry[node.uses].kind_at(path)) and (kind.name, kind.of) == ("sql_file", "statements")
    )
    for file in files:
        for table, columns in tables_of(plan.root / "configs" / "sql", file).items():
            found[table] = None if table in found else columns
    return found


def _known(table: object, defined: Mapping[str, Columns | None], guards: Guards) -> _Table | None:
    if not isinstance(table, str):
        return None
    if columns := defined.get(table):
        return _Table(columns, is_whole=True)
    filled = [_filled(one.arguments.get("columns")) for one in guards.builders(table)]
    names = tuple(dict.fromkeys(column for columns in filled for column in columns))
    return _Table(Columns(names), is_whole=False) if names else None


def _filled(columns: Any) -> Iterable[str]:
    return columns if isinstance(columns, Mapping) else ()


def _left_behind(node: Node, source: _Table | None, target: _Table | None) -> list[str]:
    """Return the columns of each table that are not carried, in words."""
    keys, columns = _names(node.arguments.get("keys")), _names(node.arguments.get("columns"))
    kept = _kept(node.arguments)
    if keys is None or kept is None or (columns is None and node.arguments.get("columns") is not None):
        return []  # known only when it runs
    parts = []
    for one, other, name in ((source, target, "source"), (target, source, "target")):
        carried = None if columns is None else {*keys, *columns}
        if carried is None and other is not None and other.is_whole:
            carried = {*keys, *(set(other.columns.names) - kept - _computed(target))}
        if one is None or carried is None:
            continue
        own = kept | _computed(target) if name == "target" else set[str]()
        if left := [column for column in one.columns.names if column not in carried | own]:
            parts.append(f"{', '.join(left)} of {node.arguments[name]}")
    return parts


def _computed(target: _Table | None) -> frozenset[str]:
    return target.columns.computed if target else frozenset()


def _names(given: Any) -> list[str] | None:
    is_known = isinstance(given, list) and all(isinstance(one, str) for one in given)
    return given if is_known else None


def _kept(arguments: Mapping[str, Any]) -> set[str] | None:
    """Return the target's own columns, which no source fills; None if a template says which."""
    deactivate, timestamps = arguments.get("deactivate"), arguments.get("timestamps")
    own = [deactivate.get("flag", "is_active")] if isinstance(deactivate, Mapping) else []
    own += [one for one in timestamps.values() if one] if isinstance(timestamps, Mapping) else []
    return set(own) if all(isinstance(one, str) for one in own) else None
