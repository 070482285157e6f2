"""Merges of tables as people have them: types that differ, values without equality, columns that one side lacks."""

from __future__ import annotations

import logging
import re

import pytest

from tasks.contract import DataRejected, PermanentError, Run
from tasks.postgres.merging import Merged, Timestamps
from tests.support.database import Sql
from tests.support.merging import merged

PLAIN = {"source": "s.u", "target": "s.t", "keys": ["id"], "deactivate": None, "timestamps": None}


def counts(**rows: int) -> Merged:
    return Merged(**{"inserted": 0, "updated": 0, "reactivated": 0, "deactivated": 0, "unchanged": 0} | rows)


@pytest.mark.parametrize(
    ("own_type", "given", "problem"),
    [
        ("s.currency", "text", "value too long for type character varying(3)"),
        ("varchar(3)", "text", "value too long for type character varying(3)"),
        ("char(3)", "text", "value too long for type character(3)"),
        ("varchar(3)[]", "text[]", "value too long for type character varying(3)"),
        ("integer", "text", 'column "v" is of type integer but expression is of type text'),
        ("boolean", "text", 'column "v" is of type boolean but expression is of type text'),
        ("numeric(3, 1)", "numeric", "numeric field overflow"),
        ("smallint", "integer", "smallint out of range"),
        ("s.positive", "integer", "violates check constraint"),
        ("bit(3)", "bit varying", "bit string length 4 does not match type bit(3)"),
    ],
)
@pytest.mark.parametrize("is_filled", [False, True], ids=["empty target", "filled target"])
def test_what_an_insert_refuses_is_refused(
    run: Run,
    sql: Sql,
    own_type: str,
    given: str,
    problem: str,
    is_filled: bool,  # noqa: FBT001
) -> None:
    """A cast would cut the value, or read a text as a number: a merge stores what an INSERT stores, or nothing."""
    value = {"text": "'EURO'", "text[]": "'{EURO}'", "numeric": "1000", "integer": "-70000", "bit varying": "B'1011'"}
    sql(f"""
        CREATE SCHEMA s;
        CREATE DOMAIN s.currency AS varchar(3); CREATE DOMAIN s.positive AS integer CHECK (VALUE > 0);
        CREATE TABLE s.t (id int PRIMARY KEY, v {own_type});
        CREATE TABLE s.u (id int, v {given}); INSERT INTO s.u VALUES (1, {value[given]});
    """)
    if is_filled:
        sql("INSERT INTO s.t VALUES (2, NULL)")
    before = sql("SELECT * FROM s.t")

    with pytest.raises(PermanentError) as told:
        merged(run, **PLAIN)

    assert problem in str(told.value)
    assert sql("SELECT * FROM s.t") == before


@pytest.mark.parametrize(
    ("own_type", "given", "value", "stored"),
    [
        ("char(5)", "text", "'ab '", "ab   "),
        ("varchar(3)", "text", "'ab  '", "ab "),
        ("numeric(10, 2)", "numeric", "1.005", "1.01"),
        ("date", "timestamp", "'2026-01-31 12:00'", "2026-01-31"),
        ("timestamptz", "date", "'2026-01-31'", "2026-01-31 00:00:00+00"),
        ("bigint", "integer", "7", "7"),
        ("real", "double precision", "0.1", "0.1"),
        ("text", "integer", "7", "7"),
    ],
)
def test_values_are_compared_as_they_are_stored(
    run: Run, sql: Sql, own_type: str, given: str, value: str, stored: str
) -> None:
    """What an INSERT converts is the same value the next time, not a change of every run."""
    sql(f"""
        CREATE SCHEMA s;
        CREATE TABLE s.t (id int PRIMARY KEY, v {own_type});
        CREATE TABLE s.u (id int, v {given}); INSERT INTO s.u VALUES (1, {value});
    """)

    assert merged(run, **PLAIN) == counts(inserted=1)
    assert sql("SET timezone = 'UTC'; SELECT rpad(v::text, length(%s)) FROM s.t", stored) == [(stored,)]
    assert merged(run, **PLAIN) == counts(unchanged=1)


