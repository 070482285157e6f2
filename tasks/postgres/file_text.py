"""The text of a SQL file for Postgres: its statements, the values bound in it, the columns that a query returns.

The driver puts values in by itself, wherever `%(name)s` stands, even inside quotes or a comment: so where it stands is
checked here. Opens no connection.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter, itemgetter
from typing import Final, TypeAlias

from tasks.postgres.calls import calls_of, catalogue_tables, unknown
from tasks.postgres.functions import harmless
from tasks.postgres.grammar import (
    COMMENTS,
    SEMICOLON,
    SyntaxProblem,
    Token,
    Tree,
    nodes,
    parsed,
    require_shallow,
    tokens,
)
from tasks.postgres.values_as_code import functions_given, misuses
from tasks.sql_files import FileProblem

ANY: Final = object()
"""A value that is not known yet."""


@dataclass(frozen=True, slots=True)
class Read:
    """A statement of a file: its extent, its tree, and the text that was read, with a literal for each value."""

    start: int
    end: int
    tree: Tree
    text: str

    def byte(self, place: int) -> int:
        """Return where a place in the file is in the parsed text, whose bytes the tree counts."""
        return len(self.text[: place - self.start].encode())

    def place(self, byte: int) -> int:
        """Return where a place in the parsed text is in the file."""
        return self.start + len(self.text.encode()[:byte].decode(errors="replace"))


Refused: TypeAlias = Callable[[list[Read]], Iterator[FileProblem]]
"""What a file may not hold: from its statements to problems."""

_PLACEHOLDER = re.compile(r"%(?P<form>%|\((?P<name>\w+)\)s|)")
_CORRECT = "correct the statement"


def statement_problems(text: str, values: Mapping[str, object]) -> list[FileProblem]:
    """Return what keeps a file from being run in one transaction with `values` bound in it."""
    return _all_problems(text, values, _refused_statements)


def query_problems(
    text: str, values: Mapping[str, object], functions: frozenset[str] | None = frozenset()
) -> list[FileProblem]:
    """Return what keeps a file from being one SELECT that changes nothing, with `values` bound in it.

    It may call Postgres' harmless functions and those named in `functions`; with None, any.
    """
    return _all_problems(text, values, partial(_refused_queries, functions=functions))


def columns_of(text: str, values: Mapping[str, object]) -> frozenset[str]:
    """Return the names of the columns of a query's result; none if the text does not say."""
    written = _Text.of(text, values)
    try:
        found = [tree for statement in written.statements() for tree, _ in _read(written, *statement)[0]]
    except SyntaxProblem:
        return frozenset()
    if len(found) != 1 or "SelectStmt" not in found[0]:
        return frozenset()
    return frozenset(_result(found[0]["SelectStmt"]) or ())


def _all_problems(text: str, values: Mapping[str, object], refused: Refused) -> list[FileProblem]:
    wrong = list(_value_problems(text, values))
    meant = values or dict.fromkeys(names(text) if wrong else (), ANY)
    return [*wrong, *_problems(_Text.of(text, meant), refused)]


# --- Values -----------------------------------------------------------------------------------------------------------


def _value_problems(text: str, values: Mapping[str, object]) -> Iterator[FileProblem]:
    starts = None if values else _starts(text)  # without values the driver leaves every % alone
    given = ", ".join(sorted(values)) or "none"
    for placeholder in _PLACEHOLDER.finditer(text):
        if starts is not None and placeholder.start() not in starts:
            continue
        start, end, name = placeholder.start(), placeholder.end(), placeholder["name"]
        if name and name not in values:
            message = f"%({name})s has no value"
            yield FileProblem(message, f"`values` of the step has {given}", start, end, "unbound-value")
        elif values and not placeholder["form"]:
            message = "with `values`, a plain % is written %%, and a value %(name)s"
            yield FileProblem(message, "double it", start, end)


def _starts(text: str) -> set[int]:
    try:
        return {token.start for token in tokens(text)}
    except SyntaxProblem:  # reported with the statements
        return set()


