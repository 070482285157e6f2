"""The gate against the bare SQL that it amounts to, in psql, in the same run: both suites kept, and rows set aside.

Starts a Postgres of its own. The suites are those of `configs/suites/`. The library's import, of some seconds, is not
counted; it is shown below the table.
"""

from __future__ import annotations

import argparse
import datetime as dt
import logging
import os
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tasks.contract import Run
from tasks.postgres.tables import run_sql
from tasks.quality.data_docs import pages
from tasks.quality.gate import _one_snapshot, validate
from tasks.quality.on_postgres.conditions import row_condition
from tasks.quality.on_postgres.quarantine import batch_rows, quarantine
from tasks.quality.suites import Suite
from tasks.quality.verdicts import judge
from tasks.services.postgres import postgres
from tests.benchmarks.crypto import CONNECTION, DATE, ROOT, Psql, database, psql_of, shipped_suite

RAW, CANDIDATE, REJECTS = (
    "raw.bt_crypto_transaction_history",
    "staging.bt_crypto_events_candidate",
    "dqm.bt_crypto_events_rejects",
)

FILL = f"""
    INSERT INTO {RAW}
    SELECT (ARRAY['ARGENTINA', 'BRASIL', 'MEXICO'])[1 + n % 3], 100000 + n, to_char(day, 'FMDD/FMMM/YYYY'),
           (ARRAY['BTC', 'ETH', 'USDC'])[1 + n / 3 % 3], 1 + n % 70000 + 0.25, 0.0001 + n % 5, day
    FROM (SELECT n, timestamp '{DATE}' - n % 5 * interval '1 day' AS day
          FROM generate_series(1, {{rows}}) AS n) AS numbers;
    INSERT INTO {CANDIDATE}
    SELECT site_id, user_id, to_date(purchase_date, 'DD/MM/YYYY'), crypto_type, purchase_price, purchase_units,
           purchase_price * purchase_units FROM {RAW};
    VACUUM (ANALYZE) {RAW}; VACUUM (ANALYZE) {CANDIDATE}; CHECKPOINT;
"""
SPOIL = f"""
    UPDATE {RAW} SET site_id = CASE WHEN user_id % 50 = 0 THEN 'CHILE' ELSE site_id END,
        purchase_date = CASE WHEN user_id % 50 = 10 THEN '2026-13-45' ELSE purchase_date END,
        crypto_type = CASE WHEN user_id % 50 = 20 THEN 'DOGE' ELSE crypto_type END,
        purchase_price = CASE WHEN user_id % 50 = 30 THEN -1 ELSE purchase_price END,
        purchase_units = CASE WHEN user_id % 50 = 40 THEN NULL ELSE purchase_units END
    WHERE user_id % 10 = 0;
    VACUUM (FULL, ANALYZE) {RAW}; CHECKPOINT;
"""


@dataclass(frozen=True)
class Line:
    """One line of the table: what was measured, and at most how many times its bare SQL it may take."""

    name: str
    seconds: float
    bare: float
    limit: float


