"""postgres.merge."""

from __future__ import annotations

import datetime as dt
import os
import signal
import subprocess
import sys
from decimal import Decimal
from typing import Any

import pytest

from stack.database import Database
from stack.paths import REPOSITORY
from tasks.contract import DataRejected, MissingResource, PermanentError, Run, TransientError
from tasks.postgres.merging import Deactivation, Merged, Timestamps
from tasks.postgres.tables import merge
from tests.support.database import Gate, Sql
from tests.support.merging import CONNECTION, WINDOW, merged
from tests.support.waiting import eventually

LONG_AGO = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)

TABLES = """
    CREATE SCHEMA s;
    CREATE TABLE s.source (site text, day date, price numeric(10, 2), note text);
    CREATE TABLE s.target (
        site text NOT NULL, day date NOT NULL, price numeric(10, 2), note text,
        is_active boolean NOT NULL DEFAULT TRUE, created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL,
        PRIMARY KEY (site, day)
    );
"""

ROWS = "SELECT site, day, price, note, is_active FROM s.target ORDER BY site, day"
ALL = "SELECT * FROM s.target ORDER BY site, day"
MON, TUE, WED = (dt.date(2026, 1, day) for day in (3, 4, 5))
"""Monday is before the window."""


@pytest.fixture
def tables(sql: Sql) -> None:
    """An empty source, and an empty target with a flag and timestamps."""
    sql(TABLES)


def given(sql: Sql, table: str, *rows: tuple[Any, ...]) -> None:
    """Make `rows` the contents of a table; those of the target are from long ago."""
    sql(f"DELETE FROM s.{table}")
    for row in rows:
        old = (LONG_AGO, LONG_AGO) if table == "target" else ()
        sql(f"INSERT INTO s.{table} VALUES ({', '.join(['%s'] * len((*row, *old)))})", *row, *old)


def counts(**rows: int) -> Merged:
    return Merged(**{"inserted": 0, "updated": 0, "reactivated": 0, "deactivated": 0, "unchanged": 0} | rows)


def test_empty_target_is_filled(tables: None, run: Run, sql: Sql) -> None:
    """The first merge inserts everything, active and stamped."""
    given(sql, "source", ("a", TUE, 1, "x"), ("b", MON, None, None))
    assert merged(run) == counts(inserted=2)
    assert sql(ROWS) == [("a", TUE, 1, "x", True), ("b", MON, None, None, True)]
    assert sql(
        "SELECT count(*) FROM s.target WHERE created_at = updated_at AND updated_at > now() - '1 minute'::interval"
    ) == [(2,)]


def test_each_kind_is_counted(tables: None, run: Run, sql: Sql) -> None:
    """New, changed, returning, leaving and unchanged rows are told apart, and each is written as it should be."""
    old = [
        ("changed", TUE, 1, "x", True),
        ("gone", TUE, 1, "x", True),
        ("gone before", TUE, 1, "x", False),
        ("returns", WED, 1, "x", False),
        ("same", WED, 1, None, True),
    ]
    given(sql, "target", *old)
    given(
        sql, "source", ("changed", TUE, 2, "x"), ("new", WED, 5, "y"), ("returns", WED, 1, "x"), ("same", WED, 1, None)
    )
    assert merged(run) == counts(inserted=1, updated=1, reactivated=1, deactivated=1, unchanged=1)
    assert sql(ROWS) == [
        ("changed", TUE, 2, "x", True),
        ("gone", TUE, 1, "x", False),
        ("gone before", TUE, 1, "x", False),
        ("new", WED, 5, "y", True),
        ("returns", WED, 1, "x", True),
        ("same", WED, 1, None, True),
    ]


