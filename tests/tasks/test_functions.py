"""The list of functions that SQL in a spec may call, compared with those of a real server.

With another release of the server, write the names that this test finds into `tasks/postgres/functions.json`.
"""

from __future__ import annotations

import json
from importlib import resources

import pytest

from tasks.postgres.file_text import statement_problems
from tasks.postgres.functions import harmless
from tests.support.database import Sql

FOLDER = resources.files("tasks.postgres")

DANGEROUS = [
    "pg_sleep",
    "pg_sleep_for",
    "pg_read_file",
    "pg_read_binary_file",
    "pg_ls_dir",
    "pg_stat_file",
    "pg_advisory_lock",
    "pg_try_advisory_xact_lock",
    "pg_terminate_backend",
    "pg_notify",
    "pg_get_viewdef",
    "pg_relation_size",
    "pg_current_xact_id",
    "txid_current",
    "lo_import",
    "lo_export",
    "lo_get",
    "lowrite",
    "loread",
    "query_to_xml",
    "query_to_xmlschema",
    "table_to_xml",
    "database_to_xml",
    "cursor_to_xml",
    "ts_stat",
    "ts_rewrite",
    "current_setting",
    "set_config",
    "setseed",
    "nextval",
    "setval",
    "currval",
    "inet_server_addr",
    "has_table_privilege",
    "obj_description",
    "dblink",
    "int4in",
    "textout",
    "fmgr_sql_validator",
    "plpgsql_call_handler",
    "RI_FKey_check_ins",
]


OF_ONE = """
    SELECT DISTINCT proname::text FROM pg_proc
    WHERE pronargs >= 1 AND pronargs - pronargdefaults <= 1
        AND NOT proargtypes::oid[] && ARRAY['internal', 'cstring']::regtype[]::oid[]
    ORDER BY 1
"""
"""The functions that may be called with one value."""


def found(sql: Sql) -> dict[str, list[str]]:
    rows = sql(FOLDER.joinpath("functions.sql").read_text(encoding="utf-8"))
    return {
        "aggregates": [name for name, _, is_aggregate in rows if is_aggregate],
        "of_rows": [name for name, returns_rows, _ in rows if returns_rows],
        "of_one": [name for (name,) in sql(OF_ONE) if name not in {row[0] for row in rows}],
        "of_values": [name for name, returns_rows, _ in rows if not returns_rows],
    }


def test_list_is_servers(sql: Sql) -> None:
    """The list holds the server's harmless functions, no more and no fewer."""
    assert json.loads(FOLDER.joinpath("functions.json").read_text(encoding="utf-8")) == found(sql)


CATALOGUE = """
    SELECT relname::text COLLATE "C" FROM pg_class
    WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind IN ('r', 'v') ORDER BY 1
"""


def test_catalogue_is_servers(sql: Sql) -> None:
    """The tables that are refused by their names alone are all those of the server's own schema."""
    names = json.loads(FOLDER.joinpath("catalogue.json").read_text(encoding="utf-8"))
    assert names == [name for (name,) in sql(CATALOGUE)]


EXTENSIONS = """
    CREATE EXTENSION dblink; CREATE EXTENSION tablefunc;
    SELECT DISTINCT proname::text
    FROM pg_depend JOIN pg_extension ON pg_extension.oid = refobjid JOIN pg_proc ON pg_proc.oid = objid
    WHERE classid = 'pg_proc'::regclass AND extname IN ('dblink', 'tablefunc') AND 'text'::regtype = ANY (proargtypes)
    ORDER BY 1
"""
LOOKUPS = {
    "dblink_cancel_query", "dblink_disconnect", "dblink_error_message", "dblink_fdw_validator", "dblink_get_notify",
    "dblink_get_pkey", "dblink_get_result", "dblink_is_busy",
}  # fmt: skip
"""Those that look for a connection, or a table, of that name, and do no more with the text."""


def test_extensions_that_run_a_text_are_known(superuser: Sql) -> None:
    """A value of a step is given to no function of an extension that would run it."""
    functions = [name for (name,) in superuser(EXTENSIONS) if name not in LOOKUPS]
    text = ";".join(f"SELECT {name}(%(a)s)" for name in functions)

    assert {"crosstab", "connectby", "dblink", "dblink_fetch"} <= set(functions)
    assert [problem.message.split(",")[0] for problem in statement_problems(text, {"a": "x"})] == [
        f"%(a)s is given to {name}" for name in functions
    ]


@pytest.mark.parametrize("name", DANGEROUS)
def test_dangerous_functions_are_left_out(name: str) -> None:
    """What writes, waits, locks, reads files or other tables, or belongs to the server's machinery is not harmless."""
    assert name not in harmless().of_values | harmless().of_rows
