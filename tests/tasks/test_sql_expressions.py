"""SQL from YAML with values in it: what is refused, what passes, and that what passes is what the server reads."""

from __future__ import annotations

import datetime as dt
import itertools
import math
import random
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from psycopg2 import Error
from psycopg2.extensions import cursor as Cursor  # noqa: N812  psycopg2 spells its class in lower case

from stack.database import Database
from tasks.postgres.calls import UnknownFunctionsError
from tasks.postgres.expressions import (
    check_expression,
    check_query,
    filled_expression,
    filled_query,
)
from tasks.postgres.grammar import MAX_DEPTH, PLACES, statements
from tasks.postgres.literals import literal
from tests.support.database import Sql

VALUE = re.compile(r"\{\{ \w+ \}\}")
NASTY: list[Any] = [
    "plain",
    "it's",
    "'' OR true --",
    "back\\slash '; DROP TABLE t; --",
    "\\' OR 1=1 --",
    "ends with \\",
    "$$; DROP TABLE t; $$ /* */ -- \n",
    "100 %s of {batch} and {{ x }} :name\t\r\n",
    "ünïcødé 漢字 🙂 \u202e",
    "",
    "E'\\x7b'",
    "$1",
    0,
    5,
    -3,
    2**62,
    -(2**31) + 1,
    2**70,
    1.5,
    -0.25,
    -0.0,
    1e300,
    5e-324,
    math.nan,
    math.inf,
    -math.inf,
    Decimal("-12.3400000000"),
    Decimal("NaN"),
    Decimal("1E+5"),
    True,
    False,
    None,
    dt.date(2026, 1, 5),
    dt.datetime(2026, 1, 5, 23, 59, 59, 123456),  # noqa: DTZ001  a timestamp without a zone is meant
    dt.datetime(2026, 1, 5, 23, 59, tzinfo=dt.UTC),
]

