"""Data Docs show data as text: no value, name or query of a suite or a table becomes part of a page's code."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import pytest

from tasks.contract import Run
from tasks.quality.data_docs import pages
from tasks.quality.suites import Batch, Expectation, Suite
from tasks.quality.verdicts import Outcome, Verdict, load_library
from tests.support.seen_pages import Seen

SCRIPT, IMAGE, QUOTE = "<script>alert(1)</script>", "<img src=x onerror=alert(2)>", "\"'><svg onload=alert(3)> &amp;"
NASTY = [SCRIPT, IMAGE, QUOTE]
FOUND = {
    "element_count": 5,
    "unexpected_count": 2,
    "unexpected_percent": 40.0,
    "unexpected_list": NASTY,
    "partial_unexpected_list": NASTY,
    "partial_unexpected_counts": [{"value": one, "count": 1} for one in NASTY],
    "observed_value": NASTY,
    "details": {
        "value_counts": [{"value": SCRIPT, "count": 1}],
        "unexpected_rows": [{SCRIPT: IMAGE}],
        "observed_partition": {"values": [SCRIPT], "weights": [1.0]},
        "expected_partition": {"values": [IMAGE], "weights": [1.0]},
        "mismatched": {"unexpected": [SCRIPT], "missing": [IMAGE]},
    },
}
FILTERED = {"row_condition": f'col("site") == "{SCRIPT}"', "condition_parser": "great_expectations"}
RULES: list[tuple[str, dict[str, Any]]] = [
    ("expect_column_values_to_be_in_set", {"column": SCRIPT, "value_set": NASTY}),
    ("expect_column_values_to_match_regex", {"column": QUOTE, "regex": SCRIPT}),
    ("expect_column_distinct_values_to_be_in_set", {"column": IMAGE, "value_set": NASTY}),
    ("expect_table_columns_to_match_set", {"column_set": NASTY}),
    ("unexpected_rows_expectation", {"unexpected_rows_query": f"SELECT '{QUOTE}{IMAGE}' FROM {{batch}}"}),
    ("expect_column_pair_values_to_be_in_set", {"column_A": SCRIPT, "column_B": IMAGE, "value_pairs_set": [NASTY[:2]]}),
    ("expect_compound_columns_to_be_unique", {"column_list": NASTY}),
    ("expect_column_values_to_be_between", {"column": "a", "min_value": 1} | FILTERED),
    (
        "expect_column_kl_divergence_to_be_less_than",
        {"column": SCRIPT, "partition_object": {"values": NASTY[:2], "weights": [0.5, 0.5]}, "threshold": 0.1},
    ),
]


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    """The pages of a validation in which everything that comes from data or a suite is hostile."""
    load_library()
    from great_expectations.core import ExpectationSuiteValidationResult

    answers, outcomes = zip(*answered(), strict=True)
    suite = Suite(
        name=SCRIPT,
        connection="c",
        batch=Batch(table="a.b", where=f"a = '{SCRIPT}'"),
        expectations=[one.expectation for one in outcomes],
    )
    meta = {
        "great_expectations_version": SCRIPT,
        "active_batch_definition": {"a": IMAGE},
        "batch_markers": {"a": QUOTE},
    }
    counts = {"evaluated_expectations": 9, "successful_expectations": 0, "unsuccessful_expectations": 9}
    results = ExpectationSuiteValidationResult(
        success=False, results=list(answers), suite_name=SCRIPT, statistics=counts | {"success_percent": 0.0}, meta=meta
    )
    run = Run(f"d{SCRIPT}", f"r{IMAGE}", f"t{QUOTE}", dt.date(2026, 1, 5))
    return pages(Verdict(5, tuple(outcomes), results), suite, run)


def answered() -> Iterator[tuple[Any, Outcome]]:
    from great_expectations.core import ExpectationValidationResult
    from great_expectations.expectations.registry import get_expectation_impl

    for name, arguments in RULES:
        notes = {"notes": {"format": "markdown", "content": [SCRIPT]}}
        asked: Any = get_expectation_impl(name)
        written = asked(**arguments, description=IMAGE if "regex" in name else None, meta=notes)
        answer = ExpectationValidationResult(
            success=False, expectation_config=written.configuration, result=dict(FOUND)
        )
        yield answer, Outcome(Expectation(type=name, arguments=arguments), False, FOUND)


@pytest.mark.parametrize("name", ["index.html", "expectations.html"])
def test_data_is_text(name: str, made: dict[str, str]) -> None:
    """Hostile values, names, queries and notes are shown as they are, and run nothing."""
    seen = Seen(made[name])
    shown = " ".join(seen.shown)

    assert not seen.elements & {"img", "svg"}
    assert not seen.events
    assert not any(sign in script for script in seen.scripts for sign in (SCRIPT, "<img", "<svg", "</"))
    assert all(value in shown for value in (SCRIPT, IMAGE))
    assert QUOTE in shown
    assert not any(0xFDD0 <= ord(sign) <= 0xFDEF for sign in made[name])
