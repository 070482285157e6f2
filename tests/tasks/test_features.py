"""spark.build_table, and the SQL of the churn features."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from stack.paths import REPOSITORY
from tasks.contract import DataRejected, MissingResource, PermanentError, Run
from tasks.files.places import InBucket, InFolder, place_of
from tasks.files.run_files import files_of
from tasks.spark.features import Built, Value, build_table
from tests.support.churn import CATEGORICAL, NUMERIC, build_features, build_users, write_inputs

if TYPE_CHECKING:
    from collections.abc import Callable

    from stack.objects import ObjectStore

AS_OF = dt.date(2026, 1, 31)


@pytest.fixture
def here(run: Run, tmp_path: Path) -> Run:
    """A run whose `configs/sql/` and files are the test's own; the table `t` is one of them."""
    (tmp_path / "configs" / "sql").mkdir(parents=True)
    pq.write_table(pa.table({"id": [3, 1, 2, 2], "name": ["c", "a", "b", "B"]}), tmp_path / "t.parquet")
    return replace(run, configs=tmp_path / "configs")


def built(here: Run, text: str, values: dict[str, Value] | None = None, **change: Any) -> Built:
    (here.configs / "sql" / "some.sql").write_text(text)
    asked: dict[str, Any] = {"inputs": {"t": "t.parquet"}, "keys": ["id"], "output": "out.parquet"} | change
    folder = InFolder(folder=str(here.configs.parent))
    return build_table("spark_default", sql="some.sql", files=folder, values=values, **asked, run=here)


def rows(here: Run) -> list[dict[str, Any]]:
    read: list[dict[str, Any]] = pq.read_table(here.configs.parent / "out.parquet").to_pylist()
    return read


def test_query_becomes_a_file(spark_connection: str, here: Run) -> None:
    """The rows of the query are written by key, to the same bytes each time, and counted."""
    text = "-- it's :nothing\nSELECT id, min(name) AS name, ':no' AS colon FROM t GROUP BY id"
    path = here.configs.parent / "out.parquet"
    first = built(here, text), path.read_bytes()

    assert first == (built(here, text), path.read_bytes())
    assert first[0] == Built(rows=3, columns=3, path=files_of(InFolder(folder="."), here).address("out.parquet"))
    assert rows(here) == [
        {"id": 1, "name": "a", "colon": ":no"},
        {"id": 2, "name": "B", "colon": ":no"},
        {"id": 3, "name": "c", "colon": ":no"},
    ]


def test_values_keep_their_types(spark_connection: str, here: Run) -> None:
    """Each value is bound as what it is; a text that is a whole date is a date, and no text is ever SQL."""
    values: dict[str, Value] = {"a": 1, "b": 0.5, "c": True, "d": "2026-01-31", "e": "2026-02-31", "f": "'; DROP t --"}
    built(here, "SELECT 1 AS id, :a + 1 AS a, :b AS b, :c AS c, :d AS d, :e AS e, :f AS f", values)

    (row,) = rows(here)
    assert row["d"] == dt.date(2026, 1, 31)
    assert row | {"d": None} == {"id": 1, "a": 2, "b": pytest.approx(0.5), "c": True, "d": None} | {
        "e": "2026-02-31",
        "f": "'; DROP t --",
    }


