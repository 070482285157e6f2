"""What people know from Airflow's templates, and how it is written here.

Only for the error and for `taskflow lint --fix`: no name of this table is ever looked up, and a name that Airflow adds
is refused like any other that the language does not have.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from factory.language.expressions import Call, Literal, Method, Node, Path, children
from factory.language.functions import DIRECTIVES

_TS = "run.logical_date | text"
_NO_SIGNS = " | replace('-', '') | replace(':', '')"
_DAY, _MOMENT = "run.date", "run.logical_date"

_NAMES: Mapping[str, str] = {
    "ds": f"{_DAY} | text",
    "ds_nodash": f"{_DAY} | format('%Y%m%d')",
    "ts": _TS,
    "ts_nodash": f"{_MOMENT} | format('%Y%m%dT%H%M%S')",
    "ts_nodash_with_tz": _TS + _NO_SIGNS,
    "logical_date": _MOMENT,
    "execution_date": _MOMENT,
    "dag_run.logical_date": _MOMENT,
    "data_interval_start": "run.interval_start",
    "data_interval_end": "run.interval_end",
    "dag_run.data_interval_start": "run.interval_start",
    "dag_run.data_interval_end": "run.interval_end",
    "run_id": "run.run_id",
    "dag.dag_id": "run.dag_id",
    "dag_run.dag_id": "run.dag_id",
    "dag_run.run_id": "run.run_id",
    "task.task_id": "run.task_id",
    **{
        f"{ti}.{name}": f"run.{name}"
        for ti in ("ti", "task_instance")
        for name in ("dag_id", "run_id", "task_id", "try_number")
    },
}
"""Airflow's names whose value this language has."""

_OUTSIDE_UTC: Mapping[str, str] = {
    "ds": f"{_MOMENT} | format('%Y-%m-%d')",
    "ds_nodash": f"{_MOMENT} | format('%Y%m%d')",
}
"""The same where run.date is not in UTC, as Airflow's dates are."""

_FILTERS: Mapping[str, str] = {
    "ds": "format('%Y-%m-%d')",
    "ds_nodash": "format('%Y%m%d')",
    "ts": "text",
    "ts_nodash": "format('%Y%m%dT%H%M%S')",
    "ts_nodash_with_tz": "text" + _NO_SIGNS,
}
"""Airflow's filters."""

CLOSED: Mapping[str, str] = {
    "conn": "name the connection in `with`",
    "dag": "write {{ run.dag_id }}",
    "dag_run": "write {{ run.run_id }}, or {{ params.x }} for what a trigger passes",
    "macros": "compute with functions: for yesterday write {{ run.date | add_days(-1) }}",
    "task": "write {{ run.task_id }}",
    "task_instance": "write {{ run.task_id }}, {{ run.try_number }} or {{ steps.name.field }}",
    "ti": "write {{ run.task_id }}, {{ run.try_number }} or {{ steps.name.field }}",
    "var": "declare the Variable below `variables:` in configs/defaults.yaml, and write {{ variables.x }}",
}
"""Airflow's objects, which a template cannot read, each with what to write for what people read from them."""


@dataclass(frozen=True, slots=True)
class Known:
    """The names of a pipeline on which the answer depends."""

    params: Collection[str]
    variables: Collection[str]
    is_utc: bool


@dataclass(frozen=True, slots=True)
class Former:
    """A part of an expression that is written Airflow's way; `exact` if `instead` has the same value there."""

    name: str
    instead: str
    span: tuple[int, int]
    exact: bool = True


def former_names(node: Node, known: Known, *, alone: bool) -> Iterator[Former]:
    """Yield what is written Airflow's way in an expression; `alone` if it is all of one that is put into a text."""
    if isinstance(node, Path):
        instead = _instead(node, known)
        if instead:
            is_moment = instead.startswith("run.interval") or instead == _MOMENT
            bare = instead.removesuffix(" | text") if alone else instead
            yield Former(str(node), bare, (node.start, node.end), exact=not (alone and is_moment))
    elif isinstance(node, Call) and node.name in _FILTERS and len(node.arguments) == 1 and _is_filter(node):
        yield Former(node.name, _FILTERS[node.name], node.name_at)
    elif isinstance(node, Method):
        yield from _former_method(node, known)
    for child in children(node):
        yield from former_names(child, known, alone=False)


def _is_filter(node: Call) -> bool:
    return node.name_at[0] > node.start


def _former_method(node: Method, known: Known) -> Iterator[Former]:
    name = node.arguments[0].value if node.arguments and isinstance(node.arguments[0], Literal) else None
    if pattern := _strftime(node):
        yield Former(node.name, f" | format('{pattern}')", (node.value.end, node.end))
    elif isinstance(node.value, Path) and node.value.parts == ("dag_run", "conf") and name in known.params:
        yield Former("dag_run.conf.get", f"params.{name}", (node.start, node.end), exact=False)


def _strftime(node: Method) -> str | None:
    """Return the pattern of a call of strftime that `format` takes too."""
    if node.name != "strftime" or len(node.arguments) != 1 or not isinstance(node.arguments[0], Literal):
        return None
    pattern = node.arguments[0].value
    if not isinstance(pattern, str) or set(pattern) & set("'\"\\\n"):
        return None
    directives = pattern.split("%")[1:]
    return pattern if all(one[:1] in DIRECTIVES and one for one in directives) else None


def _instead(path: Path, known: Known) -> str | None:
    if any(isinstance(one, int) for one in path.parts):
        return None
    name = str(path)
    if path.parts[:2] == ("dag_run", "conf") and len(path.parts) == 3:
        return f"params.{path.parts[2]}" if path.parts[2] in known.params else None
    if path.parts[:2] in (("var", "value"), ("var", "json")) and len(path.parts) == 3:
        return f"variables.{path.parts[2]}" if path.parts[2] in known.variables else None
    return _OUTSIDE_UTC.get(name, _NAMES.get(name)) if not known.is_utc else _NAMES.get(name)
