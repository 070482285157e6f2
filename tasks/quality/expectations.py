"""Every expectation of Great Expectations: its arguments, and what is wrong with those that a person wrote.

Reads the catalogue in `expectations.json`, to check a spec without the library, which takes seconds to import.
`python -m tasks.quality.expectations` writes the catalogue again from the installed library.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from tasks.names import nearest
from tasks.quality.on_postgres.conditions import as_moment, is_known_filter
from tasks.quality.on_postgres.date_formats import matches_format
from tasks.quality.on_postgres.row_queries import BatchUse, check_query
from tasks.quality.on_postgres.values import as_utc

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError
    from pydantic import JsonValue

    from tasks.quality.suites import Expectation

Arguments = Mapping[str, "JsonValue"]
Place = tuple[str | int, ...]

OWN_QUERY = "unexpected_rows_query"
QUERIES: Mapping[str, BatchUse] = {OWN_QUERY: "required", "base_query": "allowed", "comparison_query": "elsewhere"}
"""The arguments that are SQL, each with whether it reads from the batch."""
QUERY_HINT = "write SELECT * FROM {batch} WHERE <what makes a row wrong>"

_TEMPLATE = re.compile(r"\{\{.*?(?:\}\}|\Z)|\{%.*?(?:%\}|\Z)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ExpectationSchema:
    """What the catalogue says about an expectation; `schema` is the closed JSON Schema of its arguments."""

    name: str
    description: str
    schema: Mapping[str, Any]
    runs_in_sql: bool


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake; `path` is its place in the expectation's arguments, empty for a mistake in the name."""

    path: Place
    message: str
    hint: str
    code: Literal["unknown-expectation", "bad-expectation"] = "bad-expectation"


@functools.cache
def catalogue() -> Mapping[str, ExpectationSchema]:
    """Return every expectation of the library by its name in a suite."""
    written = json.loads(resources.files("tasks.quality").joinpath("expectations.json").read_text(encoding="utf-8"))
    for known in written["expectations"].values():
        arguments = known["schema"]["properties"]
        arguments.update({name: shared for name, shared in written["shared"].items() if name in arguments})
    return {name: ExpectationSchema(name, **known) for name, known in written["expectations"].items()}


def problems(expectation: Expectation) -> list[Problem]:
    """Return all mistakes in an expectation; text with a `{{ … }}` is not checked, as its value is not known yet.

    Everything that the library would refuse at run time is reported here.
    """
    known = catalogue().get(expectation.type)
    if known is None:
        message = f'Great Expectations has no expectation "{expectation.type}"'
        return [
            Problem((), message, _did_you_mean(expectation.type, catalogue(), "expectations"), "unknown-expectation")
        ]
    if not known.runs_in_sql:
        hint = _INSTEAD.get(known.name, "write an unexpected_rows_expectation: a query for the rows that are wrong")
        return [Problem((), f'"{known.name}" runs on pandas and Spark only, not in a database', hint)]
    mistakes = list(_misfits(known, expectation.arguments))
    judged = {problem.path[0] for problem in mistakes}
    for problem in (problem for check in _CHECKS for problem in check(known.name, expectation.arguments)):
        is_written = problem.path[0] in expectation.arguments
        if problem.path[0] not in judged and (is_written or not mistakes):
            mistakes.append(problem)
    return mistakes


_INSTEAD = {
    "expect_column_values_to_be_dateutil_parseable": "use expect_column_values_to_match_strftime_format",
    "expect_column_values_to_be_decreasing": "the rows of a table have no order",
    "expect_column_values_to_be_increasing": "the rows of a table have no order",
}


def _did_you_mean(word: str, known: Iterable[str], what: str) -> str:
    names = sorted(known)
    near = nearest(word, names)
    return f'did you mean "{near}"?' if near else f"{what}: {', '.join(names)}"


# --- What the schema says ---------------------------------------------------------------------------------------------


def _misfits(known: ExpectationSchema, arguments: Arguments) -> Iterator[Problem]:
    from jsonschema import Draft202012Validator

    for error in Draft202012Validator(known.schema).iter_errors(dict(arguments)):
        if not _is_excused(error):
            yield from _explained(known, error)


