"""Ways to call a function of the database without its name in the list: each is refused before anything is written."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tasks.contract import PermanentError, Run
from tasks.postgres import calls
from tasks.postgres.query import query
from tasks.postgres.tables import rebuild_table
from tests.support.database import Sql

OWN = """
    CREATE SCHEMA raw; CREATE SCHEMA staging; CREATE SCHEMA own;
    CREATE TABLE raw.events (id int, site varchar(20), made text);
    INSERT INTO raw.events VALUES (1, 'a', 'b');
    CREATE TABLE staging.events (id text);
    CREATE TABLE own.told (id int);
    CREATE FUNCTION own.tell(int) RETURNS int LANGUAGE sql AS 'INSERT INTO own.told VALUES ($1) RETURNING id';
    CREATE FUNCTION public.secret(raw.events) RETURNS text LANGUAGE sql AS 'SELECT own.tell($1.id)::text';
    CREATE FUNCTION public.lower(varchar) RETURNS text LANGUAGE sql AS 'SELECT own.tell(1)::text';
    CREATE FUNCTION public.same(int, varchar) RETURNS bool LANGUAGE sql AS 'SELECT own.tell($1) = 1';
    CREATE OPERATOR public.= (LEFTARG = int, RIGHTARG = varchar, FUNCTION = public.same);
    CREATE OPERATOR public.~~ (LEFTARG = int, RIGHTARG = varchar, FUNCTION = public.same);
    CREATE OPERATOR public.>= (LEFTARG = int, RIGHTARG = varchar, FUNCTION = public.same);
    CREATE OPERATOR public.<= (LEFTARG = int, RIGHTARG = varchar, FUNCTION = public.same);
    CREATE OPERATOR public.@@@ (LEFTARG = int, RIGHTARG = varchar, FUNCTION = public.same);
    CREATE DOMAIN public.checked AS int CHECK (own.tell(VALUE) > 0);
    CREATE DOMAIN public.inner AS public.checked;
    CREATE TYPE public.pair AS (one public.checked, two text);
    CREATE TYPE public.wrapped AS (id int);
    CREATE FUNCTION public.wrap(int) RETURNS public.wrapped LANGUAGE sql AS 'SELECT ROW(own.tell($1))::public.wrapped';
    CREATE CAST (int AS public.wrapped) WITH FUNCTION public.wrap(int);
    CREATE FUNCTION public.grow(text, text) RETURNS text LANGUAGE sql AS 'SELECT own.tell(1)::text';
    CREATE AGGREGATE public.max(varchar) (SFUNC = public.grow, STYPE = text);
"""
CALLS = {
    "events.secret": "calls public.secret, a function of this database's own",
    "lower(site)": "calls public.lower, ",
    "id = site": "calls public.same by the operator = of public, ",
    "id IN (site, site)": "calls public.same by the operator = of public, ",
    "id = ANY (ARRAY[site])": "calls public.same by the operator = of public, ",
    "id BETWEEN site AND site": "calls public.same by the operator <= of public, ",
    "id LIKE site": "calls public.same by the operator ~~ of public, ",
    "CASE id WHEN site THEN 1 END": "calls public.same by the operator = of public, ",
    "nullif(id, site)": "calls public.same by the operator = of public, ",
    "id IS DISTINCT FROM site": "calls public.same by the operator = of public, ",
    "id @@@ site": "calls public.same by the operator @@@ of public, ",
    "id OPERATOR(public.=) site": "calls public.same by the operator = of public, ",
    "id::checked": "calls own.tell in a check of the type checked, ",
    "CAST(made AS public.inner)": "calls own.tell in a check of the type checked, ",
    "made::checked[]": "calls own.tell in a check of the type checked, ",
    "made::pair": "calls own.tell in a check of the type checked, ",
    "id::wrapped": "calls public.wrap, ",
    "max(site)": "calls public.max, ",
}


@pytest.mark.parametrize("expression", CALLS)
def test_calls_without_a_name_are_refused(expression: str, sql: Sql, run: Run) -> None:
    """The server says what a column's syntax, an overload, an operator, a cast or a domain would call."""
    sql(OWN)
    columns = {"id": f"({expression})::text"}

    with pytest.raises(PermanentError) as refused:
        rebuild_table("crypto_postgres", "staging.events", "raw.events", columns, run=run)

    assert str(refused.value).startswith(f"columns.id {CALLS[expression]}")
    assert sql("SELECT count(*) FROM own.told") == [(0,)]


def test_condition_is_resolved_too(sql: Sql, run: Run) -> None:
    """A condition is named by its argument."""
    sql(OWN)
    with pytest.raises(PermanentError, match=r"^where calls public.same by the operator ="):
        rebuild_table("crypto_postgres", "staging.events", "raw.events", {"id": "id::text"}, "id = site", run=run)


def test_project_may_allow_what_is_reached(sql: Sql, run: Run) -> None:
    """A function in `functions` may also be reached by an operator or a column's syntax."""
    sql(OWN)
    allowed = replace(run, functions=frozenset({"public.secret", "same"}))

    rebuild_table("crypto_postgres", "staging.events", "raw.events", {"id": "events.secret"}, "id = site", run=allowed)

    assert sql("SELECT id FROM staging.events") == [("1",)]


def test_extension_may_be_behind_an_operator(sql: Sql, run: Run) -> None:
    """Operators and casts of an extension are those that its makers chose, and columns of its types can be compared."""
    sql(OWN)
    sql("CREATE EXTENSION hstore; CREATE EXTENSION citext; ALTER TABLE raw.events ADD kept hstore, ADD named citext")
    sql("UPDATE raw.events SET kept = 'a=>1', named = 'Me'")
    columns = {"id": "(kept -> 'a') || named::text"}

    rebuild_table("crypto_postgres", "staging.events", "raw.events", columns, "named = 'mE'", run=run)

    assert sql("SELECT id FROM staging.events") == [("1Me",)]


def test_extension_may_do_what_the_server_does(sql: Sql, run: Run) -> None:
    """A function of an extension by the name of a harmless one of Postgres', such as citext's replace, is harmless."""
    sql(OWN)
    sql("CREATE EXTENSION citext; ALTER TABLE raw.events ADD named citext; UPDATE raw.events SET named = 'Me'")

    rebuild_table("crypto_postgres", "staging.events", "raw.events", {"id": "replace(named, 'm', 'w')"}, run=run)

    assert sql("SELECT id FROM staging.events") == [("we",)]


def test_aggregates_may_have_a_condition(sql: Sql, run: Run) -> None:
    """The columns may be computed from all rows, and the condition still chooses among these."""
    sql(OWN)
    sql("INSERT INTO raw.events VALUES (2, 'c', 'd'), (3, 'e', 'f')")

    rebuild_table("crypto_postgres", "staging.events", "raw.events", {"id": "count(*)::text"}, "id > 1", run=run)

    assert sql("SELECT id FROM staging.events") == [("2",)]


def test_server_tells_its_own_tables(sql: Sql, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later release may have tables that lint takes for a person's: those without a schema, the server looks up."""
    sql("CREATE TABLE public.pg_orders (id int); INSERT INTO public.pg_orders VALUES (7)")
    monkeypatch.setattr(calls, "catalogue", lambda: frozenset({"pg_authid"}))

    assert query("crypto_postgres", "SELECT id FROM pg_orders", run=run).value == 7
    with pytest.raises(PermanentError, match=r"^the query reads pg_user of the server itself"):
        query("crypto_postgres", "SELECT usename FROM pg_orders, pg_user", run=run)
