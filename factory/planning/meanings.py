"""What a dotted name in a template means: a param, a field of the run, an output of another step, a Variable."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from factory.language.airflow_names import CLOSED
from factory.language.document import Value
from factory.language.errors import Hint, did_you_mean
from factory.language.expressions import Path
from factory.language.functions import FUNCTIONS
from factory.language.remedies import missing_part
from factory.language.report import Problem
from factory.language.spec import ParamSpec
from factory.language.templates import ROOTS, RUN_FIELDS, Source
from factory.language.tokens import TemplateProblem
from factory.language.value_types import ANYTHING, Types, list_of, part_types, schema_types, types_of
from factory.language.variables import Variable
from factory.planning.inference import param_values, part_values
from factory.planning.scopes import Place
from factory.registry import Registry

Parts = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Meaning:
    """The types of a dotted name's value, values that it can really have, and where a worker gets it from."""

    types: Types = (ANYTHING,)
    exact: tuple[Value, ...] = ()
    source: Source | None = None
    params: frozenset[str] = frozenset()
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class Names:
    """The names that a text of the step at `place` may use."""

    params: Mapping[str, ParamSpec]
    registry: Registry
    variables: Mapping[str, Variable]
    place: Place
    every_param: Callable[[], Types]
    """Returns the type of `params`."""

    def meaning(self, path: Path) -> Meaning:
        """Return what `path` means; anything wrong with it is its problem."""
        root, *rest = path.parts
        if root == "params":
            return self._param(path, tuple(rest))
        if root == "steps":
            return self._output(path, tuple(rest))
        if root == "run":
            return _run_field(path, tuple(rest))
        if root == "variables":
            return self._variable(path, tuple(rest))
        if root == "each" and self.place.step.each:
            return self._field_of_item(path, tuple(rest))
        return Meaning(problem=self._unknown_root(path, str(root)))

    def _param(self, path: Path, rest: Parts) -> Meaning:
        if not rest:
            every = self.every_param()
            return Meaning(every, source=Source(("params",), every), params=frozenset(self.params))
        name, *inner = rest
        param = self.params.get(str(name))
        if param is None:
            hint = partial(did_you_mean, str(name), self.params, "params")
            return Meaning(problem=_problem("unknown-param", f'there is no param "{name}"', hint, path))
        source = Source(("params", param.name), schema_types(param.schema, {}))
        found = _inside(path, source, tuple(inner))
        exact = part_values(param_values(param), tuple(inner))
        return Meaning(found.types, exact, source, frozenset((param.name,)), found.problem)

    def _field_of_item(self, path: Path, rest: Parts) -> Meaning:
        name, item = str(rest[0]) if rest else "", self.place.step.each
        if name not in item:
            hint = partial(did_you_mean, name, item, "fields of each")
            message = (
                f'the item "{item["name"]}" has no field "{name}"' if name else f'"{path}" does not say which field'
            )
            return Meaning(problem=_problem("unknown-field", message, hint, path))
        source = Source(("each", name), types_of(item[name]), constant=json.dumps(item[name]))
        found = _inside(path, source, rest[1:])
        return Meaning(found.types, part_values((item[name],), rest[1:]), source, problem=found.problem)

    def _variable(self, path: Path, rest: Parts) -> Meaning:
        name = str(rest[0]) if rest else ""
        variable = self.variables.get(name)
        if variable is None:
            message = f'`variables:` of configs/ does not declare "{name}"'
            return Meaning(problem=_problem("unknown-variable", message, partial(self._variable_hint, name), path))
        return _inside(path, Source(("variables", name), (variable.type,), default=variable.default), rest[1:])

    def _variable_hint(self, name: str) -> str:
        hint = f"declare it in configs/defaults.yaml: variables: {{{name or 'name'}: text}}"
        return f"{did_you_mean(name, self.variables, 'variables')} {hint}" if self.variables else hint

    def _output(self, path: Path, rest: Parts) -> Meaning:
        names = tuple(str(one) for one in rest)
        producer, used = self._producer(names)
        if producer is None or producer.task_id == self.place.task_id:
            hint = partial(self._step_hint, names[0] if names else "")
            message = f'"{path}" does not name another step of this pipeline'
            return Meaning(problem=_problem("unknown-step", message, hint, path))
        return self._field(path, producer, used)

    def _step_hint(self, name: str) -> str:
        return did_you_mean(name, self.place.scope.known() - {self.place.step.id}, "steps")

    def _producer(self, names: tuple[str, ...]) -> tuple[Place | None, int]:
        """Return the step that a dotted name begins with, and how many names it takes; the rest are its fields."""
        for length in range(1, len(names) + 1):
            step = self.place.scope.find(names[:length])
            if step is None:
                return None, 0
            if step.step.steps is None:
                return step, length
        return None, 0

    def _field(self, path: Path, producer: Place, used: int) -> Meaning:
        """Return the meaning of a field of the producer's output; nothing is known about an unregistered task."""
        field, *inner = path.parts[used + 1 :] or ("",)
        parts = tuple(str(one) for one in path.parts[: used + 1])
        waiting = Source((*parts, str(field)), (ANYTHING,), task_id=producer.task_id)
        definition = self.registry.tasks.get(producer.step.uses or "")
        if definition is None:
            message = f'step "{producer.step.id}" is a branch and has no output'
            is_branch = producer.step.branch is not None
            return Meaning(
                source=waiting, problem=_problem("unknown-field", message, None, path) if is_branch else None
            )
        known = definition.output_fields(producer.step.arguments)
        if field not in known:
            message = f'"{definition.name}" does not return "{field}"'
            if not field:
                message = f'"{path}" does not say which field of the output of "{definition.name}"'
            hint = partial(did_you_mean, str(field), known, f"fields of steps.{producer.step.id}")
            return Meaning(source=waiting, problem=_problem("unknown-field", message, hint, path))
        types = schema_types(known[str(field)], definition.output_schema.get("$defs", {}))
        is_mapped = bool(producer.step.expand)
        types = (list_of(types),) if is_mapped else types
        source = Source((*parts, str(field)), types, task_id=producer.task_id, is_mapped=is_mapped)
        return _inside(path, source, tuple(inner))

    def _unknown_root(self, path: Path, root: str) -> Problem:
        span = (path.start, path.start + len(root))
        if root == "conn":
            message = "a template cannot read a connection: its secrets would be shown in the UI"
            return Problem("secret-template", message, CLOSED[root], within=span)
        hint = partial(self._root_hint, path, root)
        return Problem("unknown-name", f'"{root}" is not known to templates', hint, within=span)

    def _root_hint(self, path: Path, root: str) -> str:
        if root in CLOSED:
            return f"a template reads plain values, not Airflow's objects: {CLOSED[root]}"
        if root in _CONSTANTS:
            return f"write {_CONSTANTS[root]}"
        if root in FUNCTIONS:
            return f"it is a function: write {FUNCTIONS[root].example}"
        if root == "each":
            return "only the steps of a group with for_each have one"
        if root in self.params:
            return f"write params.{path}"
        if root in self.place.scope.known():
            return f"write steps.{path}"
        return did_you_mean(root, ROOTS, "names")


