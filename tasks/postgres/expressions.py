"""SQL that a person wrote in YAML, judged by the server's own grammar: one expression, or one query.

Such a text comes in pieces of plain text, with a value between each two: `("day > ", " - 1")` is `day > {{ … }} - 1`.
What is judged is what the server will read, before the values are known and again with them in: each must be one
literal of its own. Opens no connection.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from tasks.postgres.calls import (
    Call,
    Place,
    UnknownFunctionsError,
    calls_of,
    catalogue_tables,
    clock_reads,
    placed,
    tables_of,
    unknown,
)
from tasks.postgres.functions import harmless
from tasks.postgres.grammar import (
    COMMENTS,
    Parsed,
    SyntaxProblem,
    Token,
    Tree,
    nodes,
    parsed,
    require_shallow,
    same,
    statements,
    tokens,
)
from tasks.postgres.literals import array, braceless, literal

Pieces: TypeAlias = tuple[str, ...]

PLACEHOLDER, BATCH = "{batch}", "__batch__"
"""What stands for the rows under test in a query, and the name of the table with which it is read."""

_OF_EXPRESSIONS = frozenset(
    {
        "A_ArrayExpr", "A_Const", "A_Expr", "A_Indices", "A_Indirection", "BoolExpr", "BooleanTest", "CaseExpr",
        "CaseWhen", "CoalesceExpr", "CollateClause", "ColumnRef", "FuncCall", "Integer", "JsonArgument", "JsonArrayAgg",
        "JsonArrayConstructor", "JsonFuncExpr", "JsonIsPredicate", "JsonKeyValue", "JsonObjectAgg",
        "JsonObjectConstructor", "JsonParseExpr", "JsonScalarExpr", "JsonSerializeExpr", "JsonValueExpr", "List",
        "MinMaxExpr", "NamedArgExpr", "NullTest", "ParamRef", "ResTarget", "RowExpr", "SQLValueFunction", "SortBy",
        "String", "TypeCast", "XmlExpr", "XmlSerialize",
    }
)  # fmt: skip
"""The nodes of an expression over the row's columns."""

_OF_QUERIES = _OF_EXPRESSIONS | frozenset(
    {
        "A_Star", "ColumnDef", "CommonTableExpr", "GroupingFunc", "GroupingSet", "JoinExpr", "JsonTable",
        "JsonTableColumn", "RangeFunction", "RangeSubselect", "RangeTableFunc", "RangeTableFuncCol", "RangeTableSample",
        "RangeVar", "SelectStmt", "SubLink", "WindowDef",
    }
)  # fmt: skip
"""The nodes of a query that changes nothing."""

_SHOWN: Mapping[str, str] = {
    "A_Star": "*",
    "GroupingFunc": "GROUPING",
    "IntoClause": "INTO",
    "JsonArrayQueryConstructor": "SELECT",
    "LockingClause": "FOR UPDATE",
    "SetToDefault": "DEFAULT",
    "SubLink": "SELECT",
    "VariableSetStmt": "SET",
    "distinctClause": "DISTINCT",
    "fromClause": "FROM",
    "groupClause": "GROUP BY",
    "intoClause": "INTO",
    "larg": "UNION, INTERSECT or EXCEPT",
    "limitCount": "LIMIT",
    "lockingClause": "FOR UPDATE",
    "sortClause": "ORDER BY",
}
"""What a person calls a node or a clause; any other is called by its own name."""

_QUOTED = frozenset({"SCONST", "USCONST", "BCONST", "XCONST"})
_AS_PLACES = ("groupClause", "distinctClause")
"""Where a number is not a number, but the place of a column."""


class QuotedValueError(ValueError):
    """A value is in quotes."""

    def __init__(self) -> None:
        super().__init__("the template is in quotes, but its value is inserted as a quoted literal")


