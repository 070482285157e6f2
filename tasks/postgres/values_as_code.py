"""Where a value of a step would be more than a value: code, a path, a name, the address of a server.

A quoted literal is a value only inside of an expression. `DO %(v)s` runs it, CREATE FUNCTION keeps it as a body, and
some functions run the text that they are given.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from tasks.postgres.calls import called
from tasks.postgres.grammar import Tree, nodes

_RUNNING = re.compile(
    r"query_to_xml|ts_stat$|ts_rewrite$|dblink|crosstab|connectby$|xpath_table$"
    r"|pg_read_|pg_ls_|pg_stat_file$|pg_file_|lo_import$|lo_export$"
)
"""Functions of Postgres and its extensions that run a text as SQL, or take it for a file or the address of a server."""
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


def _does(call: Tree) -> str | None:
    """Return what a function does with the texts that it is given, if it does more than compute."""
    name = called(call).rpartition(".")[2]
    if name == "set_config":
        first = call.get("args", [{}])[0].get("A_Const", {}).get("sval", {}).get("sval", "")
        return None if "." in first else "sets a setting of the server"
    return "runs it, or takes it for a file or a server" if _RUNNING.match(name) else None


def _constants(tree: Tree) -> set[int]:
    """Return where the constants in the expressions of a tree begin."""
    return {part.get("location", 0) for name, part in nodes([tree]) if name == "A_Const"}