@pytest.mark.parametrize(
    ("text", "values", "problem"),
    [
        (
            "SELECT id,\n name::string FROM t -- :no\nWHERE id = :key",
            {"kye": 1},
            "configs/sql/some.sql, line 3: :key has no value; `values` of the step has kye",
        ),
        ("SELECT :a, :b", None, "configs/sql/some.sql, line 1: :a has no value; `values` of the step has none"),
        ("SELECT id FROM t", {"a": 1}, "configs/sql/some.sql has no :a; remove a from `values`, or use it"),
        ("SELECT ':a' /* :a */, `:a`", {"a": 1}, "configs/sql/some.sql has no :a; remove a from `values`, or use it"),
        (" \n", None, "configs/sql/some.sql is empty; write the statements to run"),
    ],
)
def test_parameters_must_match(here: Run, text: str, values: dict[str, Value] | None, problem: str) -> None:
    """A parameter without a value, and a value without a parameter, are told before Spark is started."""
    with pytest.raises(PermanentError) as raised:
        built(here, text, values)
    assert str(raised.value) == problem


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("SELECT id,\n  nmae FROM t", r"^configs/sql/some.sql: \[UNRESOLVED_COLUMN.*`nmae`.*line 2,? pos"),
        ("SELECT id\nFORM t t t", r"^configs/sql/some.sql: \[PARSE_SYNTAX_ERROR.*line 2,? pos"),
        ("SELECT id FROM u", r"^configs/sql/some.sql reads u, which is not a view of the step; SQL in configs/ reads"),
        ("SELECT id, CAST(name AS INT) AS n FROM t", r"^configs/sql/some.sql: .*CAST_INVALID_INPUT"),
        ("SELECT name FROM t", r"^configs/sql/some.sql returns no column id, which is one of `keys`; .* are name$"),
    ],
)
def test_mistakes_name_the_file(spark_connection: str, here: Run, text: str, problem: str) -> None:
    """A mistake in the SQL, or a value that breaks it, names the file, and the line where Spark knows it."""
    with pytest.raises(PermanentError, match=problem):
        built(here, text)


@pytest.mark.parametrize(
    ("text", "keys", "problem"),
    [
        (
            "SELECT id, name FROM t",
            ["id"],
            (
                "configs/sql/some.sql returned 4 rows, and 1 of them repeat the keys of another, such as id 2; "
                "group or join so that one row per key is left"
            ),
        ),
        (
            "SELECT id, lower(name) AS name FROM t UNION ALL SELECT id, name FROM t",
            ["name", "id"],
            (
                "configs/sql/some.sql returned 8 rows, and 4 of them repeat the keys of another, such as name a, id 1; "
                "name b, id 2; name b, id 2; name c, id 3; group or join so that one row per key is left"
            ),
        ),
        (
            "SELECT nullif(id, 2) AS id, name FROM t",
            ["name", "id"],
            "configs/sql/some.sql returned 4 rows, and 2 of them have no id; none of `keys` may be null",
        ),
        (
            "SELECT DISTINCT id, CAST(NULL AS INT) AS a, CAST(NULL AS DATE) AS b FROM t",
            ["id"],
            (
                "configs/sql/some.sql returned 3 rows, and a, b are null in all of them; check the inputs, or leave "
                "out the column"
            ),
        ),
        (
            "SELECT id FROM t WHERE id > 3",
            ["id"],
            "configs/sql/some.sql returned 0 rows; check that the inputs have rows within the limits of `values`",
        ),
    ],
)
def test_bad_table_is_refused(spark_connection: str, here: Run, text: str, keys: list[str], problem: str) -> None:
    """A table that should not be handed on says why, and the file that was there stays."""
    (here.configs.parent / "out.parquet").write_text("old")
    with pytest.raises(DataRejected) as raised:
        built(here, text, keys=keys)
    assert str(raised.value) == problem
    assert (here.configs.parent / "out.parquet").read_text() == "old"


def test_missing_input_is_named(spark_connection: str, here: Run) -> None:
    """An input that no step has written says so."""
    with pytest.raises(MissingResource, match=r"^file 'u.parquet' does not exist in .*; run the step"):
        built(here, "SELECT id FROM u", inputs={"u": "u.parquet"})


def test_broken_input_is_named(spark_connection: str, here: Run) -> None:
    """An input that is not parquet is what the error begins with."""
    (here.configs.parent / "t.parquet").write_text("no parquet")
    with pytest.raises(PermanentError, match=rf"^{here.configs.parent}/t.parquet: "):
        built(here, "SELECT id FROM t")


