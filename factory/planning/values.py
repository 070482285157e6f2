"""The values that a step gives its task: finding the templates in them, and checking them against the task's types."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from pydantic import TypeAdapter, ValidationError

from factory.language.document import Value, value_at
from factory.language.errors import Path, did_you_mean
from factory.language.report import Problem
from factory.language.templates import SqlForm, is_template
from factory.planning.inference import Sample, Samples
from factory.registry import kind_in
from tasks.contract import (
    Bucket,
    Column,
    ConnectionId,
    DataFile,
    FilePattern,
    SqlFile,
    SqlType,
    Table,
    TableColumn,
    TextKind,
)
from tasks.http.values import JsonPath
from tasks.quality.lint import Suite, kind_of_argument
from tasks.services.http import HttpPath

_TYPE_ERRORS = ("_type", "_parsing", "literal_error", "enum", "is_instance_of", "_attributes_type")


def _pattern(annotation: Any) -> str:
    """Return the pattern of one of the contract's texts."""
    return str(TypeAdapter(annotation).json_schema()["pattern"])


_FORMS = {
    _pattern(Table): "schema.table, as the database spells it",
    _pattern(Column): "the name of one column, without quotes",
    _pattern(TableColumn): "the name of one column, as the database spells it",
    _pattern(ConnectionId): "the id of an Airflow connection",
    _pattern(SqlFile): "a file below configs/sql/, such as crypto/tables.sql",
    _pattern(DataFile): "a path inside the folder or bucket for files, such as churn/features.parquet",
    _pattern(FilePattern): "a pattern for the names of files in one folder, such as *.csv",
    _pattern(SqlType): "a type of Postgres, such as numeric(10, 2)",
    _pattern(HttpPath): "a path below the address of the connection, without host, query or `..`, such as v1/orders",
    _pattern(JsonPath): "keys with dots between them, such as data.items",
    _pattern(Bucket): "the name of a bucket: lower case letters, digits, - and .",
}
"""What a text of each of the contract's types looks like, by its pattern."""


_TYPES: Mapping[str, str] = {
    "bool_type": "true or false",
    "date_parsing": "a date such as 2026-01-31",
    "date_type": "a date such as 2026-01-31",
    "dict_type": "a mapping",
    "float_type": "a number",
    "frozen_set_type": "a list",
    "int_type": "a whole number",
    "list_type": "a list",
    "model_type": "a mapping",
    "set_type": "a list",
    "string_type": "a text",
    "tuple_type": "a list",
}
"""What a value of the wrong type should be, by pydantic's type of error."""

_PYDANTICS_OWN = re.compile(r"^Value error, |^\w+ (?=should )| after validation, not \d+$")
"""The parts of pydantic's messages that would only confuse the author of a spec."""