def names(text: str) -> list[str]:
    """Return the names that are written as `%(name)s`."""
    return [one["name"] for one in _PLACEHOLDER.finditer(text) if one["name"]]


def unused(text: str, values: Mapping[str, object]) -> list[str]:
    """Return the names of `values` that the file does not use, sorted."""
    return sorted(set(values) - {placeholder["name"] for placeholder in _PLACEHOLDER.finditer(text)})


@dataclass(frozen=True, slots=True)
class _Text:
    """A file with something of the same length for each `%(name)s`."""

    text: str
    places: tuple[tuple[int, int, object], ...]
    """Where values stand, and the value."""

    @classmethod
    def of(cls, text: str, values: Mapping[str, object]) -> _Text:
        if not values:
            return cls(text, ())
        found = [one for one in _PLACEHOLDER.finditer(text) if one["name"]]
        places = tuple((one.start(), one.end(), values.get(one["name"], ANY)) for one in found)
        return cls(_PLACEHOLDER.sub(lambda one: one[0] if one["name"] else one[0].replace("%%", "% "), text), places)

    @property
    def quoted(self) -> str:
        """The text with a quoted literal of the same length for each value."""
        return replace(self, places=tuple((start, end, ANY) for start, end, _ in self.places)).filled("''")

    def filled(self, unknown: str) -> str:
        """Return the text with a literal for each value; `unknown` for one that is not known."""
        pieces, last = [], 0
        for start, end, value in self.places:
            literal = unknown if value is ANY else _stand_in(value)
            pieces += [self.text[last:start], _padded(literal, end - start)]
            last = end
        return "".join([*pieces, self.text[last:]])

    def without(self, starts: set[int]) -> _Text:
        """Return the text with spaces for the values that begin at `starts`."""
        pieces, last = [], 0
        for start, end, _ in self.places:
            if start in starts:
                pieces += [self.text[last:start], " " * (end - start)]
                last = end
        kept = tuple(place for place in self.places if place[0] not in starts)
        return _Text("".join([*pieces, self.text[last:]]), kept)

    def part(self, start: int, end: int) -> _Text:
        """Return the text from `start` to `end`, which are not within a value."""
        first, after = (bisect_left(self.places, place, key=itemgetter(0)) for place in (start, end))
        places = tuple((one - start, other - start, value) for one, other, value in self.places[first:after])
        return _Text(self.text[start:end], places)

    def statements(self) -> Iterator[tuple[int, int]]:
        """Yield where each statement begins and ends; raise SyntaxProblem for text without tokens."""
        return _cut(tokens(self.quoted))


def _stand_in(value: object) -> str:
    if value is None or isinstance(value, bool):
        return "TRUE"
    return "0" if isinstance(value, int | float) else "''"


def _padded(literal: str, length: int) -> str:
    """Return a literal of `length` characters: spaces inside of quotes, or after a word."""
    return f"'{' ' * (length - 2)}'" if literal == "''" else literal.ljust(length)


def _cut(found: Sequence[Token]) -> Iterator[tuple[int, int]]:
    """Yield the extent of each statement: to a semicolon outside of parentheses and of a body BEGIN ATOMIC … END."""
    depth, start, end, in_body = 0, -1, 0, 0
    for token in found:
        if token.kind in COMMENTS:
            continue
        if token.kind == SEMICOLON and depth == 0 and not in_body:
            if start >= 0:
                yield start, end
            start = -1
            continue
        start, end = token.start if start < 0 else start, token.end
        depth += (token.kind == "ASCII_40") - (token.kind == "ASCII_41")
        if token.kind == "ATOMIC" or (in_body and token.kind == "CASE"):
            in_body += 1
        elif in_body and token.kind == "END_P":
            in_body -= 1
    if start >= 0:
        yield start, end


# --- Statements -------------------------------------------------------------------------------------------------------


