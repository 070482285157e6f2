"""The closed list of tasks that a step may use.

Reads the functions declared `@reusable`: a signature becomes the schema of `with`, a return type that of the output.
Loading is a call, `load_registry()`; importing this module imports no task.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache

from pydantic import BaseModel, ConfigDict, TypeAdapter, create_model

import tasks
from factory.language.errors import Path, RegistryError
from tasks.contract import DECLARATION, Conflicts, Declaration, Location, Output, Outputs, Role, Run, TaskKind, TextKind
from tasks.quality.lint import Suite

KEYS = "{keys}"
"""Stands in a path for any key of a mapping."""
_KINDS_KEPT = 4096
"""Paths of a task whose kinds are remembered."""
_NAME = re.compile(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*\Z")
_CLOSED = ConfigDict(extra="forbid", strict=True, frozen=True, arbitrary_types_allowed=False)


@dataclass(frozen=True)
class TaskDefinition:
    """One reusable task: its function, and what can be read from its signature."""

    name: str
    role: Role
    function: Callable[..., object]
    kind: TaskKind = "plain"
    conflicts: Conflicts | None = None
    outputs: Outputs | None = None

    @cached_property
    def hints(self) -> Mapping[str, object]:
        """The annotations of the parameters and of the return."""
        return typing.get_type_hints(self.function, include_extras=True)

    @cached_property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """The parameters that a step sets below `with`."""
        signature = inspect.signature(self.function)
        return {name: parameter for name, parameter in signature.parameters.items() if name != "run"}

    @cached_property
    def takes_run(self) -> bool:
        """Whether the function takes its run."""
        return "run" in inspect.signature(self.function).parameters

    @cached_property
    def arguments(self) -> type[BaseModel]:
        """The closed model of `with`."""
        fields: dict[str, typing.Any] = {
            name: (self.hints[name], ... if parameter.default is inspect.Parameter.empty else parameter.default)
            for name, parameter in self.parameters.items()
        }
        return create_model(f"{self.name} with", __config__=_CLOSED, **fields)

    @cached_property
    def output(self) -> type[Output] | None:
        """The model of the task's output, or None."""
        returned = self.hints.get("return")
        return returned if isinstance(returned, type) and issubclass(returned, Output) else None

    @cached_property
    def output_schema(self) -> Mapping[str, typing.Any]:
        """The JSON Schema of the output."""
        return self.output.model_json_schema(mode="serialization") if self.output else {}

    def output_fields(self, arguments: Mapping[str, typing.Any]) -> Mapping[str, typing.Any]:
        """Return the JSON Schema of each field of the output of a step with these arguments, as they are written."""
        fields = self.output_schema.get("properties", {})
        return {**fields, **self.outputs(arguments)} if self.outputs else fields

    @cached_property
    def links(self) -> tuple[str, ...]:
        """The output fields that link to something the task made."""
        fields = self.output.model_fields if self.output else {}
        return tuple(name for name in fields if kind_in(self.output, (name,)) == TextKind("link"))

    @cached_property
    def suites(self) -> frozenset[str]:
        """The parameters that take a suite by its name."""
        return frozenset(name for name in self.parameters if Suite in _alternatives(self.hints[name]))

    @cached_property
    def locations(self) -> frozenset[str]:
        """The parameters that take a place by its name."""
        return frozenset(name for name in self.parameters if _holds_location(self.hints[name]))

    @property
    def description(self) -> str:
        """The docstring."""
        return inspect.getdoc(self.function) or ""

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return self.description.partition("\n")[0]

    def kind_at(self, path: Path) -> TextKind | None:
        """Return what the text at `path` below `with` means, if it is more than a text."""
        return self._kinds(path)

    @cached_property
    def _kinds(self) -> Callable[[Path], TextKind | None]:
        """Every rule asks about the same few paths of each step, and the way through a type is long."""

        def kind(path: Path) -> TextKind | None:
            name = str(path[0])
            return kind_in(self.hints[name], path[1:]) if name in self.parameters else None

        return lru_cache(maxsize=_KINDS_KEPT)(kind)

    def holds_sql(self, path: Path) -> bool:
        """Return whether the value at `path` below `with` has SQL somewhere in it."""
        name = str(path[0])
        return name in self.parameters and holds_sql_in(self.hints[name], path[1:])

    def fields_at(self, path: Path) -> frozenset[str]:
        """Return the keys that a mapping at `path` below `with` may have, or an empty set if any key is allowed."""
        name = str(path[0])
        return frozenset(_fields_in(self.hints[name], path[1:])) if name in self.parameters else frozenset()

    def adapter(self, name: str) -> TypeAdapter[typing.Any]:
        """Return the validator of one parameter."""
        annotation: typing.Any = self.hints[name]
        return TypeAdapter(annotation)


@dataclass(frozen=True, eq=False)
class Registry:
    """Task definitions by name; registries are compared by identity."""

    tasks: Mapping[str, TaskDefinition]

    def __contains__(self, name: object) -> bool:
        return name in self.tasks

    def __getitem__(self, name: str) -> TaskDefinition:
        return self.tasks[name]

    def __iter__(self) -> Iterator[TaskDefinition]:
        return iter(self.tasks[name] for name in sorted(self.tasks))

    def __len__(self) -> int:
        return len(self.tasks)


@cache
def load_registry() -> Registry:
    """Import every module of `tasks` and return what they declare."""
    names = sorted(module.name for module in pkgutil.walk_packages(tasks.__path__, "tasks."))
    return registry_of([importlib.import_module(name) for name in names])