def main(argv: list[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000, help="rows of each batch")
    parser.add_argument("--rounds", type=int, default=3, help="times that each is measured; the best counts")
    asked = parser.parse_args(argv)
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory(prefix="tf-") as folder, database(Path(folder)) as found:
        os.environ["AIRFLOW_CONN_CRYPTO_POSTGRES"] = found.airflow_connection
        psql = psql_of(found)
        run = Run("crypto_events_dag", "benchmark", "gate", DATE, configs=ROOT / "configs", attempt=str(uuid.uuid4()))
        run_sql(CONNECTION, "crypto/tables.sql", run=run)
        raw, candidate = shipped_suite("suite_raw_history"), shipped_suite("suite_staging_candidate")
        psql(FILL.format(rows=asked.rows))
        first = timed(lambda: validate(tiny(raw), run=run))
        kept = [passing(suite, run, psql, asked.rounds) for suite in (raw, candidate)]
        docs = rendering(raw, run)
        psql(SPOIL)
        report([*kept, setting_aside(raw, run, psql, asked.rounds)], asked.rows)
        Console().print(
            f"First validation in a process, with the library's import: {first:.1f} s. Pages: {docs:.2f} s."
        )


def tiny(suite: Suite) -> Suite:
    """Return the suite with a rule or two, on a batch of one row."""
    batch = suite.batch.model_copy(update={"where": "user_id = 100001"})
    return suite.model_copy(update={"batch": batch, "expectations": suite.expectations[1:3]})


def passing(suite: Suite, run: Run, psql: Psql, rounds: int) -> Line:
    """The whole task on a batch that keeps its rules, against the counting of what breaks them."""

    def once() -> tuple[float, float]:
        one_try = replace(run, attempt=str(uuid.uuid4()))
        task = timed(lambda: validate(suite, record_in="dqm.dq_runs", run=one_try))
        return task, timed(lambda: psql(counting(suite)))

    return best(f"{suite.name}, kept", [once() for _ in range(rounds)], 3.5)


def setting_aside(suite: Suite, run: Run, psql: Psql, rounds: int) -> Line:
    """The quarantine of a tenth of the rows, against the same counting."""

    def once() -> tuple[float, float]:
        psql(f"TRUNCATE {REJECTS}; CHECKPOINT;")
        with postgres(CONNECTION, autocommit=True) as session, _one_snapshot(session, suite, run) as cursor:
            failed = [outcome.expectation for outcome in judge(session, suite, run).failed]
            return timed(lambda: quarantine(cursor, suite, failed, run)), timed(lambda: psql(counting(suite)))

    return best("quarantine of 10 % bad rows", [once() for _ in range(rounds)], 2)


def best(name: str, times: list[tuple[float, float]], limit: float) -> Line:
    """Return the line of what was measured several times."""
    return Line(name, min(task for task, _ in times), min(bare for _, bare in times), limit)


def rendering(suite: Suite, run: Run) -> float:
    """The making of the pages."""
    with postgres(CONNECTION, autocommit=True) as session, _one_snapshot(session, suite, run):
        verdict = judge(session, tiny(suite), run)
    return timed(lambda: pages(verdict, suite, run))


def counting(suite: Suite) -> str:
    """Return one scan that counts the rows that break each rule; copies of a key are counted by one grouped scan."""
    with postgres(CONNECTION) as session:
        rows = batch_rows(suite.batch).as_string(session)
    conditions = [found for one in suite.expectations if (found := row_condition(one))]
    counts = [f"count(*) FILTER (WHERE {one.sql})" for one in conditions if not one.windows]
    scan = f"SELECT count(*), {', '.join(counts)} FROM ({rows}) AS subselect;"
    keys = [", ".join(one.arguments["column_list"]) for one in suite.expectations if "compound" in one.type]
    return scan + "".join(
        f"SELECT sum(n) FROM (SELECT count(*) AS n FROM ({rows}) AS subselect GROUP BY {key} HAVING count(*) > 1) AS g;"
        for key in keys
    )


def timed(action: Callable[[], object]) -> float:
    """Return how many seconds `action` takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def report(lines: list[Line], rows: int) -> None:
    """Print the table."""
    table = Table(title=f"The gate on {rows:,} rows, against its bare SQL in psql ({dt.date.today()})")  # noqa: DTZ011
    for heading in ("", "task", "bare SQL", "ratio", "at most"):
        table.add_column(heading, justify="right" if heading else "left")
    for line in lines:
        ratio = line.seconds / line.bare
        colour = "green" if ratio <= line.limit else "red"
        table.add_row(
            line.name, f"{line.seconds:.2f} s", f"{line.bare:.2f} s", f"[{colour}]{ratio:.2f}", f"{line.limit:g}"
        )
    Console().print(table)


if __name__ == "__main__":
    main()
