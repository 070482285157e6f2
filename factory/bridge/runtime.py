"""What a worker does for one step: its values become the task's arguments, the task runs, its output becomes JSON.

Knows the registry and a task's contract; neither YAML nor Airflow.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from pydantic import ValidationError
from pydantic_core import to_json

from factory.planning.values import expected, kind_in_suite, texts
from factory.registry import TaskDefinition, load_registry
from tasks.contract import ArgumentRefused, Before, BuiltIn, GateBefore, Output, PermanentError, Run, TextKind
from tasks.postgres.expressions import check_expression, check_query
from tasks.quality.lint import check_argument


def call(
    uses: str,
    values: Mapping[str, Any],
    run: Run,
    before: Mapping[str, Any],
    functions: frozenset[str] = frozenset(),
) -> dict[str, Any] | None:
    """Run the task `uses` with rendered `values`, knowing what comes `before` it; return its output as JSON.

    SQL in the values may call `functions` besides Postgres' harmless ones.
    """
    definition = find(uses)
    arguments = arguments_of(definition, values)
    for path, message in definition.conflicts(values) if definition.conflicts else ():
        raise ArgumentRefused(path, message)
    _check_sql(definition, values, functions)
    if definition.takes_run:
        arguments["run"] = replace(run, before=_before(definition, values, before), functions=functions)
    return as_json(definition.function(**arguments))


def _before(definition: TaskDefinition, values: Mapping[str, Any], before: Mapping[str, Any]) -> Before:
    own = [values[name] for name in sorted(definition.suites) if name in values]
    return Before(
        builds=before.get("builds", {}),
        gates=tuple(map(_gate_before, before.get("gates", ()))),
        digest=_digest(own) if own else "",
        watched=frozenset(before.get("watched", ())),
        claims=tuple(BuiltIn(connection, table) for connection, table in before.get("claims", ())),
        loaded_once=frozenset(before.get("loaded_once", ())),
        files=paths_by_step(before.get("files", ())),
    )


def _gate_before(gate: Mapping[str, Any]) -> GateBefore:
    suite, lists = gate["suite"], gate.get("expand")
    items = math.prod(map(len, lists)) if lists else None
    is_whole = not suite["batch"].get("where")
    return GateBefore(gate["task_id"], gate["table"], _digest([suite]), suite["connection"], items, is_whole)


def paths_by_step(written: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the paths that steps write, each with the last step that does; a mapped step has a list of paths."""
    pairs = [(one["path"], one["task_id"]) for one in written]
    return {path: step for paths, step in pairs for path in ([paths] if isinstance(paths, str) else paths)}


def _digest(suites: list[Any]) -> str:
    return hashlib.sha256(to_json(suites)).hexdigest()


def _check_sql(definition: TaskDefinition, values: Mapping[str, Any], functions: frozenset[str]) -> None:
    """Raise PermanentError for SQL that lint has not seen as it is now: values may come from anywhere."""
    for path, text in texts(dict(values)):
        is_in_suite = path[0] in definition.suites
        kind = kind_in_suite(path[1:]) if is_in_suite else definition.kind_at(path)
        try:
            if kind and kind.name == "sql":
                check_expression((text,), functions)
            elif kind and kind.name == "query" and not is_in_suite:
                check_query((text,), functions)
            elif kind and kind.name == "query":
                check_argument(str(path[-1]), (text,), functions)
        except ValueError as error:
            raise ArgumentRefused(path, f"{error}: {text!r}") from None


def find(uses: str) -> TaskDefinition:
    """Return the task named `uses`; a worker whose code lacks it says so."""
    registry = load_registry()
    if uses not in registry:
        raise PermanentError(
            f'this worker has no task "{uses}": its code is older or newer than the spec; deploy both together'
        )
    return registry[uses]


def arguments_of(definition: TaskDefinition, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return `values` as the types that the task declares; raise PermanentError if they do not fit."""
    try:
        model = definition.arguments.model_validate_json(to_json(values))
    except ValidationError as error:
        raise PermanentError(_rendered_wrongly(definition, error)) from None
    return {name: getattr(model, name) for name in definition.parameters}


_MISFITS = {"missing": "is missing", "extra_forbidden": "is not an argument"}


def _rendered_wrongly(definition: TaskDefinition, error: ValidationError) -> str:
    problems = "; ".join(_misfit(one) for one in error.errors(include_url=False))
    return f"the rendered values do not fit {definition.name}: {problems}"


def _misfit(error: Any) -> str:
    where = ".".join(map(str, error["loc"]))
    return f"{where} {_MISFITS.get(error['type']) or _wrong_value(error)}"


def _wrong_value(error: Any) -> str:
    return f"is {error['input']!r}, but {expected(error)}"


def as_json(output: object) -> dict[str, Any] | None:
    """Return a task's output as other steps and the UI see it."""
    return output.model_dump(mode="json") if isinstance(output, Output) else None


def items(uses: str, name: str, values: object) -> list[Any]:
    """Return the list that a step is mapped over; raise PermanentError for another value, or a table to build twice."""
    if not isinstance(values, list):
        raise PermanentError(f"expand.{name} got {values!r}, which is not a list")
    kind_at = find(uses).kind_at
    tables = [text for path, text in texts({name: values}) if _is_built(kind_at((name, *path[2:])))]
    if twice := sorted({table for table in tables if tables.count(table) > 1}):
        raise PermanentError(
            f"expand.{name} has {', '.join(twice)} more than once: its items would empty it for each other"
        )
    return values


def _is_built(kind: TextKind | None) -> bool:
    return kind is not None and (kind.name, kind.of) == ("table", "build")


def choose(exits: list[Mapping[str, Any]]) -> list[str]:
    """Return the task_ids of the first exit whose condition is true; the last exit has no condition."""
    for way in exits:
        condition = way.get("if", True)
        if not isinstance(condition, bool):
            raise PermanentError(f"a condition of the branch gave {condition!r}, which is neither true nor false")
        if condition:
            return list(way["then"])
    raise PermanentError("no condition of the branch was true, and it has no else")
