"""Columns as drift meets them: nulls, long numbers, times, constants, and methods that cannot compare them."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.contract import DataRejected, PermanentError, Run
from tasks.drift.columns import Columns
from tasks.drift.compared_rows import FromFile, FromQuery
from tasks.drift.monitor import Drift
from tests.support.database import Sql
from tests.support.drifting import NOW, compared

HALF_NULL = [1.0, None] * 100
LONG = 9007199254740993


def judged(folder: Path, run: Run, now: pa.Array, then: pa.Array, **group: Any) -> Drift:
    """Compare one column, `v`; `group` says how, and whether it is `categorical`."""
    kind = "categorical" if group.pop("categorical", False) else "numeric"
    pq.write_table(pa.table({"v": now}), folder / NOW)
    pq.write_table(pa.table({"v": then}), folder / "then.parquet")
    columns = Columns.model_validate({kind: {"columns": ["v"]} | group})
    return compared(folder, run, reference=FromFile(file="then.parquet"), columns=columns)


NULLS = [
    (HALF_NULL, [1.0] * 200, {}, True, 0.5, 0.0),
    ([1.0] * 200, HALF_NULL, {}, True, 0.0, 0.5),
    (["a", None] * 100, ["a"] * 200, {"categorical": True}, True, 0.5, 0.0),
    ([True, None] * 100, [True] * 200, {}, True, 0.5, 0.0),
    ([1.0, float("nan")] * 100, [1.0] * 200, {}, True, 0.5, 0.0),
    ([1.0, float("nan")] * 100, [1.0, None] * 100, {}, False, 0.5, 0.5),
    ([1.0, float("nan")] * 100, [1.0, None] * 100, {"categorical": True}, False, 0.5, 0.5),
    ([1.0] * 95 + [None] * 5, [1.0] * 100, {}, False, 0.05, 0.0),
    ([1.0] * 90 + [None] * 10, [1.0] * 100, {}, True, 0.1, 0.0),
    ([1.0] * 70 + [None] * 30, [1.0] * 80 + [None] * 20, {}, True, 0.3, 0.2),
    ([1.0] * 95 + [None] * 5, [1.0] * 100, {"null_threshold": 0.05}, True, 0.05, 0.0),
    (HALF_NULL, [1.0] * 200, {"null_threshold": 0.9}, False, 0.5, 0.0),
    (HALF_NULL, [1.0] * 200, {"own": {"v": {"threshold": 1, "null_threshold": 0.6}}}, False, 0.5, 0.0),
    (HALF_NULL, [1.0] * 200, {"own": {"v": {"threshold": 1}}}, True, 0.5, 0.0),
]


@pytest.mark.parametrize(("now", "then", "group", "drifted", "now_nulls", "then_nulls"), NULLS)
def test_nulls_are_compared(
    tmp_path: Path,
    run: Run,
    now: list[Any],
    then: list[Any],
    group: dict[str, Any],
    drifted: bool,  # noqa: FBT001
    now_nulls: float,
    then_nulls: float,
) -> None:
    """A column whose values are as ever, but fewer, has drifted; the output says how many are missing."""
    found = judged(tmp_path, run, pa.array(now), pa.array(then), **group)

    assert found.drifted_by_nulls == found.drifted_columns == (["v"] if drifted else [])
    assert (found.drift_share, found.drift_detected) == (float(drifted), drifted)
    assert (found.current_nulls, found.reference_nulls) == ({"v": now_nulls}, {"v": then_nulls})


def test_page_and_sentence_count_values(tmp_path: Path, run: Run) -> None:
    """A reader sees which column lost its values, and of how many values the methods speak."""
    found = judged(tmp_path, run, pa.array(HALF_NULL), pa.array([1.0] * 200))

    assert found.summary == "drift: 1 of 1 columns drifted (v by its nulls), a share of 1 > 0.5"
    page = Path(found.report_path).read_text(encoding="utf-8")
    assert "v 100 now and 200 in the reference (no value in 50.0% and 0.0% of the rows)" in page


def times(unit: str, zone: str | None = None) -> pa.Array:
    moments = ["2026-01-05 10:30:00", "2026-01-06 00:00:00", "2026-01-07 01:02:03.5"]
    naive = pa.array(moments * 50).cast(pa.timestamp("us")).cast(pa.timestamp(unit), safe=False)
    return naive if zone is None else naive.cast(pa.timestamp(unit, zone))


SAME = [
    (pa.array([LONG, 5] * 100), pa.array([Decimal(LONG), Decimal(5)] * 100)),
    (pa.array([5, 6] * 100, pa.int8()), pa.array([5.0, 6.0] * 100)),
    (pa.array([5, None] * 100), pa.array([5.0, float("nan")] * 100)),
    (pa.array([Decimal("5.00"), Decimal("0.10")] * 100), pa.array([5.0, 0.1] * 100)),
    (pa.array([0.1, 0.5] * 100, pa.float32()), pa.array([0.1, 0.5] * 100)),
    (pa.array([1e20, 1e-7] * 100), pa.array([Decimal("100000000000000000000.0000000"), Decimal("0.0000001")] * 100)),
    (pa.array(["a", "b"] * 100).dictionary_encode(), pa.array(["a", "b"] * 100)),
    (times("us"), times("ns")),
    (times("ms"), times("us")),
    (times("us", "UTC"), times("us")),
    (pa.array([dt.date(2026, 1, 5)] * 100), pa.array([dt.date(2026, 1, 5)] * 100).cast(pa.timestamp("us"))),
]
OTHER = [
    (pa.array([LONG] * 100), pa.array([LONG - 1] * 100)),
    (pa.array([Decimal(f"{LONG}.1")] * 100), pa.array([Decimal(f"{LONG}.2")] * 100)),
    (pa.array([True] * 100), pa.array([False] * 100)),
    (pa.array(["a", "b"] * 50), pa.array(["a", "c"] * 50)),
    (pa.array(["a"] * 100), pa.array([""] * 100)),
    (times("us"), times("s")),
]


@pytest.mark.parametrize(("now", "then"), SAME)
def test_categories_are_the_same_in_any_type(tmp_path: Path, run: Run, now: pa.Array, then: pa.Array) -> None:
    """A number or a time is one category, whatever its width, scale or unit."""
    assert judged(tmp_path, run, now, then, categorical=True).scores == {"v": 0}


@pytest.mark.parametrize(("now", "then"), OTHER)
def test_categories_are_compared_exactly(tmp_path: Path, run: Run, now: pa.Array, then: pa.Array) -> None:
    """Two numbers that a 64-bit one cannot tell apart are two; so are truths, new texts and fractions of a second."""
    assert judged(tmp_path, run, now, then, categorical=True).drifted_columns == ["v"]


ROUNDED = [
    (pa.array([LONG, 5]), "9007199254740993"),
    (pa.array([2**63, 5], pa.uint64()), None),
    (pa.array([2**63 + 1, 5], pa.uint64()), "9223372036854775809"),
    (pa.array([Decimal("12345678901234567890.12"), Decimal(5)]), "12345678901234567890.12"),
    (pa.array([Decimal("0.1"), Decimal("12345.67")]), None),
]


@pytest.mark.parametrize(("now", "told"), ROUNDED)
def test_numbers_are_never_rounded(tmp_path: Path, run: Run, now: pa.Array, told: str | None) -> None:
    """What a 64-bit number would change is refused, with the number and what to do."""
    if told is None:
        assert judged(tmp_path, run, now, now).drifted_columns == []
        return
    with pytest.raises(DataRejected) as raised:
        judged(tmp_path, run, now, pa.array([1, 2], now.type))
    reason = f"v: 1 of its numbers have more digits than a 64-bit number keeps ({told}); compare it as categorical"
    assert str(raised.value).startswith(f"current ({tmp_path}/{NOW}) cannot be compared: {reason}")


UNABLE = [
    ("anderson", [5.0] * 200, [5.0] * 200),
    ("es", [5.0] * 200, [5.0] * 200),
    ("t_test", [5.0] * 200, [5.0] * 200),
    ("cramer_von_mises", [1.0], [float(one) for one in range(200)]),
]


@pytest.mark.parametrize(("method", "now", "then"), UNABLE)
def test_method_that_cannot_compare_is_named(
    tmp_path: Path, run: Run, method: str, now: list[float], then: list[float]
) -> None:
    """With the column, how many values there are, and the methods that can: one of them does."""
    with pytest.raises(PermanentError) as raised:
        judged(tmp_path, run, pa.array(now), pa.array(then), method=method, threshold=0.05)

    told = str(raised.value)
    assert told.startswith(f"the method {method} cannot compare v (")
    assert f"{len(now)} values now, {len(then)} in the reference" in told
    able = told.partition("use another in the step (")[2].partition(" can)")[0].split(", ")
    assert "wasserstein" in able
    for other in able:
        judged(tmp_path, run, pa.array(now), pa.array(then), method=other, threshold=0.05)


def test_every_column_that_cannot_be_compared_is_named(tmp_path: Path, run: Run) -> None:
    """Not only the first, and not those that can."""
    table = pa.table({"a": [5.0] * 50, "b": [6.0] * 50, "c": [float(one) for one in range(50)]})
    pq.write_table(table, tmp_path / NOW)
    columns = Columns.model_validate({"numeric": {"columns": ["a", "b", "c"], "method": "anderson"}})

    with pytest.raises(PermanentError) as raised:
        compared(tmp_path, run, reference=FromFile(file=NOW), columns=columns)

    named = [name for name in "abc" if f"cannot compare {name} (" in str(raised.value)]
    assert named == ["a", "b"]


@pytest.mark.parametrize("group", [{}, {"categorical": True}])
def test_one_value_on_both_sides_is_no_drift(tmp_path: Path, run: Run, group: dict[str, Any]) -> None:
    """A constant is compared; another constant has drifted."""
    constant = pa.array([5.0] * 200)

    assert judged(tmp_path, run, constant, constant, **group).drifted_columns == []
    assert judged(tmp_path, run, constant, pa.array([6.0] * 200), **group).drifted_columns == ["v"]


def test_query_never_rounds(tmp_path: Path, run: Run, sql: Sql) -> None:
    """A bigint is compared exactly as a category; a numeric that a 64-bit number would round is refused."""
    sql(f"CREATE TABLE t AS SELECT {LONG}::bigint AS id, 12345678901234567890.5 AS n, 'x'::text AS w")
    folder = tmp_path / "configs" / "sql"
    folder.mkdir(parents=True)
    (folder / "now.sql").write_text("SELECT id, n, n AS n2, n AS n2 FROM t\n")
    (folder / "then.sql").write_text("SELECT id - 1 AS id, n, n AS n2, n AS n2 FROM t\n")
    now, then = (FromQuery(connection="crypto_postgres", sql=f"{name}.sql") for name in ("now", "then"))
    run = replace(run, configs=tmp_path / "configs")

    def found(column: str) -> Drift:
        columns = Columns.model_validate({"categorical": {"columns": [column]}})
        return compared(tmp_path, run, current=now, reference=then, columns=columns)

    assert found("id").drifted_columns == ["id"]
    with pytest.raises(DataRejected, match=r"^n of configs/sql/now.sql cannot be compared: 1 numbers have more digits"):
        found("n")
    with pytest.raises(DataRejected, match=r"^configs/sql/now.sql gives more than one column n2; name each"):
        found("n2")
