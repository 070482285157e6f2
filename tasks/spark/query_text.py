"""The text of a query for Spark: its values, the views that it reads, what it may not do, its columns.

Reads Spark's SQL with sqlglot, since lint has no Spark; `tasks.spark.queries` asks Spark itself before a query runs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from tasks.names import nearest
from tasks.sql_files import FileProblem

if TYPE_CHECKING:
    from sqlglot.expressions import Expr

RUNNING_CODE = frozenset({"java_method", "reflect", "try_reflect"})
"""Functions that call any method of Java."""
READING_FILES = frozenset({"from_protobuf", "to_protobuf", "python_worker_logs"})
"""Functions that read files besides the step's own: descriptions of messages, and logs."""
MAX_COMPARED = 100
"""The maximum number of unknown views that are compared with the known ones, which takes time."""
ANY_NAME = "identifier"
"""The function whose text becomes a name, of a table or of a function."""

_PARAMETER = re.compile(
    r"""
    # Where a colon is only a colon; what is not closed ends with the text, so that no sign is looked at twice.
    '(?:[^'\\]|\\.)*+(?:'|\\?\Z) | "(?:[^"\\]|\\.)*+(?:"|\\?\Z) | `[^`]*+(?:`|\Z) | --[^\n]*+ | /\*.*?(?:\*/|\Z)
    | (?<![:\w)\]]) : (?P<name>[A-Za-z_]\w*)
    """,
    re.DOTALL | re.VERBOSE,
)
NOT_LISTED = "which is not among the functions that SQL for Spark may call"
_CODE = "SQL in configs/ reads the step's files and nothing else"


def query_problems(
    text: str, values: Collection[str] | None, views: Collection[str] | None, functions: frozenset[str] = frozenset()
) -> list[FileProblem]:
    """Return what keeps a text from being one query over `views` with `values` bound in it; None is not known.

    It may call Spark's harmless functions and those named in `functions`.
    """
    return [*(() if values is None else value_problems(text, values)), *_query_problems(text, views, functions)]


@cache
def harmless() -> frozenset[str]:
    """Return Spark's own functions that only compute; a test compares them with Spark's."""
    return frozenset(json.loads(resources.files("tasks.spark").joinpath("functions.json").read_text(encoding="utf-8")))


def unused(text: str, values: Collection[str]) -> list[str]:
    """Return the names of `values` that the text does not use, sorted."""
    return sorted(set(values) - {parameter["name"] for parameter in _PARAMETER.finditer(text)})


def columns_of(text: str) -> frozenset[str]:
    """Return the names of the result's columns; none if the text does not say, as with `SELECT *`."""
    from sqlglot import exp

    trees, _ = _read(text)
    query = trees[0] if len(trees) == 1 else None
    return frozenset() if not isinstance(query, exp.Query) or query.is_star else frozenset(query.named_selects)


def value_problems(text: str, values: Collection[str]) -> Iterator[FileProblem]:
    """Yield each `:name` in the text that `values` does not have."""
    given = ", ".join(sorted(values)) or "none"
    for parameter in _PARAMETER.finditer(text):
        if parameter["name"] and parameter["name"] not in values:
            message, hint = f":{parameter['name']} has no value", f"`values` of the step has {given}"
            yield FileProblem(message, hint, *parameter.span(), "unbound-value")


def _read(text: str) -> tuple[list[Expr], FileProblem | None]:
    import sqlglot
    from sqlglot.errors import ErrorLevel, SqlglotError

    try:
        made = sqlglot.parse(text, dialect="spark", error_level=ErrorLevel.IMMEDIATE)
    except SqlglotError as error:
        return [], _unreadable(text, error)
    except RecursionError:
        problem = FileProblem("has too many parts inside each other", "split it", 0, len(text.partition("\n")[0]))
        return [], problem
    except (IndexError, KeyError, TypeError, ValueError) as error:  # of sqlglot itself, for some texts
        return [], FileProblem(f"cannot be read: {error}", "correct the query", 0, len(text.partition("\n")[0]))
    return [tree for tree in made if tree is not None], None