@dataclass(frozen=True, slots=True)
class _Read:
    """A text as Postgres reads it, with `$1`, `$2`, … for its values."""

    tree: Tree
    pieces: Pieces
    """With `(` and `)` around a value that follows IN."""
    calls: tuple[Call, ...]
    listed: frozenset[int]
    """The values that are items of a list after IN."""
    clocks: tuple[Call, ...]
    """What depends on when it runs."""


def check_expression(pieces: Pieces, functions: frozenset[str] | None = frozenset()) -> None:
    """Raise ValueError unless the text is one expression over a row's columns, whatever its values will be.

    It may call Postgres' harmless functions and those named in `functions`; with None, any.
    """
    read = _expression(pieces)
    if functions is not None:
        _require_known(read, harmless().of_values, functions)


def check_query(pieces: Pieces, functions: frozenset[str] | None = frozenset()) -> Tree:
    """Return the tree of one SELECT that changes nothing, whatever its values will be; else raise ValueError.

    `{batch}` in it is the table BATCH. It may also call functions that return rows.
    """
    read = _query(pieces)
    if functions is not None:
        _require_known(read, harmless().of_values, harmless().of_rows, functions)
    return read.tree


def clocks_in_expression(pieces: Pieces) -> tuple[Call, ...]:
    """Return what in an expression depends on when it runs, rather than on its values; raise ValueError."""
    return _expression(pieces).clocks


def clocks_in_query(pieces: Pieces) -> tuple[Call, ...]:
    """Return what in a query depends on when it runs, rather than on its values; raise ValueError."""
    return _query(pieces).clocks


def tables_read(pieces: Pieces, schema: str) -> set[str]:
    """Return the tables that a query reads, as `schema.table`; one without a schema is taken for one of `schema`."""
    tree = check_query(pieces, None)
    return {f"{own or schema}.{table}" for own, table in tables_of(tree)} - {f"{schema}.{BATCH}"}


def filled_expression(pieces: Pieces, values: Sequence[object]) -> str:
    """Return the text with `values` in it, each as one literal; raise ValueError if it cannot be."""
    read = _expression(pieces)
    return _woven(read.pieces, _literals(read, values, _literal, _in_parentheses))


def filled_query(pieces: Pieces, values: Sequence[object]) -> str:
    """Do the same for a query; no literal has a brace, so every `{batch}` is the author's."""
    read = _query(pieces)
    texts = _literals(read, values, _braceless, str)
    return _woven([piece.replace(BATCH, PLACEHOLDER) for piece in read.pieces], texts)


# --- Values -----------------------------------------------------------------------------------------------------------


def _literals(
    read: _Read, values: Sequence[object], written: Callable[[object], str], framed: Callable[[str], str]
) -> list[str]:
    """Return the text of each value, in parentheses, after reading the whole with them in it."""
    items = {
        number: list(value) if isinstance(value, list | tuple) and number in read.listed else [value]
        for number, value in enumerate(values, start=1)
    }
    if any(not given for given in items.values()):
        raise ValueError("has an empty list after IN, which SQL does not know")
    texts = {number: [written(item) for item in given] for number, given in items.items()}
    shown = [", ".join(f"({one})" for one in given) for given in texts.values()]
    made = statements(framed(_woven(read.pieces, shown)))
    if len(made) != 1 or not same(_expected(read, texts), made[0]):
        raise ValueError("would mean something else with its values in it")
    return shown


def _expected(read: _Read, texts: Mapping[int, list[str]]) -> Tree:
    try:
        return _substituted(read.tree, {number: [_tree_of(one) for one in given] for number, given in texts.items()})
    except RecursionError:
        raise ValueError("is nested too deeply to be checked with its values") from None


def _literal(value: object) -> str:
    return array(value) if isinstance(value, list | tuple) else literal(value)


def _braceless(value: object) -> str:
    if isinstance(value, list | tuple):
        return f"ARRAY[{', '.join(map(_braceless, value))}]" if value else r"E'\x7b\x7d'"
    return braceless(literal(value))


