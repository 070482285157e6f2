"""What is computed otherwise than the library does it comes out the same."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from tasks.quality.gate import _one_snapshot
from tasks.quality.suites import Batch, Expectation, Suite
from tasks.quality.verdicts import judge
from tasks.services.postgres import postgres as connected
from tests.support.expectation_examples import NASTY_TABLE

if TYPE_CHECKING:
    from stack.database import Database
    from tasks.contract import Run
    from tests.support.database import Sql

KEYS: list[dict[str, Any]] = [
    {"column_list": columns, "ignore_row_if": ignored}
    for columns in (["word", "n"], ["n", "m"], ["n", "m", "x"], ["word", "other", "day"])
    for ignored in ("all_values_are_missing", "any_value_is_missing", "never")
]

AS_IT_COMES = """
import json, sys
import great_expectations as gx
import great_expectations.expectations as gxe

url, keys = sys.argv[1], json.loads(sys.argv[2])
context = gx.get_context(mode="ephemeral")
source = context.data_sources.add_postgres("plain", connection_string=url)
asset = source.add_query_asset("nasty", "SELECT * FROM raw.nasty")
batch = asset.add_batch_definition_whole_table("all").get_batch()
answers = [batch.validate(gxe.ExpectCompoundColumnsToBeUnique(**key)) for key in keys]
print(json.dumps([answer.result["unexpected_count"] for answer in answers]))
"""


def test_keys_count_alike(database: Database, sql: Sql, run: Run) -> None:
    """The repeated keys are as many as the library counts by joining the table with itself."""
    sql(NASTY_TABLE)
    done = subprocess.run(
        [sys.executable, "-c", AS_IT_COMES, database.url("postgresql+psycopg2"), json.dumps(KEYS)],
        capture_output=True,
        text=True,
        check=True,
    )
    counts = json.loads(done.stdout.splitlines()[-1])
    asked = [Expectation(type="expect_compound_columns_to_be_unique", arguments=key) for key in KEYS]
    suite = Suite(name="keys", connection="crypto_postgres", batch=Batch(table="raw.nasty"), expectations=asked)
    with connected("crypto_postgres", autocommit=True) as session, _one_snapshot(session, suite, run):
        outcomes = judge(session, suite, run).outcomes
    assert [outcome.found.get("unexpected_count", 0) for outcome in outcomes] == counts
    assert sum(map(bool, counts)) > len(counts) / 2
