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
from typing import Any

import psycopg2
import pytest

from stack.database import Database
from tasks.contract import Before, GateBefore, PermanentError, Run
from tasks.postgres import merging, passes, tables, versions
from tasks.postgres.merging import Deactivation
from tasks.postgres.passes import Judged, record_pass
from tasks.postgres.versions import make_records
from tasks.quality import gate as gates
from tasks.quality.suites import Batch, Expectation, Suite

TABLES = """
    CREATE SCHEMA s;
    CREATE TABLE s.raw (id int, day int, price int);
    CREATE TABLE s.staging (id int, day int, price int);
    CREATE TABLE s.prod (id int PRIMARY KEY, day int, price int, is_active bool NOT NULL DEFAULT true);
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
    passed: dict[tuple[int, str], tuple[int, int, bool]] = field(default_factory=dict)
    """By run and gate: the build that it judged last, the suite that it had, and its verdict."""
    suite: int = 0
    prod: dict[int, tuple[int, bool]] = field(default_factory=dict)

    def holds_rows_of(self, run: int) -> bool:
        """Whether staging is exactly what `run` built: a row that is inserted and deleted again leaves no trace."""
        return self.builder == run and self.own == self.built == set(self.staging)

    def may_load(self, run: int) -> bool:
        wanted = (self.build, self.suite, True)
        return self.holds_rows_of(run) and all(self.passed.get((run, gate)) == wanted for gate in GATES)

    def loaded(self, run: int) -> dict[int, tuple[int, bool]]:
        left = {
            key: (price, active and not (key // 10 == run and key not in self.staging))
            for key, (price, active) in self.prod.items()
        }
        return left | {key: (price, True) for key, price in self.staging.items()}


GATES = ("gate_a", "gate_b")
STEPS = ("build", *GATES, "load")


@dataclass
class World:
    """The real tables, with a model beside them."""

    session: Any
    random: random.Random
    model: Model = field(default_factory=Model)
    told: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    places: dict[int, int] = field(default_factory=dict)
    """Where each run is."""

    def sql(self, text: str, *values: object) -> list[tuple[Any, ...]]:
        with self.session, self.session.cursor() as cursor:
            cursor.execute(text, values or None)
            return cursor.fetchall() if cursor.description else []

    def start(self) -> None:
        self.model, self.told, self.places = Model(), [], {}
        for key in (10 * day + one for day in range(DAYS) for one in range(ROWS)):
            self.model.raw[key] = self.random.choice([1, 2, -1]) if self.random.random() < 0.2 else 1
        everything = "s.raw", "s.prod", "s.killed", "s.staging", "taskflow.passes", "taskflow.builds"
        self.sql("; ".join(f"DELETE FROM {table}" for table in everything))
        rows = [f"({key}, {key // 10}, {price})" for key, price in self.model.raw.items()]
        self.sql(f"INSERT INTO s.raw VALUES {', '.join(rows)}")

    # --- what Airflow does ----------------------------------------------------------------------------

    def advances(self, run: int) -> None:
        """Do the next step of a run; go on only where it went well, or where somebody marks it as success."""
        place = self.places.get(run, 0)
        step = STEPS[place]
        went_well = (
            self.loads(run) if step == "load" else self.builds(run) if step == "build" else self.gates(run, step)
        )
        if went_well or self.random.random() < 0.2:
            self.places[run] = (place + 1) % len(STEPS)

    def is_cleared(self, run: int) -> None:
        """Let a run go on from any of its steps."""
        self.places[run] = self.random.randrange(len(STEPS))

    def builds(self, run: int) -> bool:
        where = f"day = {run}"
        columns = {"id": "id", "day": "day", "price": "price"}
        if self.is_killed(
            "builds",
            lambda: tables.rebuild_table(
                self.connection, "s.staging", "s.raw", columns, where, run=run_of(run, "build")
            ),
        ):
            return False
        self.model.staging = {key: price for key, price in self.model.raw.items() if key // 10 == run}
        self.model.builder, self.model.build = run, self.model.build + 1
        self.model.own = self.model.built = frozenset(self.model.staging)
        return True

    def gates(self, run: int, name: str) -> bool:
        expected = self.model.holds_rows_of(run)
        verdict = all(price > 0 for price in self.model.staging.values())
        try:
            killed = self.is_killed("passes", lambda: judge(self.connection, run_of(run, name, suite=self.model.suite)))
        except PermanentError as error:
            if expected:
                raise AssertionError(f"a gate refused its own rows: {error}") from None
            self.counts["gate refused"] += 1
            return False
        if killed:
            return False
        assert expected, "a gate judged rows that are not of its run"
        self.model.passed[run, name] = (self.model.build, self.model.suite, verdict)
        return verdict

    def loads(self, run: int) -> bool:
        allowed = self.model.may_load(run)
        window = Deactivation(window=f"day = {run}", max_deactivated_share=1)
        before = Before(
            builds={"s.staging": "build"},
            gates=tuple(GateBefore(gate, "s.staging", digest(self.model.suite)) for gate in GATES),
        )
        asked = replace(run_of(run, "load"), before=before)
        try:
            killed = self.is_killed(
                "prod",
                lambda: tables.merge(
                    self.connection, "s.staging", "s.prod", ["id"], deactivate=window, allow_empty=True, run=asked
                ),
            )
        except PermanentError as error:
            if allowed or "clear" not in str(error):
                raise AssertionError(f"a load refused its own rows, or told no way out: {error}") from None
            self.counts["load refused"] += 1
            return False
        if killed:
            return False
        assert allowed, "a load took rows that its own run did not build, or that its gates did not pass"
        self.counts["loaded"] += 1
        self.model.prod = self.model.loaded(run)
        return True

    def is_killed(self, table: str, act: Callable[[], object]) -> bool:
        """Do something, killed at its last write one time in ten."""
        if self.random.random() > 0.1:
            act()
            return False
        self.sql("INSERT INTO s.killed VALUES (%s)", table)
        try:
            act()
        except PermanentError as error:
            if "clear" in str(error):
                raise
            self.counts["killed"] += 1
            return True
        except Exception:  # noqa: BLE001  # whatever psycopg2 makes of it
            self.counts["killed"] += 1
            return True
        finally:
            self.sql("DELETE FROM s.killed")
        return False

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
        self.model.staging = {key: price for key, _, price in self.sql("SELECT id, day, price FROM s.staging")}

    def mends(self, run: int) -> None:
        for key in [key for key in self.model.raw if key // 10 == run]:
            self.model.raw[key] = 1
        self.sql("UPDATE s.raw SET price = 1 WHERE day = %s", run)

    def spoils(self, run: int) -> None:
        key = 10 * run + self.random.randrange(ROWS)
        self.model.raw[key] = price = self.random.choice([-1, 3])
        self.sql("UPDATE s.raw SET price = %s WHERE id = %s", price, key)

    def edits_suite(self, _run: int) -> None:
        self.model.suite += 1

    @property
    def connection(self) -> str:
        return self.random.choice(["crypto_postgres", "the_same_postgres"])

    def check(self) -> None:
        rows = {key: (price, active) for key, price, active in self.sql("SELECT id, price, is_active FROM s.prod")}
        assert rows == self.model.prod, "prod is not what the model says"


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
    "analyze": "ANALYZE s.staging",
}
ACTS: Mapping[Callable[[World, int], None], int] = {
    World.advances: 24,
    World.is_cleared: 3,
    World.meddles: 1,
    World.mends: 1,
    World.spoils: 1,
    World.edits_suite: 1,
}
SUITE = Suite(
    name="positive",
    connection="crypto_postgres",
    batch=Batch(table="s.staging"),
    expectations=[Expectation(type="expect_column_values_to_be_between")],
)


def digest(suite: int) -> str:
    return f"suite {suite}"


def run_of(run: int, task: str, *, suite: int = 0) -> Run:
    before = Before(builds={"s.staging": "build"}, digest=digest(suite))
    date = dt.date(2026, 1, 1 + run)
    return Run("dag", f"run_{run}", task, date, before=before, deployment="here", attempt=f"{run}{task}")


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
def world(database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[World]:
    """The tables, and one session for all tasks: to connect for each would take most of the time."""
    caplog.set_level(logging.WARNING, logger="tasks")
    session, tasks_session = (psycopg2.connect(database.dsn, options="-c synchronous_commit=off") for _ in "ab")

    @contextmanager
    def postgres(_connection: str, *, run: Run | None = None, autocommit: bool = False) -> Iterator[Any]:
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

    monkeypatch.setattr(tables, "postgres", postgres)
    world = World(session, random.Random(0))
    world.sql(TABLES)
    with session, session.cursor() as cursor:
        make_records(cursor)
    for table in ("taskflow.builds", "taskflow.passes", "s.prod"):
        world.sql(KILLS.format(table=table))
    yield world
    tasks_session.close()
    session.close()


def interleave(world: World, seed: int) -> None:
    """Play one interleaving of two or three runs."""
    world.random = random.Random(seed)
    world.start()
    runs = range(world.random.choice([2, 3]))
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
    assert {"load refused", "gate refused", "killed", *MEDDLING} <= set(world.counts)


def _nothing(*_arguments: object, **_named: object) -> None:
    """Check nothing."""


WITHOUT: Mapping[str, tuple[object, str, Any]] = {
    "whose the build is": (versions.Build, "is_of", lambda _build, _run: True),
    "changed rows, in the load": (merging, "require_unchanged", _nothing),
    "changed rows, in the gate": (versions, "require_unchanged", _nothing),
    "gates at all": (tables, "require_passes", _nothing),
    "one of several gates": (passes, "_require_pass", None),
}


@pytest.mark.parametrize("check", WITHOUT)
def test_model_has_teeth(world: World, monkeypatch: pytest.MonkeyPatch, check: str) -> None:
    """With one of the checks removed, an interleaving is found that leaves prod wrong or takes foreign rows."""
    place, name, instead = WITHOUT[check]
    if name == "_require_pass":
        real = passes._require_pass
        instead = lambda cursor, gate, run, taken: None if gate.task_id == "gate_b" else real(cursor, gate, run, taken)  # noqa: E731
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


@pytest.mark.parametrize("remove", [accepts_failures, accepts_other_builds, accepts_other_suites])
def test_model_needs_each_part_of_a_pass(
    world: World, monkeypatch: pytest.MonkeyPatch, remove: Callable[[pytest.MonkeyPatch], None]
) -> None:
    """A pass counts with its verdict, its version and its suite: without one of them a fault is found."""
    remove(monkeypatch)

    with pytest.raises(AssertionError, match="seed"):
        play(world, range(400))
