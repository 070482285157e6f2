"""Builds, gates and loads of several runs over the same tables, in any order, against a model of what prod may be.

Everything runs on a real Postgres through the tasks' own code; only the rule that a gate checks is a plain query here,
since Great Expectations takes a second for each. `--interleavings N` tries more, `--seed S` others.
"""

from __future__ import annotations

import datetime as dt
import logging
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import psycopg2
import pytest

from stack.database import Database
from tasks.contract import Before, GateBefore, Occupied, PermanentError, Run
from tasks.files.places import InFolder
from tasks.postgres import claims, merging, passes, tables, versions
from tasks.postgres.loading import load_file as loading
from tasks.postgres.merging import Deactivation
from tasks.postgres.passes import Judged, record_pass
from tasks.postgres.versions import make_records
from tasks.quality import gate as gates
from tasks.quality.suites import Batch, Expectation, Suite

TABLES = """
    CREATE SCHEMA s;
    CREATE TABLE s.raw (id int, day int, price int);
    CREATE TABLE s.staging (id int, day int, price int, a int, b int);
    CREATE TABLE s.prod (id int PRIMARY KEY, day int, price int, is_active bool NOT NULL DEFAULT true);
    CREATE TABLE s.copy (LIKE s.prod INCLUDING ALL);
    CREATE TABLE s.killed (at text);
    CREATE FUNCTION s.kill() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF EXISTS (SELECT FROM s.killed WHERE at = TG_TABLE_NAME) THEN RAISE EXCEPTION 'killed'; END IF;
        RETURN NULL;
    END $$;
"""
KILLS = """
    CREATE TRIGGER kill AFTER INSERT ON {table} FOR EACH STATEMENT EXECUTE FUNCTION s.kill();
"""
DAYS = 3
ROWS = 3
"""Rows of each day."""


