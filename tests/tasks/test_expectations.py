"""The catalogue of expectations, and what is said of those that a person wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tasks.quality.expectations
from tasks.quality.expectations import catalogue, problems
from tasks.quality.suites import Expectation
from tests.support.expectation_examples import EXAMPLES


def said(name: str, /, **arguments: Any) -> list[tuple[Any, ...]]:
    return [(one.path, one.message, one.hint) for one in problems(Expectation(type=name, arguments=arguments))]


def test_catalogue_is_fresh() -> None:
    """The file is what the installed library makes of it; `python -m tasks.quality.expectations` writes it again."""
    from tasks.quality.expectation_schemas import describe

    written = Path(tasks.quality.expectations.__file__).with_suffix(".json").read_text(encoding="utf-8")
    assert json.loads(written) == json.loads(json.dumps(describe()))


def test_examples_cover_catalogue() -> None:
    """Every expectation of the library has an example, so that the tests below are about all of them."""
    assert sorted(EXAMPLES) == sorted(catalogue())


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_example_is_right(name: str) -> None:
    """The library takes what the linter takes; four expectations run in no database, which the linter says."""
    construct(name, EXAMPLES[name])
    found = said(name, **EXAMPLES[name])
    assert [message for _, message, _ in found] == (
        [] if catalogue()[name].runs_in_sql else [f'"{name}" runs on pandas and Spark only, not in a database']
    )


@pytest.mark.parametrize("name", sorted(name for name, known in catalogue().items() if known.runs_in_sql))
def test_refusals_are_found(name: str) -> None:
    """Whatever the library refuses when an expectation is made, the linter has found before."""
    missed = [spoiled for spoiled in spoilt(name) if is_refused(name, spoiled) and not said(name, **spoiled)]
    assert missed == []


def spoilt(name: str) -> Iterator[dict[str, Any]]:
    """Give the example with each argument missing or wrong in some way, and with an unknown one."""
    example = EXAMPLES[name]
    wrong = ("", "text", -1, 2, 1.5, True, None, [], ["a"], [1], {}, {"a": 1}, [[1]], [["a", "b", "c"]])
    yield {**example, "unknown": 1}
    yield {}
    for argument in catalogue()[name].schema["properties"]:
        yield {key: value for key, value in example.items() if key != argument}
        for value in wrong:
            yield {**example, argument: value}


def construct(name: str, arguments: dict[str, Any]) -> None:
    from great_expectations.expectations.registry import get_expectation_impl

    implementation: Any = get_expectation_impl(name)
    implementation(**arguments)


def is_refused(name: str, arguments: dict[str, Any]) -> bool:
    try:
        construct(name, arguments)
    except Exception:  # noqa: BLE001  whatever the library raises
        return True
    return False


WRONG: list[tuple[str, dict[str, Any], list[tuple[Any, ...]]]] = [
    (
        "expect_column_values_to_be_in_sett",
        {},
        [
            (
                (),
                'Great Expectations has no expectation "expect_column_values_to_be_in_sett"',
                'did you mean "expect_column_values_to_be_in_set"?',
            )
        ],
    ),
    (
        "expect_column_values_to_be_in_set",
        {"colum": "site", "value_set": "A"},
        [
            (("colum",), '"expect_column_values_to_be_in_set" has no argument "colum"', 'did you mean "column"?'),
            (("value_set",), 'value_set is "A"', "write a list of at least 1"),
            (
                ("column",),
                '"expect_column_values_to_be_in_set" needs "column"',
                "write column: a text that is not empty",
            ),
        ],
    ),
    (
        "expect_column_values_to_be_between",
        {"column": "n", "min_value": 10, "max_value": 5, "mostly": 95},
        [
            (("mostly",), "mostly is 95", "write a number from 0 to 1"),
            (("min_value",), "min_value 10 is greater than max_value 5", "exchange them, or correct one"),
        ],
    ),
    (
        "expect_column_values_to_be_between",
        {"column": "n", "min_value": "2026-02-01", "max_value": "2026-01-01"},
        [
            (
                ("min_value",),
                'min_value "2026-02-01" is greater than max_value "2026-01-01"',
                "exchange them, or correct one",
            )
        ],
    ),
    (
        "expect_column_values_to_be_between",
        {"column": "n", "strict_min": True},
        [
            (
                ("min_value",),
                '"expect_column_values_to_be_between" has neither min_value nor max_value',
                "write one of them, or both",
            )
        ],
    ),
    (
        "expect_column_max_to_be_between",
        {"column": "n", "min_value": "soon"},
        [(("min_value",), 'min_value "soon" is no date', "write a number, or a date as 2026-01-31")],
    ),
    (
        "expect_column_values_to_be_in_set",
        {"column": "n", "value_set": ["a", 1]},
        [
            (
                ("value_set",),
                "value_set mixes numbers and texts, which no column holds at once",
                "quote all of the values, or none",
            )
        ],
    ),
    (
        "expect_column_values_to_be_in_set",
        {"column": "n", "value_set": [float("inf"), 1.0]},
        [(("value_set", 0), "value_set.0 is inf", "write a number that is finite")],
    ),
    (
        "expect_column_values_to_match_regex",
        {"column": "n", "regex": "a\0"},
        [(("regex",), "regex holds the character NUL", "Postgres has no text with it: remove it")],
    ),
    (
        "expect_column_values_to_match_regex_list",
        {"column": "n", "regex_list": ["(a", "(?P<x>a)"]},
        [
            (
                ("regex_list", 0),
                "regex_list.0 is no regular expression of Postgres: missing ), unterminated subpattern at position 0",
                "correct it",
            ),
            (
                ("regex_list", 1),
                "regex_list.1 is no regular expression of Postgres: named groups, (?P<name>…), are Python's",
                "correct it",
            ),
        ],
    ),
    (
        "expect_column_values_to_match_strftime_format",
        {"column": "n", "strftime_format": "%j of %Y"},
        [
            (
                ("strftime_format",),
                'strftime_format "%j of %Y" cannot be told in SQL',
                "use each of %Y %y %m %b %B %d %H %I %M %S %f %p %z once, and texts",
            )
        ],
    ),
    (
        "expect_column_values_to_be_unique",
        {"column": "n", "row_condition": "n > 5"},
        [
            (
                ("row_condition",),
                "row_condition is a text, which Great Expectations reads only with a condition_parser",
                "write condition_parser: great_expectations beside it",
            )
        ],
    ),
    (
        "expect_column_values_to_be_unique",
        {"column": "n", "row_condition": 'col("n")>5 and col("m")<3', "condition_parser": "great_expectations"},
        [
            (
                ("row_condition",),
                r'row_condition "col(\"n\")>5 and col(\"m\")<3" is not one comparison',
                'write col("name") > 5, col("name") == "text" or col("name").notnull(), or the mapping form for more',
            )
        ],
    ),
    (
        "expect_column_values_to_be_unique",
        {
            "column": "n",
            "row_condition": {"type": "comparison", "column": {"name": "n"}, "operator": "=", "parameter": 5},
        },
        [
            (
                ("row_condition", "operator"),
                'row_condition.operator is "="',
                "write one of !=, <, <=, ==, >, >=, IN, NOT_IN",
            )
        ],
    ),
    (
        "expect_column_quantile_values_to_be_between",
        {"column": "n", "quantile_ranges": {"quantiles": [0.5], "value_ranges": [[3, 1], [1, 2]]}},
        [
            (("quantile_ranges",), "1 quantiles have 2 value_ranges", "write one range for each quantile"),
            (
                ("quantile_ranges", "value_ranges", 0),
                "quantile_ranges.value_ranges.0 [3, 1] has its greater end first",
                "exchange the two",
            ),
        ],
    ),
    (
        "expect_column_kl_divergence_to_be_less_than",
        {"column": "n", "partition_object": {"values": ["a"], "weights": [0.5]}},
        [
            (
                ("partition_object",),
                "partition_object has weights that add up to 0.5",
                "write weights that add up to 1, with values, or with bins: rising, and one more than weights",
            )
        ],
    ),
]


@pytest.mark.parametrize(("name", "arguments", "expected"), WRONG)
def test_mistake_is_explained(name: str, arguments: dict[str, Any], expected: list[tuple[Any, ...]]) -> None:
    """Each mistake is told with its place, its value and a way out, all of them at once."""
    assert said(name, **arguments) == expected


QUERIES = {
    "DELETE FROM {batch}": "is a statement DELETE where one SELECT is expected",
    "SELECT 1": "does not read from {batch}, so that it would look at rows outside the batch",
    "SELECT * FROM {batch}; SELECT 2": "is 2 SQL statements where one SELECT is expected",
    "SELECT * FROM {batch} WHERE (n": "is not SQL that Postgres reads: Expecting ) near 'n'",
    "SELECT * FROM {batch} b WHERE b.n > 1": "gives {batch} another name: the library names it 'subselect', "
    "except in a query with a JOIN",
    "SELECT * FROM {batch} WHERE {n} > 1": "cannot be filled in ('n'): a brace that stands for itself is written "
    "twice, and {batch} is the only name",
    "SELECT * INTO copied FROM {batch}": "holds INTO, where a query that changes nothing is expected",
    "WITH gone AS (DELETE FROM {batch} RETURNING *) SELECT * FROM gone": "holds DELETE, where a query that changes "
    "nothing is expected",
}


@pytest.mark.parametrize("query", QUERIES)
def test_wrong_query_refused(query: str) -> None:
    """A query of failing rows is one SELECT from the batch."""
    assert said("unexpected_rows_expectation", unexpected_rows_query=query) == [
        (
            ("unexpected_rows_query",),
            f"unexpected_rows_query {QUERIES[query]}",
            "write SELECT * FROM {batch} WHERE <what makes a row wrong>",
        )
    ]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("expect_column_values_to_be_in_set", {"column": "{{ params.c }}", "value_set": "{{ params.sites }}"}),
        ("expect_column_values_to_be_in_set", {"column": "a", "value_set": ["{{ params.site }}", 1]}),
        ("expect_column_values_to_be_between", {"column": "a", "min_value": "{{ params.x }}", "max_value": 3}),
        ("expect_column_values_to_be_between", {"column": "a", "min_value": 0, "mostly": "{{ params.mostly }}"}),
        (
            "unexpected_rows_expectation",
            {"unexpected_rows_query": "SELECT * FROM {batch} WHERE day > {{ run.date }} - {{ params.days }}"},
        ),
        ("unexpected_rows_expectation", {"unexpected_rows_query": "{{ params.query }}"}),
        (
            "expect_column_values_to_be_unique",
            {
                "column": "a",
                "row_condition": 'col("n") > {{ params.x }}',
                "condition_parser": "great_expectations",
            },
        ),
    ],
)
def test_templates_are_left(name: str, arguments: dict[str, Any]) -> None:
    """A text that is still to be filled is judged by nothing that its value will decide."""
    assert said(name, **arguments) == []