def registry_of(modules: list[types.ModuleType]) -> Registry:
    """Return the tasks that `modules` declare; raise RegistryError if one breaks the contract."""
    definitions: dict[str, TaskDefinition] = {}
    for function, declaration in _declared(modules):
        definition = TaskDefinition(
            declaration.name, declaration.role, function, declaration.kind, declaration.conflicts, declaration.outputs
        )
        check_contract(definition)
        if declaration.name in definitions:
            first, second = _place(definitions[declaration.name].function), _place(function)
            raise RegistryError(f'two tasks are named "{declaration.name}": {first} and {second}; rename one of them')
        definitions[declaration.name] = definition
    return Registry(definitions)


def check_contract(definition: TaskDefinition) -> None:
    """Raise RegistryError if a declared function cannot be a task."""
    where = f'task "{definition.name}" ({_place(definition.function)})'
    if not _NAME.match(definition.name):
        raise RegistryError(f'{where}: a name must have the form "area.action", in lower case')
    if not definition.description:
        raise RegistryError(f"{where} needs a docstring; the catalogue of tasks shows it")
    signature = inspect.signature(definition.function)
    for name, parameter in signature.parameters.items():
        if parameter.annotation is inspect.Parameter.empty:
            raise RegistryError(f"{where}: parameter {name!r} of {signature} has no annotation")
        if parameter.kind in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL):
            raise RegistryError(f"{where}: {signature} takes any argument; name each, so that `with` can be checked")
    if definition.takes_run and definition.hints["run"] is not Run:
        raise RegistryError(f"{where}: the parameter 'run' of {signature} must be annotated Run")
    if definition.output is None and definition.hints.get("return") is not type(None):
        raise RegistryError(f"{where}: {signature} must return an Output or None")


def _declared(modules: list[types.ModuleType]) -> Iterator[tuple[Callable[..., object], Declaration]]:
    for module in modules:
        for value in vars(module).values():
            declaration = getattr(value, DECLARATION, None) if inspect.isfunction(value) else None
            if isinstance(declaration, Declaration) and value.__module__ == module.__name__:
                yield value, declaration


def _place(function: Callable[..., object]) -> str:
    code = inspect.unwrap(function).__code__
    return f"{code.co_filename}:{code.co_firstlineno}"


def _alternatives(annotation: object) -> tuple[object, ...]:
    """Return the members of a union, without their metadata."""
    if typing.get_origin(annotation) is typing.Annotated:
        return _alternatives(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return tuple(one for member in typing.get_args(annotation) for one in _alternatives(member))
    return (annotation,)


def _holds_location(annotation: object) -> bool:
    return any(isinstance(one, type) and issubclass(one, Location) for one in _alternatives(annotation))


def kind_in(annotation: object, path: Path) -> TextKind | None:
    """Return what the text at `path` in a value of type `annotation` means, if it is more than a text."""
    if typing.get_origin(annotation) is typing.Annotated:
        inner, *metadata = typing.get_args(annotation)
        kind = next((mark for mark in reversed(metadata) if isinstance(mark, TextKind)), None)
        return kind if kind and not path else kind_in(inner, path)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return next((kind for member in typing.get_args(annotation) if (kind := kind_in(member, path))), None)
    return _kind_inside(annotation, path) if path else None


def _fields_in(annotation: object, path: Path) -> Iterator[str]:
    for member in _alternatives(annotation):
        origin, arguments = typing.get_origin(member), typing.get_args(member)
        if isinstance(member, type) and issubclass(member, BaseModel):
            field = member.model_fields.get(str(path[0])) if path else None
            yield from member.model_fields if not path else _fields_in(field.annotation, path[1:]) if field else ()
        elif path and arguments and isinstance(origin, type):
            yield from _fields_in(arguments[-1 if issubclass(origin, Mapping) else 0], path[1:])


def holds_sql_in(annotation: object, path: Path) -> bool:
    """Return whether the value at `path` in a value of type `annotation` has SQL somewhere in it."""
    return any(_holds_sql(one) for one in _inside(annotation, path))


def _inside(annotation: object, path: Path) -> Iterator[object]:
    """Yield the types that a value at `path` in a value of type `annotation` may have."""
    if not path:
        yield annotation
        return
    for member in _alternatives(annotation):
        origin, arguments = typing.get_origin(member), typing.get_args(member)
        if isinstance(member, type) and issubclass(member, BaseModel):
            field = member.model_fields.get(str(path[0]))
            yield from _inside(field.annotation, path[1:]) if field else ()
        elif arguments and isinstance(origin, type):
            yield from _inside(arguments[-1 if issubclass(origin, Mapping) else 0], path[1:])


def _holds_sql(annotation: object) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = annotation.model_fields.values()
        return any(any(map(_is_sql, field.metadata)) or _holds_sql(field.annotation) for field in fields)
    return _is_sql(annotation) or any(map(_holds_sql, typing.get_args(annotation)))


def _is_sql(mark: object) -> bool:
    return isinstance(mark, TextKind) and mark.name in ("sql", "query")


def _kind_inside(annotation: object, path: Path) -> TextKind | None:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (list, tuple, set, frozenset) and arguments:
        return kind_in(arguments[0], path[1:])
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping) and len(arguments) == 2:
        return kind_in(arguments[0 if path[0] == KEYS else 1], path[1:])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _kind_of_field(annotation, path)
    return None


def _kind_of_field(model: type[BaseModel], path: Path) -> TextKind | None:
    field = model.model_fields.get(str(path[0]))
    if field is None:
        return None
    own = next((mark for mark in reversed(field.metadata) if isinstance(mark, TextKind)), None)
    return own if own and len(path) == 1 else kind_in(field.annotation, path[1:])