def _is_excused(error: ValidationError) -> bool:
    """Return whether a template is the only mistake: a list is right if its other items are."""
    if isinstance(error.instance, str) and _TEMPLATE.search(error.instance):
        return True
    return any(all(map(_is_excused, branch)) for branch in _branches(error))


def _branches(error: ValidationError) -> list[list[ValidationError]]:
    """Return the errors under each schema that an anyOf offers."""
    branches: dict[object, list[ValidationError]] = {}
    for inner in error.context or ():
        branches.setdefault(inner.schema_path[0], []).append(inner)
    return list(branches.values())


def _is_meant(branch: list[ValidationError]) -> bool:
    """Return whether a value was meant for this schema: it has its type, and its `type` if it names one."""
    return not any((error.validator == "type" and not error.path) or list(error.path) == ["type"] for error in branch)


def _explained(known: ExpectationSchema, error: ValidationError) -> Iterator[Problem]:
    path, schema = tuple(error.absolute_path), cast("Mapping[str, Any]", error.schema)
    names = schema.get("properties", {})
    if error.validator == "required":
        # jsonschema reports each missing name separately, as the first word of the message.
        missing = next(name for name in schema["required"] if error.message.startswith(repr(name)))
        what = _argument(path) if path else f'"{known.name}"'
        yield Problem((*path, missing), f'{what} needs "{missing}"', f"write {missing}: {_wanted(names[missing])}")
    elif error.validator == "additionalProperties":
        for name in sorted(set(cast("Arguments", error.instance)) - set(names)):
            what = f"{_argument(path)} has no" if path else f'"{known.name}" has no argument'
            yield Problem((*path, name), f'{what} "{name}"', _did_you_mean(name, names, "known"))
    elif len(meant := [branch for branch in _branches(error) if _is_meant(branch)]) == 1:
        for inner in meant[0]:
            yield from _explained(known, inner)
    else:
        yield Problem(path, f"{_argument(path)} is {_shown(error.instance)}", f"write {_wanted(schema)}")


def _argument(path: Place) -> str:
    return ".".join(map(str, path))


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "…"


_WORDS = {
    "string": "text",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "null",
}


def _wanted(schema: Mapping[str, Any]) -> str:
    """Return what a schema accepts, in words."""
    if "enum" in schema:
        return f"one of {', '.join(sorted(map(str, schema['enum'])))}"
    if "anyOf" in schema:
        options = [_wanted(option) for option in schema["anyOf"] if option.get("type") != "null"]
        return " or ".join(dict.fromkeys(options))
    if "format" in schema:
        return "a date" if schema["format"] == "date" else "a time"
    kinds = schema.get("type", "")
    if isinstance(kinds, list):
        return " or ".join(_WORDS[kind] for kind in kinds if kind != "null")
    return _WORDS.get(kinds, "a value") + _limits(schema)


def _limits(schema: Mapping[str, Any]) -> str:
    if "minimum" in schema and "maximum" in schema:
        return f" from {schema['minimum']:g} to {schema['maximum']:g}"
    if "minimum" in schema:
        return f" of at least {schema['minimum']:g}"
    if schema.get("minItems"):
        return f" of at least {schema['minItems']}"
    if schema.get("maxLength") == schema.get("minLength") == 1:
        return " of one character"
    return " that is not empty" if schema.get("minLength") else ""


# --- What the schema cannot say ---------------------------------------------------------------------------------------


def _check_limits(name: str, arguments: Arguments) -> Iterator[Problem]:
    lowest, highest = arguments.get("min_value"), arguments.get("max_value")
    if name.endswith("_to_be_between") and "quantile" not in name and lowest is None and highest is None:
        yield Problem(("min_value",), f'"{name}" has neither min_value nor max_value', "write one of them, or both")
    pair = _comparable(lowest, highest)
    if pair and pair[0] > pair[1]:
        message = f"min_value {_shown(lowest)} is greater than max_value {_shown(highest)}"
        yield Problem(("min_value",), message, "swap them, or correct one")
    for bound in ("min_value", "max_value"):
        value = arguments.get(bound)
        if isinstance(value, str) and not _TEMPLATE.search(value) and as_moment(value) is None:
            yield Problem((bound,), f"{bound} {_shown(value)} is not a date", "write a number, or a date: 2026-01-31")


