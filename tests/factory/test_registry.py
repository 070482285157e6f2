"""The contract of a reusable task, checked when it is registered."""

import types
from typing import Annotated, Any

import pytest
from pydantic import Field

from factory.language.errors import RegistryError
from factory.registry import KEYS, Registry, load_registry, registry_of
from tasks.contract import Output, Run, Sql, Table, TextKind, WrittenFile, reusable
from tasks.quality.suites import Suite


class Rows(Output):
    rows: int


def module_of(**functions: Any) -> types.ModuleType:
    module = types.ModuleType("made")
    for name, function in functions.items():
        function.__module__ = "made"
        setattr(module, name, function)
    return module


def registry_with(function: Any) -> Registry:
    return registry_of([module_of(function=function)])


def test_shipped_tasks_are_registered() -> None:
    """Every task that the first pipeline names is there."""
    assert {"messages.log", "postgres.merge", "quality.validate", "synthetic.fill_table"} <= set(load_registry().tasks)


SCALARS = {"boolean", "integer", "number", "string", "null"}


def kinds(schema: dict[str, Any]) -> set[str]:
    """Return the types that a JSON Schema allows; of a list or a mapping, those of its values."""
    if "anyOf" in schema:
        return set().union(*(kinds(one) for one in schema["anyOf"]))
    below = {"array": "items", "object": "additionalProperties"}.get(schema.get("type", ""))
    inner = schema[below] if below else schema
    return {one.get("type", "any") for one in inner.get("anyOf", [inner])}


def test_no_output_carries_data() -> None:
    """What goes through XCom are numbers, short texts and links, or one for each column, file or date: never rows."""
    fields = {
        f"{task.name}.{name}": kinds(schema)
        for task in load_registry()
        for name, schema in (task.output_schema or {}).get("properties", {}).items()
    }
    assert len(fields) > 50
    assert {name: found for name, found in fields.items() if not found <= SCALARS} == {}


def test_signature_is_schema() -> None:
    """Parameters become the closed schema of with, the return type that of the output."""

    @reusable("area.act", role="load")
    def act(table: Table, limit: Annotated[int, Field(ge=1)] = 5, *, run: Run) -> Rows:
        """Act."""
        return Rows(rows=limit)

    definition = registry_with(act)["area.act"]

    assert set(definition.parameters) == {"table", "limit"}
    assert definition.takes_run
    assert definition.arguments.model_json_schema()["required"] == ["table"]
    assert definition.output_schema["properties"] == {"rows": {"title": "Rows", "type": "integer"}}


def test_kinds_are_found_inside() -> None:
    """What a text means is known however deep it stands."""

    @reusable("area.act", role="gate")
    def act(columns: dict[str, Sql], where: Sql | None, suite: Suite, outputs: dict[WrittenFile, str]) -> None:
        """Act."""

    definition = registry_with(act)["area.act"]

    assert definition.kind_at(("columns", "a")) == TextKind("sql")
    assert definition.kind_at(("where",)) == TextKind("sql")
    assert definition.kind_at(("suite", "batch", "where")) == TextKind("sql")
    assert definition.kind_at(("suite", "batch", "table")) == TextKind("table", of="judge")
    assert definition.kind_at(("suite", "name")) is None
    assert definition.kind_at(("outputs", KEYS)) == TextKind("file", written=True)
    assert definition.kind_at(("outputs", "a.csv")) is None
    assert definition.suites == {"suite"}


def without_annotation(x) -> None:  # type: ignore[no-untyped-def]
    """Act."""


def without_docstring(x: int) -> None:
    pass


def with_any_arguments(**x: int) -> None:
    """Act."""


def with_other_return() -> int:
    """Act."""
    return 1


def with_other_run(*, run: int) -> None:
    """Act."""


@pytest.mark.parametrize(
    ("function", "name", "message"),
    [
        (without_annotation, "area.act", "parameter 'x' of (x) -> None has no annotation"),
        (without_docstring, "area.act", "needs a docstring"),
        (with_any_arguments, "area.act", "takes any argument; name each"),
        (with_other_return, "area.act", "must return an Output or None"),
        (with_other_run, "area.act", "must be annotated Run"),
        (with_other_run, "Act", 'a name must have the form "area.action"'),
    ],
)
def test_broken_contract_is_refused(function: Any, name: str, message: str) -> None:
    """A function that cannot be a task is refused with its place and its signature."""
    function.__annotations__.pop("_", None)
    with pytest.raises(RegistryError, match=__file__) as raised:
        registry_with(reusable(name, role="notify")(function))

    assert message in str(raised.value)


def test_duplicate_names_both_places() -> None:
    """Two tasks of one name are refused, with both places."""

    @reusable("area.act", role="notify")
    def first() -> None:
        """Act."""

    @reusable("area.act", role="notify")
    def second() -> None:
        """Act."""

    with pytest.raises(RegistryError) as raised:
        registry_of([module_of(first=first, second=second)])

    places = [f"{__file__}:{function.__code__.co_firstlineno}" for function in (first, second)]
    assert str(raised.value) == f'two tasks are named "area.act": {places[0]} and {places[1]}; rename one of them'