def _tree_of(text: str) -> Tree:
    (statement,) = statements(f"SELECT {text}")
    (target,) = statement["SelectStmt"]["targetList"]
    return target["ResTarget"]["val"]


def _substituted(tree: Tree, values: Mapping[int, list[Tree]]) -> Tree:
    """Return a copy of `tree` with literals for its parameters, as Postgres reads it."""
    if isinstance(tree, list):
        return [made for item in tree for made in values.get(_number(item)) or [_substituted(item, values)]]
    if not isinstance(tree, dict):
        return tree
    if number := _number(tree):
        return values[number][0]
    return _negated({name: _substituted(part, values) for name, part in tree.items()})


def _number(tree: Tree) -> int:
    """Return the number of the parameter that `tree` is, else 0."""
    return int(tree["ParamRef"]["number"]) if isinstance(tree, dict) and "ParamRef" in tree else 0


def _negated(tree: dict[str, Tree]) -> Tree:
    """Return `tree`, or a negative number for a minus before a number: so does Postgres."""
    minus = tree.get("A_Expr", {})
    if minus.get("name") != [{"String": {"sval": "-"}}] or "lexpr" in minus:
        return tree
    constant = minus.get("rexpr", {}).get("A_Const", {})
    if "ival" in constant:
        number = -constant["ival"].get("ival", 0)
        return {"A_Const": {"ival": {"ival": number} if number else {}}}
    if "fval" in constant:
        digits = constant["fval"]["fval"]
        return {"A_Const": {"fval": {"fval": digits.removeprefix("-") if digits.startswith("-") else f"-{digits}"}}}
    return tree


# --- Reading ----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def _expression(pieces: Pieces) -> _Read:
    """Read one expression: as `SELECT …` and as `SELECT (…)`, since the first alone lets `1) + (2` pass."""
    bare, woven = _prepared(pieces, "a SQL expression", comments=False)
    try:
        alone = parsed(f"SELECT {bare}")
    except SyntaxProblem as problem:
        raise _not_an_expression(problem, bare) from None
    found = alone.statements
    _require_only_value(found)
    _require_allowed(alone, _OF_EXPRESSIONS, _ONLY_EXPRESSION)
    _require_same(alone, woven, _in_parentheses)
    return _judged(found[0], _Written(bare, woven, pieces), after=len("SELECT "))


@lru_cache(maxsize=4096)
def _query(pieces: Pieces) -> _Read:
    named = tuple(piece.replace(PLACEHOLDER, BATCH) for piece in pieces)
    _require_batches(_woven(named, _parameters(named)), sum(piece.count(PLACEHOLDER) for piece in pieces))
    bare, woven = _prepared(named, "valid Postgres SQL", comments=True)
    try:
        alone = parsed(bare)
    except SyntaxProblem as problem:
        raise ValueError(f"is not valid Postgres SQL: {_problem(problem)}") from None
    found = alone.statements
    if len(found) != 1 or "SelectStmt" not in found[0]:
        raise ValueError(f"is {_counted(found)}, not one SELECT")
    _require_allowed(alone, _OF_QUERIES, _ONLY_QUERY)
    for table in catalogue_tables(found[0]):
        raise ValueError(f'reads "{table}" of the server itself; {_ONLY_TABLES}')
    _require_same(alone, woven, str)
    return _judged(found[0], _Written(bare, woven, pieces))


def _require_same(alone: Parsed, pieces: Pieces, framed: Callable[[str], str]) -> None:
    """Raise ValueError if the text means anything else with parentheses around it and its values."""
    try:
        is_same = parsed(framed(_woven(pieces, _parameters(pieces, "(${})")))).meaning == alone.meaning
    except SyntaxProblem:
        is_same = False
    if not is_same:
        raise ValueError(_NOT_A_VALUE if len(pieces) > 1 else _NOT_ALONE)