def test_stamps_move_on_changes(tables: None, run: Run, sql: Sql) -> None:
    """`updated_at` moves on rows that changed, came back or left, `created_at` on none that was there."""
    given(sql, "target", *((site, TUE, 1, "x", site != "returns") for site in ("changed", "gone", "returns", "same")))
    given(
        sql, "source", ("changed", TUE, 2, "x"), ("new", TUE, 1, "x"), ("returns", TUE, 1, "x"), ("same", TUE, 1, "x")
    )
    merged(run)
    found = sql("SELECT site, created_at = %s, updated_at = %s FROM s.target ORDER BY site", LONG_AGO, LONG_AGO)
    assert found == [
        ("changed", True, False),
        ("gone", True, False),
        ("new", False, False),
        ("returns", True, False),
        ("same", True, True),
    ]


def test_repeated_merge_writes_nothing(tables: None, run: Run, sql: Sql) -> None:
    """A second merge of the same source touches no row: each keeps its place on disk."""
    given(sql, "target", ("gone", TUE, 1, "x", True))
    given(sql, "source", ("a", TUE, 1, None), ("b", WED, 2, "y"), ("c", MON, 3, "z"))
    merged(run)
    places = sql("SELECT ctid, xmin, * FROM s.target ORDER BY site")
    assert merged(run) == counts(unchanged=3)
    assert sql("SELECT ctid, xmin, * FROM s.target ORDER BY site") == places


def test_window_limits_deactivation(tables: None, run: Run, sql: Sql) -> None:
    """A row outside the window stays active though the source no longer has it."""
    given(sql, "target", ("before", MON, 1, "x", True), ("inside", TUE, 1, "x", True))
    given(sql, "source", ("new", WED, 1, "x"))
    assert merged(run) == counts(inserted=1, deactivated=1)
    assert sql("SELECT site, is_active FROM s.target ORDER BY site") == [
        ("before", True),
        ("inside", False),
        ("new", True),
    ]


def test_empty_source_clears_window(tables: None, run: Run, sql: Sql) -> None:
    """A source without rows switches off the window, and the window alone."""
    given(sql, "target", ("before", MON, 1, "x", True), ("inside", TUE, 1, "x", True))
    assert merged(run, allow_empty=True) == counts(deactivated=1)
    assert sql("SELECT site FROM s.target WHERE is_active") == [("before",)]


def test_outside_rows_are_updated(tables: None, run: Run, sql: Sql) -> None:
    """A row of the source that stands in the target outside the window is no new one."""
    given(
        sql,
        "target",
        ("changed", MON, 1, "x", True),
        ("returns", MON, 1, "x", False),
        ("same", MON, 1, "x", True),
        ("inside", TUE, 1, "x", True),
    )
    given(
        sql,
        "source",
        *((site, MON, 2 if site == "changed" else 1, "x") for site in ("changed", "new", "returns", "same")),
    )
    assert merged(run) == counts(inserted=1, updated=1, reactivated=1, deactivated=1, unchanged=1)
    assert sql("SELECT site, price, is_active, updated_at = %s FROM s.target ORDER BY site", LONG_AGO) == [
        ("changed", 2, True, False),
        ("inside", 1, False, False),
        ("new", 1, True, False),
        ("returns", 1, True, False),
        ("same", 1, True, True),
    ]


def test_plain_merge_never_deletes(tables: None, run: Run, sql: Sql) -> None:
    """Without `deactivate` a row that left the source stays as it was, and no flag is touched."""
    given(sql, "target", ("gone", TUE, 1, "x", True), ("off", TUE, 1, "x", False), ("same", TUE, 1, "x", True))
    given(sql, "source", ("off", TUE, 2, "x"), ("same", TUE, 1, "x"))
    assert merged(run, deactivate=None, columns=["price"]) == counts(updated=1, unchanged=1)
    assert sql("SELECT site, price, is_active FROM s.target ORDER BY site") == [
        ("gone", 1, True),
        ("off", 2, False),
        ("same", 1, True),
    ]