def _comparable(lowest: JsonValue, highest: JsonValue) -> tuple[Any, Any] | None:
    if isinstance(lowest, int | float) and isinstance(highest, int | float):
        return lowest, highest
    if not isinstance(lowest, str) or not isinstance(highest, str):
        return None
    low, high = as_moment(lowest), as_moment(highest)
    return (as_utc(low), as_utc(high)) if low and high else None


def alike(arguments: Arguments) -> dict[str, str]:
    """Return the bounds as times in UTC if one is a date and the other a time, or only one of them has a zone.

    The library compares them with each other, and Python compares only what is alike.
    """
    given = {name: as_moment(str(arguments.get(name))) for name in ("min_value", "max_value")}
    bounds = {name: moment for name, moment in given.items() if moment}
    if len({(type(moment), getattr(moment, "tzinfo", None) is None) for moment in bounds.values()}) == 1:
        return {}
    return {name: as_utc(moment).isoformat() for name, moment in bounds.items()}


def _check_texts(_name: str, arguments: Arguments) -> Iterator[Problem]:
    for path, value in _leaves(arguments):
        if isinstance(value, str) and "\0" in value:
            yield Problem(path, f"{_argument(path)} contains the character NUL", "remove it: Postgres cannot store it")
        if isinstance(value, float) and not math.isfinite(value):
            yield Problem(path, f"{_argument(path)} is {value}", "write a finite number")


def _leaves(value: Any, path: Place = ()) -> Iterator[tuple[Place, Any]]:
    parts = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield from _leaves(part, (*path, key))
    if not isinstance(value, Mapping | list):
        yield path, value


def _check_value_set(_name: str, arguments: Arguments) -> Iterator[Problem]:
    values = arguments.get("value_set")
    if not isinstance(values, list) or any(isinstance(value, str) and _TEMPLATE.search(value) for value in values):
        return
    kinds = {_kind(value) for value in values if value is not None}
    if not kinds:
        yield Problem(("value_set",), "value_set contains only null", "write the values; a null is never in a set")
    elif len(kinds) > 1:
        message = f"value_set mixes {' and '.join(sorted(kinds))}, but a column has only one type"
        yield Problem(("value_set",), message, "quote all of the values, or none")


def _kind(value: JsonValue) -> str:
    if isinstance(value, bool):
        return "booleans"
    return "numbers" if isinstance(value, int | float) else "texts"


def _check_patterns(_name: str, arguments: Arguments) -> Iterator[Problem]:
    for path, value in _leaves({name: arguments[name] for name in ("regex", "regex_list") if name in arguments}):
        if isinstance(value, str) and not _TEMPLATE.search(value) and (wrong := _regex_problem(value)):
            yield Problem(path, f"{_argument(path)} is not a Postgres regular expression: {wrong}", "correct it")


_NOT_IN_POSTGRES = {
    r"(?<!\\)\(\?P[<=>]": "named groups, (?P<name>…), exist only in Python",
    r"(?<!\\)\(\?>": "atomic groups, (?>…), are not supported",
    r"(?<!\\)[*+?}]\+": "possessive quantifiers are not supported",
    r"(?<!\\)\\[pP]\{": r"Unicode properties, \p{…}, are not supported",
}


def _regex_problem(pattern: str) -> str | None:
    """Return what is wrong with a regular expression, as far as it shows without Postgres."""
    for wrong, reason in _NOT_IN_POSTGRES.items():
        if re.search(wrong, pattern):
            return reason
    if re.search(r"\[\[:[a-z]+:\]|\[\[[.=]|\\[mMyYAZ]|\[:[<>]:\]|\(\?[bceimnpqstwx]+\)|\*\*\*", pattern):
        return None  # only Postgres understands it
    try:
        re.compile(pattern)
    except (re.error, OverflowError) as error:
        return str(error)
    except RecursionError:
        return "too many parentheses are inside each other"
    return None


