"""Rows for a classifier: what is refused, how they are split, and what becomes of each column."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError
from pyspark.sql import DataFrame, SparkSession

from stack.paths import REPOSITORY
from tasks.contract import DataRejected, MissingResource, PermanentError, Run
from tasks.models.preparation import HELD_OUT, KEY, Features, Layout, Profile, assembled, fitted_inputs, split_rows
from tasks.models.preparation import vector_stages as stages_of
from tasks.models.training import prepared
from tasks.spark.session import spark_session
from tests.support.customers import CARDS, CITIES, FEATURES, customers
from tests.support.grids import FILE, job, layout

ROWS = 2_000


@pytest.fixture(scope="module")
def session(spark_connection: str) -> Iterator[SparkSession]:
    """One Spark session for all tests of this file."""
    run = Run("churn_training_dag", "manual__1", "train", dt.date(2026, 1, 5), configs=REPOSITORY)
    with spark_session(spark_connection, run) as opened:
        yield opened


@pytest.fixture(scope="module")
def table() -> pa.Table:
    """The made-up customers."""
    return customers(ROWS)


Read = Callable[[pa.Table], DataFrame]


@pytest.fixture
def read(session: SparkSession, tmp_path: Path) -> Read:
    """A function that makes a table one of Spark's."""

    def written(table: pa.Table) -> DataFrame:
        pq.write_table(table, tmp_path / "t.parquet")
        return session.read.parquet((tmp_path / "t.parquet").as_uri())

    return written


def replaced(table: pa.Table, name: str, values: object) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, values)


def profile(frame: DataFrame, run: Run, terms: Layout) -> Profile:
    with prepared(frame, job(run, layout=terms)) as found:
        return found.profile


def no_rows(table: pa.Table) -> pa.Table:
    return table.slice(0, 0)


def three_classes(table: pa.Table) -> pa.Table:
    return replaced(table, "churned", pc.multiply(table["churned"], 2))


def unknown_label(table: pa.Table) -> pa.Table:
    return replaced(table, "churned", pa.nulls(len(table), pa.int32()))


def one_class(table: pa.Table) -> pa.Table:
    return replaced(table, "churned", pa.array([1] * len(table)))


def same_keys(table: pa.Table) -> pa.Table:
    return pa.concat_tables([table, table.slice(0, 3)])


def no_key(table: pa.Table) -> pa.Table:
    return replaced(table, "user_id", pc.if_else(pc.equal(table["user_id"], 5), None, table["user_id"]))


def all_null(table: pa.Table) -> pa.Table:
    return replaced(table, "amount_3", pa.nulls(len(table), pa.float64()))


def infinite(table: pa.Table) -> pa.Table:
    return replaced(table, "amount_3", pc.divide(table["amount_3"], 0.0))


def few_rows(table: pa.Table) -> pa.Table:
    return table.slice(0, 20)


def barely_rows(table: pa.Table) -> pa.Table:
    return table.slice(0, 45)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (no_rows, f"{FILE} has no rows"),
        (three_classes, "values of the label 'churned' are not 0 or 1, such as 2"),
        (unknown_label, "2,000 values of the label 'churned' are not 0 or 1, all of them null"),
        (one_class, "the label 'churned' is 1 in all 2,000 rows; two classes are needed"),
        (same_keys, "3 values of the key 'user_id' occur more than once, such as 1;"),
        (no_key, "1 rows have no 'user_id', the key"),
        (all_null, "column 'amount_3' is null in all"),
        (infinite, "column 'amount_3' has an infinite number"),
        (few_rows, "training rows for 23 features; there must be more rows than features"),
    ],
)
def test_bad_rows_are_rejected(
    spoil: Callable[[pa.Table], pa.Table], message: str, table: pa.Table, read: Read, run: Run
) -> None:
    """Data that nothing can be learned from is refused before a run is recorded, with the column and the count."""
    with pytest.raises(DataRejected) as caught:
        profile(read(spoil(table)), run, layout())
    assert message in str(caught.value)


def test_levels_count_as_features(table: pa.Table, read: Read, run: Run) -> None:
    """Rows enough for the columns, but not for the levels of their texts, are refused too."""
    with (
        prepared(read(barely_rows(table)), job(run)) as found,
        pytest.raises(DataRejected, match="counting each level of a text"),
    ):
        fitted_inputs(found.frame, found.rows, layout(), found.profile)