def test_named_columns_are_carried(tables: None, run: Run, sql: Sql) -> None:
    """Columns that the step does not name are neither compared nor written."""
    given(sql, "target", ("a", TUE, 1, "ours", True), ("b", TUE, 1, "ours", True))
    given(sql, "source", ("a", TUE, 1, "theirs"), ("b", TUE, 2, "theirs"))
    assert merged(run, columns=["price"]) == counts(updated=1, unchanged=1)
    assert sql("SELECT price, note FROM s.target ORDER BY site") == [(1, "ours"), (2, "ours")]


def test_keys_alone_can_merge(tables: None, run: Run, sql: Sql) -> None:
    """A set of keys is a table too: what is there is left alone."""
    sql("CREATE TABLE s.seen (site text PRIMARY KEY); INSERT INTO s.seen VALUES ('a')")
    given(sql, "source", ("a", TUE, 1, "x"), ("b", TUE, 1, "x"))
    asked = {"target": "s.seen", "keys": ["site"], "deactivate": None, "timestamps": None}
    assert merged(run, **asked) == counts(inserted=1, unchanged=1)
    assert sql("SELECT site FROM s.seen ORDER BY site") == [("a",), ("b",)]


@pytest.mark.parametrize("there", ["", "INSERT INTO s.seen VALUES ('c')"], ids=["first", "later"])
def test_duplicate_lone_keys(tables: None, run: Run, sql: Sql, there: str) -> None:
    """Keys that come twice are refused too where there is nothing beside them to carry."""
    sql(f"CREATE TABLE s.seen (site text PRIMARY KEY); {there}")
    given(sql, "source", ("a", TUE, 1, "x"), ("a", WED, 1, "x"))
    with pytest.raises(DataRejected, match=r"among them \(a\) 2 times"):
        merged(run, target="s.seen", keys=["site"], deactivate=None, timestamps=None)


def test_withheld_rows_are_noticed(tables: None, run: Run, sql: Sql) -> None:
    """A trigger that swallows rows does not pass for a merge that was done."""
    sql("""
        CREATE FUNCTION s.swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
        CREATE TRIGGER swallow BEFORE INSERT ON s.target FOR EACH ROW WHEN (NEW.site = 'b')
            EXECUTE FUNCTION s.swallow();
    """)
    given(sql, "source", ("a", TUE, 1, "x"), ("b", TUE, 1, "x"))
    with pytest.raises(PermanentError) as raised:
        merged(run)
    assert str(raised.value) == (
        "s.target took 1 of 2 rows: one of its triggers or rules holds rows back, so the merge cannot say what it did"
    )
    assert sql(ALL) == []


def test_generated_columns_are_left(tables: None, run: Run, sql: Sql) -> None:
    """A column that the target computes is not carried, though the source has one of that name."""
    sql("ALTER TABLE s.target ADD double numeric GENERATED ALWAYS AS (price * 2) STORED")
    sql("ALTER TABLE s.source ADD double integer")
    given(sql, "source", ("a", TUE, 1, "x", 7))
    assert merged(run) == counts(inserted=1)
    assert sql("SELECT double FROM s.target") == [(2,)]


