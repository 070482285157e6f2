"""What an editor marks by the schemas: nothing that lint accepts, and a mistake where it is."""

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from yaml import safe_load

from factory.command.json_schema import pipeline_schema
from factory.command.reference import SCHEMAS
from factory.language.document import Value, read
from factory.registry import load_registry
from tests.support.expectation_examples import EXAMPLES

ROOT = Path(__file__).parents[2]
OF_FILES = {
    "pipeline": ["pipelines/*.yaml", "tests/cases/*.yaml"],
    "suite": ["configs/suites/*.yaml"],
    "defaults": ["configs/defaults.yaml", "configs/environments/*.yaml", "tests/*/configs/defaults.yaml"],
}


@cache
def validator(kind: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads((ROOT / f"configs/{kind}.schema.json").read_text()))


def value(content: bytes) -> Value:
    document, _ = read(content, "x.yaml")
    return document.value if document.root else {"dag_id": "x", "steps": {"x": {"uses": "messages.log"}}}


def right_files(kind: str) -> Iterator[Path]:
    for pattern in OF_FILES[kind]:
        for file in sorted(ROOT.glob(pattern)):
            report = file.with_suffix(".out")
            if not report.exists() or ": error: " not in report.read_text():
                yield file


@pytest.mark.parametrize("kind", SCHEMAS)
def test_schema_accepts_right_files(kind: str) -> None:
    """An editor marks nothing in a file in which lint finds no error."""
    Draft202012Validator.check_schema(validator(kind).schema)
    marked = {
        str(file): [error.message for error in validator(kind).iter_errors(value(file.read_bytes()))]
        for file in right_files(kind)
    }

    assert len(marked) >= 2
    assert {file: messages for file, messages in marked.items() if messages} == {}


def test_schema_accepts_shown_specs() -> None:
    """The same holds for the specs of the guide."""
    guide = (ROOT / "docs/guide.md").read_text()
    for shown in re.findall(r"```yaml\n(dag_id.*?)```", guide, re.DOTALL):
        assert [error.message for error in validator("pipeline").iter_errors(value(shown.encode()))] == []


def test_schema_accepts_every_expectation() -> None:
    """The same holds for each expectation of the library."""
    rules = [{name: arguments} for name, arguments in EXAMPLES.items()]
    suite = {"connection": "x", "batch": {"table": "a.b", "where": "n > {{ params.n }}"}, "expectations": rules}

    assert [error.message for error in validator("suite").iter_errors(suite)] == []


@pytest.mark.parametrize("name", ["pipelines", "configs/suites", "configs/environments", "configs"])
def test_files_name_their_schemas(name: str) -> None:
    """The first line of each file tells an editor where its schema is."""
    for file in (ROOT / name).glob("*.yaml"):
        first = file.read_text().partition("\n")[0]
        target = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)
        assert target, f"{file} names no schema"
        assert (file.parent / target[1]).is_file()


MISTAKES: list[tuple[str, list[str | int]]] = [
    ("{uses: messages.lgo, with: {message: x}}", ["uses"]),
    ("{uses: messages.log}", []),
    ("{uses: messages.log, with: {}}", ["with"]),
    ("{uses: messages.log, with: {message: x, levl: info}}", ["with"]),
    ("{uses: messages.log, with: {message: x, level: loud}}", ["with", "level"]),
    ("{uses: messages.log, with: {message: [x]}}", ["with", "message"]),
    ("{uses: messages.log, with: {message: x}, retries: many}", ["retries"]),
    ("{uses: messages.log, expand: {message: a}}", ["expand", "message"]),
    ("{uses: messages.log, expand: {massage: [a]}}", ["expand"]),
    ("{uses: messages.log, with: {message: x}, notify: {on_failure: {conection: x}}}", ["notify", "on_failure"]),
    ("{uses: postgres.vacuum, with: {connection: c, table: events}}", ["with", "table"]),
    ("{uses: wait.until, with: {moment: '{{ run.interval_end }}', timeout: 0}}", ["with", "timeout"]),
    (
        "{uses: drift.snapshot, with: {source: a, output: b, shifts: {x: 101}}}",
        ["with", "shifts", "x"],
    ),
    (
        """{uses: drift.report, with: {current: {file: a}, reference: {history: b, last: 0}, output: o,
        columns: {numeric: {columns: [a]}}}}""",
        ["with", "reference", "last"],
    ),
    (
        """{uses: spark.clean_csv, with: {connection: s, report: r, outputs: {a.parquet: {source: a}},
        sources: {a: {file: a.csv, columns: {x: {type: intger}}}}}}""",
        ["with", "sources", "a", "columns", "x", "type"],
    ),
    (
        """{uses: synthetic.fill_table, with: {connection: c, table: a.b, day_column: d, rows_per_day: 3,
        columns: {x: {integer: {min: a, max: 3}}}}}""",
        ["with", "columns", "x", "integer", "min"],
    ),
    ("{branch: [{if: '{{ true }}', then: a}, {els: b}]}", ["branch", 1]),
    ("{branch: [{if: always, then: a}, {else: null}]}", ["branch", 0, "if"]),
    ("{steps: {a: {uses: messages.log, with: {message: 1}}}}", ["steps", "a", "with", "message"]),
]


@pytest.mark.parametrize(("step", "place"), MISTAKES, ids=[str(number) for number in range(len(MISTAKES))])
def test_mistake_is_marked_where_it_is(step: str, place: list[str | int]) -> None:
    """Every mark is within the field that is wrong, and the step as a whole is marked only for what it lacks."""
    spec = {"dag_id": "x", "steps": {"one": safe_load(step)}}

    errors = list(validator("pipeline").iter_errors(spec))
    best: Any = best_match(errors)

    assert list(best.absolute_path)[2:] == place
    assert all(list(error.absolute_path)[2 : 2 + len(place)] == place for error in errors)


def test_given_arguments_may_be_left_out() -> None:
    """An argument is required unless `expand` or the defaults give it."""
    step: dict[str, Any] = {"uses": "files.keep_snapshot", "with": {"source": "a", "history": "b", "keep": 3}}
    spec = {"dag_id": "x", "steps": {"one": step}}
    bare = Draft202012Validator(pipeline_schema(load_registry(), {}))

    assert [error.message for error in bare.iter_errors(spec)] == ["'files' is a required property"]
    assert list(validator("pipeline").iter_errors(spec)) == []
    del step["with"]["keep"]
    assert len(list(validator("pipeline").iter_errors(spec))) == 1
    step["expand"] = {"keep": [3, 4]}
    assert list(validator("pipeline").iter_errors(spec)) == []


def test_schemas_stay_small() -> None:
    """An editor reads the schema again and again: what is written twice is shared."""
    assert len(json.dumps(validator("pipeline").schema, separators=(",", ":"))) < 200_000