def test_bucket_serves_as_well(spark_connection: str, object_store: ObjectStore, here: Run, tmp_path: Path) -> None:
    """Files in a bucket are read and written like those in a folder."""
    files = InBucket(connection="object_store", bucket="ge-artifacts", prefix=f"features/{tmp_path.name}")
    place = place_of(files, here)
    with place.write("t.parquet") as file:
        file.write_bytes((tmp_path / "t.parquet").read_bytes())
    (here.configs / "sql" / "some.sql").write_text("SELECT DISTINCT id FROM t")
    done = build_table("spark_default", {"t": "t.parquet"}, "some.sql", ["id"], "out.parquet", files, run=here)

    assert done == Built(rows=3, columns=1, path=files_of(files, here).address("out.parquet"))
    with place.read("out.parquet") as file:
        assert pq.read_table(file).to_pydict() == {"id": [1, 2, 3]}


PAYMENTS = """
    2025-12-12 1 7 99    QR              1     # one day before the window
    2025-12-13 1 7 10    QR              0     # its first day, 39 days before the cut-off
    2026-01-21 1 8 30    QR              3     # its last day, the cut-off
    2026-01-21 1 8 20    Online_Payments 0
    2026-01-22 1 9 77    Point           7     # in the horizon
    2026-01-01 2 7 5.5   -               -     # no payment follows
    2026-02-01 2 7 5     QR              0     # after the horizon
    2026-01-25 3 7 5     QR              0     # only in the horizon
    2026-01-05 4 7 5     QR              0     # nobody knows user 4
"""


def day(text: str) -> dt.date:
    return dt.date.fromisoformat(text)


def write_hand_made(folder: Path) -> None:
    """Write the payments above, and four users of whom only the first is known well."""
    lines = [line.split("#")[0].split() for line in PAYMENTS.strip().splitlines()]
    columns = list(zip(*lines, strict=True))
    paid = {
        "paid_on": pa.array([day(text) for text in columns[0]]),
        "user_id": pa.array([int(text) for text in columns[1]]),
        "seller_id": pa.array([int(text) for text in columns[2]]),
        "spent": pa.array([float(text) for text in columns[3]]),
        "segment": pa.array([None if text == "-" else text.replace("_", " ") for text in columns[4]]),
        "discount": pa.array([None if text == "-" else float(text) for text in columns[5]]),
    }
    pq.write_table(pa.table(paid), folder / "payments.parquet")
    users = pa.table(
        {
            "user_id": pa.array([1, 2, 3, 5]),
            "used_payments_app": pa.array([1, None, 1, 1], pa.int64()),
            "used_marketplace": pa.array([0, None, 1, 1], pa.int64()),
            "used_marketplace_before": pa.array([1, None, 1, 1], pa.int64()),
            "last_login_on": pa.array([day("2026-01-11"), None, None, None]),
            "age": pa.array([30, None, 1, 1], pa.int64()),
            "gender": pa.array(["F", None, "M", "M"]),
            "card_type": pa.array(["Debit", None, "Debit", "Debit"]),
            "city": pa.array(["Bogotá", None, "x", "x"]),
            "balance": pa.array([150.0, None, 0, 0]),
            "balance_before": pa.array([100.0, None, 0, 0]),
            "investment": pa.array(["Investing", None, "x", "x"]),
            "marketplace_spent": pa.array([12.5, None, 0, 0]),
            "last_purchase_on": pa.array([day("2024-01-01"), None, None, None]),
            "marketplace_purchases": pa.array([4, None, 0, 0], pa.int64()),
        }
    )
    pq.write_table(users, folder / "users.parquet")