_CONSTANTS = {"None": "null", "none": "null", "True": "true", "False": "false"}


def _run_field(path: Path, rest: Parts) -> Meaning:
    name = str(rest[0]) if rest else ""
    if name not in RUN_FIELDS:
        hint = partial(did_you_mean, name, RUN_FIELDS, "fields of run")
        message = f'a run has no field "{name}"' if name else '"run" does not say which of its fields'
        return Meaning(problem=_problem("unknown-field", message, hint, path))
    return _inside(path, Source(("run", name), RUN_FIELDS[name]), rest[1:])


def _inside(path: Path, source: Source, rest: Parts) -> Meaning:
    """Return the meaning of a field of what `source` gives."""
    types = source.types
    for nth, part in enumerate(rest, start=len(path.parts) - len(rest)):
        found = part_types(types, part)
        if found is None:
            whole = str(Path(path.start, path.end, path.parts[:nth]))
            return Meaning(source=source, problem=_missing(missing_part(whole, part, types, (path.start, path.end))))
        types = found
    return Meaning(types, source=source)


def _missing(problem: TemplateProblem) -> Problem:
    return Problem(problem.code, str(problem), problem.given_hint, within=problem.span)


def _problem(code: str, message: str, hint: Hint, path: Path) -> Problem:
    return Problem(code, message, hint, within=(path.start, path.end))