@dataclass
class Model:
    """What the tables hold, by the rules in words: who built staging, what has passed, what prod may be."""

    raw: dict[int, int] = field(default_factory=dict)
    """Prices by id; the day of a row is `id // 10`."""
    staging: dict[int, int] = field(default_factory=dict)
    builder: int | None = None
    """The run that built staging last."""
    build: int = 0
    built: frozenset[int] = frozenset()
    """The rows of that build, by id, and those of them that nobody has written since."""
    own: frozenset[int] = frozenset()
    is_swapped: bool = False
    """Whether two columns of staging have swapped their names since that build."""
    passed: dict[tuple[int, str, int], tuple[int, int, bool]] = field(default_factory=dict)
    """By run, gate and map index: the build that it judged last, the suite that it had, and its verdict."""
    suite: int = 0
    loaded: dict[str, dict[int, tuple[int, bool]]] = field(
        default_factory=lambda: {table: {} for table in TARGETS.values()}
    )
    """The rows of each target."""

    def holds_rows_of(self, run: int) -> bool:
        """Whether staging is exactly what `run` built: a row that is inserted and deleted again leaves no trace."""
        return self.builder == run and self.own == self.built == set(self.staging) and not self.is_swapped

    def may_load(self, run: int) -> bool:
        wanted = (self.build, self.suite, True)
        instances = [(run, gate.task_id, index) for gate in GATES for index in gate.map_indexes]
        return self.holds_rows_of(run) and all(self.passed.get(one) == wanted for one in instances)

    def load(self, run: int, target: str) -> None:
        left = {
            key: (price, active and not (key // 10 == day_of(run) and key not in self.staging))
            for key, (price, active) in self.loaded[target].items()
        }
        self.loaded[target] = left | {key: (price, True) for key, price in self.staging.items()}


GATES = (GateBefore("gate_a", "s.staging", ""), GateBefore("gate_b", "s.staging", "", items=2))
"""A gate, and one that is mapped over two items."""
TARGETS = {"load": "s.prod", "load_copy": "s.copy"}
"""Two steps that load what one build made."""
STEPS = ("build", "gate_a", "gate_b", *TARGETS)


def day_of(run: int) -> int:
    """Return the day of a run: the runs from `DAYS` on have the days and names of the first, in another Airflow."""
    return run % DAYS


@dataclass
class World:
    """The real tables, with a model beside them."""

    session: Any
    configs: Path
    random: random.Random
    model: Model = field(default_factory=Model)
    told: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    places: dict[int, int] = field(default_factory=dict)
    """Where each run is."""

    def sql(self, text: str, *values: object) -> list[tuple[Any, ...]]:
        with self.session.cursor() as cursor:
            cursor.execute(text, values or None)
            return cursor.fetchall() if cursor.description else []

    def start(self) -> None:
        self.model, self.told, self.places = Model(), [], {}
        for key in (10 * day + one for day in range(DAYS) for one in range(ROWS)):
            self.model.raw[key] = self.random.choice([1, 2, -1]) if self.random.random() < 0.2 else 1
        everything = "s.raw", *TARGETS.values(), "s.killed", "s.staging", "taskflow.passes", "taskflow.builds"
        everything += ("taskflow.claims", "taskflow.waits")
        self.sql("; ".join(f"DELETE FROM {table}" for table in everything))
        rows = [f"({key}, {key // 10}, {price})" for key, price in self.model.raw.items()]
        self.sql(f"INSERT INTO s.raw VALUES {', '.join(rows)}")

    # --- what Airflow does ----------------------------------------------------------------------------

    def advances(self, run: int) -> None:
        """Do the next step of a run; go on only where it went well, or where somebody marks it as success."""
        place = self.places.get(run, 0)
        went_well = self.does(run, STEPS[place])
        if went_well or self.random.random() < 0.2:
            self.places[run] = (place + 1) % len(STEPS)

    def does(self, run: int, step: str) -> bool:
        if step == "build":
            return self.builds(run)
        if step in TARGETS:
            return self.loads(run, step)
        (gate,) = (gate for gate in GATES if gate.task_id == step)
        passed = [self.gates(run, gate.task_id, index) for index in gate.map_indexes]
        return all(passed)

    def is_cleared(self, run: int) -> None:
        """Let a run go on from any of its steps."""
        self.places[run] = self.random.randrange(len(STEPS))

    def builds(self, run: int) -> bool:
        asked = run_of(run, "build", other_runs_are_running=self.random.random() < 0.1)
        patience = self.random.choice([0, 0, 0, 7200])
        build = self.random.choice([self.rebuilds, self.fills])
        try:
            ended = self.attempt("builds", lambda: build(asked, day_of(run), patience))
        except Occupied as holder:
            if not (asked.is_running("", "") if holder.can_ask else patience):
                raise AssertionError(f"a run waits for nobody: {holder}") from None
            self.counts["waited"] += 1
            return False
        if ended == "killed":
            return False
        self.model.staging = {key: price for key, price in self.model.raw.items() if key // 10 == day_of(run)}
        self.model.builder, self.model.build = run, self.model.build + 1
        self.model.own = self.model.built = frozenset(self.model.staging)
        self.model.is_swapped = False
        return ended == "done"

    def rebuilds(self, asked: Run, day: int, patience: float) -> None:
        columns = {"id": "id", "day": "day", "price": "price"}
        where = f"day = {day}"
        tables.rebuild_table(self.connection, "s.staging", "s.raw", columns, where, claim_timeout=patience, run=asked)

    def fills(self, asked: Run, day: int, patience: float) -> None:
        """Load the same rows from a file."""
        rows = [f"{key},{day},{price},,\n" for key, price in self.model.raw.items() if key // 10 == day]
        (self.configs / "raw.csv").write_text("id,day,price,a,b\n" + "".join(rows))
        place = InFolder(folder=str(self.configs))
        loading.load_file(self.connection, "s.staging", place, "csv", "raw.csv", claim_timeout=patience, run=asked)

    def appends(self, run: int) -> None:
        """Run a file that claims to build the table and does not empty it first: right only if it was empty."""
        asked = replace(run_of(run, "build"), configs=self.configs)
        try:
            tables.run_sql(self.connection, "append.sql", builds=["s.staging"], claim_timeout=0, run=asked)
        except PermanentError:
            assert self.model.staging, "a build into an empty table was refused"
            self.counts["append refused"] += 1
            return
        assert not self.model.staging, "a build was recorded with rows that it did not write"
        self.model.staging = {key: price for key, price in self.model.raw.items() if key // 10 == 0}
        self.model.builder, self.model.build = run, self.model.build + 1
        self.model.own = self.model.built = frozenset(self.model.staging)
        self.model.is_swapped = False

    def gates(self, run: int, name: str, index: int) -> bool:
        expected = self.model.holds_rows_of(run)
        verdict = all(price > 0 for price in self.model.staging.values())
        if self.random.random() < 0.1:
            return False  # killed before it did anything
        asked = replace(run_of(run, name, suite=self.model.suite), map_index=index)
        try:
            ended = self.attempt("passes", lambda: judge(self.connection, asked))
        except PermanentError as error:
            if expected:
                raise AssertionError(f"a gate refused its own rows: {error}") from None
            self.counts["gate refused"] += 1
            return False
        if ended == "killed":
            return False
        assert expected, "a gate judged rows that are not of its run"
        self.model.passed[run, name, index] = (self.model.build, self.model.suite, verdict)
        return verdict and ended == "done"

    def loads(self, run: int, step: str) -> bool:
        allowed = self.model.may_load(run)
        window = Deactivation(window=f"day = {day_of(run)}", max_deactivated_share=1)
        terms = {"columns": ["day", "price"], "deactivate": window, "allow_empty": True}
        gates = tuple(replace(gate, digest=digest(self.model.suite)) for gate in GATES)
        asked = replace(run_of(run, step), before=Before(builds={"s.staging": "build"}, gates=gates))
        act = lambda: tables.merge(  # noqa: E731
            self.connection, "s.staging", TARGETS[step], ["id"], **terms, run=asked
        )
        try:
            ended = self.attempt(TARGETS[step].removeprefix("s."), act)
        except PermanentError as error:
            if allowed or "clear" not in str(error):
                raise AssertionError(f"a load refused its own rows, or told no way out: {error}") from None
            self.counts["load refused"] += 1
            return False
        if ended == "killed":
            return False
        assert allowed, "a load took rows that its own run did not build, or that its gates did not pass"
        self.counts["loaded"] += 1
        self.model.load(run, TARGETS[step])
        return ended == "done"

    def attempt(self, table: str, act: Callable[[], object]) -> Literal["done", "killed", "killed after its commit"]:
        """Do something; one time in ten it is killed at its last write, one time in twenty after its commit."""
        chance = self.random.random()
        if chance > 0.1:
            act()
            if chance < 0.15:
                self.counts["killed after its commit"] += 1
                return "killed after its commit"
            return "done"
        self.sql("INSERT INTO s.killed VALUES (%s)", table)
        try:
            act()
        except (PermanentError, Occupied) as error:
            if isinstance(error, Occupied) or "clear" in str(error):
                raise
            self.counts["killed"] += 1
            return "killed"
        except Exception:  # noqa: BLE001  # whatever psycopg2 makes of it
            self.counts["killed"] += 1
            return "killed"
        finally:
            self.sql("DELETE FROM s.killed")
        return "done"

    # --- what others do -------------------------------------------------------------------------------------------

    def meddles(self, _run: int) -> None:
        key = self.random.choice(sorted(self.model.staging) or [0])
        change = self.random.choice(list(MEDDLING))
        if not self.model.staging and change != "insert":
            return
        self.sql(MEDDLING[change], *([key] if "%s" in MEDDLING[change] else []))
        self.counts[change] += 1
        if change in CHANGED:
            self.model.own -= CHANGED[change](key, self.model.own)
        self.model.is_swapped ^= change == "swap"
        self.model.staging = {key: price for key, _, price in self.sql("SELECT id, day, price FROM s.staging")}

    def mends(self, run: int) -> None:
        for key in [key for key in self.model.raw if key // 10 == day_of(run)]:
            self.model.raw[key] = 1
        self.sql("UPDATE s.raw SET price = 1 WHERE day = %s", day_of(run))

    def spoils(self, run: int) -> None:
        key = 10 * day_of(run) + self.random.randrange(ROWS)
        self.model.raw[key] = price = self.random.choice([-1, 3])
        self.sql("UPDATE s.raw SET price = %s WHERE id = %s", price, key)

    def edits_suite(self, _run: int) -> None:
        self.model.suite += 1

    @property
    def connection(self) -> str:
        return self.random.choice(["crypto_postgres", "the_same_postgres"])

    def check(self) -> None:
        selects = (f"SELECT '{table}', id, price, is_active FROM {table}" for table in TARGETS.values())
        found: dict[str, dict[int, tuple[int, bool]]] = {table: {} for table in TARGETS.values()}
        for table, key, price, active in self.sql(" UNION ALL ".join(selects)):
            found[table][key] = (price, active)
        for table, rows in found.items():
            assert rows == self.model.loaded[table], f"{table} is not what the model says"


CHANGED: Mapping[str, Callable[[int, frozenset[int]], frozenset[int]]] = {
    "update": lambda key, _: frozenset((key,)),
    "delete": lambda key, _: frozenset((key,)),
    "refill": lambda _, own: own,
}
"""Which rows of the build are written by somebody else; an insert adds a row, and ANALYZE changes none."""
MEDDLING = {
    "insert": "INSERT INTO s.staging VALUES (9, 0, 5)",
    "update": "UPDATE s.staging SET price = price WHERE id = %s",
    "delete": "DELETE FROM s.staging WHERE id = %s",
    "refill": """
        CREATE TEMPORARY TABLE kept ON COMMIT DROP AS TABLE s.staging;
        TRUNCATE s.staging;
        INSERT INTO s.staging TABLE kept;
    """,
    "swap": """
        ALTER TABLE s.staging RENAME a TO c;
        ALTER TABLE s.staging RENAME b TO a;
        ALTER TABLE s.staging RENAME c TO b;
    """,
    "analyze": "ANALYZE s.staging",
}
ACTS: Mapping[Callable[[World, int], None], int] = {
    World.advances: 24,
    World.is_cleared: 3,
    World.meddles: 1,
    World.mends: 1,
    World.spoils: 1,
    World.edits_suite: 1,
    World.appends: 1,
}
SUITE = Suite(
    name="positive",
    connection="crypto_postgres",
    batch=Batch(table="s.staging"),
    expectations=[Expectation(type="expect_column_values_to_be_between")],
)


def digest(suite: int) -> str:
    return f"suite {suite}"


def run_of(run: int, task: str, *, suite: int = 0, other_runs_are_running: bool = False) -> Run:
    """Return a run by its number: of the stack, or of `taskflow run`, which has runs of the same names."""
    before = Before(builds={"s.staging": "build"}, digest=digest(suite))
    day = day_of(run)
    return Run(
        dag_id="dag",
        run_id=f"run_{day}",
        task_id=task,
        date=dt.date(2026, 1, 1 + day),
        before=before,
        deployment="the stack" if run < DAYS else "taskflow run",
        attempt=f"{run}{task}",
        is_running=lambda _dag_id, _run_id: other_runs_are_running,
    )


def judge(connection: str, run: Run) -> None:
    """Do what quality.validate does in its transaction, with a plain query for the suite."""
    with (
        tables.postgres(connection, autocommit=True) as session,
        gates._one_snapshot(session, SUITE, run) as cursor,
    ):
        make_records(cursor)
        judged = gates._judged(cursor, SUITE, run)
        cursor.execute("SELECT coalesce(bool_and(price > 0), true) FROM s.staging")
        record_pass(cursor, judged, SUITE.name, run, passed=cursor.fetchone()[0])


@pytest.fixture
def world(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Iterator[World]:
    """The tables, and one session for all tasks: to connect for each would take most of the time."""
    caplog.set_level(logging.WARNING, logger="tasks")
    session, tasks_session = (psycopg2.connect(database.dsn, options="-c synchronous_commit=off") for _ in "ab")
    session.autocommit = True  # a text of several statements is one transaction all the same, in a third of the trips

    @contextmanager
    def postgres(_connection: str, *, autocommit: bool = False, **_named: object) -> Iterator[Any]:
        tasks_session.rollback()
        tasks_session.autocommit = autocommit
        try:
            yield tasks_session
            if not autocommit:
                tasks_session.commit()
        finally:
            with tasks_session.cursor() as cursor:
                if autocommit:
                    cursor.execute("ROLLBACK")
                    cursor.execute("SELECT pg_advisory_unlock_all()")
            tasks_session.rollback()
            tasks_session.autocommit = False

    for module in (tables, claims, loading):
        monkeypatch.setattr(module, "postgres", postgres)
    (tmp_path / "sql").mkdir()
    (tmp_path / "sql" / "append.sql").write_text("INSERT INTO s.staging SELECT * FROM s.raw WHERE day = 0")
    world = World(session, tmp_path, random.Random(0))
    world.sql(TABLES)
    with session, session.cursor() as cursor:
        make_records(cursor)
    for table in ("taskflow.builds", "taskflow.passes", *TARGETS.values()):
        world.sql(KILLS.format(table=table))
    yield world
    tasks_session.close()
    session.close()


def interleave(world: World, seed: int) -> None:
    """Play one interleaving of two or three runs."""
    world.random = random.Random(seed)
    world.start()
    runs = world.random.sample(range(2 * DAYS), world.random.choice([2, 3]))
    for _ in range(world.random.randrange(8, 24)):
        act = world.random.choices(list(ACTS), list(ACTS.values()))[0]
        run = world.random.choice(runs)
        world.told.append(f"run {run} {act.__name__}")
        act(world, run)
        world.check()


def play(world: World, seeds: range) -> None:
    for seed in seeds:
        try:
            interleave(world, seed)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}; after {', '.join(world.told)}") from None


def test_no_interleaving_reaches_prod_wrongly(world: World, pytestconfig: pytest.Config) -> None:
    """Clears, kills, marks, backfills and foreign writes in any order: prod holds what its own gates passed."""
    count, first = pytestconfig.getoption("interleavings"), pytestconfig.getoption("seed")
    play(world, range(first, first + count))

    assert world.counts["loaded"] > count / 4
    seen = {"load refused", "gate refused", "append refused", "waited", "killed", "killed after its commit", *MEDDLING}
    assert seen <= set(world.counts)


def counted(cursor: Any, table: str) -> int:
    """Return the rows of a table, whoever wrote them."""
    cursor.execute(f"SELECT count(*) FROM {table}")
    return int(cursor.fetchone()[0])


def _nothing(*_arguments: object, **_named: object) -> None:
    """Check nothing."""


WITHOUT: Mapping[str, tuple[object, str, Any]] = {
    "whose the build is": (versions.Build, "is_of", lambda _build, _run: True),
    "changed columns": (versions, "form_of", lambda _cursor, _table: "the same"),
    "changed rows, in the load": (merging, "require_unchanged", _nothing),
    "changed rows, in the gate": (versions, "require_unchanged", _nothing),
    "gates at all": (tables, "require_passes", _nothing),
    "rows that a build did not write": (versions, "count_rows", lambda cursor, table, _: (counted(cursor, table), 0)),
}


@pytest.mark.parametrize("check", WITHOUT)
def test_model_has_teeth(world: World, monkeypatch: pytest.MonkeyPatch, check: str) -> None:
    """With one of the checks removed, an interleaving is found that leaves prod wrong or takes foreign rows."""
    place, name, instead = WITHOUT[check]
    monkeypatch.setattr(place, name, instead)

    with pytest.raises(AssertionError, match="seed"):
        play(world, range(400))


def accepts_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "_NEWEST", passes._NEWEST.replace("passed, build", "true, build", 1))


def accepts_other_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    real = passes.require_passes

    def judged_elsewhere(cursor: Any, connection: str, run: Run, taken: Judged) -> None:
        real(cursor, connection, run, taken._replace(table="s.other"))

    monkeypatch.setattr(tables, "require_passes", judged_elsewhere)


def accepts_other_suites(monkeypatch: pytest.MonkeyPatch) -> None:
    real = passes._require_pass

    def lenient(cursor: Any, gate: GateBefore, run: Run, taken: Judged) -> None:
        cursor.execute("SELECT digest FROM taskflow.passes WHERE task_id = %s ORDER BY id DESC LIMIT 1", [gate.task_id])
        row = cursor.fetchone()
        real(cursor, replace(gate, digest=row[0]) if row else gate, run, taken)

    monkeypatch.setattr(passes, "_require_pass", lenient)


def accepts_missing_items(monkeypatch: pytest.MonkeyPatch) -> None:
    real = passes._require_pass

    def lenient(cursor: Any, gate: GateBefore, run: Run, taken: Judged) -> None:
        real(cursor, replace(gate, items=1) if gate.items else gate, run, taken)

    monkeypatch.setattr(passes, "_require_pass", lenient)


def accepts_missing_gates(monkeypatch: pytest.MonkeyPatch) -> None:
    real = passes._require_pass

    def lenient(cursor: Any, gate: GateBefore, run: Run, taken: Judged) -> None:
        if gate.task_id != "gate_b":
            real(cursor, gate, run, taken)

    monkeypatch.setattr(passes, "_require_pass", lenient)


@pytest.mark.parametrize(
    "remove",
    [accepts_failures, accepts_other_builds, accepts_other_suites, accepts_missing_items, accepts_missing_gates],
)
def test_model_needs_each_part_of_a_pass(
    world: World, monkeypatch: pytest.MonkeyPatch, remove: Callable[[pytest.MonkeyPatch], None]
) -> None:
    """A pass counts with its verdict, version and suite, of each gate and item: without one, a fault is found."""
    remove(monkeypatch)

    with pytest.raises(AssertionError, match="seed"):
        play(world, range(400))