REFUSED = {
    # other statements
    "1; DROP TABLE t": "contains 2 SQL statements",
    "DROP TABLE t": "contains DROP",
    "SELECT 1": "contains SELECT",
    "SET ROLE postgres": "contains SET",
    "COPY t TO PROGRAM 'id'": "contains COPY",
    "VALUES (1)": "contains SELECT",
    "TABLE t": "contains SELECT",
    "": "contains no expressions",
    # more than one expression, or another clause
    "a, b": "contains 2 expressions",
    "1 AS b": "contains AS",
    "1 b": "contains AS",
    "1 FROM pg_authid": "contains FROM",
    "1 INTO t": "contains INTO",
    "true WHERE true": "contains WHERE",
    "a GROUP BY a": "contains GROUP BY",
    "a ORDER BY a": "contains ORDER BY",
    "a LIMIT 1": "contains LIMIT",
    "a FOR UPDATE": "contains FOR UPDATE",
    "DISTINCT a": "contains DISTINCT",
    "1 UNION SELECT 2": "contains UNION",
    # subqueries
    "(SELECT password FROM users)": "contains SELECT",
    "a IN (SELECT 1)": "contains SELECT",
    "EXISTS (SELECT 1)": "contains SELECT",
    "ARRAY(SELECT 1)": "contains SELECT",
    "a = ANY (VALUES (1))": "contains SELECT",
    "json_array(SELECT 1)": "contains",
    "(WITH gone AS (DELETE FROM t RETURNING 1) SELECT * FROM gone)": "contains",
    # ways out of the parentheses
    "1) FROM t; --": "contains a comment",
    "1) + (2": "syntax error",
    "true) OR (true": "syntax error",
    "'open": "unterminated quoted string",
    '"open': "unterminated quoted identifier",
    "/* open": "unterminated /* comment",
    "$$ open": "unterminated dollar-quoted string",
    "a +": "syntax error",
    # comments
    "2 -- two": "contains a comment",
    "-- nothing": "contains a comment",
    "a /* b */ + 1": "contains a comment",
    "a /* /* */ */": "contains a comment",
    "id = id #-- '\n 0 ) ; DROP TABLE t; SELECT (1 --'": "contains a comment",
    "n -|--5": "contains a comment",
    # columns that are no columns
    "*": "contains *",
    "t.*": "contains *",
    "(t).*": "contains *",
    "DEFAULT": "contains DEFAULT",
    "$1": "contains a $ with a number",
    # functions
    "pg_sleep(10)": 'calls "pg_sleep"',
    "pg_catalog.pg_sleep(10)": 'calls "pg_sleep"',
    "pg_read_file('/etc/passwd')": 'calls "pg_read_file"',
    "query_to_xml('DROP TABLE t', true, true, '')": 'calls "query_to_xml"',
    "lo_import('/etc/passwd')": 'calls "lo_import"',
    "set_config('role', 'postgres', false)": 'calls "set_config"',
    "pg_advisory_lock(1)": 'calls "pg_advisory_lock"',
    "nextval('s')": 'calls "nextval"',
    "dblink('host=x', 'DROP TABLE t')": 'calls "dblink"',
    "public.anything(a)": 'calls "public.anything"',
    '"Lower"(a)': 'calls "Lower"',
    "generate_series(1, 9)": 'calls "generate_series"',
    "treat(0.1 AS pg_sleep)": 'calls "pg_sleep"',
    "('/etc/passwd'::text).pg_read_file": 'selects ".pg_read_file"',
    "(ARRAY['/etc/passwd'])[1].pg_read_file": 'selects ".pg_read_file"',
    "CASE WHEN a THEN coalesce(b, pg_sleep(1)) END": 'calls "pg_sleep"',
    "sum(a) OVER (ORDER BY pg_sleep(1))": 'calls "pg_sleep"',
    "count(*) FILTER (WHERE pg_sleep(1) IS NULL)": 'calls "pg_sleep"',
    # what stops a parser
    "a\0b": "NUL",
    "a\ud800": "surrogate",
    "(" * 30_000 + "1" + ")" * 30_000: "nested more than",
    "a" + " + 1" * 30_000: "nested more than",
    "NOT " * 30_000 + "a": "nested more than",
    # values that are not values
    "'{{ x }}'": "in quotes",
    "a = 'it''s {{ x }}'": "in quotes",
    "E'{{ x }}'": "in quotes",
    "$${{ x }}$$": "in quotes",
    '"{{ x }}"': "in quotes",
    "U&'{{ x }}'": "in quotes",
    "a -- it's {{ x }}\n": "contains a comment",
    "a /* ' */ + {{ x }} /* ' */": "contains a comment",
    "{{ x }}5": "right beside a word",
    "5{{ x }}": "syntax error",
    "a{{ x }}": "right beside a word",
    "{{ x }}a": "right beside a word",
    "E{{ x }}": "right beside a word",
    "{{ x }}{{ y }}": "right beside a word",
    "{{ x }} AS a": "contains AS",
    "{{ x }} a": "contains AS",
    "DATE {{ x }}": "wants a word or a constant",
    "INTERVAL {{ x }}": "wants a word or a constant",
    "EXTRACT({{ x }} FROM d)": "wants a word or a constant",
    "d AT TIME {{ x }}": "syntax error",
    "a {{ x }} b": "contains AS",
    "f({{ x }})": 'calls "f"',
    "sum(a) OVER (ORDER BY {{ x }})": "the place of a column",
    "a IS {{ x }}": "syntax error",
}