_ONLY_QUERY = "the query must not change anything"
_ONLY_TABLES = "a query reads the batch, and tables and views that people made"
_ONLY_EXPRESSION = "only an expression over the row's columns is allowed"
_NOT_ALONE = "means something else in parentheses than alone"
_NOT_A_VALUE = (
    "has a value where SQL wants a word or a constant; write {{ … }}::date instead of DATE {{ … }}, and "
    "{{ … }}::interval instead of INTERVAL {{ … }}"
)


def _in_parentheses(text: str) -> str:
    return f"SELECT ({text}\n)"


def _parameters(pieces: Pieces, form: str = "${}") -> list[str]:
    return [form.format(number) for number in range(1, len(pieces))]


def _woven(pieces: Sequence[str], values: Sequence[str]) -> str:
    between = [f"{value}{piece}" for value, piece in zip(values, pieces[1:], strict=True)]
    return pieces[0] + "".join(between)


def _scanned(text: str, what: str) -> list[Token]:
    try:
        found = tokens(text)
        require_shallow(found)
    except SyntaxProblem as problem:
        raise ValueError(f"is not {what}: {_problem(problem)}") from None
    return found


def _prepared(pieces: Pieces, what: str, *, comments: bool) -> tuple[str, Pieces]:
    """Return the text with `$1`, … for its values, and its pieces; raise ValueError for tokens that are not allowed."""
    names = _parameters(pieces)
    bare = _woven(pieces, names)
    found = _scanned(bare, what)
    if not comments and any(token.kind in COMMENTS for token in found):
        raise ValueError("contains a comment; write it in YAML, after #")
    starts = {token.start: place for place, token in enumerate(found)}
    woven = list(pieces)
    end = 0
    for number, name in enumerate(names, start=1):
        start = end + len(pieces[number - 1])
        end = start + len(name)
        place = starts.get(start)
        if place is None or found[place] != Token("PARAM", start, end) or _joins(bare[end : end + 1]):
            raise _glued(bare, found, start)
        if place and found[place - 1].kind == "IN_P":
            woven[number - 1] += "("
            woven[number] = ")" + woven[number]
    if sum(token.kind == "PARAM" for token in found) > len(names):
        raise ValueError("contains a $ with a number, but a value is written {{ … }}")
    return (bare, pieces) if tuple(woven) == pieces else (_woven(woven, names), tuple(woven))


def _require_batches(text: str, count: int) -> None:
    """Raise ValueError unless each `{batch}` is a word of its own: the library replaces it wherever it stands."""
    found = _scanned(text, "valid Postgres SQL")
    if count != sum(text[token.start : token.end] == BATCH for token in found):
        raise ValueError(f"has {PLACEHOLDER} inside quotes or a comment, or right beside a word")


def _joins(sign: str) -> bool:
    """Return whether a sign would be read as part of the word before it."""
    return sign.isalnum() or sign in {"_", "$"} or sign > "\x7f"


def _glued(text: str, found: Sequence[Token], start: int) -> ValueError:
    """Return what is wrong with a value that is not a token of its own."""
    around = next((token for token in found if token.start < start < token.end), None)
    if around and (around.kind in _QUOTED or '"' in text[around.start : start]):
        return QuotedValueError()
    if around and around.kind in COMMENTS:
        return ValueError("has a value inside a comment; remove it")
    return ValueError("has a value right beside a word; leave a space before and after {{ … }}")


def _require_only_value(found: Sequence[Tree]) -> None:
    """Raise ValueError unless a text is `SELECT <expression>` and nothing else."""
    if len(found) != 1:
        raise ValueError(f"contains {len(found)} SQL statements, not one expression")
    select = found[0]["SelectStmt"]
    for clause in sorted(select.keys() - {"targetList", "limitOption", "op", "rarg", "all"}):
        raise _refused(clause, _ONLY_EXPRESSION)
    targets = select.get("targetList", ())
    if len(targets) != 1:
        raise ValueError(f"contains {len(targets) or 'no'} expressions, not one")
    if "name" in targets[0]["ResTarget"]:
        raise _refused("AS", _ONLY_EXPRESSION)