@pytest.mark.parametrize(
    ("features", "error", "message"),
    [
        ({"numeric": ["amount_33"]}, MissingResource, f"column 'amount_33' does not exist in {FILE}; did you mean"),
        ({"numeric": ["city"]}, PermanentError, "column 'city' is of type string, but a numeric feature is a number"),
        ({"categorical": ["amount_1"]}, PermanentError, "column 'amount_1' is of type double, but a categorical"),
        ({"numeric": ["churned"]}, PermanentError, "column 'churned' is both the label and a feature"),
    ],
)
def test_bad_columns_are_named(
    features: dict[str, list[str]], error: type[Exception], message: str, table: pa.Table, read: Read, run: Run
) -> None:
    """A column that is not there, or of a type that does not fit, is named with what to do."""
    with pytest.raises(error) as caught:
        profile(read(table), run, layout(**features))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({}, "name at least one column"),
        ({"numeric": ["a"], "categorical": ["a"]}, "a is named twice"),
        ({"numeric": ["prediction"]}, "prediction is the name of an output"),
    ],
)
def test_feature_lists_are_checked(features: dict[str, list[str]], message: str) -> None:
    """What the YAML alone shows to be wrong, lint shows."""
    with pytest.raises(ValidationError, match=message):
        Features(**features)


def test_constant_columns_warn(table: pa.Table, read: Read, run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """A column that never changes is no error: it weighs nothing."""
    constant = replaced(table, "amount_3", pa.array([7.5] * ROWS))
    with caplog.at_level(logging.WARNING):
        profile(read(constant), run, layout())
    assert "always the same value in amount_3" in caplog.text


def test_split_ignores_order(table: pa.Table, read: Read, run: Run) -> None:
    """The same rows are held out, and the digest is the same, in whatever order and partitions rows come."""
    shuffled = table.take(np.random.default_rng(3).permutation(ROWS))
    found = []
    for rows, parts in ((table, 1), (shuffled, 5)):
        frame = read(rows).repartition(parts)
        held_out = split_rows(frame, layout()).where(HELD_OUT).select(KEY).collect()
        found.append((sorted(row[0] for row in held_out), profile(frame, run, layout()).digest))
    assert found[0] == found[1]
    assert 0.17 < len(found[0][0]) / ROWS < 0.23


def test_seed_and_values_matter(table: pa.Table, read: Read, run: Run) -> None:
    """Another seed holds other rows out; another value makes another digest."""
    frame, one_more = read(table), table["amount_0"].to_numpy().copy()
    sides = [split_rows(frame, layout(seed)).where(HELD_OUT).select(KEY).toPandas()[KEY] for seed in (7, 8)]
    before = profile(frame, run, layout()).digest
    one_more[17] += 1e-9
    after = profile(read(replaced(table, "amount_0", pa.array(one_more))), run, layout()).digest
    assert set(sides[0]) != set(sides[1])
    assert before != after


def test_columns_become_numbers(table: pa.Table, read: Read, run: Run) -> None:
    """Numbers are imputed and standardised by the training rows, and each level of a text has an indicator."""
    frame = read(table)
    with prepared(frame, job(run)) as found:
        inputs = fitted_inputs(found.frame, found.rows, layout(), found.profile)
        vectors = assembled(found.rows, stages_of(inputs)).where(f"NOT {HELD_OUT}").toPandas()["_features"]
    train = np.array([one.toArray() for one in vectors])
    numbers = len(FEATURES["numeric"])
    by_name = {one.name: one for one in inputs}
    assert np.allclose(train[:, :numbers].mean(axis=0), 0, atol=1e-12)
    assert np.allclose(train[:, :numbers].std(axis=0, ddof=1), 1)
    assert np.allclose(train.mean(axis=0), [share for one in inputs for share in one.background], atol=1e-12)
    assert by_name["city"].levels == tuple(sorted(CITIES))
    assert by_name["card"].levels == tuple(sorted(CARDS))
    assert (by_name["age"].type, by_name["count_0"].type, by_name["is_active"].type) == ("double", "long", "boolean")
    assert [one.name for one in inputs if one.nullable] == ["amount_1", "age", "city"]
    assert np.allclose(train[:, numbers:].sum(axis=1), 3)