PASSED = [
    "a > {{ x }}",
    "a>{{ x }}",
    "{{ x }}<a",
    "a -{{ x }}",
    "-{{ x }}",
    "- -{{ x }}",
    "a + {{ x }}",
    "NOT a = {{ x }}",
    "{{ x }} IS NULL",
    "{{ x }} IS DISTINCT FROM {{ y }}",
    "a BETWEEN {{ x }} AND {{ y }}",
    "a NOT BETWEEN SYMMETRIC {{ x }} AND {{ y }}",
    "a IN ({{ x }}, {{ y }})",
    "a IN ({{ x }})",
    "a IN {{ x }}",
    "a NOT IN {{ x }}",
    "(a, a) IN (({{ x }}, {{ y }}))",
    "a = ANY (ARRAY[{{ x }}])",
    "CASE WHEN a = {{ x }} THEN {{ x }} ELSE {{ x }} END",
    "CASE a WHEN {{ x }} THEN 1 END",
    "coalesce({{ x }}, {{ x }})",
    "nullif(a, {{ x }})",
    "greatest(a, {{ x }})",
    "CAST({{ x }} AS text)",
    "{{ x }}::text",
    "({{ x }})",
    "(({{ x }}))",
    "ROW({{ x }}, 1) = ROW(a, 1)",
    "concat('', {{ x }})",
    "concat({{ x }}, '--', {{ y }})",
    "length({{ x }}::text)",
    "upper({{ x }}::text) LIKE {{ y }}::text",
    "md5({{ x }}::text)",
    "concat_ws(',', {{ x }}, {{ y }})",
    "({{ x }}::text || {{ y }}::text) COLLATE \"C\" = ''",
    "overlay('abcdef' PLACING {{ x }}::text FROM 2)",
    "position({{ x }}::text IN {{ y }}::text)",
    "trim(BOTH {{ x }}::text FROM {{ y }}::text)",
    "starts_with({{ x }}::text, {{ y }}::text)",
    "{{ x }}::text IS NOT NULL AND 'it''s -- no comment' <> {{ y }}::text",
    "to_jsonb({{ x }}::text)",
    "json_build_object('k', {{ x }}::text)",
    "JSON_OBJECT('k': {{ x }}::text)",
    "jsonb_build_array({{ x }}::text) @> '[]'",
    "count({{ x }}::text) OVER ()",
    "row_number() OVER (PARTITION BY a = {{ x }})",
    "count(*) FILTER (WHERE a = {{ x }})",
    "string_agg({{ x }}::text, ',')",
]
"""Expressions over a column `a`, cast to the type of the value."""

PLAIN = [
    "comment || load || set",
    "comment = 'x' OR show = 'x'",
    "r <<= inet '10.0.0.0/8'",
    "seen AT LOCAL",
    "seen AT TIME ZONE 'UTC'",
    "DATE '2026-01-05' - 5 + 1",
    "interval '1' day * 3",
    "day + interval '2 days'",
    "'100 %s'",
    "5 % 3",
    "B'101'::int",
    "E'\\x41' || U&'\\0041'",
    "$$quoted ' text$$",
    "$tag$ -- ; $tag$",
    "extract(year FROM day)",
    "(ARRAY[1, 2])[1]",
    "(ARRAY[1, 2, 3])[:2]",
    "numbers[1:2]",
    "'{1,2}'::int[] && numbers",
    "numbers || 5",
    "doc -> 'a' ->> 'b'",
    "doc #>> '{a,b}'",
    "doc ? 'a'",
    "JSON_VALUE(doc, '$.a')",
    "'{}' IS JSON OBJECT",
    "day::text::date",
    "comment ~ '^[0-9]{1,2}/'",
    "comment SIMILAR TO '(a|b)%'",
    "comment ILIKE '%a%' ESCAPE '!'",
    "CURRENT_DATE - day",
    "gen_random_uuid()",
    "now() - seen",
    "date_trunc('month', day)",
    "to_char(day, 'YYYY-MM')",
    "regexp_replace(comment, 'a', 'b')",
    "substring(comment FROM 1 FOR 2)",
    "percent_rank() OVER (ORDER BY day)",
    "lag(day, 1, NULL) OVER (PARTITION BY comment ORDER BY day ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)",
    '"Odd name" + 1',
    "tänk || 'ü'",
    "(day, comment) < ('2026-01-01', 'x')",
    "day IS NOT DISTINCT FROM NULL",
    "TRUE IS NOT UNKNOWN",
    "1.5e3 + .5 + 0x1F + 1_000",
    "pg_catalog.lower(comment)",
    "OVERLAY(comment PLACING 'x' FROM 1)",
    "(day, day) OVERLAPS (day, day)",
    "comment OPERATOR(pg_catalog.||) 'x'",
    "make_date(year => 2026, month => 1, day => 2)",
    "concat(VARIADIC ARRAY['a', 'b'])",
    "daterange(day, NULL) @> day",
    "NORMALIZE(comment) IS NFC NORMALIZED",
    "COALESCE(comment, 'none')",
    "comment IN (" + ", ".join(f"'{number}'" for number in range(5_000)) + ")",
    " || ".join(["comment"] * 200),
    " OR ".join(["(comment = 'a')"] * 150),
]