def texts(value: object, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Yield every text below `value`, with its path."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from texts(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from texts(item, (*path, index))


def templated(value: Value) -> Iterator[tuple[Path, str]]:
    """Yield every text below `value` that is a template, with its path."""
    return ((path, text) for path, text in texts(value) if is_template(text))


def sql_form(kind: TextKind | None) -> SqlForm:
    """Return what SQL a text of this kind is, if any: values are inserted in it as literals."""
    return kind.name if kind is not None and kind.name in ("sql", "query") else ""


def kind_in_suite(path: Path) -> TextKind | None:
    """Return what the text at `path` in a suite means, if it is more than a text."""
    if len(path) == 4 and path[2] == "arguments":
        return kind_of_argument(str(path[3]))
    return kind_in(Suite, path)


def replaced(value: Any, leaves: Mapping[Path, Any], path: Path = ()) -> Any:
    """Return a copy of `value` with the values of `leaves` at their paths."""
    if path in leaves:
        return leaves[path]
    if isinstance(value, dict):
        return {key: replaced(item, leaves, (*path, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [replaced(item, leaves, (*path, index)) for index, item in enumerate(value)]
    return value


def check_values(
    validate: Callable[[str], object], value: Value, leaves: Mapping[Path, Samples], what: str
) -> list[Problem]:
    """Validate `value` as JSON, trying every type that each templated leaf may have.

    A leaf is not checked if nothing is known about it.
    """
    problems: dict[tuple[str, Path], Problem] = {}
    rounds = max((len(samples) for samples in leaves.values() if samples), default=1)
    for turn in range(rounds):
        chosen = {path: _sample(samples, turn) for path, samples in leaves.items()}
        filled = replaced(value, {path: sample.value for path, sample in chosen.items()}) if chosen else value
        for problem in _problems(validate, filled, chosen, what):
            problems.setdefault((problem.code, problem.path), problem)
    return list(problems.values())


def _sample(samples: Samples, turn: int) -> Sample:
    return samples[turn % len(samples)] if samples else Sample("text")


def _problems(
    validate: Callable[[str], object], value: Value, chosen: Mapping[Path, Sample], what: str
) -> Iterator[Problem]:
    try:
        validate(json.dumps(value))
    except ValidationError as error:
        near = _leaves_below(chosen)
        for detail in error.errors(include_url=False):
            path = _written(detail["loc"], value)
            above = next((path[:length] for length in range(len(path)) if path[:length] in chosen), None)
            leaf = above if above is not None else near.get(path)
            if leaf is None or detail["type"] in ("missing", "extra_forbidden"):
                yield _problem(detail, path, what)
            elif path == leaf and _judged(detail["type"], chosen[leaf]):
                yield _template_problem(detail, path, chosen[leaf])


def _leaves_below(leaves: Iterable[Path]) -> Mapping[Path, Path]:
    """Return for each path the first of the leaves that are there or below it."""
    below: dict[Path, Path] = {}
    for leaf in leaves:
        for length in range(len(leaf) + 1):
            below.setdefault(leaf[:length], leaf)
    return below


def _judged(kind: str, sample: Sample) -> bool:
    return sample.exact or any(kind.endswith(end) for end in _TYPE_ERRORS)


def _template_problem(error: Any, path: Path, sample: Sample) -> Problem:
    shown = json.dumps(sample.value) if sample.exact else _noun(sample.value)
    hint = "write it as text: {{ … | text }}" if error["type"] == "string_type" and _is_scalar(sample.value) else None
    return Problem("template-type", f"{_dotted(path)} may be {shown} here; it {expected(error)}", hint, path)


def _is_scalar(value: Value) -> bool:
    return isinstance(value, bool | int | float)


def _problem(error: Any, path: Path, what: str) -> Problem:
    kind, location = error["type"], error["loc"]
    if kind == "missing":
        name = str(location[-1])
        message = f'{what} needs "{name}", which is missing'
        return Problem("missing-argument", message, f"add {name}: to it", path, key=True, name=name)
    if kind == "extra_forbidden":
        allowed = error.get("ctx", {}).get("allowed", ())
        hint = partial(did_you_mean, str(path[-1]), allowed, "arguments") if allowed else None
        return Problem("unknown-argument", f'"{path[-1]}" is not an argument of {what}', hint, path, key=True)
    message = f"{_dotted(path)} is {_shown(error['input'])}; it {expected(error)}"
    return Problem("bad-argument", message, path=path)


def expected(error: Any) -> str:
    """Return what one of pydantic's errors expected of the value, in the words of a spec: "should be a list"."""
    if error["type"] == "string_pattern_mismatch" and error["ctx"]["pattern"] in _FORMS:
        return f"should be {_FORMS[error['ctx']['pattern']]}"
    if error["type"] == "union_tag_invalid":
        return f"should have as {error['ctx']['discriminator']} one of {error['ctx']['expected_tags']}"
    if error["type"] == "union_tag_not_found":
        return f"should have a {error['ctx']['discriminator']}"
    if error["type"] in _TYPES:
        return f"should be {_TYPES[error['type']]}"
    return _PYDANTICS_OWN.sub("", error["msg"])


def _written(location: tuple[str | int, ...], value: Value) -> Path:
    """Return the path in `value` of pydantic's location, which also names union members and tags."""
    path: Path = ()
    for part in location:
        try:
            value_at(value, (*path, part))
        except LookupError:
            continue
        path = (*path, part)
    return path


def _dotted(path: Path) -> str:
    return ".".join(str(part) for part in path) or "the value"


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _noun(value: Value) -> str:
    if isinstance(value, bool):
        return "a boolean"
    nouns = {
        int: "a whole number",
        float: "a number",
        str: "a text",
        list: "a list",
        dict: "a mapping",
        type(None): "null",
    }
    return nouns[type(value)]
