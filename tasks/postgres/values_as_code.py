"""Where a value of a step would be more than a value: code, a path, a name, the address of a server.

A quoted literal is a value only inside of an expression. `DO %(v)s` runs it, CREATE FUNCTION keeps it as a body, and
some functions run the text that they are given.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from tasks.postgres.calls import called
from tasks.postgres.grammar import Tree, nodes

_RUNNING = frozenset(
    {
        "connectby", "crosstab", "crosstab2", "crosstab3", "crosstab4", "crosstabn", "dblink",
        "dblink_build_sql_delete", "dblink_build_sql_insert", "dblink_build_sql_update", "dblink_close",
        "dblink_connect", "dblink_connect_u", "dblink_exec", "dblink_fetch", "dblink_open", "dblink_send_query",
        "lo_export", "lo_import", "pg_file_rename", "pg_file_sync", "pg_file_unlink", "pg_file_write", "pg_ls_dir",
        "pg_ls_replslotdir", "pg_read_binary_file", "pg_read_file", "pg_stat_file", "query_to_xml",
        "query_to_xml_and_xmlschema", "query_to_xmlschema", "ts_stat", "xpath_table",
    }
)  # fmt: skip
"""Functions of Postgres and its extensions that run a text as SQL, or take it for a file or the address of a server."""
_ARGUMENTS_WITH_QUERY = 2
"""Of ts_rewrite: with three it rewrites by texts alone."""
_SETTINGS = frozenset({"VariableSetStmt", "setstmt"})


def misuses(tree: Tree, starts: Collection[int]) -> Iterator[tuple[int, str]]:
    """Yield each of `starts`, where values begin in the parsed text, at which one is not only a value, with the reason.

    They count bytes, as the tree does.
    """
    constants = _constants(tree)
    for start in sorted(set(starts) - constants):
        yield start, "is where a statement has code, a path, a name or a comment"
    for name, part in nodes(tree):
        if name == "FuncCall" and (does := _does(part)):
            for start in sorted(_constants(part.get("args", [])) & set(starts)):
                yield start, f"is given to {called(part)}, which {does}"
        elif name in _SETTINGS and "." not in part.get("name", ""):
            for start in sorted(_constants(part.get("args", [])) & set(starts)):
                yield start, "sets a setting of the server"


def functions_given(tree: Tree, starts: Collection[int]) -> set[str]:
    """Return the functions that are given any of the texts at `starts`, without their schemas."""
    calls = [part for name, part in nodes(tree) if name == "FuncCall"]
    return {called(call).rpartition(".")[2] for call in calls if _constants(call.get("args", [])) & set(starts)}


def _does(call: Tree) -> str | None:
    """Return what a function does with the texts that it is given, if it does more than compute."""
    name = called(call).rpartition(".")[2]
    if name == "set_config":
        first = call.get("args", [{}])[0].get("A_Const", {}).get("sval", {}).get("sval", "")
        return None if "." in first else "sets a setting of the server"
    runs = name in _RUNNING or (name == "ts_rewrite" and len(call.get("args", ())) == _ARGUMENTS_WITH_QUERY)
    return "runs it, or takes it for a file or a server" if runs else None


def _constants(tree: Tree) -> set[int]:
    """Return where the constants in the expressions of a tree begin."""
    return {part.get("location", 0) for name, part in nodes([tree]) if name == "A_Const"}