KNOWN_WELL = {
    "user_id": 1, "payments": 3, "payments_last_30d": 2, "share_last_30d": 2 / 3, "spent": 60.0,
    "spent_last_30d": 50.0, "mean_spent": 20.0, "stddev_spent": 10.0, "largest_spent": 30.0, "discount": 3.0,
    "discount_share": 0.05, "discounted_share": 1 / 3, "distinct_sellers": 2, "days_since_last_payment": 0,
    "days_since_first_payment": 39, "online_share": 1 / 3, "qr_share": 2 / 3, "point_share": 0.0,
    "services_share": 0.0, "transfers_share": 0.0, "main_segment": "QR", "used_payments_app": 1,
    "used_marketplace": 0, "used_marketplace_before": 1, "days_since_login": 10, "age": 30, "gender": "F",
    "card_type": "Debit", "city": "Bogotá", "balance": 150.0, "balance_before": 100.0, "balance_change": 50.0,
    "balance_ratio": 1.5, "investment": "Investing", "marketplace_spent": 12.5, "marketplace_purchases": 4,
    "days_since_purchase": 365, "paid_last_30d": 1, "has_discount": 1, "age_known": 1, "has_account": 1,
    "balance_grew": 1, "is_investing": 1, "has_marketplace": 1, "churned": 0,
}  # fmt: skip
HARDLY_KNOWN = {
    "user_id": 2, "payments": 1, "payments_last_30d": 1, "share_last_30d": 1.0, "spent": 5.5,
    "spent_last_30d": 5.5, "mean_spent": 5.5, "stddev_spent": 0.0, "largest_spent": 5.5, "discount": 0.0,
    "discount_share": 0.0, "discounted_share": 0.0, "distinct_sellers": 1, "days_since_last_payment": 20,
    "days_since_first_payment": 20, "online_share": 0.0, "qr_share": 0.0, "point_share": 0.0,
    "services_share": 0.0, "transfers_share": 0.0, "main_segment": "unknown", "used_payments_app": 0,
    "used_marketplace": 0, "used_marketplace_before": 0, "days_since_login": 365, "age": 40, "gender": "unknown",
    "card_type": "unknown", "city": "unknown", "balance": 0.0, "balance_before": 0.0, "balance_change": 0.0,
    "balance_ratio": 1.0, "investment": "unknown", "marketplace_spent": 0.0, "marketplace_purchases": 0,
    "days_since_purchase": 365, "paid_last_30d": 1, "has_discount": 0, "age_known": 0, "has_account": 0,
    "balance_grew": 0, "is_investing": 0, "has_marketplace": 0, "churned": 1,
}  # fmt: skip


def test_features_by_hand(spark_connection: str, run: Run, tmp_path: Path) -> None:
    """Every feature is what the window's payments and the user exports say; one row for each known payer."""
    write_hand_made(tmp_path)
    table = build_features(tmp_path, replace(run, date=AS_OF), window_days=40, horizon_days=10)

    assert table.to_pylist() == [KNOWN_WELL, HARDLY_KNOWN]


def test_feature_types_are_plain(spark_connection: str, run: Run, tmp_path: Path) -> None:
    """Numbers are int or double, the rest is text, and the lists that training gets name every column."""
    write_hand_made(tmp_path)
    schema = build_features(tmp_path, replace(run, date=AS_OF)).schema

    assert set(schema.names) == {"user_id", "churned", *NUMERIC, *CATEGORICAL}
    assert {schema.field(name).type for name in NUMERIC} == {pa.int32(), pa.float64()}
    assert {schema.field(name).type for name in CATEGORICAL} == {pa.string()}
    assert (schema.field("user_id").type, schema.field("churned").type) == (pa.int64(), pa.int32())