def _problems(written: _Text, refused: Refused) -> Iterator[FileProblem]:
    try:
        found = tokens(written.quoted)
    except SyntaxProblem as problem:
        yield FileProblem(f"cannot be read: {problem}", _CORRECT, problem.place, problem.place + 1)
        return
    if misplaced := list(_misplaced(written, found)):
        yield from misplaced
        yield from _problems(written.without({problem.start for problem in misplaced}), refused)
        return
    trees: list[Read] = []
    extents = list(_cut(found))
    if not extents:
        yield FileProblem("the file has no statement", "write the statements to run", 0, 0)
    for start, end in extents:
        made, wrong = _read(written, start, end)
        trees += [Read(start, end, tree, filled) for tree, filled in made]
        if wrong:
            place = min(start + wrong.place, max(end - 1, start))
            yield FileProblem(f"cannot be read: {wrong}", _CORRECT, place, _word_end(written.text, place))
    for read in trees:
        yield from _misused(written, read)
    yield from refused(trees)


def _misused(written: _Text, read: Read) -> Iterator[FileProblem]:
    """Yield texts of the step that would be more than a value; a number or a boolean cannot be."""
    texts = _texts(written, read)
    for byte, reason in misuses(read.tree, texts):
        start, end = texts[byte]
        hint = "a value can only be part of an expression: write the statement out, or branch in the spec"
        yield FileProblem(f"{written.text[start:end]} {reason}", hint, start, end)


def _texts(written: _Text, read: Read) -> dict[int, tuple[int, int]]:
    """Return where the texts of the step are in a statement: in the parsed text, and in the file."""
    first, last = (bisect_left(written.places, place, key=itemgetter(0)) for place in (read.start, read.end))
    places = [(start, end) for start, end, _ in written.places[first:last]]
    return {read.byte(start): (start, end) for start, end in places if read.text[start - read.start] == "'"}


def functions_given_texts(text: str, values: Mapping[str, object]) -> set[str]:
    """Return the functions to which a sound file gives texts of the step."""
    written = _Text.of(text, values)
    reads = [
        Read(start, end, tree, filled)
        for start, end in written.statements()
        for tree, filled in _read(written, start, end)[0]
    ]
    return set().union(*(functions_given(read.tree, _texts(written, read)) for read in reads))


def _misplaced(written: _Text, found: Sequence[Token]) -> Iterator[FileProblem]:
    """Yield values that are not a token of their own: the driver would put them in all the same."""
    extents = {(token.start, token.end) for token in found}
    for start, end, _ in written.places:
        if (start, end) not in extents:
            around = found[max(bisect_right(found, start, key=attrgetter("start")) - 1, 0)]
            name = written.text[start:end]
            if around.start <= start < around.end and around.kind in COMMENTS:
                yield FileProblem(f"{name} is in a comment, which its value could end", "remove it there", start, end)
            else:
                message = f"{name} is in quotes or right beside a word, but its value is inserted as a quoted literal"
                yield FileProblem(message, "remove the quotes, or leave a space", start, end)


def _read(written: _Text, start: int, end: int) -> tuple[list[tuple[Tree, str]], SyntaxProblem | None]:
    """Return the trees of one statement, each with what was read; if it cannot be with any value, the first problem."""
    first, statement = None, written.part(start, end)
    for stand_in in ("''", "0", "TRUE"):
        text = statement.filled(stand_in)
        try:
            require_shallow(tokens(text))
            return [(tree, text) for tree in parsed(text).statements], None
        except SyntaxProblem as problem:
            first = first or problem
    return [], first


_WORD = re.compile(r"\w+|\S")


def _word_end(text: str, start: int) -> int:
    word = _WORD.match(text, start)
    return word.end() if word else start + 1


_ENDING = {"TransactionStmt": "begins or ends a transaction, but the whole file is one"}
_REFUSED = {
    "CopyStmt": "copies from or to a file or a program of the server",
    "LoadStmt": "loads a library into the server",
    "AlterSystemStmt": "changes the settings of the server",
}
_WITHIN = ("TRANS_STMT_SAVEPOINT", "TRANS_STMT_RELEASE", "TRANS_STMT_ROLLBACK_TO")


