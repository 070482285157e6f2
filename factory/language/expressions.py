"""Expressions in templates: from text to a small syntax tree.

Knows the grammar; it refuses to know which names exist and what they mean. Nothing of Python's is evaluated here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from factory.language.tokens import (
    COMPARING,
    CONSTANTS,
    INSTEAD,
    KEYWORDS,
    MAX_DEPTH,
    MAX_NODES,
    NEGATING,
    POWERS,
    TemplateProblem,
    Token,
    tokens,
    too_large,
    unquoted,
)
from factory.language.value_types import MAX_INTEGER


@dataclass(frozen=True, slots=True)
class Literal:
    """A value as it is written."""

    start: int
    end: int
    value: bool | int | float | str | None


@dataclass(frozen=True, slots=True)
class Path:
    """A dotted name, such as `steps.train.files[0]`: its names and indexes."""

    start: int
    end: int
    parts: tuple[str | int, ...]

    def __str__(self) -> str:
        first, *rest = self.parts
        return str(first) + "".join(f"[{one}]" if isinstance(one, int) else f".{one}" for one in rest)


@dataclass(frozen=True, slots=True)
class Part:
    """A field or an item of a computed value, such as `first(steps.a.rows).name`."""

    start: int
    end: int
    value: Node
    part: str | int


@dataclass(frozen=True, slots=True)
class Items:
    """A list, `[a, b]`."""

    start: int
    end: int
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Operation:
    """An operator with one or two operands."""

    start: int
    end: int
    operator: str
    operands: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """`a if b else c`."""

    start: int
    end: int
    condition: Node
    then: Node
    otherwise: Node


@dataclass(frozen=True, slots=True)
class Call:
    """A function, `f(a, b)` or `a | f(b)`; `name_at` is where its name is written."""

    start: int
    end: int
    name: str
    name_at: tuple[int, int]
    arguments: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Method:
    """`a.f(b)`, which the language does not have: it is read to say how to write it right."""

    start: int
    end: int
    value: Node
    name: str
    arguments: tuple[Node, ...]


Node: TypeAlias = Literal | Path | Part | Items | Operation | Choice | Call | Method


def children(node: Node) -> tuple[Node, ...]:
    """Return the parts that a node is made of."""
    if isinstance(node, Operation):
        return node.operands
    if isinstance(node, Items):
        return node.items
    if isinstance(node, Choice):
        return (node.condition, node.then, node.otherwise)
    if isinstance(node, Call):
        return node.arguments
    if isinstance(node, Method):
        return (node.value, *node.arguments)
    return (node.value,) if isinstance(node, Part) else ()


def has_call(node: Node) -> bool:
    """Return whether there is a function in an expression."""
    return isinstance(node, Call) or any(has_call(one) for one in children(node))


# --- the grammar ------------------------------------------------------------------------------------------------------


def parse(text: str, start: int) -> tuple[Node, int]:
    """Return the expression that begins at `start`, after `{{`, and where the text goes on after its `}}`."""
    found, end = tokens(text, start)
    if text.startswith("-", start):
        message = "{{- trims the text in Jinja, but not here"
        raise TemplateProblem(message, "write {{ x }}; for a negative value, {{ -x }}", (start - 2, start + 1))
    return _Parser(text, found).whole(), end


@dataclass
class _Parser:
    """Reads one expression: operators by how tightly they bind, all else by recursive descent."""

    text: str
    tokens: list[Token]
    index: int = 0
    nodes: int = 0
    depths: dict[int, int] = field(default_factory=dict)
    level: int = 0

    @property
    def now(self) -> Token:
        return self.tokens[self.index]

    @property
    def last_end(self) -> int:
        return self.tokens[self.index - 1].end

    def next(self) -> Token:
        token = self.now
        self.index += token.kind != "end"
        return token

    def at(self, *texts: str) -> bool:
        return self.now.kind in ("sign", "word") and self.now.text in texts

    def take(self, *texts: str) -> Token | None:
        return self.next() if self.at(*texts) else None

    def expect(self, sign: str, missing: str) -> None:
        if not self.take(sign):
            raise self.unexpected(f"{missing} is missing")

    def unexpected(self, message: str) -> TemplateProblem:
        token = self.now
        shown = "the expression ends" if token.kind == "end" else f"{token.text} comes"
        return TemplateProblem(f"{message}: {shown} instead", INSTEAD.get(token.text), (token.start, token.end))

    def made(self, node: Node) -> Node:
        """Return `node`, counted; refuse an expression that is too large or nested too deeply."""
        depth = 1 + max((self.depths[id(one)] for one in children(node)), default=0)
        self.nodes += 1
        self.depths[id(node)] = depth
        if self.nodes > MAX_NODES or depth > MAX_DEPTH:
            raise too_large(node.start, node.end)
        return node

    def whole(self) -> Node:
        if self.now.kind == "end":
            raise self.unexpected("there is no expression between the braces")
        node = self.choice()
        if self.now.kind != "end":
            raise self.unexpected("an operator is missing")
        return node

    def choice(self) -> Node:
        self.level += 1
        if self.level > MAX_DEPTH:
            raise too_large(self.now.start, self.now.end)
        start = self.now.start
        node = self.binary(0)
        if self.take("if"):
            condition = self.binary(0)
            self.expect("else", "the else of the if")
            otherwise = self.choice()
            node = self.made(Choice(start, self.last_end, condition, node, otherwise))
        self.level -= 1
        return node

    def binary(self, minimum: int) -> Node:
        """Return operands joined by operators that bind at least as tightly as `minimum`."""
        start = self.now.start
        node = self.operand(minimum)
        while (operator := self.operator()) and (power := POWERS[operator]) >= minimum:
            self.index += 2 if operator == "not in" else 1
            right = self.binary(power + 1)
            node = self.made(Operation(start, self.last_end, operator, (node, right)))
            if power == COMPARING and POWERS.get(self.operator() or "") == COMPARING:
                span = (self.now.start, self.now.end)
                raise TemplateProblem("two comparisons follow each other", "join them: a < b and b < c", span)
        return node

    def operator(self) -> str | None:
        if self.at("not") and self.tokens[self.index + 1].text == "in":
            return "not in"
        return self.now.text if self.at(*POWERS) else None

    def operand(self, minimum: int) -> Node:
        negations = []
        while minimum <= NEGATING and self.at("not"):
            negations.append(self.next())
        node = self.binary(COMPARING) if negations else self.filtered()
        for token in reversed(negations):
            node = self.made(Operation(token.start, self.last_end, "not", (node,)))
        return node

    def filtered(self) -> Node:
        start = self.now.start
        node = self.signed()
        while self.take("|"):
            name = self.name("after |, the name of a function is missing")
            arguments = self.arguments() if self.at("(") else ()
            node = self.made(Call(start, self.last_end, name.text, (name.start, name.end), (node, *arguments)))
        return node

    def signed(self) -> Node:
        signs = []
        while self.at("-", "+"):
            signs.append(self.next())
        node = self.primary()
        for token in reversed(signs):
            node = self.negated(token, node)
        return node

    def negated(self, token: Token, node: Node) -> Node:
        value = node.value if isinstance(node, Literal) else None
        if token.text == "-" and isinstance(value, int | float) and not isinstance(value, bool):
            return self.made(Literal(token.start, node.end, -value))
        return self.made(Operation(token.start, self.last_end, token.text, (node,)))

    def primary(self) -> Node:
        node = self.parts(self.atom())
        while self.at(".", "["):
            node = self.parts(node)
        return node

    def parts(self, node: Node) -> Node:
        """Return `node` with the names and indexes behind it."""
        while self.at(".", "["):
            part = self.part()
            if self.at("(") and isinstance(part, str):
                return self.made(self.method(node, part))
            end = self.last_end
            if isinstance(node, Path):
                self.nodes += 1
                node = Path(node.start, end, (*node.parts, part))
                if len(node.parts) > MAX_DEPTH:
                    raise too_large(node.start, node.end)
                self.depths[id(node)] = 1
            else:
                node = self.made(Part(node.start, end, node, part))
        return node

    def method(self, node: Node, name: str) -> Method:
        arguments = self.arguments()
        return Method(node.start, self.last_end, node, name, arguments)

    def part(self) -> str | int:
        if self.take("."):
            return self.name("after ., a name is missing", keywords=True).text
        self.next()
        sign = self.take("-")
        token = self.next()
        if token.kind == "number" and token.text.isdigit() and len(token.text) < 10:
            part: str | int = -int(token.text) if sign else int(token.text)
        elif token.kind == "text" and not sign:
            part = unquoted(token)
        else:
            span = (token.start, token.end)
            raise TemplateProblem("between [ and ] there must be a number or a name", 'write [0] or ["name"]', span)
        self.expect("]", "the closing ]")
        return part

    def name(self, message: str, *, keywords: bool = False) -> Token:
        if self.now.kind != "word" or (self.now.text in KEYWORDS and not keywords):
            raise self.unexpected(message)
        return self.next()

    def atom(self) -> Node:
        token = self.now
        if token.kind == "number":
            return self.made(self.number(self.next()))
        if token.kind == "text":
            return self.made(Literal(token.start, token.end, unquoted(self.next())))
        if token.kind == "word" and token.text in CONSTANTS:
            self.next()
            return self.made(Literal(token.start, token.end, CONSTANTS[token.text]))
        if self.take("("):
            node = self.choice()
            self.expect(")", "the closing )")
            return node
        if self.at("["):
            return self.items()
        name = self.name("a value is missing")
        if self.at("("):
            arguments = self.arguments()
            return self.made(Call(name.start, self.last_end, name.text, (name.start, name.end), arguments))
        return self.made(Path(name.start, name.end, (name.text,)))

    def number(self, token: Token) -> Literal:
        value = float(token.text) if set(token.text) & set(".eE") else None
        if value is None and len(token.text) < 20:
            value = int(token.text)
        if value is None or (abs(value) > MAX_INTEGER and isinstance(value, int)) or value == float("inf"):
            raise TemplateProblem("the number is too large", "an integer has at most 63 bits", (token.start, token.end))
        return Literal(token.start, token.end, value)

    def arguments(self) -> tuple[Node, ...]:
        self.next()
        return self.listed(")")

    def items(self) -> Node:
        start = self.next().start
        items = self.listed("]")
        return self.made(Items(start, self.last_end, items))

    def listed(self, closing: str) -> tuple[Node, ...]:
        found: list[Node] = []
        while not self.take(closing):
            if found:
                self.expect(",", f"a comma or the closing {closing}")
            found.append(self.choice())
        return tuple(found)
