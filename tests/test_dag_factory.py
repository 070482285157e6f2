"""The page for those who come from dag-factory: each of its features is a case that lints, or a reason."""

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from factory.compiler import compile_file
from factory.language.errors import render
from factory.planning.config_files import check_config, is_config
from factory.registry import load_registry

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "coming-from-dag-factory.md"
EXAMPLES = [
    "asset_triggered_dags",
    "defaults",
    "example_callbacks",
    "example_config_datasets",
    "example_custom_py_object_dag",
    "example_customize_operator",
    "example_dag_datasets",
    "example_dag_datasets_outlet_inlet",
    "example_dag_factory",
    "example_dag_factory_default_args",
    "example_dag_factory_default_config",
    "example_dag_factory_default_config_dict",
    "example_dag_factory_multiple_config",
    "example_dag_factory_tasks_taskgroups_as_dict_format",
    "example_dataset_condition_string",
    "example_dataset_or_timetable_schedule",
    "example_dataset_yaml_syntax",
    "example_dynamic_task_mapping",
    "example_hackernews_dagfactory",
    "example_http_operator_task",
    "example_jinja2_template_dag",
    "example_map_index_template",
    "example_multiple_outputs_taskflow",
    "example_object_storage",
    "example_params",
    "example_pypi_stats_dagfactory",
    "example_simple_http_operator_task",
    "example_task_group",
    "example_taskflow",
    "example_timetable_schedule",
    "example_user_defined_macros",
    "external_task_sensor",
    "invalid",
    "kpo",
]
"""Every YAML file of dag-factory 1.1.0 below `dev/dags`."""


class Row(NamedTuple):
    theirs: str
    ours: str
    case: str
    examples: list[str]


def rows() -> list[Row]:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    cells = [re.split(r"(?<!\\)\|", line.strip("|")) for line in lines if not line.startswith("| dag-factory says")]
    read = [[cell.strip().replace(r"\|", "|") for cell in one] for one in cells]
    return [Row(one[0], one[1], "".join(re.findall(r"\((.*)\)", one[2])), re.findall(r"\w+", one[3])) for one in read]


CASES = sorted({row.case for row in rows() if row.case})


def test_rows_are_cases_or_reasons() -> None:
    """What a row says stands in its case as it is written; a row without one has words that say why."""
    for row in rows():
        if row.case:
            text = (PAGE.parent / row.case).read_text()
            missing = [one for one in re.findall(r"`([^`]+)`", row.ours) if one not in text and not of_files(one)]
            assert missing == [], f"{row.case} does not show {missing}"
        else:
            assert len(row.ours.split()) >= 6, f"{row.theirs} has neither a case nor a reason"


def of_files(text: str) -> bool:
    return text.startswith(("configs/", "taskflow "))


def test_every_example_is_covered() -> None:
    """Each example of dag-factory is named by a row, and no other."""
    assert {example for row in rows() for example in row.examples} == set(EXAMPLES)


@pytest.mark.parametrize("case", CASES)
def test_case_passes_lint(case: str) -> None:
    """A case has neither errors nor warnings."""
    file = (PAGE.parent / case).resolve()
    report = check_config(file, load_registry()) if is_config(file) else compile_file(file).report

    assert render(report.diagnostics) == ""


def test_every_case_is_named() -> None:
    """No case is left over."""
    assert {Path(case).name for case in CASES} >= {file.name for file in (ROOT / "tests" / "dag_factory").iterdir()}