def _check_formats(_name: str, arguments: Arguments) -> Iterator[Problem]:
    written = arguments.get("strftime_format")
    if isinstance(written, str) and not _TEMPLATE.search(written) and matches_format('"c"', written) is None:
        message = f'strftime_format "{written}" cannot be checked in SQL'
        yield Problem(
            ("strftime_format",), message, "use %Y %y %m %b %B %d %H %I %M %S %f %p %z, each at most once, and text"
        )


def _check_queries(_name: str, arguments: Arguments) -> Iterator[Problem]:
    """Check queries without templates; their functions are checked by those who know the project's."""
    for name in QUERIES:
        query = arguments.get(name)
        if isinstance(query, str) and not _TEMPLATE.search(query):
            try:
                check_query((query,), QUERIES[name], functions=None)
            except ValueError as error:
                yield Problem((name,), f"{name} {error}", QUERY_HINT)


def _check_filters(_name: str, arguments: Arguments) -> Iterator[Problem]:
    given = arguments.get("row_condition")
    if isinstance(given, str) and not arguments.get("condition_parser"):
        message = "row_condition is text, which Great Expectations reads only with a condition_parser"
        yield Problem(("row_condition",), message, "add condition_parser: great_expectations")
    elif isinstance(given, str) and not is_known_filter(_TEMPLATE.sub("1", given)):
        message = f"row_condition {_shown(given)} is not one comparison"
        hint = """write col("name") > 5, col("name") == "text" or col("name").notnull(), or the mapping form for more"""
        yield Problem(("row_condition",), message, hint)


def _check_quantiles(_name: str, arguments: Arguments) -> Iterator[Problem]:
    ranges = arguments.get("quantile_ranges")
    if not isinstance(ranges, dict):
        return
    quantiles, values = ranges.get("quantiles"), ranges.get("value_ranges")
    if not isinstance(quantiles, list) or not isinstance(values, list):
        return
    if len(quantiles) != len(values):
        message = f"{len(quantiles)} quantiles have {len(values)} value_ranges"
        yield Problem(("quantile_ranges",), message, "write one range for each quantile")
    for place, pair in enumerate(values):
        known = _comparable(*pair) if isinstance(pair, list) and len(pair) == 2 else None
        if known and known[0] > known[1]:
            path = ("quantile_ranges", "value_ranges", place)
            yield Problem(path, f"{_argument(path)} {_shown(pair)} has its larger end first", "swap the two")


def _check_partition(name: str, arguments: Arguments) -> Iterator[Problem]:
    partition = arguments.get("partition_object")
    if name == "expect_column_kl_divergence_to_be_less_than" and isinstance(partition, dict):
        for wrong in _partition_problems(partition):
            hint = "write weights that add up to 1, with values, or with ascending bins, one more than weights"
            yield Problem(("partition_object",), f"partition_object has {wrong}", hint)


def _partition_problems(partition: Mapping[str, Any]) -> Iterator[str]:
    weights, tails = partition.get("weights"), partition.get("tail_weights", [])
    keys, extra = ("bins", 1) if "bins" in partition else ("values", 0)
    parts = partition.get(keys)
    if not isinstance(weights, list) or not isinstance(parts, list) or len(parts) != len(weights) + extra:
        yield f"no {keys} for its weights"
    elif not math.isclose(total := sum([*weights, *tails]), 1, rel_tol=1e-5):
        yield f"weights that add up to {total:g}"
    elif keys == "bins" and any(low >= high for low, high in pairwise(parts)):
        yield "bins that are not ascending"


Check = Callable[[str, Arguments], Iterator[Problem]]
_CHECKS: tuple[Check, ...] = (
    _check_texts,
    _check_limits,
    _check_value_set,
    _check_patterns,
    _check_formats,
    _check_queries,
    _check_filters,
    _check_quantiles,
    _check_partition,
)


def _write_catalogue() -> None:
    from tasks.quality.expectation_schemas import describe

    text = json.dumps(describe(), indent=1, sort_keys=True, ensure_ascii=False)
    Path(__file__).with_suffix(".json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    _write_catalogue()