@pytest.fixture(scope="module")
def invented(spark_connection: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cleaned inputs of 6,000 invented users."""
    folder = tmp_path_factory.mktemp("invented")
    write_inputs(folder, 6_000, AS_OF, 30)
    done = build_users(folder, Run("d", "r", "users", AS_OF, configs=REPOSITORY / "configs"))
    assert (done.rows, done.columns) == (6_000, 15)
    return folder


def scaled(table: pa.Table, in_horizon: pa.Array) -> pa.Table:
    """Return the payments with other amounts, sellers and segments in the horizon."""
    place = table.schema.get_field_index
    changed = {
        "spent": pc.multiply(table["spent"], 1000.0),
        "discount": pc.add(table["discount"], 5.0),
        "seller_id": pc.add(table["seller_id"], 1),
        "segment": pa.chunked_array([pa.repeat("QR", len(table))]),
    }
    for name, values in changed.items():
        table = table.set_column(place(name), name, pc.if_else(in_horizon, values, table[name]))
    return table


def joined_by_everybody(table: pa.Table, in_horizon: pa.Array) -> pa.Table:
    """Return the payments and, in the horizon, one more of everybody who ever paid."""
    users = pc.unique(table["user_id"])
    extra = {name: pa.repeat(table[name][0], len(users)) for name in table.schema.names}
    extra |= {"user_id": users, "paid_on": pa.repeat(pa.scalar(AS_OF), len(users))}
    return pa.concat_tables([table, pa.table(extra)])


@pytest.mark.parametrize(
    ("change", "churned"),
    [
        (lambda table, later: table.filter(pc.invert(later)), 1.0),
        (joined_by_everybody, 0.0),
        (scaled, None),
    ],
    ids=["removed", "added", "changed"],
)
def test_horizon_leaks_nothing(
    invented: Path,
    run: Run,
    tmp_path: Path,
    change: Callable[[pa.Table, pa.Array], pa.Table],
    churned: float | None,
) -> None:
    """Whatever is paid inside the horizon, the rows and each of their features stay the same; the label alone tells."""
    run = replace(run, date=AS_OF)
    before, paid = features_of_invented(invented, run), pq.read_table(invented / "payments.parquet")
    (tmp_path / "users.parquet").symlink_to(invented / "users.parquet")
    pq.write_table(change(paid, pc.greater(paid["paid_on"], dt.date(2026, 1, 1))), tmp_path / "payments.parquet")
    after = build_features(tmp_path, run)

    assert after.drop_columns("churned").equals(before.drop_columns("churned"))
    label = np.mean(before["churned"])
    assert 0.2 < label < 0.35
    assert np.mean(after["churned"]) == (label if churned is None else churned)


def features_of_invented(folder: Path, run: Run) -> pa.Table:
    """Return the features of the invented users; they are built once."""
    path = folder / "features.parquet"
    return pq.read_table(path) if path.exists() else build_features(folder, run)


@pytest.mark.parametrize("name", ["features", "user_base"])
def test_sql_knows_no_clock(run: Run, name: str) -> None:
    """Nothing in the SQL depends on the day of running, or on chance."""
    import sqlglot
    from sqlglot import expressions as sql

    query = sqlglot.parse_one((run.configs / "sql" / "churn" / f"{name}.sql").read_text(), dialect="spark")
    unsteady = (sql.CurrentDate, sql.CurrentTimestamp, sql.CurrentTime, sql.CurrentDatetime, sql.Rand, sql.Uuid)

    assert list(query.find_all(*unsteady)) == []


def test_fair_model_does_well(invented: Path, run: Run) -> None:
    """A plain logistic regression on the features tells who churns with an AUC of about 0.8 on people it never saw."""
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    table = features_of_invented(invented, replace(run, date=AS_OF)).to_pandas()
    seen, unseen = train_test_split(table, test_size=0.2, random_state=7)
    columns = ColumnTransformer([("n", StandardScaler(), NUMERIC), ("c", OneHotEncoder(), CATEGORICAL)])
    model = make_pipeline(columns, LogisticRegression(max_iter=1000)).fit(seen, seen["churned"])

    auc = roc_auc_score(unseen["churned"], model.predict_proba(unseen)[:, 1])
    assert 0.77 < auc < 0.84