def cut(text: str) -> tuple[str, ...]:
    return tuple(VALUE.split(text))


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: text[:60])
def test_everything_else_is_refused(text: str) -> None:
    """What is not one expression over the row's columns, with each value a literal, is refused without a database."""
    with pytest.raises(ValueError, match=re.escape(REFUSED[text])):
        check_expression(cut(text))


@pytest.fixture(scope="module")
def server(postgres: Database) -> Iterator[Cursor]:
    """A session with a table whose columns have the names of commands."""
    with postgres.connect() as session, session.cursor() as cursor:
        session.autocommit = True
        cursor.execute("""
            CREATE TEMPORARY TABLE t (
                comment text, load text, set text, show text, day date, seen timestamptz, r inet, numbers int[],
                doc jsonb, "Odd name" int, tänk text
            );
            INSERT INTO t VALUES
            ('a', 'b', 'c', 'x', '2026-01-05', '2026-01-05 10:00Z', '10.1.2.3', '{1,2,3}', '{}', 1, 'ä')
        """)
        yield cursor


@pytest.mark.parametrize("text", PLAIN, ids=lambda text: text[:60])
def test_server_reads_what_passes(server: Cursor, text: str) -> None:
    """What the server takes as an expression passes, whatever the columns are called."""
    check_expression((text,))
    server.execute(f"SELECT ({text}\n) FROM t")

    assert server.rowcount == 1


@pytest.mark.parametrize("text", PASSED, ids=lambda text: text[:60])
def test_value_is_one_literal(server: Cursor, text: str) -> None:
    """With any value in it, the server computes what it computes with the value in a column."""
    pieces = cut(text)
    check_expression(pieces)
    for value in NASTY:
        written = filled_expression(pieces, [value] * (len(pieces) - 1))
        rows = f"FROM (SELECT {literal(value)} AS x) AS v CROSS JOIN LATERAL (SELECT x AS a) AS t"
        inside = outcome(server, f"SELECT ({written}\n)::text {rows}")
        assert inside == outcome(server, f"SELECT ({VALUE.sub('(v.x)', text)}\n)::text {rows}"), value


def outcome(server: Cursor, statement: str) -> object:
    try:
        server.execute(statement)
    except Error as error:
        return "a failed computation" if error.pgcode else error
    return server.fetchall()


def test_template_of_the_attack_is_harmless(sql: Sql) -> None:
    """A minus before a negative zero does not begin a comment."""
    assert sql(f"SELECT {filled_expression(('10 -', ''), [-0.0])} + 1") == [(11,)]


def test_numbers_without_digits_have_literals(sql: Sql) -> None:
    """NaN and the infinities are values, not names of columns."""
    for value in (math.inf, -math.inf):
        assert sql(f"SELECT {filled_expression(('', ''), [value])}") == [(value,)]
    assert sql(f"SELECT {filled_expression(('', ' = ', ''), [math.nan, math.nan])}") == [(True,)]


def test_list_follows_in(sql: Sql) -> None:
    """A list follows IN with or without parentheses, beside other items too; elsewhere it is an array."""
    several = ["a", "b'", "c\\"]
    texts = [
        ("'b''' IN ", ""),
        ("'b''' IN (", ")"),
        ("'b''' = ANY (", ")"),
        ("'b''' = ANY (", "::text[])"),
    ]
    assert [sql(f"SELECT {filled_expression(text, [several])}") for text in texts] == [[(True,)]] * 4
    assert sql(f"SELECT {filled_expression(('-3 NOT IN (', ', ', ')'), [[1, -2], -0.5])}") == [(True,)]
    assert sql(f"SELECT {filled_expression(('1 = ANY (', ')'), [[]])}") == [(False,)]
    with pytest.raises(ValueError, match="has an empty list after IN"):
        filled_expression(texts[0], [[]])


