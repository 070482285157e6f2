"""The rows of a task's arguments: every field, however deep, with what its author wrote about it."""

import types
from typing import Annotated, Any

from pydantic import Field

from factory.command.argument_rows import Row, argument_rows, output_rows
from factory.command.attribute_docs import field_doc, type_doc
from factory.registry import TaskDefinition, load_registry, registry_of
from tasks.contract import Column, ConnectionId, DataFile, Model, Output, reusable

Shop = Annotated[str, Field(max_length=10)]
"""The name of a shop."""


class Rule(Model):
    """What must be true of a column.

    With `strict` set, equal is not enough.
    """

    least: Annotated[int, Field(ge=0)] = 0
    """The smallest value."""
    strict: bool = False


class FromShop(Model):
    """Rows of a shop."""

    shop: Shop
    rules: dict[Column, Rule] = Field(default_factory=dict)


class FromFile(Model):
    """Rows of a file."""

    file: DataFile


class Counted(Output):
    rows: int
    """How many there are."""


@reusable("area.count", role="source")
def count(
    connection: ConnectionId, source: FromShop | FromFile, others: list[FromShop] | None = None, shops: Shop = "all"
) -> Counted:
    """Count rows.

    Those of `others` are counted too, unless `shops` says otherwise.
    """
    raise NotImplementedError


def definition(function: Any) -> TaskDefinition:
    module = types.ModuleType(function.__module__)
    module.count = function  # type: ignore[attr-defined]  # a module is made of what the test gives it
    return registry_of([module])["area.count"]


OTHERS = "Those of `others` are counted too, unless `shops` says otherwise."
ROWS = [
    Row("connection", "text", "required", "The id of an Airflow connection, which holds host and secrets."),
    Row("source", "mapping", "required"),
    Row("source with shop", "mapping", "", "Rows of a shop."),
    Row("source.shop", "text", "required", "The name of a shop."),
    Row("source.rules", "mapping to mappings", "{}", "What must be true of a column."),
    Row("source.rules.*.least", "integer ≥ 0", "0", "The smallest value."),
    Row("source.rules.*.strict", "boolean", "false", "With `strict` set, equal is not enough."),
    Row("source with file", "mapping", "", "Rows of a file."),
    Row(
        "source.file",
        "text",
        "required",
        "A file, or a folder of files, passed between steps: its path below the place that `files` names.",
    ),
    Row("others", "list of mappings or null", "null", f"{OTHERS} Its fields are those of `source`."),
    Row("shops", "text", '"all"', OTHERS),
]


def test_every_field_has_row() -> None:
    """A field has its path, type, default and meaning; fields that were shown are referred to."""
    rows, notes = argument_rows(definition(count))

    assert rows == ROWS
    assert [(note.path, note.text) for note in notes] == [("source.rules.*", "With `strict` set, equal is not enough.")]
    assert output_rows(definition(count)) == [Row("rows", "integer", "", "How many there are.")]


def test_docs_are_read_from_source() -> None:
    """What stands below a field or a type is found, also through imports; nothing is made up."""
    assert field_doc(Rule, "least") == "The smallest value."
    assert field_doc(Rule, "strict") == ""
    assert type_doc(FromShop, "shop") == "The name of a shop."
    assert type_doc(FromShop, "rules") == ""
    assert type_doc(count, "connection").startswith("The id of an Airflow connection")


def test_no_type_has_fields() -> None:
    """No type of a shipped argument lists its fields: they have rows of their own."""
    types = [row.type for one in load_registry() for row in argument_rows(one)[0]]

    assert not any("{" in one for one in types)
