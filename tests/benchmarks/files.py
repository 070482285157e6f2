"""Files into and out of tables against bare COPY in psql, on the same rows, in the same run.

Starts a Postgres of its own. Bare COPY counts with the TRUNCATE and ANALYZE that the task does too.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tasks.contract import Run
from tasks.files.places import InFolder
from tasks.postgres.copy_table import copy_table
from tasks.postgres.export import export
from tasks.postgres.loading.load_file import load_file
from tests.benchmarks.crypto import CONNECTION, DATE, Case, Psql, database, psql_of

COLUMNS = "(id bigint, site text, day date, price numeric(10, 2), note text)"
ROWS = """
    SELECT n, 'site ' || n % 50, DATE '2026-01-05' - (n % 30)::int, (n % 100000) / 100.0,
           CASE n % 5 WHEN 0 THEN NULL WHEN 1 THEN 'with "quotes", and a comma' ELSE 'note ' || n END
    FROM generate_series(1, {rows}) AS n
"""
MAKE = "CREATE SCHEMA s; CREATE TABLE s.source {columns}; CREATE TABLE s.task {columns}; CREATE TABLE s.bare {columns};"
LOAD = "BEGIN; TRUNCATE s.bare; \\copy s.bare FROM '{file}' WITH (FORMAT csv, HEADER)\nANALYZE s.bare; COMMIT;"
COPY_TABLE = "BEGIN; TRUNCATE s.bare; INSERT INTO s.bare SELECT * FROM s.source; ANALYZE s.bare; COMMIT;"


def main(argv: list[str] | None = None) -> None:
    """Measure every task and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000, help="rows of the table")
    parser.add_argument("--rounds", type=int, default=3, help="times that each is measured; the best counts")
    asked = parser.parse_args(argv)
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory(prefix="tf-") as folder, database(Path(folder)) as found:
        os.environ["AIRFLOW_CONN_CRYPTO_POSTGRES"] = found.airflow_connection
        psql = psql_of(found)
        psql(MAKE.format(columns=COLUMNS))
        psql(f"INSERT INTO s.source {ROWS.format(rows=asked.rows)}; VACUUM ANALYZE s.source;")
        cases = cases_in(Path(folder) / "files", psql)
        for nth in range(asked.rounds):
            for case in cases:
                case.measure(psql, nth)
    report(cases, asked.rows)


def cases_in(folder: Path, psql: Psql) -> list[Case]:
    """Return what is measured; the files that are loaded are those that psql and the task export."""
    folder.mkdir()
    run = Run("bench", f"manual__{uuid.uuid4()}", "task", DATE, configs=folder / "configs")
    place, source = InFolder(folder=str(folder)), folder / "source.csv"
    out = "\\copy (SELECT * FROM s.source) TO '{file}' WITH (FORMAT csv, HEADER)"
    psql(out.format(file=source))
    (folder / "bad.csv").write_text(source.read_text() + "x,,,,\n")
    aside = {"on_bad_row": "set_aside", "quarantine": "s.bad"}
    export(CONNECTION, "source.parquet", place, "parquet", table="s.source", run=run)
    load = LOAD.format(file=source)

    def exports(form: str) -> Callable[[], object]:
        return lambda: export(CONNECTION, f"out.{form}", place, form, table="s.source", run=run)  # type: ignore[arg-type]

    def loads(form: str, name: str, **how: str) -> Callable[[], object]:
        return lambda: load_file(CONNECTION, "s.task", place, form, name, **how, run=replace(run))  # type: ignore[arg-type]

    return [
        Case("load_file, CSV", loads("csv", "source.csv"), load),
        Case("load_file, parquet", loads("parquet", "source.parquet"), load),
        Case("load_file, CSV with a row that does not fit", loads("csv", "bad.csv", **aside), load),
        Case("export, CSV", exports("csv"), out.format(file=folder / "bare.csv")),
        Case("export, parquet", exports("parquet"), out.format(file=folder / "bare.csv")),
        Case("copy_table", lambda: copy_table(CONNECTION, "s.source", CONNECTION, "s.task", run=run), COPY_TABLE),
    ]


def report(cases: list[Case], rows: int) -> None:
    """Print the best of each, and their ratio."""
    table = Table("task", "s", "bare, s", "ratio", title=f"{rows:,} rows")
    for case in cases:
        task, bare = (min(case.seconds[name]) for name in ("task", "bare"))
        table.add_row(case.name, f"{task:.2f}", f"{bare:.2f}", f"{task / bare:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
