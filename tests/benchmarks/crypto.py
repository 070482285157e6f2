"""The Postgres steps of crypto_events_dag against the bare SQL that each amounts to, in psql, in the same run.

A second table compares a build, a gate and the merges with themselves, without the check that a load takes what its own
run built and its gates passed. Starts a Postgres of its own. The statements are those of
`pipelines/crypto_events.yaml`, on as many rows as asked for.
"""

from __future__ import annotations

import argparse
import datetime as dt
import logging
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml
from pydantic import TypeAdapter
from rich.console import Console
from rich.table import Table

from stack.database import Cluster, Database, binaries
from stack.ports import Wish, choose
from stack.service import running
from tasks.contract import Before, GateBefore, Run
from tasks.postgres import tables
from tasks.postgres.expressions import check_expression
from tasks.postgres.merging import Deactivation, Timestamps
from tasks.postgres.passes import Judged
from tasks.postgres.tables import merge, rebuild_table, run_sql
from tasks.quality import gate as gates
from tasks.quality.gate import validate
from tasks.quality.suites import Expectation, Suite
from tasks.synthetic.tables import Rule, fill_table

ROOT = Path(__file__).parents[2]
CONNECTION = "crypto_postgres"
DATE, WINDOW_DAYS = dt.date(2026, 1, 5), 5

LOAD = """
    INSERT INTO prod.bt_crypto_events
        (site_id, user_id, purchase_date, crypto_type, purchase_value, is_active, created_at, updated_at)
    SELECT s.site_id, s.user_id, s.purchase_date, s.crypto_type, s.purchase_value, TRUE, now(), now()
    FROM staging.bt_crypto_events_candidate s {join}
    ON CONFLICT (site_id, user_id, purchase_date, crypto_type) DO UPDATE SET
        purchase_value = EXCLUDED.purchase_value, is_active = TRUE, updated_at = EXCLUDED.updated_at;
"""
UPSERT_ALL = LOAD.format(join="WHERE TRUE")
UPSERT_CHANGED = LOAD.format(
    join="""
    LEFT JOIN prod.bt_crypto_events t USING (site_id, user_id, purchase_date, crypto_type)
    WHERE t.site_id IS NULL OR NOT t.is_active OR t.purchase_value IS DISTINCT FROM s.purchase_value
    """
)
DEACTIVATE = """
    UPDATE prod.bt_crypto_events t SET is_active = FALSE, updated_at = now()
    WHERE is_active AND {window} AND NOT EXISTS (
        SELECT FROM staging.bt_crypto_events_candidate s WHERE (s.site_id, s.user_id, s.purchase_date, s.crypto_type)
            = (t.site_id, t.user_id, t.purchase_date, t.crypto_type));
"""
SETTLE = "VACUUM (ANALYZE) {table}; CHECKPOINT;"
CHANGE = """
    UPDATE staging.bt_crypto_events_candidate SET purchase_value = purchase_value + 1 WHERE user_id % 10 = 0;
    UPDATE staging.bt_crypto_events_candidate SET user_id = -user_id WHERE user_id % 100 = 1;
"""
"""A tenth of the rows has another value; a hundredth is new, and as many are gone."""


@dataclass(frozen=True)
class Case:
    """One step, what makes the state that it starts from, and the bare SQL, or another call, to hold it against."""

    name: str
    task: Callable[[], object]
    bare: str | Callable[[], object]
    prepare: str = ""
    seconds: dict[str, list[float]] = field(default_factory=lambda: {"task": [], "bare": []})

    def measure(self, psql: Psql, nth: int) -> None:
        """Time both once, each from the same state; they take turns at being first."""
        bare = self.bare
        contenders = [("task", self.task), ("bare", (lambda: psql(bare)) if isinstance(bare, str) else bare)]
        for name, action in contenders[:: 1 if nth % 2 == 0 else -1]:
            psql(self.prepare)
            self.seconds[name].append(_timed(action))


Psql = Callable[[str], None]