@pytest.mark.parametrize(
    ("key", "accepted"),
    [
        ("PRIMARY KEY (a, b)", True),
        ("UNIQUE (b, a)", True),
        ("UNIQUE (a, b) INCLUDE (c)", True),
        ("UNIQUE (a)", False),
        ("UNIQUE (a, b, c)", False),
        ("UNIQUE (a, nullable)", False),
        ("UNIQUE (a, b) DEFERRABLE", False),
        ("PRIMARY KEY (a, b) DEFERRABLE INITIALLY DEFERRED", False),
        ("EXCLUDE (a WITH =, b WITH =)", False),
    ],
)
def test_key_must_be_unique(tables: None, run: Run, sql: Sql, key: str, accepted: bool) -> None:  # noqa: FBT001
    """A merge takes exactly the constraints that an ON CONFLICT can rely on; without one, the remedy told works."""
    columns = "a integer NOT NULL, b integer NOT NULL, c integer NOT NULL, nullable integer"
    keys = ["a", "nullable"] if "nullable" in key else ["a", "b"]
    sql(f"CREATE TABLE s.t ({columns}, {key}); CREATE TABLE s.u AS SELECT 1 AS a, 2 AS b, 3 AS c, 4 AS nullable")
    asked = {"source": "s.u", "target": "s.t", "keys": keys, "deactivate": None, "timestamps": None}
    if accepted:
        assert merged(run, **asked) == counts(inserted=1)
        return
    with pytest.raises(PermanentError, match=r"^s.t has (no|a) unique constraint on ") as told:
        merged(run, **asked)

    sql(str(told.value).partition("mend it: ")[2])
    assert merged(run, **asked) == counts(inserted=1)


def test_odd_names_are_quoted(run: Run, sql: Sql) -> None:
    """Names are taken as they are spelt, capitals and reserved words included."""
    sql("""
        CREATE SCHEMA "S";
        CREATE TABLE "S"."select" ("Key" integer, "order" text);
        CREATE TABLE "S"."From" ("Key" integer PRIMARY KEY, "order" text);
        INSERT INTO "S"."select" VALUES (1, 'x'), (2, 'y');
        INSERT INTO "S"."From" VALUES (1, 'old');
    """)
    done = merge(CONNECTION, "S.select", "S.From", ["Key"], external_source=True, run=run)
    assert done == counts(inserted=1, updated=1)
    assert sql('SELECT * FROM "S"."From" ORDER BY 1') == [(1, "x"), (2, "y")]


def test_values_compare_as_stored(tables: None, run: Run, sql: Sql) -> None:
    """A value that the target's type rounds is not seen as changed for ever after."""
    sql("ALTER TABLE s.source ALTER price TYPE double precision, ALTER day TYPE timestamp")
    given(sql, "source", ("a", TUE, 1.23456, "x"), ("b", TUE, 7, "y"))
    given(sql, "target", ("b", TUE, 1, "y", True))
    assert merged(run) == counts(inserted=1, updated=1)
    assert merged(run) == counts(unchanged=2)
    assert sql("SELECT price FROM s.target ORDER BY site") == [(Decimal("1.23"),), (7,)]


def test_long_text_is_refused(tables: None, run: Run, sql: Sql) -> None:
    """A text that the target has no room for is not cut to fit."""
    sql("ALTER TABLE s.target ALTER note TYPE varchar(3)")
    given(sql, "source", ("a", TUE, 1, "long"))
    with pytest.raises(PermanentError, match=r"value too long for type character varying\(3\)"):
        merged(run)


def test_view_is_a_source(tables: None, run: Run, sql: Sql) -> None:
    """A source may be a view."""
    sql("CREATE VIEW s.seen AS SELECT * FROM s.source WHERE site <> 'b'")
    given(sql, "source", ("a", TUE, 1, "x"), ("b", TUE, 1, "x"))
    assert merged(run, source="s.seen") == counts(inserted=1)


@pytest.mark.parametrize(
    "target",
    [
        [],
        [("a", TUE, 1, "x", True), ("b", TUE, 1, "x", True)],
        [("a", TUE, 1, "x", True), ("b", TUE, 1, "x", False), ("c", WED, 1, "x", True)],
        [("a", MON, 1, "x", True)],
    ],
    ids=["first", "all matched", "some gone", "other keys"],
)
@pytest.mark.parametrize("deactivate", [WINDOW, None], ids=["window", "no window"])
@pytest.mark.parametrize("second", [1, 2], ids=["alike", "different"])
def test_duplicate_keys_are_refused(
    tables: None, run: Run, sql: Sql, target: list[tuple[Any, ...]], deactivate: Deactivation | None, second: int
) -> None:
    """Two rows with one key stop the merge, whatever the target holds: nobody could say which of them is right."""
    given(sql, "target", *target)
    given(sql, "source", ("a", TUE, 1, "x"), ("b", TUE, 1, "x"), ("a", TUE, second, "x"))
    before = sql(ALL)
    with pytest.raises(DataRejected) as raised:
        merged(run, deactivate=deactivate)
    assert str(raised.value) == (
        "s.source has several rows with the same key (site, day), among them (a, 2026-01-04) 2 times; nothing was "
        "written to s.target"
    )
    assert sql(ALL) == before