@pytest.mark.parametrize(
    ("kind", "first", "second"),
    [
        ("json", '{"a": 1}', '{"a": 2}'),
        ("point", "(1,2)", "(1,3)"),
        ("polygon", "((0,0),(1,1))", "((0,0),(1,2))"),
        ("box", "(2,2),(0,0)", "(4,1),(0,0)"),
        ("circle", "<(0,0),1>", "<(5,5),1>"),
        ("path", "[(0,0),(1,1)]", "[(0,0),(2,2)]"),
        ("lseg", "[(0,0),(1,1)]", "[(0,0),(2,2)]"),
        ("json[]", '{"1"}', '{"2"}'),
        ("s.pair", "(1,2)", "(1,3)"),
        ("s.shape", "(2,2),(0,0)", "(4,1),(0,0)"),
        ("jsonb", '{"a": 1}', '{"a": 2}'),
        ("uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "b0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ("bytea", "\\x00", "\\x01"),
        ("int4range", "[1,3)", "[1,4)"),
        ("interval", "1 day", "2 days"),
        ("inet", "10.0.0.1", "10.0.0.2"),
        ("cidr", "10.0.0.0/8", "11.0.0.0/8"),
        ("macaddr", "08:00:2b:01:02:03", "08:00:2b:01:02:04"),
        ("tsvector", "a b", "a c"),
        ("money", "1", "2"),
        ("s.mood", "sad", "glad"),
        ('"char"', "a", "b"),
        ("bit varying", "101", "100"),
        ("numeric", "NaN", "1"),
        ("numeric", "1.0", "1.00"),
        ("interval", "30 days", "1 mon"),
        ("double precision", "0", "-0"),
        ("jsonb", "1.0", "1.00"),
        ("tsquery", "a:A", "a:B"),
        ("s.outer", "{a,b}", "{a,c}"),
    ],
)
def test_values_of_every_type_are_compared(run: Run, sql: Sql, kind: str, first: str, second: str) -> None:
    """As they are stored: some types have no equality, and for others 30 days are a month."""
    sql(f"""
        CREATE SCHEMA s; CREATE TYPE s.pair AS (a int, b int); CREATE TYPE s.mood AS ENUM ('sad', 'glad');
        CREATE DOMAIN s.shape AS box; CREATE DOMAIN s.inner AS text[]; CREATE DOMAIN s.outer AS s.inner;
        CREATE TABLE s.t (id int PRIMARY KEY, v {kind}); CREATE TABLE s.u (id int, v {kind});
    """)
    sql("INSERT INTO s.u VALUES (1, %s), (2, NULL)", first)

    assert merged(run, **PLAIN) == counts(inserted=2)
    assert merged(run, **PLAIN) == counts(unchanged=2)

    sql("UPDATE s.u SET v = %s WHERE id = 1", second)
    assert merged(run, **PLAIN) == counts(updated=1, unchanged=1)
    assert sql("SELECT t.v::text = u.v::text FROM s.t JOIN s.u USING (id) WHERE id = 1") == [(True,)]


def test_materialized_view_is_a_source(run: Run, sql: Sql) -> None:
    """What another system refreshes is loaded like a view."""
    sql("""
        CREATE SCHEMA s;
        CREATE MATERIALIZED VIEW s.u AS SELECT 1 AS id, 2 AS v; CREATE TABLE s.t (id int PRIMARY KEY, v int);
    """)

    assert merged(run, **PLAIN) == counts(inserted=1)


def test_column_that_differs_in_case_is_not_left_out(run: Run, sql: Sql) -> None:
    """Two names that differ only in case are a mistake: the column would never be carried, and all be unchanged."""
    sql("""
        CREATE SCHEMA s;
        CREATE TABLE s.u (id int, "Price" int); CREATE TABLE s.t (id int PRIMARY KEY, price int);
    """)

    with pytest.raises(PermanentError, match=r'column "Price" of s\.u is "price" in s\.t, so it'):
        merged(run, **PLAIN)

    merged(run, **PLAIN, columns=[])


def test_columns_that_are_not_carried_are_told(run: Run, sql: Sql, caplog: pytest.LogCaptureFixture) -> None:
    """A column that only one of the tables has stays behind, and the log names it; a step may insist on all."""
    sql("""
        CREATE SCHEMA s; CREATE TABLE s.u (id int, v int, extra int, more int);
        CREATE TABLE s.t (id int PRIMARY KEY, v int, own int, made int GENERATED ALWAYS AS (v) STORED, at date);
    """)
    terms = PLAIN | {"timestamps": Timestamps(created="at")}

    with caplog.at_level(logging.INFO, "tasks"):
        merged(run, **terms)
    with pytest.raises(
        PermanentError, match=r"^every_column: extra, more of s\.u and own of s\.t would not be carried; give"
    ):
        merged(run, **terms, every_column=True)

    assert "s.t: carries id, v; not carried: extra, more of s.u and own of s.t" in caplog.messages


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("(id int, gone date); CREATE UNIQUE INDEX ON s.t (id) WHERE gone IS NULL", "its index has a WHERE, and says"),
        ("(id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED)", "it is deferrable"),
        ('(id int NOT NULL, CONSTRAINT "a b" UNIQUE (id) DEFERRABLE)', "it is deferrable"),
        ("(id int UNIQUE, other int PRIMARY KEY GENERATED ALWAYS AS IDENTITY)", "id may be null, and nulls count as"),
        ("(id int); CREATE UNIQUE INDEX ON s.t ((id + 1))", "has no unique constraint on exactly (id)"),
        ("(id int); CREATE UNIQUE INDEX ON s.t (id) INCLUDE (id)", "id may be null, and nulls count as different"),
        ("(id int UNIQUE NULLS NOT DISTINCT)", "id may be null, and a merge finds rows by =, which finds no null"),
        ("(id int, v int, PRIMARY KEY (id, v))", "has no unique constraint on exactly (id)"),
    ],
)
def test_unique_constraint_that_decides_nothing_gets_a_remedy_that_works(
    run: Run, sql: Sql, target: str, problem: str
) -> None:
    """The error says what is wrong with the constraint that is there, and a statement that mends it."""
    sql(f"CREATE SCHEMA s; CREATE TABLE s.u AS SELECT 1 AS id, 2 AS v; CREATE TABLE s.t {target}")

    with pytest.raises(PermanentError, match=re.escape(problem)) as told:
        merged(run, **PLAIN)

    sql(str(told.value).partition("mend it: ")[2])
    assert merged(run, **PLAIN) == counts(inserted=1)