def test_project_may_allow_functions() -> None:
    """A function of an extension is allowed by name; a mistyped one is told what was meant."""
    check_expression(("st_distance(a, b) + geo.length(a)",), frozenset({"st_distance", "geo.length"}))
    check_expression(("(address).city",), frozenset({"city"}))
    with pytest.raises(UnknownFunctionsError, match="calls") as told:
        check_expression(("lowr(a)",))
    assert told.value.calls[0].hint(told.value.allowed) == (
        'did you mean "lower"? Otherwise add lowr to `functions` in configs/defaults.yaml if it is harmless'
    )


# --- Queries ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("SELECT * FROM {batch} WHERE site = '{{ x }}'", "in quotes"),
        ("SELECT * FROM {batch} -- {{ x }}\n", "inside a comment"),
        ("SELECT * FROM {batch} ORDER BY {{ x }}", "the place of a column"),
        ("SELECT a, count(*) FROM {batch} GROUP BY {{ x }}", "the place of a column"),
        ("SELECT * FROM {{ x }}", "syntax error"),
        ("{{ x }}", "syntax error"),
        ("SELECT * FROM {batch}; DELETE FROM t", "is 2 SQL statements"),
        ("WITH gone AS (DELETE FROM t RETURNING 1) SELECT * FROM gone, {batch}", "contains DELETE"),
        ("SELECT * INTO copied FROM {batch}", "contains INTO"),
        ("SELECT * FROM {batch} FOR UPDATE", "contains FOR UPDATE"),
        ("SELECT * FROM {batch} WHERE n > (SELECT pg_sleep(5))", 'calls "pg_sleep"'),
        ("SELECT * FROM {batch}, pg_ls_dir('/') AS f", 'calls "pg_ls_dir"'),
        ("SELECT '{batch}' FROM {batch}", "inside quotes or a comment"),
        ("EXPLAIN ANALYZE SELECT * FROM {batch}", "is a EXPLAIN statement"),
    ],
)
def test_query_changes_nothing(query: str, reason: str) -> None:
    """A query is one SELECT that changes nothing, and its values are literals."""
    with pytest.raises(ValueError, match=re.escape(reason)):
        check_query(cut(query))


@pytest.mark.parametrize("value", [value for value in NASTY if isinstance(value, str)])
def test_value_in_query_is_one_literal(sql: Sql, value: str) -> None:
    """A value in a query is the text that it is, and never names the batch."""
    written = filled_query(cut("SELECT {{ x }} FROM {batch} WHERE 'a{}' <> {{ y }}"), [value, value])

    assert written.count("{") == 2
    assert sql(written.replace("{batch}", "(VALUES (1)) AS batch")) == [(value,)]


# --- The proof with values and the proof with parameters --------------------------------------------------------------

ATOMS = ["a", "b", "'x'", "1", "{{ v }}", "{{ v }}", "{{ v }}", "NULL", '"Odd"', "2.5", "$$q$$"]
SHAPES = [
    "{} + {}", "{} -{}", "-{}", "- {}", "{}::text", "({})", "{} || {}", "{} IN ({}, {})", "{} BETWEEN {} AND {}",
    "CASE WHEN {} = {} THEN {} END", "coalesce({}, {})", "NOT {}", "{} IS NULL", "lower({})", "ARRAY[{}, {}]",
    "ROW({}, {})", "{} AND {}", "{} LIKE {} ESCAPE {}", "{} = ANY (ARRAY[{}])", "count({}) FILTER (WHERE {})",
    "{} AT TIME ZONE {}", '{} COLLATE "C"', "json_build_object({}, {})", "CAST({} AS numeric(10, 2))",
]  # fmt: skip


def made(draw: random.Random, depth: int) -> str:
    if depth == 0 or draw.random() < 0.2:
        return draw.choice(ATOMS)
    shape = draw.choice(SHAPES)
    return re.sub(r"\{\}", lambda _: made(draw, depth - 1), shape)


def is_expression(text: str) -> bool:
    try:
        check_expression(cut(text))
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("seed", range(300))
def test_values_mean_what_parameters_mean(seed: int) -> None:
    """With values in it, a text has the tree that it has with parameters: every value is a leaf, and no more."""
    draw = random.Random(seed)
    text = next(filter(is_expression, iter(lambda: made(draw, 3), None)))
    pieces = cut(text)
    values = [draw.choice(NASTY) for _ in pieces[1:]]
    inside = filled_expression(pieces, values)
    numbers = itertools.count(1)
    numbered = VALUE.sub(lambda _: f" ${next(numbers)} ", text)

    (with_values,), (with_parameters,) = statements(f"SELECT {inside}"), statements(f"SELECT {numbered}")
    assert agrees(with_parameters, with_values), f"{text} became {inside}"