def test_outside_duplicates_are_refused(tables: None, run: Run, sql: Sql) -> None:
    """Two rows with one key are refused outside the window too."""
    given(sql, "target", ("a", MON, 1, "x", True), ("b", TUE, 1, "x", True))
    given(sql, "source", ("a", MON, 1, "x"), ("a", MON, 2, "x"), ("b", TUE, 1, "x"))
    with pytest.raises(DataRejected, match=r"among them \(a, 2026-01-03\) 2 times"):
        merged(run)
    assert sql("SELECT price FROM s.target ORDER BY site") == [(1,), (1,)]


def test_missing_keys_are_refused(tables: None, run: Run, sql: Sql) -> None:
    """Rows that lack a key stop the merge; the error counts them by column."""
    given(sql, "source", (None, TUE, 1, "x"), (None, None, 1, "x"), ("a", TUE, 1, "x"))
    with pytest.raises(DataRejected) as raised:
        merged(run)
    assert str(raised.value) == (
        "s.source has rows that lack a key of the merge: 2 without site, 1 without day; nothing was written to s.target"
    )
    assert sql(ALL) == []


@pytest.mark.parametrize(
    ("change", "error", "problem"),
    [
        (
            {"keys": ["site"]},
            PermanentError,
            (
                "s.target has no unique constraint on exactly (site), which a merge needs; "
                'once no two rows share these keys, mend it: ALTER TABLE "s"."target" ADD UNIQUE ("site")'
            ),
        ),
        (
            {"columns": ["pirce"]},
            MissingResource,
            "column 'pirce' does not exist in table s.source; did you mean \"price\"? It has site, day, price, note",
        ),
        (
            {"timestamps": Timestamps(updated="changed_at")},
            MissingResource,
            (
                "column 'changed_at' does not exist in table s.target; did you mean \"created_at\"? It has site, day, "
                "price, note, is_active, created_at, updated_at"
            ),
        ),
        ({"source": "s.nope"}, MissingResource, "table 's.nope' does not exist in Postgres at {address}; create it "),
        ({"target": "s.nope"}, MissingResource, "table 's.nope' does not exist in Postgres at {address}; create it "),
        (
            {"deactivate": Deactivation(window="dya > now()")},
            MissingResource,
            "column 'dya' does not exist in Postgres at {address}; add it to the table, or correct ",
        ),
        (
            {"deactivate": Deactivation(window="TRUE", flag="note")},
            PermanentError,
            "Postgres at {address}: argument of IS NOT TRUE must be type boolean, not type text",
        ),
    ],
)
def test_wrong_terms_say_why(
    tables: None,
    run: Run,
    database: Database,
    sql: Sql,
    change: dict[str, Any],
    error: type[Exception],
    problem: str,
) -> None:
    """A merge that cannot be done says what is missing or wrong, and writes nothing."""
    given(sql, "source", ("a", TUE, 1, "x"))
    given(sql, "target", ("b", TUE, 1, "x", True))
    before = sql(ALL)
    with pytest.raises(error) as raised:
        merged(run, **change)
    place = f"{database.host}:{database.port}, database {database.dbname!r} (connection {CONNECTION!r})"
    assert type(raised.value) is error
    assert str(raised.value).startswith(problem.format(address=place))
    assert sql(ALL) == before


