"""Specs that are right, though they look wrong: columns named like words of SQL, operators, names of any letters."""

from __future__ import annotations

from pathlib import Path

import pytest

from factory.compiler import compile_content
from factory.language.errors import render
from tasks.contract import Run
from tasks.postgres.expressions import check_expression
from tasks.postgres.tables import rebuild_table
from tests.support.database import Sql


def test_columns_are_called_like_words_of_sql(sql: Sql, run: Run) -> None:
    """What Postgres takes as the name of a column is one: first in an expression, inside it, or alone."""
    rows = sql("SELECT word FROM pg_get_keywords() WHERE catcode IN ('U', 'C') ORDER BY word")
    names = [name for (name,) in rows]
    columns = ", ".join(f'"{name}" int' for name in names)
    sql(f"CREATE SCHEMA s; CREATE TABLE s.u ({columns}); CREATE TABLE s.t (LIKE s.u)")
    sql(f"INSERT INTO s.u VALUES ({', '.join(['1'] * len(names))})")
    expressions = {name: f"{name} + {other} * 2" for name, other in zip(names, [*names[1:], names[0]], strict=True)}
    conditions = [f"{name} IS NOT NULL" for name in names]

    for text in (*names, *expressions.values(), *conditions):
        check_expression((text,))
    rebuild_table("crypto_postgres", "s.t", "s.u", expressions, conditions[0], run=run)

    assert sql("SELECT comment, set, load FROM s.t") == [(3, 3, 3)]


OPERATORS = {
    "ip <<= inet '10.0.0.0/8'": True,
    "ip >>= inet '10.0.0.1'": True,
    "ip && inet '10.0.0.0/8'": True,
    "at AT LOCAL": "2026-01-31T12:00:00",
    "at AT TIME ZONE 'America/Lima'": "2026-01-31T07:00:00",
    "n + 1_000": 1003,
    "n = 0x3": True,
    "name IS NFC NORMALIZED": True,
    "name IS NOT DISTINCT FROM 'Ä'": True,
    "name ^@ 'Ä'": True,
    "name ~* 'ä|x'": True,
    "name LIKE ANY (ARRAY['A%', 'Ä%'])": True,
    "doc @> '{\"a\": 1}'": True,
    "doc #>> '{b,0}'": "x",
    "doc ->> 'a'": "1",
    "doc @? '$.a ? (@ == 1)'": True,
    "doc @@ '$.a == 1'": True,
    "tags[2:]": ["y"],
    "tags || '{z}'": ["x", "y", "z"],
    "tags @> ARRAY['x']": True,
    "span @> 2": True,
    "span -|- int4range(3, 5)": True,
    "(DATE '2026-01-01', DATE '2026-01-31') OVERLAPS (DATE '2026-01-30', DATE '2026-02-01')": True,
    "n BETWEEN SYMMETRIC 5 AND 1": True,
    "|/ 9.0": 3.0,
    "@ -5": 5,
    "n % 2": 1,
    "n # 1": 2,
    "~ n": -4,
    "p <-> point '(4,5)'": 5.0,
    "to_tsvector('simple', name) @@ 'ä'::tsquery": True,
    "E'a\\'b'": "a'b",
    "U&'\\00c4'": "Ä",
    "$$it's$$": "it's",
    "name COLLATE \"C\" > 'A'": True,
    "n::numeric(5, 2)::text": "3.00",
    "ROW (n, name) = ROW (3, 'Ä')": True,
    "CASE n WHEN 3 THEN 'three' END": "three",
    "EXTRACT(year FROM at)": 2026,
    "n IN (1, 2, 3)": True,
    "grouping_id": 4,
    '"Größe"': 5,
    "größe": 6,
}
"""Expressions over a row, each with its value."""


def test_operators_are_those_of_postgres(sql: Sql, run: Run) -> None:
    """Whatever the server reads as one expression over a row passes, and means there what it means."""
    sql("""
        CREATE SCHEMA s;
        CREATE TABLE s.u (
            ip inet, at timestamptz, n int, name text, doc jsonb, tags text[], span int4range, p point, grouping_id int,
            "Größe" int, größe int
        );
        INSERT INTO s.u VALUES (
            '10.0.0.1', '2026-01-31 12:00Z', 3, 'Ä', '{"a": 1, "b": ["x"]}', '{x,y}', '[1,3)', '(1,1)', 4, 5, 6
        );
    """)
    given = {f"c{place}": text for place, text in enumerate(OPERATORS)}
    made = ", ".join(f"({text}) AS {name}" for name, text in given.items())
    sql(f"CREATE TABLE s.t AS SELECT {made} FROM s.u WITH NO DATA")

    for text in OPERATORS:
        check_expression((text,))
    rebuild_table("crypto_postgres", "s.t", "s.u", given, run=run)

    (row,) = sql("SELECT to_jsonb(t) FROM s.t AS t")[0]
    assert {text: row[name] for name, text in given.items()} == OPERATORS


NAMED = """\
dag_id: names
suites:
  whole:
    connection: crypto_postgres
    batch: {table: "on.null"}
    quarantine: {table: "yes.off", columns: {"null": '"null"::text', "Größe in m": '"Größe in m"', "~": "1"}}
    expectations:
      - expect_column_values_to_not_be_null: {column: "null"}
        reason: "nothing"
      - expect_compound_columns_to_be_unique: {column_list: ["on", "true"]}
steps:
  "on":
    uses: postgres.rebuild_table
    with:
      connection: crypto_postgres
      source: "no.Raw Data"
      target: "on.null"
      where: '"no" IS NOT NULL'
      columns: {"on": '"on"', "null": n, "Größe in m": '"Größe"', "100%": "1"}
  gate: {uses: quality.validate, needs: "on", with: {suite: whole}}
  "null":
    uses: postgres.merge
    needs: gate
    with:
      connection: crypto_postgres
      source: "on.null"
      target: "prod.Données d'été"
      keys: ["on", "null", "User Id", "Größe", "日付"]
      columns: ["true", "100%", 'say "hi"', "1st"]
"""


def test_names_may_have_any_letters() -> None:
    """Names in quotes are texts: YAML's own words, spaces, capitals and letters that are not in ASCII."""
    assert render(compile_content(NAMED.encode(), Path("names.yaml")).report.diagnostics) == ""


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('keys: ["on"', "keys: [on", "on is a boolean in YAML 1.1"),
        ('column: "null"', "column: null", "null"),
        ('needs: "on"', "needs: on", "on is a boolean in YAML 1.1"),
    ],
)
def test_words_of_yaml_need_quotes(old: str, new: str, problem: str) -> None:
    """Without quotes they are an error that says so."""
    text = NAMED.replace(old, new)

    report = render(compile_content(text.encode(), Path("names.yaml")).report.diagnostics)

    assert problem in report


CASES = """\
dag_id: cases
params: {WindowDays: {type: integer, default: 1}, window_dayz: {type: integer, default: 1}}
steps:
  first: {uses: Messages.Log, with: {Message: "{{ params.windowdays }}"}}
  second: {uses: messages.log, Needs: FIRST, with: {message: "{{ run.DATE }} {{ params.window_dayz | Upper }}"}}
"""


def test_suggestions_ignore_case() -> None:
    """A name that differs only in its capitals is the one that was meant."""
    report = render(compile_content(CASES.encode(), Path("cases.yaml")).report.diagnostics)

    meant = ("messages.log", "WindowDays", "needs", "date", "upper")
    assert [name for name in meant if f'did you mean "{name}"' not in report] == []
