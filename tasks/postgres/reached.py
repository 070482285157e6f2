"""What the server would call for SQL from a spec: by a name, an operator, a cast, or the syntax of a column.

A text does not tell: `t.f` may be a column or a call of f, and `lower(a)` or `a = b` may be those of a schema in the
search_path. So the server resolves the SQL, as a temporary view that is never read, and its catalogue tells what the
view depends on. What comes with the server itself is not in that list, and has been judged by its name before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.contract import PermanentError
from tasks.postgres.calls import doubtful_tables
from tasks.postgres.functions import harmless
from tasks.postgres.grammar import statements, without_comments
from tasks.postgres.sql import fragment
from tasks.postgres.statements import joined, name, only_row, statement

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from psycopg2.extensions import connection as PostgresSession  # noqa: N812
    from psycopg2.extensions import cursor as Cursor  # noqa: N812  psycopg2 spells its class in lower case
    from psycopg2.sql import Composable

    from tasks.contract import Run

_VIEW = "__resolved"

# A function is reached by itself, as a cast, through an operator, or through the checks of a domain. One of an
# extension may be behind an operator or a cast, or do what Postgres' own of that name does (`replace` of citext): who
# made the extension has chosen these, as the server's makers have.
_REACHED = """
    WITH RECURSIVE named AS (
        SELECT refclassid, refobjid FROM pg_catalog.pg_depend
        WHERE classid = 'pg_catalog.pg_rewrite'::regclass AND objid IN (
            SELECT oid FROM pg_catalog.pg_rewrite WHERE ev_class = %(view)s::regclass
        )
    ),
    types AS (
        SELECT refobjid AS oid FROM named WHERE refclassid = 'pg_catalog.pg_type'::regclass
        UNION
        SELECT part.oid FROM types JOIN pg_catalog.pg_type AS whole USING (oid) CROSS JOIN LATERAL (
            SELECT unnest(ARRAY[typbasetype, typelem])
            UNION ALL SELECT atttypid FROM pg_catalog.pg_attribute WHERE attrelid = typrelid AND attnum > 0
            UNION ALL SELECT rngsubtype FROM pg_catalog.pg_range WHERE rngtypid = whole.oid
        ) AS part (oid) WHERE part.oid <> 0
    ),
    used (refclassid, refobjid, shown) AS (
        SELECT refclassid, refobjid, '' FROM named
        UNION ALL
        SELECT refclassid, refobjid, format(' in a check of the type %%s', contypid::regtype)
        FROM types JOIN pg_catalog.pg_constraint ON contypid = types.oid JOIN pg_catalog.pg_depend
            ON classid = 'pg_catalog.pg_constraint'::regclass AND objid = pg_constraint.oid
    ),
    reached (function, shown, is_behind) AS (
        SELECT refobjid, shown, EXISTS (SELECT FROM pg_catalog.pg_cast WHERE castfunc = refobjid)
        FROM used WHERE refclassid = 'pg_catalog.pg_proc'::regclass
        UNION ALL
        SELECT oprcode, format('%%s by the operator %%s of %%s', shown, oprname, oprnamespace::regnamespace), true
        FROM used JOIN pg_catalog.pg_operator ON pg_operator.oid = refobjid
        WHERE refclassid = 'pg_catalog.pg_operator'::regclass
    )
    SELECT DISTINCT nspname::text, proname::text, shown
    FROM reached JOIN pg_catalog.pg_proc ON pg_proc.oid = function
    JOIN pg_catalog.pg_namespace ON pg_namespace.oid = pronamespace
    WHERE NOT ((is_behind OR proname = ANY(%(harmless)s)) AND EXISTS (
        SELECT FROM pg_catalog.pg_depend
        WHERE classid = 'pg_catalog.pg_proc'::regclass AND objid = function AND deptype = 'e'
    ))
    ORDER BY 1, 2, 3
"""


# Most SQL names nothing but tables and what the server brings, and planning the whole question takes 20 ms.
_NAMED = """
    SELECT EXISTS (
        SELECT FROM pg_catalog.pg_depend
        WHERE classid = 'pg_catalog.pg_rewrite'::regclass
            AND objid = (SELECT oid FROM pg_catalog.pg_rewrite WHERE ev_class = %(view)s::regclass)
            AND refclassid IN ('pg_catalog.pg_proc'::regclass, 'pg_catalog.pg_operator'::regclass,
                'pg_catalog.pg_type'::regclass)
    )