def test_merges_take_turns(tables: None, run: Run, database: Database, sql: Sql, gate: Gate) -> None:
    """A second merge waits for the first and then finds nothing to do; readers see the old rows meanwhile."""
    given(sql, "target", ("a", TUE, 1, "x", True))
    given(sql, "source", ("a", TUE, 2, "x"), ("b", TUE, 2, "x"))
    gate.hold("s.target", "NEW.site = 'b'")
    with gate.closed(database):
        runs = [gate.start(merged, run) for _ in range(2)]
        gate.waiting(2)
        assert sql("SELECT site, price FROM s.target") == [("a", 1)]
    done = [one.result() for one in runs]
    assert sorted(done, key=lambda one: one.unchanged) == [counts(inserted=1, updated=1), counts(unchanged=2)]


def test_merge_waits_for_writers(tables: None, run: Run, database: Database, sql: Sql, gate: Gate) -> None:
    """What another session has begun to write is seen, not overwritten blindly."""
    given(sql, "source", ("a", TUE, 2, "x"))
    with database.connect() as other, other.cursor() as cursor:
        cursor.execute("BEGIN; INSERT INTO s.target VALUES ('a', %s, 2, 'x', TRUE, now(), now())", (TUE,))
        waits = gate.start(merged, run)
        gate.waiting()
        cursor.execute("COMMIT")
    assert waits.result() == counts(unchanged=1)


def test_merge_waits_for_rebuild(tables: None, run: Run, database: Database, sql: Sql, gate: Gate) -> None:
    """A source that is being refilled is not taken for empty, which would switch off the whole window."""
    given(sql, "target", ("a", TUE, 1, "x", True))
    given(sql, "source", ("a", TUE, 1, "x"))
    with database.connect() as other, other.cursor() as cursor:
        cursor.execute("BEGIN; TRUNCATE s.source")
        waits = gate.start(merged, run)
        gate.waiting()
        cursor.execute("INSERT INTO s.source VALUES ('a', %s, 1, 'x'); COMMIT", (TUE,))
    assert waits.result() == counts(unchanged=1)


def test_killed_merge_changes_nothing(tables: None, run: Run, database: Database, sql: Sql, gate: Gate) -> None:
    """A merge whose server process dies in the middle leaves no trace, and the retry makes it whole."""
    given(sql, "target", ("a", TUE, 1, "x", True), ("gone", TUE, 1, "x", True))
    given(sql, "source", ("a", TUE, 2, "x"), ("b", TUE, 2, "x"))
    before = sql(ALL)
    gate.hold("s.target", "NOT NEW.is_active", event="UPDATE")
    with gate.closed(database):
        killed = gate.start(merged, run)
        (session,) = gate.waiting()
        gate.terminate(session)
        assert isinstance(killed.exception(), TransientError)
    assert sql(ALL) == before
    assert merged(run) == counts(inserted=1, updated=1, deactivated=1)


SCRIPT = """
import datetime as dt
from tasks.contract import Run
from tests.support.merging import merged
merged(Run("crypto_events_dag", "manual__1", "some_task", dt.date(2026, 1, 5)))
"""


def test_killed_process_frees_table(tables: None, run: Run, database: Database, sql: Sql, gate: Gate) -> None:
    """A task process killed with -9 holds the target no longer than a few seconds: the server notices by itself."""
    given(sql, "source", ("a", TUE, 2, "x"))
    gate.hold("s.target", "NEW.site = 'a'")
    with gate.closed(database):
        process = subprocess.Popen([sys.executable, "-c", SCRIPT], cwd=REPOSITORY, env=dict(os.environ))
        (session,) = gate.waiting()
        process.send_signal(signal.SIGKILL)
        process.wait()
        alive = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s"
        eventually("the session to end", lambda: sql(alive, session), lambda found: found == [(0,)])
    assert sql(ALL) == []
    assert merged(run) == counts(inserted=1)
