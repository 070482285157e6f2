"""The tables that statements define: their columns, as far as the text says.

Opens no connection: what a table of that name has, where it was there before, only the server knows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from tasks.postgres.grammar import SyntaxProblem, Tree, nodes, parsed, require_shallow, tokens


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a table, in order."""

    names: tuple[str, ...]
    computed: frozenset[str] = field(default_factory=frozenset)
    """Those that only the server fills: computed from others, or numbers of its own."""


def tables_of(text: str) -> dict[str, Columns | None]:
    """Return the tables that statements without values define, by `schema.table`; None if the text does not say all.

    A text that cannot be read defines none.
    """
    found: dict[str, Columns | None] = {}
    try:
        require_shallow(tokens(text))
        trees = parsed(text).statements
    except SyntaxProblem:
        return {}
    for tree in trees:
        for table, columns in _defined(tree):
            found[table] = None if table in found else columns
    return found


def _defined(tree: Tree) -> Iterator[tuple[str, Columns | None]]:
    """Yield each table that a statement defines or changes: a change makes it one that the text does not say."""
    if "CreateStmt" in tree:
        if tree["CreateStmt"]["relation"].get("relpersistence") == "t":
            return
        yield _name(tree["CreateStmt"]["relation"]), _columns(tree["CreateStmt"])
    elif not any(kind in tree for kind in _HARMLESS):
        for kind, node in nodes(tree):
            if kind in ("relation", "rel") and isinstance(node, dict) and "relname" in node:
                yield _name(node), None


_HARMLESS = ("IndexStmt", "InsertStmt", "UpdateStmt", "DeleteStmt", "CommentStmt", "GrantStmt", "VacuumStmt")
"""Statements that name a table and leave its columns as they are."""


def _name(relation: Tree) -> str:
    return f"{relation.get('schemaname', 'public')}.{relation['relname']}"


def _columns(statement: Tree) -> Columns | None:
    elements = statement.get("tableElts", ())
    if any(kind not in ("ColumnDef", "Constraint") for one in elements for kind in one):
        return None  # LIKE
    if statement.get("inhRelations") or statement.get("ofTypename"):
        return None
    columns = [one["ColumnDef"] for one in elements if "ColumnDef" in one]
    computed = frozenset(one["colname"] for one in columns if _is_computed(one))
    return Columns(tuple(one["colname"] for one in columns), computed)


def _is_computed(column: Tree) -> bool:
    constraints = [one["Constraint"] for one in column.get("constraints", ())]
    return any(
        one["contype"] == "CONSTR_GENERATED" or (one["contype"] == "CONSTR_IDENTITY" and one["generated_when"] == "a")
        for one in constraints
    )