def _require_allowed(alone: Parsed, allowed: frozenset[str], only: str) -> None:
    for name in sorted(alone.nodes - allowed - {"SelectStmt"}, key=lambda name: (name not in _SHOWN, name)):
        raise _refused(name, only)


def _refused(name: str, only: str) -> ValueError:
    shown = _SHOWN.get(name, name.removesuffix("Stmt").removesuffix("Clause").upper())
    return ValueError(f"contains {shown}, but {only}")


def _judged(tree: Tree, written: _Written, *, after: int = 0) -> _Read:
    """Return what a tree calls and where its values are; raise ValueError for a place that is not allowed."""
    numbers: list[int] = []
    listed: set[int] = set()
    for name, part in nodes(tree):
        if name == "ParamRef":
            numbers.append(part.get("number", 0))
        elif name == "A_Expr" and part["kind"] == "AEXPR_IN" and "List" in part["rexpr"]:
            listed.update(filter(None, map(_number, part["rexpr"]["List"]["items"])))
        elif name in ("intoClause", "lockingClause"):
            raise _refused(name, _ONLY_QUERY)
        elif (name in _AS_PLACES and any(map(_number, part))) or (name == "SortBy" and _number(part["node"])):
            raise ValueError("sorts or groups by a value, which SQL reads as the place of a column; name the column")
    if sorted(numbers) != list(range(1, len(written.pieces))):
        raise ValueError(_NOT_A_VALUE)
    calls = [placed(call, written.place(call, call.location - after)) for call in calls_of(tree)]
    clocks = [placed(call, written.place(call, call.location - after)) for call in clock_reads(tree)]
    return _Read(tree, written.pieces, tuple(calls), frozenset(listed), tuple(clocks))


@dataclass(frozen=True, slots=True)
class _Written:
    """A text as it is read, `bare`, and the pieces of it, beside those that a person wrote."""

    bare: str
    pieces: Pieces
    own: Pieces

    def place(self, call: Call, location: int) -> Place:
        """Return where a call is in `own`, which has no parentheses after IN and another word for the batch."""
        start = len(self.bare.encode()[:location].decode(errors="replace"))
        word = call.name.rpartition(".")[2] if call.is_field else call.name.partition(".")[0]
        start = max(self.bare.find(word, start), start)
        for number, (piece, own) in enumerate(zip(self.pieces, self.own, strict=True)):
            if start <= len(piece):
                added = piece.startswith(")" + own.replace(PLACEHOLDER, BATCH))
                longer = len(BATCH) - len(PLACEHOLDER)
                return number, start - added - longer * piece[:start].count(BATCH)
            start -= len(piece) + len(f"${number + 1}")
        return len(self.own) - 1, 0


def _require_known(read: _Read, *allowed: frozenset[str]) -> None:
    if refused := unknown(read.calls, *allowed):
        raise UnknownFunctionsError(refused, frozenset().union(*allowed))


def _not_an_expression(problem: SyntaxProblem, text: str) -> ValueError:
    """Return what a text is instead of an expression, or the server's message."""
    with suppress(SyntaxProblem):
        found = statements(text)
        if len(found) > 1:
            return ValueError(f"contains {len(found)} SQL statements, not one expression")
        for name in found[0] if found else ():
            return _refused(name, _ONLY_EXPRESSION)
    return ValueError(f"is not a SQL expression: {_problem(problem)}")


def _problem(problem: SyntaxProblem) -> str:
    """Return the server's message in the words of the spec."""
    return re.sub(r"\$\d+", "{{ … }}", str(problem))


def _counted(found: Sequence[Tree]) -> str:
    if len(found) != 1:
        return f"{len(found)} SQL statements"
    (name,) = found[0]
    return f"a {name.removesuffix('Stmt').upper()} statement"
