"""What the tests of the churn pipeline's parts share: its cleaned inputs without any dirt, and a look at memory."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.contract import Run
from tasks.files.places import InFolder
from tasks.spark.features import Built, build_table
from tasks.synthetic.churn_people import active_user, demographics, funds, marketplace, payments, people
from tasks.synthetic.churn_sources import BLOCK

if TYPE_CHECKING:
    from tasks.synthetic.churn_people import Columns, People

NAMES = {
    "FECHA": "paid_on",
    "CUS_CUST_ID_SEL": "seller_id",
    "CUS_CUST_ID_BUY": "user_id",
    "SPENT": "spent",
    "TPV_SEGMENT_DETAIL": "segment",
    "DESCUENTO": "discount",
    "MAU_MP_1": "used_payments_app",
    "MAU_ML_1": "used_marketplace",
    "MAU_ML_2": "used_marketplace_before",
    "last_login_mp_date_1": "last_login_on",
    "AGE": "age",
    "GENDER": "gender",
    "CARD_TYPE": "card_type",
    "CITY": "city",
    "PLATA_CUENTA_1": "balance",
    "PLATA_CUENTA_2": "balance_before",
    "INVERSION": "investment",
    "SPENT_ML": "marketplace_spent",
    "RECENCY_ML": "last_purchase_on",
    "FREQUENCY_ML": "marketplace_purchases",
}
"""The columns of the exports, and their names once they are cleaned."""

NUMERIC = [
    "payments", "payments_last_30d", "share_last_30d", "spent", "spent_last_30d", "mean_spent", "stddev_spent",
    "largest_spent", "discount", "discount_share", "discounted_share", "distinct_sellers",
    "days_since_last_payment", "days_since_first_payment", "online_share", "qr_share", "point_share",
    "services_share", "transfers_share", "used_payments_app", "used_marketplace", "used_marketplace_before",
    "days_since_login", "age", "balance", "balance_before", "balance_change", "balance_ratio",
    "marketplace_spent", "marketplace_purchases", "days_since_purchase", "paid_last_30d", "has_discount",
    "age_known", "has_account", "balance_grew", "is_investing", "has_marketplace",
]  # fmt: skip
CATEGORICAL = ["main_segment", "gender", "card_type", "city", "investment"]


def write_inputs(folder: Path, users: int, until: dt.date, horizon_days: int) -> None:
    """Write payments.parquet and the four exports of users below `folder`, as they are once they are cleaned."""
    cutoff = until - dt.timedelta(days=horizon_days)
    exports: dict[str, Callable[[People], Columns]] = {
        "payments": lambda who: payments(who, cutoff - dt.timedelta(days=179), until),
        "active_user": lambda who: active_user(who, cutoff),
        "demographics": demographics,
        "funds": lambda who: funds(who, cutoff),
        "marketplace": lambda who: marketplace(who, cutoff),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, columns in exports.items():
        blocks = (people(0, first, min(first + BLOCK, users)) for first in range(0, users, BLOCK))
        write_tables(folder / f"{name}.parquet", (cleaned(columns(who)) for who in blocks))


def write_tables(path: Path, tables: Iterator[pa.Table]) -> None:
    """Write tables as one parquet file."""
    first = next(tables)
    with pq.ParquetWriter(path, first.schema) as writer:
        for table in chain([first], tables):
            writer.write_table(table)


def cleaned(columns: Columns) -> pa.Table:
    """Return the columns of an export under their names and in their types once they are cleaned."""
    wide = {
        name: values.cast(pa.int64()) if pa.types.is_integer(values.type) else values
        for name, values in columns.items()
    }
    return pa.table({NAMES[name]: values for name, values in wide.items()})


def build_users(folder: Path, run: Run) -> Built:
    """Make users.parquet of the four exports, by the pipeline's own SQL."""
    inputs = {name: f"{name}.parquet" for name in ("active_user", "demographics", "funds", "marketplace")}
    files = InFolder(folder=str(folder))
    return build_table("spark_default", inputs, "churn/user_base.sql", ["user_id"], "users.parquet", files, run=run)


def build_features(folder: Path, run: Run, window_days: int = 90, horizon_days: int = 30) -> pa.Table:
    """Make features.parquet by the pipeline's own SQL, and return it."""
    build_table(
        "spark_default",
        {"payments": "payments.parquet", "users": "users.parquet"},
        "churn/features.sql",
        ["user_id"],
        "features.parquet",
        InFolder(folder=str(folder)),
        {"as_of": run.date, "window_days": window_days, "horizon_days": horizon_days},
        run=run,
    )
    return pq.read_table(folder / "features.parquet")
