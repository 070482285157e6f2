"""The SQL files that steps name: what is found in them before a run, with its place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from psycopg2.extensions import cursor as Cursor  # noqa: N812  psycopg2 spells its class in lower case

from stack.database import Database
from tasks.contract import PermanentError, Run
from tasks.postgres import file_text
from tasks.postgres.file_text import ANY, columns_of, statement_problems
from tasks.postgres.tables import run_sql
from tasks.spark import query_text
from tests.support.database import Sql
from tests.support.spark_queries import HARMLESS, REFUSED_BY_SPARK


def said(text: str, problems: list[Any]) -> list[tuple[str, str]]:
    return [(problem.message, text[problem.start : problem.end]) for problem in problems]


NOT_A_VALUE = "is where a statement has code, a path, a name or a comment"
STATEMENTS: list[tuple[str, dict[str, object], list[tuple[str, str]]]] = [
    ("SELECT 1; SELECT 2;", {}, []),
    ("-- ünï\nSELECT 'ü'; CRATE x", {}, [('cannot be read: syntax error at or near "CRATE"', "CRATE")]),
    ("SELEC 1; SELECT 2; SELCT 3", {}, [
        ('cannot be read: syntax error at or near "SELEC"', "SELEC"),
        ('cannot be read: syntax error at or near "SELCT"', "SELCT"),
    ]),
    ("SELECT 'open", {}, [("cannot be read: unterminated quoted string at or near \"'open\"", "'")]),
    ("-- nothing", {}, [("the file has no statement", "")]),
    ("SELECT %(a)s", {}, [("%(a)s has no value", "%(a)s")]),
    ("SELECT '%(a)s' LIKE '100%'", {}, []),
    ("SELECT %(a)s LIKE '100%'", {"a": "x"},
     [("with `values`, a plain % is written %%, and a value %(name)s", "%")]),
    ("SELECT %(a)s LIKE '100%%', 5 %% 2", {"a": 1.5}, []),
    ("SELECT DATE %(a)s, INTERVAL %(a)s, 1 LIMIT %(a)s", {"a": ANY}, []),
    ("SELECT true IS %(flag)s", {"flag": True}, []),
    ("SELECT true IS %(flag)s; SELECT x'0' LIMIT %(n)s", {"flag": ANY, "n": ANY}, []),
    ("CREATE TABLE t (a varchar(%(n)s))", {"n": 5}, []),
    ("CREATE TABLE t (a varchar(%(n)s))", {"n": ANY}, []),
    ("-- on %(a)s\nSELECT 1", {"a": 1}, [("%(a)s is in a comment, which its value could end", "%(a)s")]),
    ("/* %(a)s */ SELECT 1", {"a": 1}, [("%(a)s is in a comment, which its value could end", "%(a)s")]),
    ("DO $$ BEGIN PERFORM %(a)s; END $$", {"a": 1}, [
        ("%(a)s is in quotes or right beside a word, but its value is inserted as a quoted literal", "%(a)s")
    ]),
    ("DO %(a)s", {"a": "x"}, [(f"%(a)s {NOT_A_VALUE}", "%(a)s")]),
    ("DO LANGUAGE plpgsql %(a)s", {"a": ANY}, [(f"%(a)s {NOT_A_VALUE}", "%(a)s")]),
    ("CREATE FUNCTION é() RETURNS int LANGUAGE sql AS %(a)s", {"a": "x"}, [(f"%(a)s {NOT_A_VALUE}", "%(a)s")]),
    ("CREATE FUNCTION f(a text DEFAULT %(a)s) RETURNS int LANGUAGE sql AS 'SELECT 1'", {"a": "x"}, []),
    ("ALTER ROLE me PASSWORD %(a)s", {"a": "x"}, [(f"%(a)s {NOT_A_VALUE}", "%(a)s")]),
    ("COMMENT ON TABLE t IS %(a)s", {"a": "x"}, [(f"%(a)s {NOT_A_VALUE}", "%(a)s")]),
    ("CREATE SUBSCRIPTION s CONNECTION %(a)s PUBLICATION p", {"a": "x"}, [(f"%(a)s {NOT_A_VALUE}", "%(a)s")]),
    ("CREATE TABLESPACE s LOCATION %(a)s", {"a": "x"}, [(f"%(a)s {NOT_A_VALUE}", "%(a)s")]),
    ("CREATE SERVER s FOREIGN DATA WRAPPER w OPTIONS (host %(a)s)", {"a": "x"}, [(f"%(a)s {NOT_A_VALUE}", "%(a)s")]),
    ("SET search_path = %(a)s", {"a": "x"}, [("%(a)s sets a setting of the server", "%(a)s")]),
    ("ALTER ROLE me SET role = %(a)s", {"a": "x"}, [("%(a)s sets a setting of the server", "%(a)s")]),
    ("SET app.site = %(a)s; SET statement_timeout = %(n)s", {"a": "x", "n": 5}, []),
    ("SELECT set_config('app.site', %(a)s, true)", {"a": "x"}, []),
    ("SELECT set_config('role', %(a)s, true)", {"a": "x"},
     [("%(a)s is given to set_config, which sets a setting of the server", "%(a)s")]),
    ("SELECT set_config(%(a)s, 'x', true)", {"a": "x"},
     [("%(a)s is given to set_config, which sets a setting of the server", "%(a)s")]),
    ("SELECT 'é', pg_catalog.query_to_xml('SELECT ' || lower(%(a)s), true, true, '')", {"a": "x"},
     [("%(a)s is given to query_to_xml, which runs it, or takes it for a file or a server", "%(a)s")]),
    ("INSERT INTO t SELECT * FROM dblink('c', %(a)s) AS d (a int)", {"a": "x"},
     [("%(a)s is given to dblink, which runs it, or takes it for a file or a server", "%(a)s")]),
    ("SELECT lo_export(1, %(a)s), pg_read_file(%(b)s)", {"a": "x", "b": ANY}, [
        ("%(a)s is given to lo_export, which runs it, or takes it for a file or a server", "%(a)s"),
        ("%(b)s is given to pg_read_file, which runs it, or takes it for a file or a server", "%(b)s"),
    ]),
    ("SELECT dblink_open('c', %(a)s), ts_rewrite(a, %(a)s)", {"a": "x"}, [
        ("%(a)s is given to dblink_open, which runs it, or takes it for a file or a server", "%(a)s"),
        ("%(a)s is given to ts_rewrite, which runs it, or takes it for a file or a server", "%(a)s"),
    ]),
    ("SELECT crosstabulated(%(a)s), own.dblinked(%(a)s), pg_read_models(%(a)s), ts_rewrite(a, b, %(a)s)",
     {"a": "x"}, []),
    ("PREPARE p AS SELECT %(a)s; EXECUTE p(%(a)s); CALL app.load(%(a)s)", {"a": "x"}, []),
    ("CREATE TABLE p PARTITION OF t FOR VALUES FROM (%(a)s) TO (%(b)s)", {"a": "x", "b": ANY}, []),
    ("SELECT nextval(%(a)s), %(a)s::regclass; MERGE INTO t USING u ON t.a = %(a)s WHEN MATCHED THEN DELETE",
     {"a": "x"}, []),
    ("SELECT E%(a)s", {"a": "x"}, [
        ("%(a)s is in quotes or right beside a word, but its value is inserted as a quoted literal", "%(a)s")
    ]),
    ("SELECT %(a)s%(b)s", {"a": "x", "b": "y"}, [
        ("%(a)s is in quotes or right beside a word, but its value is inserted as a quoted literal", "%(a)s"),
        ("%(b)s is in quotes or right beside a word, but its value is inserted as a quoted literal", "%(b)s"),
    ]),
    ("CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END; SELECT 3", {}, []),
    ("CREATE RULE r AS ON INSERT TO t DO ALSO (SELECT 1; SELECT 2)", {}, []),
    ("SAVEPOINT s; ROLLBACK TO s; COMMIT", {},
     [("this statement begins or ends a transaction, but the whole file is one", "COMMIT")]),
    ("COPY t FROM '/etc/passwd'", {},
     [("this statement copies from or to a file or a program of the server", "COPY t FROM '/etc/passwd'")]),
    ("LOAD 'x'", {}, [("this statement loads a library into the server", "LOAD 'x'")]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "values", "expected"), STATEMENTS, ids=[case[0][:40] for case in STATEMENTS])
def test_file_of_statements(text: str, values: dict[str, object], expected: list[tuple[str, str]]) -> None:
    """Each mistake is told with its place: syntax, values, and what would leave the transaction or the database."""
    assert said(text, statement_problems(text, values)) == expected


def test_value_cannot_end_a_comment(sql: Sql, run: Run, tmp_path: Path) -> None:
    """The driver puts a value wherever its name stands: in a comment, the lines after it would be SQL."""
    sql("CREATE TABLE kept (a int)")
    (tmp_path / "sql").mkdir()
    (tmp_path / "sql" / "noted.sql").write_text("-- for %(who)s\nSELECT %(who)s\n")

    with pytest.raises(PermanentError, match=r"noted.sql, line 1: .* is in a comment"):
        run_sql(
            "crypto_postgres", "noted.sql", {"who": "me\n; DROP TABLE kept; --"}, run=replace(run, configs=tmp_path)
        )
    assert sql("SELECT count(*) FROM kept") == [(0,)]


def test_value_is_not_run_under_another_name(superuser: Sql, run: Run, tmp_path: Path) -> None:
    """The manual of crosstab makes functions of other names; the server tells that they run what they are given."""
    superuser("""CREATE EXTENSION tablefunc;
    CREATE FUNCTION sales_by_month(text) RETURNS TABLE (a text, b text) LANGUAGE C STABLE STRICT
        AS '$libdir/tablefunc', 'crosstab';
    CREATE FUNCTION crosstabulated(text) RETURNS text LANGUAGE sql AS 'SELECT $1'""")
    (tmp_path / "sql").mkdir()
    file, here = tmp_path / "sql" / "sales.sql", replace(run, configs=tmp_path)
    file.write_text("SELECT * FROM sales_by_month(%(query)s)")

    with pytest.raises(PermanentError, match=r"^configs/sql/sales.sql gives a value .* to sales_by_month, which runs"):
        run_sql("crypto_postgres", "sales.sql", {"query": "SELECT 1, 2, 3"}, run=here)

    file.write_text("SELECT crosstabulated(%(query)s)")
    assert run_sql("crypto_postgres", "sales.sql", {"query": "SELECT 1, 2, 3"}, run=here).rows == 1


RESULTS = [
    "SELECT a, t.b, a AS c, count(*) FROM t GROUP BY a, b",
    "SELECT a::text, 1::numeric, 'x'::varchar, (a + b)::int FROM t",
    "SELECT lower('a'), lower('a')::varchar, pg_catalog.upper('b'), coalesce(a, b), greatest(a, b), least(a, b) FROM t",
    "SELECT CASE WHEN a > 1 THEN a END, CASE WHEN a > 1 THEN a ELSE b END, ARRAY[1], ROW(1, 2), (ARRAY[a])[1] FROM t",
    "SELECT a + b, a = b, a IS NULL, NOT a = b, -a, 5, NULL, true FROM t",
    "SELECT a FROM t UNION SELECT b FROM t",
    'WITH x AS (SELECT a AS z FROM t) SELECT z, z COLLATE "C" FROM (SELECT z::text FROM x) AS y',
    "VALUES (1, 2), (3, 4)",
    'SELECT a "Odd name", b ünï FROM t WHERE a > %(n)s LIMIT %(n)s;',
]


@pytest.fixture(scope="module")
def server(postgres: Database) -> Any:
    with postgres.connect() as session, session.cursor() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE t (a int, b int)")
        yield cursor


@pytest.mark.parametrize("text", RESULTS)
def test_columns_are_servers(server: Cursor, text: str) -> None:
    """The columns read from a query's text are those that the server returns."""
    values = {"n": 1} if "%(n)s" in text else {}
    server.execute(text, values or None)
    assert server.description is not None

    assert columns_of(text, values) == {column.name for column in server.description}


