"""Each task has an example: a spec that lint accepts, of which the catalogue shows the step."""

import pytest

from factory.command.examples import example_file, example_of
from factory.compiler import compile_file
from factory.language.errors import render
from factory.registry import TaskDefinition, load_registry

DEFINITIONS = list(load_registry())


def test_every_task_has_example() -> None:
    """A task without an example is not finished, and no example is left of a task that is gone."""
    files = {one.name: example_file(one) for one in DEFINITIONS}

    assert {name for name, file in files.items() if not file.is_file()} == set()
    assert {file.stem for folder in {one.parent for one in files.values()} for file in folder.iterdir()} == set(files)


@pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda one: one.name)
def test_example_passes_lint(definition: TaskDefinition) -> None:
    """The whole example has neither errors nor warnings, and the step that is shown uses the task."""
    assert render(compile_file(example_file(definition)).report.diagnostics) == ""
    assert f"uses: {definition.name}" in example_of(definition)


def test_shown_step_is_whole() -> None:
    """The step is shown with everything in it and nothing after it."""
    assert example_of(load_registry()["models.promote"]) == (
        "promote:\n"
        "  uses: models.promote\n"
        "  with:\n"
        "    mlflow: mlflow_default\n"
        "    model: churn-model\n"
        '    version: "{{ steps.evaluate.candidate_version }}"\n'
    )