"""


def require_known_calls(cursor: Cursor, rows: Composable, expressions: Mapping[str, str], run: Run) -> None:
    """Raise PermanentError if an expression over `rows`, a FROM clause, calls what the project does not allow.

    `expressions` are named by what they are for. Raises the server's error for one that it cannot resolve. Call it in a
    transaction.
    """
    if _calls(cursor, _selected(rows, expressions.values()), run):
        for what, text in expressions.items():
            _refuse(what, _calls(cursor, _selected(rows, [text]), run))


def require_known_calls_of(cursor: Cursor, query: Composable, what: str, run: Run) -> None:
    """Do the same for a whole query, which may not read the server's own tables either."""
    _require_no_catalogue(cursor, query.as_string(cursor), what)
    _refuse(what, _calls(cursor, statement("SELECT 1 AS one WHERE EXISTS ({query}\n)", query=query), run))


def require_known_calls_in(
    session: PostgresSession, text: str, values: Mapping[str, object] | None, what: str, run: Run
) -> None:
    """Do the same for the text of a query that binds `values`, in a transaction of its own."""
    from psycopg2.sql import SQL

    with session.cursor() as cursor:
        asked = cursor.mogrify(text, dict(values) if values else None).decode()
        require_known_calls_of(cursor, SQL(without_comments(asked)), what, run)
    session.rollback()


_CATALOGUE = """
    SELECT relname::text FROM pg_catalog.pg_class
    WHERE oid IN (SELECT pg_catalog.to_regclass(pg_catalog.quote_ident(name)) FROM unnest(%s) AS name)
        AND relnamespace = 'pg_catalog'::regnamespace
    ORDER BY 1
"""


def _require_no_catalogue(cursor: Cursor, text: str, what: str) -> None:
    """Raise PermanentError for a table that this release of the server has and lint does not know."""
    names = [table for tree in statements(text) for table in doubtful_tables(tree)] if "pg_" in text else []
    if names:
        cursor.execute(_CATALOGUE, (names,))
        for (table,) in cursor.fetchall():
            raise PermanentError(f"{what} reads {table} of the server itself; read tables and views that people made")


def _selected(rows: Composable, expressions: Iterable[str]) -> Composable:
    columns = [
        statement("{expression} IS NULL AS {name}", expression=fragment(text), name=name(str(place)))
        for place, text in enumerate(expressions)
    ]
    return statement("SELECT {columns} FROM {rows}", columns=joined(", ", columns), rows=rows)


def _calls(cursor: Cursor, select: Composable, run: Run) -> list[tuple[str, str]]:
    """Return the functions that a query calls and the project does not allow, each with what calls it."""
    cursor.execute("SELECT pg_catalog.pg_is_in_recovery() OR pg_catalog.current_setting('transaction_read_only')::bool")
    if only_row(cursor)[0]:
        return []  # a standby or a login that only reads: no temporary views, and no function changes anything there
    view, asked = name(_VIEW), {"view": f"pg_temp.{_VIEW}", "harmless": sorted(harmless().of_values)}
    cursor.execute(statement("CREATE TEMPORARY VIEW {view} AS {select}", view=view, select=select))
    cursor.execute(_NAMED, asked)
    found: list[tuple[str, str, str]] = []
    if only_row(cursor)[0]:
        cursor.execute(_REACHED, asked)
        found = cursor.fetchall()
    cursor.execute(statement("DROP VIEW pg_temp.{view}", view=view))
    return [
        (f"{schema}.{function}", shown)
        for schema, function, shown in found
        if not {function, f"{schema}.{function}"} & run.functions
    ]


def _refuse(what: str, calls: Iterable[tuple[str, str]]) -> None:
    for function, shown in calls:
        remedy = f"add {function} to `functions` in configs/defaults.yaml if it is harmless"
        raise PermanentError(f"{what} calls {function}{shown}, a function of this database's own; {remedy}")