def agrees(parameters: Any, values: Any) -> bool:
    """Return whether two trees differ only in that one has a literal for each parameter of the other."""
    if isinstance(parameters, list) and isinstance(values, list):
        return len(parameters) == len(values) and all(map(agrees, parameters, values))
    if not isinstance(parameters, dict) or not isinstance(values, dict):
        return bool(parameters == values)
    if "ParamRef" in parameters or is_negative(parameters):
        return is_literal(values) or (is_negative(parameters) and agrees(parameters["A_Expr"], values.get("A_Expr")))
    names = (parameters.keys() | values.keys()) - PLACES
    return all(agrees(parameters.get(name), values.get(name)) for name in names)


def is_negative(tree: dict[str, Any]) -> bool:
    minus = tree.get("A_Expr", {})
    return "lexpr" not in minus and minus.get("name") == [{"String": {"sval": "-"}}]


def is_literal(tree: dict[str, Any]) -> bool:
    return "A_Const" in tree or ("TypeCast" in tree and "A_Const" in tree["TypeCast"]["arg"])


# --- The limits of the parser -----------------------------------------------------------------------------------------

DEEPEST = """
    import random, threading
    from tasks.postgres.grammar import MAX_DEPTH, SyntaxProblem, parsed, require_shallow, statements, tokens

    WAYS = [
        "{} + 1", "({})", "NOT {}", "- {}", "abs({})", "CASE WHEN {} THEN 1 END", "CASE 1 WHEN 2 THEN 3 ELSE {} END",
        "{}[1]", "a[{}]", "{}::int", "CAST({} AS int)", "ROW({}, 1)", "ARRAY[1, {}]", "coalesce(1, {})", "{} AT LOCAL",
        "{} IS NULL", "1 IN (1, {})", "{} COLLATE x", "1 BETWEEN 1 AND {}", "sum(a) OVER (ORDER BY {})", "({}).b",
        "xmlelement(NAME x, {})", "json_object('a': {})", "(SELECT {})", "(SELECT 1, 2 UNION SELECT 1, {})",
        "(SELECT 1, 2 FROM t JOIN u ON {})", "f(1, 2, a => {})", "{} IS JSON", "(1, {}) = (2, 3)",
    ]

    def deep(ways, size):
        before, after = [], []
        for number in range(size):
            left, right = ways[number % len(ways)].split("{}")
            before.append(left)
            after.append(right)
        return "SELECT " + "".join(reversed(before)) + "1" + "".join(after)

    def read(text):
        try:
            statements(text)
        except SyntaxProblem:
            pass

    def work():
        draw = random.Random(7)
        for ways in [[way] for way in WAYS] + [draw.sample(WAYS, draw.randint(2, 6)) for _ in range(60)]:
            for size in (50, 100, 150, 200, 250, 333, 499, 998, 999, 5000):
                read(deep(ways, size))
        read("SELECT 1, 2" + " UNION SELECT 1, 2" * 20000)
        read("SELECT 1 FROM t" + " JOIN t ON true" * 20000)
        read("INSERT INTO t VALUES " + ", ".join(["(1, 2, 'x', NULL)"] * 20000))

    threading.stack_size(512 * 1024)  # what a thread has on macOS
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    print("alive")
"""


def test_no_text_ends_the_process() -> None:
    """The deepest texts that are let through leave the process alive, even in a thread with a small stack."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(DEEPEST)], capture_output=True, text=True, check=False, timeout=120
    )

    assert (done.stdout, done.returncode) == ("alive\n", 0), done.stderr


def test_long_list_is_not_deep() -> None:
    """Items of a list are beside each other: their number is no depth."""
    assert len(statements("INSERT INTO t VALUES " + ", ".join(["(1, 2)"] * 3 * MAX_DEPTH))) == 1
