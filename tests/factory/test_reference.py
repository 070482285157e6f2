"""What is generated from the code is what the code says now."""

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from factory.command.json_schema import json_schema
from factory.command.reference import FILES, texts
from factory.language.document import read
from factory.registry import load_registry

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", FILES)
def test_generated_file_is_current(name: str) -> None:
    """`python -m factory.command.reference` has been run since the code changed."""
    assert (ROOT / name).read_text() == texts()[name]


@pytest.mark.parametrize("spec", sorted((ROOT / "pipelines").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_specs_fit_schema(spec: Path) -> None:
    """An editor with the schema finds nothing wrong in a shipped spec."""
    schema = json_schema(load_registry())
    Draft202012Validator.check_schema(schema)
    document, _ = read(spec.read_bytes(), spec.name)

    assert [error.message for error in Draft202012Validator(schema).iter_errors(document.value)] == []


def test_schema_refuses_misspelt_key() -> None:
    """An editor marks a key that lint would refuse."""
    schema = json.loads((ROOT / "configs/pipeline.schema.json").read_text())
    spec = {"dag_id": "x", "shedule": "@daily", "steps": {"say": {"uses": "messages.log", "with": {"massage": "x"}}}}

    assert len(list(Draft202012Validator(schema).iter_errors(spec))) == 2
