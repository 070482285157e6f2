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
                "write column: text that is not empty",
            ),
        ],
    ),
    (
        "expect_column_values_to_be_between",
        {"column": "n", "min_value": 10, "max_value": 5, "mostly": 95},
        [
            (("mostly",), "mostly is 95", "write a number from 0 to 1"),
            (("min_value",), "min_value 10 is greater than max_value 5", "swap them, or correct one"),
        ],
    ),
    (
        "expect_column_values_to_be_between",
        {"column": "n", "min_value": "2026-02-01", "max_value": "2026-01-01"},
        [
            (
                ("min_value",),
                'min_value "2026-02-01" is greater than max_value "2026-01-01"',
                "swap them, or correct one",
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
        [(("min_value",), 'min_value "soon" is not a date', "write a number, or a date: 2026-01-31")],
    ),
    (
        "expect_column_values_to_be_in_set",
        {"column": "n", "value_set": ["a", 1]},
        [
            (
                ("value_set",),
                "value_set mixes numbers and texts, but a column has only one type",
                "quote all of the values, or none",
            )
        ],
    ),
    (
        "expect_column_values_to_be_in_set",
        {"column": "n", "value_set": [float("inf"), 1.0]},
        [(("value_set", 0), "value_set.0 is inf", "write a finite number")],
    ),
    (
        "expect_column_values_to_match_regex",
        {"column": "n", "regex": "a\0"},
        [(("regex",), "regex contains the character NUL", "remove it: Postgres cannot store it")],
    ),
    (
        "expect_column_values_to_match_regex_list",
        {"column": "n", "regex_list": ["(a", "(?P<x>a)"]},
        [
            (
                ("regex_list", 0),
                "regex_list.0 is not a Postgres regular expression: missing ), unterminated subpattern at position 0",
                "correct it",
            ),
            (
                ("regex_list", 1),
                "regex_list.1 is not a Postgres regular expression: named groups, (?P<name>…), exist only in Python",
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
                'strftime_format "%j of %Y" cannot be checked in SQL',
                "use %Y %y %m %b %B %d %H %I %M %S %f %p %z, each at most once, and text",
            )
        ],
    ),
    (
        "expect_column_values_to_be_unique",
        {"column": "n", "row_condition": "n > 5"},
        [
            (
                ("row_condition",),
                "row_condition is text, which Great Expectations reads only with a condition_parser",
                "add condition_parser: great_expectations",
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
                "quantile_ranges.value_ranges.0 [3, 1] has its larger end first",
                "swap the two",
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
                "write weights that add up to 1, with values, or with ascending bins, one more than weights",
            )
        ],
    ),
]


@pytest.mark.parametrize(("name", "arguments", "expected"), WRONG)
def test_mistake_is_explained(name: str, arguments: dict[str, Any], expected: list[tuple[Any, ...]]) -> None:
    """Each mistake is told with its place, its value and a way out, all of them at once."""
    assert said(name, **arguments) == expected


QUERIES = {
    "DELETE FROM {batch}": "is a DELETE statement, not one SELECT",
    "SELECT 1": "does not read from {batch}, so it would look at rows outside the batch",
    "SELECT * FROM {batch}; SELECT 2": "is 2 SQL statements, not one SELECT",
    "SELECT * FROM {batch} WHERE (n": "is not valid Postgres SQL: syntax error at end of input",
    "SELECT * FROM {batch} b WHERE b.n > 1": "gives {batch} another name: the library calls it 'subselect', "
    "except in a query with a JOIN",
    "SELECT * FROM {batch} WHERE {n} > 1": 'is not valid Postgres SQL: syntax error at or near "{"',
    "SELECT * FROM {batch} WHERE word = '{batch}'": "has {batch} inside quotes or a comment, or right beside a word",
    "SELECT * FROM {batch} FOR UPDATE": "contains FOR UPDATE, but the query must not change anything",
    "SELECT * INTO copied FROM {batch}": "contains INTO, but the query must not change anything",
    "WITH gone AS (DELETE FROM {batch} RETURNING *) SELECT * FROM gone": "contains DELETE, but the query must "
    "not change anything",
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