@pytest.mark.parametrize("text", ["SELECT * FROM t", "SELECT t.* FROM t", "SELECT (t).* FROM t", "DELETE FROM t", "("])
def test_unknown_columns_are_none(text: str) -> None:
    """Where the text does not say which columns there are, nothing is claimed."""
    assert columns_of(text, {}) == frozenset()


def test_query_only_reads() -> None:
    """The file of a comparison is one SELECT."""
    not_reading = "this statement is not a SELECT that only reads"
    for text, expected in {
        "SELECT 1": [],
        "SELECT lower(pg_sleep(1)::text), lo_import('/etc/passwd')": [
            (
                'this statement calls "pg_sleep", which is not among the functions that SQL in a spec may call',
                "pg_sleep",
            ),
            (
                'this statement calls "lo_import", which is not among the functions that SQL in a spec may call',
                "lo_import",
            ),
        ],
        "SELECT rolpassword FROM pg_authid": [
            ('this statement reads "pg_authid" of the server itself', "SELECT rolpassword FROM pg_authid")
        ],
        "WITH pg_authid AS (SELECT 1 AS a), b AS (TABLE pg_authid) SELECT a FROM b, pg_authid": [],
        "WITH RECURSIVE pg_user AS (SELECT 1 UNION SELECT 1 FROM pg_user) TABLE pg_user UNION TABLE pg_user": [],
        "SELECT * FROM pg_orders, own.pg_authid": [],
        "WITH pg_user AS (TABLE pg_user) TABLE pg_user": [
            ('this statement reads "pg_user" of the server itself', "WITH pg_user AS (TABLE pg_user) TABLE pg_user")
        ],
        "SELECT (WITH pg_user AS (SELECT 1) SELECT 1) FROM pg_user": [
            (
                'this statement reads "pg_user" of the server itself',
                "SELECT (WITH pg_user AS (SELECT 1) SELECT 1) FROM pg_user",
            )
        ],
        "WITH b AS (TABLE pg_user), pg_user AS (SELECT 1) TABLE b": [
            (
                'this statement reads "pg_user" of the server itself',
                "WITH b AS (TABLE pg_user), pg_user AS (SELECT 1) TABLE b",
            )
        ],
        "WITH pg_user AS (SELECT 1) TABLE pg_catalog.pg_user": [
            (
                'this statement reads "pg_catalog.pg_user" of the server itself',
                "WITH pg_user AS (SELECT 1) TABLE pg_catalog.pg_user",
            )
        ],
        "SELECT query FROM public.pg_stat_statements": [
            (
                'this statement reads "public.pg_stat_statements" of the server itself',
                "SELECT query FROM public.pg_stat_statements",
            )
        ],
        "SELECT 1; SELECT 2": [("a second statement, where one SELECT is expected", "SELECT 2")],
        "DELETE FROM t": [(not_reading, "DELETE FROM t")],
        "SELECT * INTO u FROM t": [(not_reading, "SELECT * INTO u FROM t")],
        "WITH g AS (DELETE FROM t RETURNING 1) SELECT 1": [
            (not_reading, "WITH g AS (DELETE FROM t RETURNING 1) SELECT 1")
        ],
    }.items():
        assert said(text, file_text.query_problems(text, {})) == expected


@pytest.mark.parametrize("text", REFUSED_BY_SPARK)
def test_lint_refuses_more_than_a_query(text: str) -> None:
    """A file for Spark is one query over the step's views: no program, no Java, no other file, no command."""
    assert query_text.query_problems(text, ["n"], ["t"])


@pytest.mark.parametrize("text", HARMLESS)
def test_lint_lets_queries_pass(text: str) -> None:
    """What only looks like a program, in a text or a comment, is none."""
    assert query_text.query_problems(text, ["n"], ["t"]) == []


def test_spark_mistakes_have_places() -> None:
    """Each mistake in a query for Spark is told with its place."""
    text = "WITH x AS (SELECT a FROM tt)\nSELECT reflect(:b), '::c', a::int FROM x"

    assert said(text, query_text.query_problems(text, ["a"], ["t"])) == [
        (":b has no value", ":b"),
        ("reflect calls a method of Java", "reflect"),
        ('"tt" is not a view of the step', "tt"),
    ]
    assert query_text.unused(text, ["a", "b"]) == ["a"]
    assert said("SELECT\nFROM BY", query_text.query_problems("SELECT\nFROM BY x y z", [], []))