def main(argv: list[str] | None = None) -> None:
    """Measure every step and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000, help="rows in the window")
    parser.add_argument("--rounds", type=int, default=3, help="times that each is measured; the best counts")
    asked = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="tf-") as folder, database(Path(folder)) as found:
        os.environ["AIRFLOW_CONN_CRYPTO_POSTGRES"] = found.airflow_connection
        copy = Path(folder) / "history.copy"
        cases, checks = measured(asked.rows, asked.rounds, psql_of(found), copy)
        report(f"Postgres steps of crypto_events_dag, {asked.rows:,} rows", "task", "bare SQL", cases)
        report(f"The check that rows are the run's own and judged, {asked.rows:,} rows", "with it", "without", checks)


@contextmanager
def database(folder: Path) -> Iterator[Database]:
    """A fresh Postgres for the block, in `folder`."""
    ports, _ = choose([Wish("postgres", 15432)], pins={}, kept={})
    server = Cluster(folder / "postgres", ports["postgres"], uuid.uuid4().hex)
    with running(server.service(), folder):
        yield server.superuser


def psql_of(found: Database) -> Psql:
    """Return what runs a text in psql."""
    environment = {"PGPASSWORD": found.password, "PATH": os.defpath}
    address = ("-h", found.host, "-p", str(found.port), "-U", found.user, "-d", found.dbname)

    def psql(text: str) -> None:
        command = (str(binaries() / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", *address)
        done = subprocess.run(command, input=text, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"psql failed:\n{text}\n{done.stderr}")

    return psql


def measured(rows: int, rounds: int, psql: Psql, copy: Path) -> tuple[list[Case], list[Case]]:
    """Fill the tables, then return every case with its times: against bare SQL, and against itself unchecked."""
    run = Run("crypto_events_dag", "benchmark", "benchmark", DATE, configs=ROOT / "configs")
    logging.disable(logging.INFO)
    check_expression(("TRUE",))  # imports the parser, which a worker has done when it read the spec
    steps = shipped_steps()
    run_sql(CONNECTION, "crypto/tables.sql", run=run)
    cases = [filling(rows, run, steps, copy), rebuilding(run, steps), *merging(run, steps)]
    for case in cases:
        _measure(case, rounds, psql)
    checks = list(checking(run, steps))
    for case in checks:
        _measure(case, rounds, psql)
    return cases, checks


def _measure(case: Case, rounds: int, psql: Psql) -> None:
    for nth in range(rounds):
        case.measure(psql, nth)


def shipped_steps() -> dict[str, dict[str, Any]]:
    """Return the arguments of the pipeline's steps, with the run's date and window filled in."""
    text = (ROOT / "pipelines" / "crypto_events.yaml").read_text(encoding="utf-8")
    text = text.replace("{{ run.date }}", f"DATE '{DATE}'").replace("{{ params.window_days }}", str(WINDOW_DAYS))
    return {name: step.get("with", {}) for name, step in yaml.safe_load(text)["steps"].items()}


def shipped_suite(name: str) -> Suite:
    """Return a suite of the repository, with the run's date and window filled in."""
    text = (ROOT / "configs" / "suites" / f"{name}.yaml").read_text(encoding="utf-8")
    text = text.replace("{{ run.date }}", f"DATE '{DATE}'").replace("{{ params.window_days }}", "5")
    written: dict[str, Any] = yaml.safe_load(text)
    rules = [expectation(one) for one in written.pop("expectations")]
    return Suite.model_validate({**written, "name": name, "expectations": rules})


def expectation(written: dict[str, Any]) -> Expectation:
    """Return an expectation as a suite's file has it."""
    reason = written.pop("reason", None)
    ((name, arguments),) = written.items()
    return Expectation(type=name, arguments=arguments, reason=reason)


