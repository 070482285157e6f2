"""The functions that SQL may call: those that `configs/` adds, at lint and in the worker."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from factory.bridge.runtime import call
from factory.compiler import compile_file
from tasks.contract import MissingResource, PermanentError, Run

SPEC = """
dag_id: distances
schedule: null
steps:
  build:
    uses: postgres.rebuild_table
    with: {connection: geo, source: raw.shops, target: staging.shops, columns: {far: "st_distance(a, geo.centre(b))"}}
"""


def codes(folder: Path) -> list[str]:
    spec = folder / "pipelines" / "distances.yaml"
    spec.parent.mkdir(exist_ok=True)
    spec.write_text(SPEC)
    return [diagnostic.code for diagnostic in compile_file(spec).errors]


def test_configs_add_functions(tmp_path: Path) -> None:
    """A function of an extension is an error until `configs/` lists it, with its schema if it is called with one."""
    defaults = tmp_path / "configs" / "defaults.yaml"
    defaults.parent.mkdir()
    defaults.write_text("functions: [st_distance]\n")
    assert codes(tmp_path) == ["unknown-function"]

    defaults.write_text("functions: [st_distance, geo.centre]\n")
    assert codes(tmp_path) == []


def run() -> Run:
    return Run("distances", "manual__1", "build", dt.date(2026, 1, 5))


BUILD: dict[str, Any] = {"connection": "nowhere", "source": "raw.a", "target": "staging.a", "columns": {"a": "a"}}
SUITE: dict[str, Any] = {
    "name": "checks",
    "connection": "nowhere",
    "batch": {"table": "raw.a"},
    "expectations": [{"type": "expect_column_to_exist", "arguments": {"column": "a"}}],
}
QUERY = {
    "type": "unexpected_rows_expectation",
    "arguments": {"unexpected_rows_query": "SELECT far(a) FROM {batch}"},
}


@pytest.mark.parametrize(
    ("uses", "values", "where"),
    [
        ("postgres.rebuild_table", BUILD | {"where": "far(a)"}, "where"),
        ("postgres.rebuild_table", BUILD | {"columns": {"a": "far(a)"}}, "columns.a"),
        ("quality.validate", {"suite": SUITE | {"batch": {"table": "raw.a", "where": "far(a)"}}}, "suite.batch.where"),
        (
            "quality.validate",
            {"suite": SUITE | {"expectations": [QUERY]}},
            "suite.expectations.0.arguments.unexpected_rows_query",
        ),
    ],
)
def test_worker_checks_functions_again(uses: str, values: dict[str, Any], where: str) -> None:
    """SQL is judged once more as it reaches its task, wherever it came from."""
    with pytest.raises(PermanentError, match=rf'^{where}: calls "far", which is not among the functions'):
        call(uses, values, run(), {})
    with pytest.raises(MissingResource, match="'nowhere'"):
        call(uses, values, run(), {}, frozenset({"far"}))


@pytest.mark.parametrize("where", ["true) OR (true", "1; DROP TABLE a", "a IN (SELECT 1)"])
def test_worker_checks_expressions_again(where: str) -> None:
    """What is not an expression does not reach a task."""
    with pytest.raises(PermanentError, match=r"^where: "):
        call("postgres.rebuild_table", BUILD | {"where": where}, run(), {})