def _refused_statements(trees: list[Read]) -> Iterator[FileProblem]:
    for read in trees:
        for name, statement in read.tree.items():
            if name == "TransactionStmt" and statement.get("kind") not in _WITHIN:
                yield FileProblem(f"this statement {_ENDING[name]}", "remove it", read.start, read.end)
            elif name in _REFUSED:
                yield FileProblem(f"this statement {_REFUSED[name]}", "move rows with a task", read.start, read.end)


_CHANGING = frozenset({"InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt", "intoClause"})


def _refused_queries(trees: list[Read], functions: frozenset[str] | None) -> Iterator[FileProblem]:
    hint = "write one SELECT"
    for read in trees[:1]:
        if "SelectStmt" not in read.tree or any(name in _CHANGING for name, _ in nodes(read.tree)):
            yield FileProblem("this statement is not a SELECT that only reads", hint, read.start, read.end)
        yield from _unknown_calls(read, functions)
        for table in catalogue_tables(read.tree):
            hint = "read tables and views that people made; one of theirs with this name needs its schema"
            yield FileProblem(f'this statement reads "{table}" of the server itself', hint, read.start, read.end)
    for read in trees[1:]:
        yield FileProblem("a second statement, where one SELECT is expected", hint, read.start, read.end)


def _unknown_calls(read: Read, functions: frozenset[str] | None) -> Iterator[FileProblem]:
    if functions is None:
        return
    allowed = harmless().of_values | harmless().of_rows | functions
    for call in unknown(calls_of(read.tree), allowed):
        start = read.place(call.location)
        yield FileProblem(
            f"this statement {call.problem}", call.hint(allowed), start, start + len(call.name), "unknown-function"
        )


# --- The columns of a result ------------------------------------------------------------------------------------------


def _result(select: Tree) -> list[str] | None:
    """Return the names that Postgres gives to the columns of a SELECT; None if the text does not say."""
    if "larg" in select:
        return _result(select["larg"])
    if "valuesLists" in select:
        return [f"column{number}" for number in range(1, len(select["valuesLists"][0]["List"]["items"]) + 1)]
    named = [_column(target["ResTarget"]) for target in select.get("targetList", ())]
    return None if None in named else [name for name in named if name is not None]


def _column(target: Tree) -> str | None:
    return str(target["name"]) if "name" in target else _named_by(target["val"])


_UNNAMED = "?column?"
_OWN_NAMES = {"CoalesceExpr": "coalesce", "A_ArrayExpr": "array", "RowExpr": "row", "GroupingFunc": "grouping"}


def _named_by(tree: Tree) -> str | None:
    """Return the name of a column without AS; None if it is several columns, or not known here."""
    ((kind, node),) = tree.items()
    if kind == "ColumnRef":
        last = node["fields"][-1]
        return str(last["String"]["sval"]) if "String" in last else None
    if kind == "FuncCall":
        return str(node["funcname"][-1]["String"]["sval"])
    if kind == "TypeCast":
        inner = _named_by(node["arg"])
        return str(node["typeName"]["names"][-1]["String"]["sval"]) if inner == _UNNAMED else inner
    if kind == "CollateClause":
        return _named_by(node["arg"])
    if kind == "A_Indirection":
        fields = [item["String"]["sval"] for item in node["indirection"] if "String" in item]
        stars = any("A_Star" in item for item in node["indirection"])
        return None if stars else str(fields[-1]) if fields else _named_by(node["arg"])
    if kind == "CaseExpr":
        inner = _named_by(node["defresult"]) if "defresult" in node else _UNNAMED
        return "case" if inner == _UNNAMED else inner
    if kind == "MinMaxExpr":
        return "least" if node.get("op") == "IS_LEAST" else "greatest"
    if kind in ("A_Const", "A_Expr", "BoolExpr", "NullTest", "BooleanTest"):
        return _UNNAMED
    return _OWN_NAMES.get(kind)
