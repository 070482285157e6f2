"""What a SQL text calls and reads, by the tree that Postgres' parser makes of it, and what of that is refused."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from tasks.names import nearest
from tasks.postgres.functions import catalogue, harmless
from tasks.postgres.grammar import Tree, nodes

Place: TypeAlias = tuple[int, int]
"""Of the pieces of a text between its values, the number of one, and an index in it."""


@dataclass(frozen=True, slots=True)
class Call:
    """A function by its name, or a field of a composite value: Postgres reads `(x).f` as `f(x)` if x has no field f."""

    name: str
    location: int
    """Where it is in the text that was parsed, in bytes."""
    is_field: bool = False
    place: Place | None = None

    @property
    def problem(self) -> str:
        """What is wrong with it if it is not known to be harmless."""
        if self.is_field:
            return f'selects ".{self.name}", which Postgres also reads as a call of a function "{self.name}"'
        return f'calls "{self.name}", which is not among the functions that SQL in a spec may call'

    def hint(self, allowed: Collection[str]) -> str:
        """Return what to write instead; comparing the name with those of all functions takes time."""
        near = None if self.is_field else nearest(self.name, allowed, cutoff=0.75)
        remedy = f"add {self.name} to `functions` in configs/defaults.yaml if it is harmless"
        return f'did you mean "{near}"? Otherwise {remedy}' if near else remedy


class UnknownFunctionsError(ValueError):
    """Calls of functions that are not known to be harmless, in the order of the text."""

    def __init__(self, calls: Sequence[Call], allowed: Collection[str]) -> None:
        super().__init__("; it ".join(dict.fromkeys(call.problem for call in calls)))
        self.calls = tuple(calls)
        self.allowed = allowed


def calls_of(tree: Tree) -> list[Call]:
    """Return the calls in a tree, in the order of the text, with the fields that may be calls."""
    found = [call for name, part in nodes(tree) for call in _calls(name, part)]
    return sorted(dict.fromkeys(found), key=lambda call: call.location)


_CLOCK_FUNCTIONS = {"now", "clock_timestamp", "statement_timestamp", "transaction_timestamp", "timeofday"}
_CLOCK_WORDS = {"now", "today", "tomorrow", "yesterday"}


def clock_reads(tree: Tree) -> list[Call]:
    """Return what in a tree depends on when it runs: CURRENT_DATE and its kin, now(), 'today'::date, age(x)."""
    found = [Call(word, location) for name, part in nodes(tree) for word, location in _clock_words(name, part)]
    return sorted(found, key=lambda call: call.location)


def _clock_words(name: str, part: Tree) -> Iterator[tuple[str, int]]:
    if name == "SQLValueFunction" and ("TIME" in part["op"] or "DATE" in part["op"]):
        yield part["op"].removeprefix("SVFOP_").removesuffix("_N"), part.get("location", 0)
    elif name == "FuncCall" and _asks_the_clock(called(part), len(part.get("args", ()))):
        yield called(part), part.get("location", 0)
    elif name == "TypeCast":
        constant = part["arg"].get("A_Const", {})
        word = constant.get("sval", {}).get("sval", "") if isinstance(constant.get("sval"), dict) else ""
        if word.strip().lower() in _CLOCK_WORDS:
            yield f"'{word}'", constant.get("location", 0)


def _asks_the_clock(function: str, arguments: int) -> bool:
    return function in _CLOCK_FUNCTIONS or (function, arguments) == ("age", 1)


def unknown(calls: Sequence[Call], *allowed: frozenset[str]) -> list[Call]:
    """Return the calls of functions that are not allowed."""
    return [call for call in calls if not any(call.name in names for names in allowed)]


def placed(call: Call, place: Place) -> Call:
    """Return a call with its place in the pieces of a text."""
    return replace(call, place=place)


def tables_of(tree: Tree) -> list[tuple[str, str]]:
    """Return the tables that a tree names, each with its schema, or none: not the names of its WITH clauses."""
    found: list[tuple[str, str]] = []
    parts: list[tuple[str, Tree, frozenset[str]]] = [("", tree, frozenset())]
    while parts:
        kind, part, bound = parts.pop()
        if kind == "RangeVar" and (part.get("schemaname") or part["relname"] not in bound):
            found.append((part.get("schemaname", ""), part["relname"]))
        elif isinstance(part, list):
            parts += [("", one, bound) for one in part if isinstance(one, dict | list)]
        elif isinstance(part, dict):
            inside, bound = _with_queries(part.get("withClause", {}), bound)
            rest = [one for one in part.items() if one[0] != "withClause" and isinstance(one[1], dict | list)]
            parts += [*inside, *((name, one, bound) for name, one in rest)]
    return found


def _with_queries(clause: Tree, bound: frozenset[str]) -> tuple[list[tuple[str, Tree, frozenset[str]]], frozenset[str]]:
    """Return the queries of a WITH clause, each with the names bound in it, and those bound in the statement."""
    expressions = [one["CommonTableExpr"] for one in clause.get("ctes", ())]
    every = bound | {one["ctename"] for one in expressions}
    queries = []
    for one in expressions:  # without RECURSIVE a query sees the names before its own, and not its own
        queries.append(("", one["ctequery"], every if clause.get("recursive") else bound))
        bound |= {one["ctename"]}
    return queries, every


_SERVERS_SCHEMA = "information_schema"
_SERVERS_PREFIX = "pg_"
_SHARED_EVERYWHERE = frozenset({"pg_buffercache", "pg_stat_statements", "pg_stat_statements_info"})
"""Views of extensions that show what other people do, in whatever schema they are."""


def catalogue_tables(tree: Tree) -> list[str]:
    """Return the tables in a tree that belong to the server: its catalogue has the logins, and what others run."""
    return [".".join(filter(None, (schema, table))) for schema, table in tables_of(tree) if _is_servers(schema, table)]


def _is_servers(schema: str, table: str) -> bool:
    if table in _SHARED_EVERYWHERE:
        return True
    if schema:  # nobody else can make a schema with this prefix
        return schema.startswith(_SERVERS_PREFIX) or schema == _SERVERS_SCHEMA
    return table in catalogue()  # the server looks there first, whatever the search_path


def doubtful_tables(tree: Tree) -> list[str]:
    """Return the tables without a schema that a later release may have in its catalogue: there the server tells."""
    return [table for schema, table in tables_of(tree) if not schema and table.startswith(_SERVERS_PREFIX)]


def _calls(name: str, part: Tree) -> Iterator[Call]:
    if name == "FuncCall":
        yield Call(called(part), part.get("location", 0))
    elif name == "ColumnRef":
        words = _words(part["fields"])
        if len(words) > 1 and words[-1] in harmless().of_one:
            yield Call(words[-1], part.get("location", 0), is_field=True)
    elif name == "A_Indirection":
        start = min((one["location"] for _, one in nodes(part["arg"]) if _is_placed(one)), default=0)
        for field in _words(part["indirection"]):
            yield Call(field, start, is_field=True)


def _is_placed(part: Tree) -> bool:
    return isinstance(part, dict) and "location" in part


def _words(parts: Sequence[Tree]) -> list[str]:
    return [item["String"]["sval"] for item in parts if "String" in item]


def called(call: Tree) -> str:
    """Return the name of the function of a FuncCall, without the schema of Postgres' own."""
    words = _words(call["funcname"])
    return ".".join(words[1:] if words[0] == "pg_catalog" and len(words) > 1 else words)