def test_shared_keys_are_shown_as_the_server_writes_them(run: Run, sql: Sql) -> None:
    """Also those that Python has no value for."""
    sql("CREATE SCHEMA s; CREATE TABLE s.t (id date PRIMARY KEY, v int); CREATE TABLE s.u (id date, v int)")
    sql("INSERT INTO s.u VALUES ('20226-01-05', 1), ('20226-01-05', 2)")

    with pytest.raises(DataRejected, match=r"the same key \(id\), among them \(20226-01-05\) 2 times"):
        merged(run, **PLAIN)


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        (
            "TABLE s.t (id int PRIMARY KEY, v int); CREATE TABLE s.child () INHERITS (s.t)",
            "the rows of s.child, for which",
        ),
        (
            "TABLE s.own (id int PRIMARY KEY, v int); CREATE VIEW s.t AS TABLE s.own",
            "s.t is a view, and a merge needs a",
        ),
        ("TABLE s.t (id int PRIMARY KEY GENERATED ALWAYS AS IDENTITY, v int)", "only the server fills id of s.t (GEN"),
        ("TABLE s.t (v int, id int GENERATED ALWAYS AS (v + 1) STORED UNIQUE NOT NULL)", "only the server fills id of"),
    ],
)
def test_target_that_no_key_decides_is_refused(run: Run, sql: Sql, target: str, problem: str) -> None:
    """Its rows are others', or nobody can write its keys."""
    sql(f"CREATE SCHEMA s; CREATE TABLE s.u AS SELECT 1 AS id, 2 AS v; CREATE {target}")

    with pytest.raises(PermanentError, match=re.escape(problem)):
        merged(run, **PLAIN)


def test_columns_may_have_any_name(run: Run, sql: Sql) -> None:
    """No name is taken by the merge itself."""
    sql("CREATE SCHEMA s; CREATE TABLE s.t (id int PRIMARY KEY, __kind0 text, s int, t int)")
    sql("CREATE TABLE s.u (LIKE s.t)")
    sql("INSERT INTO s.u VALUES (1, 'a', 1, 1); INSERT INTO s.t VALUES (1, 'b', 1, 1), (2, 'c', 2, 2)")

    assert merged(run, **PLAIN) == counts(updated=1)


ANY_NAMES = ["User Id", "Größe", "日付", "100%", 'say "hi"', "a.b", "on", "null", "select", "{x}", "%(y)s", "1st", "$1"]


def test_keys_and_columns_may_have_any_name(run: Run, sql: Sql) -> None:
    """Spaces, capitals, letters that are not in ASCII, quotes and SQL's own words."""
    columns = ", ".join('"{}" int'.format(name.replace('"', '""')) for name in ANY_NAMES)
    listed = ", ".join('"{}"'.format(name.replace('"', '""')) for name in ANY_NAMES[:6])
    sql(f"""
        CREATE SCHEMA "a b"; CREATE TABLE "a b"."Données d'été %" ({columns}, PRIMARY KEY ({listed}));
        CREATE TABLE "a b"."名" (LIKE "a b"."Données d'été %");
    """)
    sql(f"""INSERT INTO "a b"."名" SELECT {", ".join(["n"] * len(ANY_NAMES))} FROM generate_series(1, 2) AS n""")
    given = {"source": "a b.名", "target": "a b.Données d'été %", "keys": ANY_NAMES[:6], "columns": ANY_NAMES[6:]}
    terms = PLAIN | given

    assert merged(run, **terms) == counts(inserted=2)
    assert merged(run, **terms) == counts(unchanged=2)
    sql("""UPDATE "a b"."名" SET "on" = 7 WHERE "User Id" = 1""")
    assert merged(run, **terms) == counts(updated=1, unchanged=1)


def test_keys_of_any_name_get_a_remedy_that_works(run: Run, sql: Sql) -> None:
    """The statement quotes them as SQL does."""
    sql('''CREATE SCHEMA s; CREATE TABLE s.t ("say ""hi""" int, "A b" int); CREATE TABLE s.u (LIKE s.t)''')
    terms = PLAIN | {"keys": ['say "hi"', "A b"]}

    with pytest.raises(
        PermanentError, match="a merge needs; once no two rows share these keys, mend it: ALTER"
    ) as told:
        merged(run, **terms)

    sql(str(told.value).partition("mend it: ")[2])
    assert merged(run, **terms) == counts()