def _unreadable(text: str, error: Exception) -> FileProblem:
    first = (getattr(error, "errors", None) or [{}])[0]
    lines = text.split("\n")
    line = min(first.get("line") or 1, len(lines))
    end = sum(len(one) + 1 for one in lines[: line - 1]) + min(first.get("col") or 1, len(lines[line - 1]))
    near = str(first.get("highlight") or "")
    reason = str(first.get("description") or "Spark's SQL cannot be read").partition(" but got <Token")[0].rstrip(".")
    return FileProblem(f"cannot be read: {reason} near {near!r}", "correct the query", max(end - len(near), 0), end)


def _query_problems(text: str, views: Collection[str] | None, functions: frozenset[str]) -> Iterator[FileProblem]:
    from sqlglot import exp

    trees, problem = _read(text)
    if problem:
        yield problem
        return
    if len(trees) != 1 or not isinstance(trees[0], exp.Query):
        what = f"{len(trees)} statements" if len(trees) != 1 else f"a {trees[0].key.upper()} statement"
        yield FileProblem(f"the file holds {what}, not one query", "write one SELECT", 0, len(text.partition("\n")[0]))
        return
    yield from _code_problems(text, trees[0], functions)
    if views is not None:
        yield from _view_problems(trees[0], views)


def _code_problems(text: str, query: Expr, functions: frozenset[str]) -> Iterator[FileProblem]:
    from sqlglot import exp

    if (start := text.find("${")) >= 0:
        yield FileProblem("${ is where Spark puts in its settings and the environment", _CODE, start, start + 2)
    if query.find(exp.QueryTransform):
        start, end = _word(text, "TRANSFORM")
        yield FileProblem("TRANSFORM runs a program on the workers", _CODE, start, end)
    for call in query.find_all(exp.Anonymous):
        name = call.name.lower()
        if name in RUNNING_CODE or name == ANY_NAME:
            does = "makes a name of a text" if name == ANY_NAME else "calls a method of Java"
            yield FileProblem(f"{call.name} {does}", _CODE, *_word(text, call.name))
        elif name not in harmless() | functions:
            near = nearest(name, harmless(), cutoff=0.75)
            remedy = f"add {name} to `functions` in configs/defaults.yaml if it is harmless"
            hint = f'did you mean "{near}"? Otherwise {remedy}' if near else remedy
            place = _word(text, call.name)
            yield FileProblem(f'this query calls "{call.name}", {NOT_LISTED}', hint, *place, "unknown-function")


def _view_problems(query: Expr, views: Collection[str]) -> Iterator[FileProblem]:
    from sqlglot import exp

    known = {name.lower() for name in views}
    own = _OwnNames(query)
    compared = 0
    listed = f"the step's views: {', '.join(sorted(views))}"
    for table in query.find_all(exp.Table):
        if not isinstance(table.this, exp.Identifier):
            continue  # a function that returns rows
        if table.db or not (table.name.lower() in known or own.holds(table)):
            shown = ".".join(part.name for part in table.parts)
            compared += 1
            is_compared = not table.db and compared <= MAX_COMPARED
            near = nearest(table.name, [*views, *own.names]) if is_compared else None
            hint = f'did you mean "{near}"?' if near else listed
            meta = table.this.meta
            start, end = meta.get("start", 0), meta.get("end", 0) + 1
            yield FileProblem(f'"{shown}" is not a view of the step', hint, start, end, "unknown-view")


class _OwnNames:
    """The names that a query gives to others in WITH: each counts below its WITH, in what comes after it."""

    def __init__(self, query: Expr) -> None:
        from sqlglot import exp

        self._positions = {
            id(block): {cte.alias.lower(): position for position, cte in reversed(list(enumerate(block.expressions)))}
            for block in query.find_all(exp.With)
        }
        self.names = sorted({name for names in self._positions.values() for name in names})

    def holds(self, table: Expr) -> bool:
        """Return whether `table` is read where its name is one of these."""
        from sqlglot import exp

        name, inner, outer = table.name.lower(), table, table.parent
        while outer is not None:
            if isinstance(outer, exp.With):
                last = (inner.index or 0) - (0 if outer.args.get("recursive") else 1)
                is_here = self._positions[id(outer)].get(name, last + 1) <= last
                outer = outer.parent or outer  # what stands beside the WITH is not around it
            else:
                block = outer.args.get("with_")
                is_here = block is not None and name in self._positions[id(block)]
            if is_here:
                return True
            inner, outer = outer, outer.parent
        return False


def _word(text: str, word: str) -> tuple[int, int]:
    found = re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE)
    return found.span() if found else (0, 0)
