"""What the tests of tasks share: a run to work for, and a way to ask the database."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from stack.paths import REPOSITORY
from tasks.contract import Run
from tests.support.customers import write_customers
from tests.support.database import Gate, Sql
from tests.support.grids import FILE
from tests.support.training import Trainer

if TYPE_CHECKING:
    from psycopg2.sql import Composable

    from stack.database import Cluster, Database
    from stack.tracking_server import Tracking
    from tasks.models.training import Training


@pytest.fixture
def run() -> Run:
    """A run of 5 January 2026, with the repository's configs."""
    return Run("crypto_events_dag", "manual__1", "some_task", dt.date(2026, 1, 5), configs=REPOSITORY / "configs")


@pytest.fixture
def sql(database: Database) -> Sql:
    """A function that runs statements in the test's database and returns the rows of the last."""
    return _asking(database)


@pytest.fixture
def superuser(cluster: Cluster, database: Database) -> Sql:
    """The same, by the server's superuser."""
    return _asking(cluster.superuser.named(database.dbname))


def _asking(database: Database) -> Sql:
    def execute(text: str | Composable, *values: object) -> list[tuple[Any, ...]]:
        with database.connect() as session, session.cursor() as cursor:
            cursor.execute(text, values or None)
            return cursor.fetchall() if cursor.description else []

    return execute


@pytest.fixture
def gate(sql: Sql) -> Iterator[Gate]:
    """A place in the database where a task can be held up."""
    with ThreadPoolExecutor(4) as threads:
        yield Gate(sql, threads)


@pytest.fixture(scope="session")
def customers_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the made-up customers."""
    place = tmp_path_factory.mktemp("customers")
    write_customers(place / FILE, 2_500)
    return place


@pytest.fixture(scope="session")
def done(spark_connection: str, mlflow_server: Tracking, customers_folder: Path) -> tuple[Trainer, Training]:
    """One training that came to its end."""
    first = Trainer(
        customers_folder, Run("churn_training_dag", "scheduled__1", "train_spark_model", dt.date(2026, 1, 5))
    )
    return first, first()