def filling(rows: int, run: Run, steps: dict[str, dict[str, Any]], copy: Path) -> Case:
    """The history, against psql's COPY of the same rows from a file."""
    step = steps["generate_fake_history_last_5_days"]
    rules = TypeAdapter(dict[str, Rule]).validate_python(step["columns"])
    table = step["table"]

    def task() -> None:
        fill_table(CONNECTION, table, step["day_column"], rules, rows // WINDOW_DAYS, WINDOW_DAYS, run=run)

    keep = f"\\copy {table} to '{copy}'\nTRUNCATE {table}; CHECKPOINT;"
    return Case("fill raw", task, f"\\copy {table} from '{copy}'", keep)


def rebuilding(run: Run, steps: dict[str, dict[str, Any]]) -> Case:
    """Staging from raw."""
    step = steps["build_events_candidate"]
    columns, values = ", ".join(step["columns"]), ", ".join(step["columns"].values())
    bare = f"""
        BEGIN;
        TRUNCATE {step["target"]};
        INSERT INTO {step["target"]} ({columns}) SELECT {values} FROM {step["source"]} WHERE {step["where"]};
        ANALYZE {step["target"]};
        COMMIT;
    """
    prepare = SETTLE.format(table=step["source"])
    return Case("rebuild staging", lambda: rebuild_table(**step, run=run), bare, prepare)


def merging(run: Run, steps: dict[str, dict[str, Any]]) -> Iterator[Case]:
    """The merge into an empty table, of rows that changed a little, and of rows that did not."""
    step = steps["merge_to_prod"]
    deactivate, stamps = Deactivation(**step["deactivate"]), Timestamps(**step["timestamps"])
    settle = "".join(SETTLE.format(table=step[table]) for table in ("source", "target"))
    reload = f"TRUNCATE {step['target']}; {UPSERT_ALL}"
    bare = f"BEGIN; {UPSERT_CHANGED} {DEACTIVATE.format(window=deactivate.window)} COMMIT;"

    def task() -> None:
        merge(**step | {"deactivate": deactivate, "timestamps": stamps, "external_source": True}, run=run)

    rebuild_table(**steps["build_events_candidate"], run=run)
    yield Case("merge, first", task, bare, f"TRUNCATE {step['target']}; {settle}")
    yield Case("merge, unchanged", task, bare, f"{reload} {settle}")
    yield Case("merge, unchanged, against upserting every row", task, UPSERT_ALL, f"{reload} {settle}")
    yield Case("merge, 10 % changed, 1 % new, 1 % gone", task, bare, f"{undone()} {reload} {CHANGE} {settle}")


def checking(run: Run, steps: dict[str, dict[str, Any]]) -> Iterator[Case]:
    """The build, its gate and the merges, each with the check and without it."""
    build, step = steps["build_events_candidate"], steps["merge_to_prod"]
    suite = shipped_suite("suite_staging_candidate")
    gate = GateBefore("gate", step["source"], "suite", CONNECTION)
    before = Before(builds={step["source"]: "build_events_candidate"}, digest="suite", gates=(gate,))
    built = replace(run, task_id="gate", before=before)
    options = {"deactivate": Deactivation(**step["deactivate"]), "timestamps": Timestamps(**step["timestamps"])}
    settle = "".join(SETTLE.format(table=step[table]) for table in ("source", "target"))
    reload = f"TRUNCATE {step['target']}; {UPSERT_ALL}"

    def merged() -> None:
        merge(**step | options, run=built)

    def merged_unchecked() -> None:
        merge(**step | options | {"external_source": True}, run=run)

    def judged() -> None:
        validate(suite, run=replace(built, attempt=str(uuid.uuid4())))

    rebuild = partial(rebuild_table, **build, run=run)
    rebuild()
    judged()
    yield Case("gate on staging", judged, unchecked(judged), SETTLE.format(table=step["source"]))
    yield Case("merge, first", merged, merged_unchecked, f"TRUNCATE {step['target']}; {settle}")
    yield Case("merge, unchanged", merged, merged_unchecked, f"{reload} {settle}")
    yield Case("rebuild staging", rebuild, unchecked(rebuild), SETTLE.format(table=build["source"]))


def unchecked(action: Callable[[], object]) -> Callable[[], object]:
    """Return the action without claims, and without what it records and looks up of builds and passes."""
    nothing: Callable[..., None] = lambda *_arguments, **_named: None  # noqa: E731
    without: list[tuple[Any, str, Any]] = [
        (tables, "claim", nothing),
        (tables, "record_build", lambda cursor, *_: cursor.rowcount),
        (gates, "make_records", nothing),
        (gates, "_judged", lambda _cursor, suite, _run: Judged(suite.batch.table)),
        (gates, "record_pass", nothing),
    ]

    def act() -> None:
        with ExitStack() as stack:
            for module, name, instead in without:
                stack.enter_context(patch.object(module, name, instead))
            action()

    return act


def undone() -> str:
    """Return what takes CHANGE back, where it was made before."""
    return """
        UPDATE staging.bt_crypto_events_candidate SET user_id = -user_id WHERE user_id < 0;
        UPDATE staging.bt_crypto_events_candidate SET purchase_value = purchase_price * purchase_units
            WHERE purchase_value <> purchase_price * purchase_units;
    """


def report(title: str, ours: str, theirs: str, cases: list[Case]) -> None:
    """Print the best time of each."""
    table = Table(title=title)
    for heading in ("step", f"{ours} s", f"{theirs} s", f"{ours} / {theirs}"):
        table.add_column(heading, justify="left" if heading == "step" else "right")
    for case in cases:
        task, bare = min(case.seconds["task"]), min(case.seconds["bare"])
        table.add_row(case.name, f"{task:.2f}", f"{bare:.2f}", f"{task / bare:.2f}")
    Console().print(table)


def _timed(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
