"""From YAML text to plain values, with a span for every key and value.

The only module that sees YAML. It rejects whatever YAML 1.1 would turn into something that the author did not write:
`yes/no/on/off` booleans, dates, sexagesimal and octal numbers, duplicate keys, tags. It knows no field of a spec.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.cyaml import CParser  # type: ignore[attr-defined]  # the stubs do not re-export it
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from factory.language.errors import Diagnostic, Path, Span

Value = None | bool | int | float | str | list["Value"] | dict[str, "Value"]

MAX_VALUES = 100_000
"""The maximum number of values in a document after its aliases are expanded; more is a mistake or an attack."""

_PLAIN = {"null": None, "Null": None, "NULL": None, "~": None, "": None,
          "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}  # fmt: skip
_IMPLICIT_BOOLEAN = re.compile(r"(?:yes|no|on|off)\Z", re.IGNORECASE)
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)\Z")
_FLOAT = re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)(?:[eE][-+]?[0-9]+)?\Z")
_DATE = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt ].*)?\Z")
_AMBIGUOUS = re.compile(
    r"[-+]?(?:0[0-9_]+|0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+|[0-9][0-9_]*_[0-9_]*|[0-9]+(?::[0-5]?[0-9])+(?:\.[0-9]*)?)\Z"
)
_SPECIAL_FLOAT = re.compile(r"[-+]?\.(?:inf|Inf|INF)\Z|\.(?:nan|NaN|NAN)\Z")
_STRUCTURAL_TAGS = {"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:str", "", None}


class _Composer(CParser):
    """libyaml's parser; it composes nodes with their marks and leaves scalars untyped."""

    def resolve(self, _kind: type[Node], _value: str, _implicit: object) -> str:
        return ""

    def ascend_resolver(self) -> None: ...

    def descend_resolver(self, _parent: Node | None, _index: object) -> None: ...


@dataclass(frozen=True)
class Document:
    """A file's values; `span` and `diagnose` say where one of them is."""

    file: str
    lines: list[str]
    value: Value
    root: Node | None
    dates: frozenset[Path] = frozenset()
    """Paths of unquoted dates: texts that are allowed only where a date is expected."""

    def span(self, path: Path, *, key: bool = False) -> Span:
        """Return where the value at `path`, or its key, is; for a missing value, the key of what should contain it."""
        node, key_node, exists = self.root, None, True
        for part in path:
            step = _child(node, part)
            if step is None:
                exists = False
                break
            key_node, node = step
        shown = key_node if key_node is not None and (key or not exists) else node
        return _span(self.file, shown, self.lines)

    def span_within(self, path: Path, start: int, end: int) -> Span:
        """Return where the characters from `start` to `end` of the text at `path` are; of several lines, the first."""
        node = self.root
        for part in path:
            step = _child(node, part)
            node = step[1] if step else None
        if not isinstance(node, ScalarNode):
            return self.span(path)
        positions = _Positions(node, self.lines)
        line, column = positions.of(start)
        last_line, last_column = positions.of(max(end - 1, start))
        stop = last_column + 1 if last_line == line else len(self.lines[line])
        return Span(self.file, line + 1, column + 1, max(stop, column + 1) + 1)

    def quote_at(self, path: Path) -> str:
        """Return the quotation mark around the text at `path`, or nothing."""
        span = self.span(path)
        sign = self.lines[span.line - 1][span.column - 1 : span.column]
        return sign if sign in ("'", '"') else ""

    def diagnose(
        self, code: str, path: Path, message: str, hint: str | None = None, *, key: bool = False
    ) -> Diagnostic:
        """Return a diagnostic about the value (or the key) at `path`."""
        return self.diagnostic_at(self.span(path, key=key), code, message, hint)

    def diagnostic_at(self, span: Span, code: str, message: str, hint: str | None = None) -> Diagnostic:
        """Return a diagnostic at `span`, with its source line."""
        source = self.lines[span.line - 1] if span.line <= len(self.lines) else ""
        return Diagnostic(span, code, message, hint, source)


def read(content: bytes, file: str) -> tuple[Document, list[Diagnostic]]:
    """Read one YAML document; anything that cannot be read is reported and left out of the value."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return _unreadable(content, error, file)
    document = Document(file, text.splitlines(), None, None)
    try:
        root = _compose(text)
    except yaml.MarkedYAMLError as error:
        return document, [_syntax_error(document, error)]
    except yaml.YAMLError as error:
        return document, [_bad_character(document, text, error)]
    if root is None:
        span = Span(file, 1, 1, 2)
        return document, [
            document.diagnostic_at(
                span, "empty-file", "the file contains no YAML", "see docs/guide.md for a first pipeline"
            )
        ]
    return _constructed(Document(file, document.lines, None, root))


def scalar_at_top(content: bytes, key: str) -> str | None:
    """Return the text of a key at the top of a document, or None; reads no further than that key."""
    depth, nodes, is_next = 0, 0, False
    try:
        for event in yaml.parse(content, Loader=yaml.CSafeLoader):
            if isinstance(event, yaml.NodeEvent) and depth == 1:  # keys and values in turn
                if is_next:
                    return event.value if isinstance(event, yaml.ScalarEvent) else None
                is_next = nodes % 2 == 0 and isinstance(event, yaml.ScalarEvent) and event.value == key
                nodes += 1
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
    except yaml.YAMLError:
        return None
    return None


def _compose(text: str) -> Node | None:
    composer = _Composer(text)
    try:
        node: Node | None = composer.get_single_node()
    finally:
        composer.dispose()
    return node


def _constructed(document: Document) -> tuple[Document, list[Diagnostic]]:
    reader = _Reader(document)
    value = reader.value(document.root, ())
    whole = Document(document.file, document.lines, value, document.root, frozenset(reader.dates))
    return whole, reader.diagnostics


@dataclass
class _Reader:
    """One walk over the nodes of a document."""

    document: Document
    diagnostics: list[Diagnostic] = field(default_factory=list)
    dates: list[Path] = field(default_factory=list)
    open_nodes: set[int] = field(default_factory=set)
    count: int = 0

    def value(self, node: Node | None, path: Path) -> Value:
        self.count += 1
        if isinstance(node, ScalarNode):
            return self.scalar(node, path)
        if id(node) in self.open_nodes or self.count > MAX_VALUES:
            self.endless(node)
            return None
        self.open_nodes.add(id(node))
        try:
            return self.collection(node, path)
        finally:
            self.open_nodes.discard(id(node))

    def collection(self, node: Node | None, path: Path) -> Value:
        if isinstance(node, MappingNode):
            return self.mapping(node, path)
        return self.sequence(node, path) if isinstance(node, SequenceNode) else None

    def mapping(self, node: MappingNode, path: Path) -> Value:
        self.check_tag(node)
        values: dict[str, Value] = {}
        for key_node, value_node in node.value:
            key = self.key(key_node)
            if key is None:
                continue
            if key in values:
                self.duplicate(node, key_node, key)
                continue
            values[key] = self.value(value_node, (*path, key))
        return values

    def sequence(self, node: SequenceNode, path: Path) -> Value:
        self.check_tag(node)
        return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]

    def key(self, node: Node) -> str | None:
        if not isinstance(node, ScalarNode):
            hint = 'quote the template: "{{ … }}"' if isinstance(node, MappingNode) else "write the key as a text"
            self.report(node, "key-not-text", "a key must be a text, not a list or a mapping", hint)
            return None
        text: str = node.value
        if node.style:
            return text
        if text == "<<":
            self.report(
                node,
                "merge-key",
                "merge keys (<<) are not supported",
                "repeat the keys, or move shared ones to configs/defaults.yaml",
            )
            return None
        typed = self.scalar(node, ())
        if typed is None or isinstance(typed, str):
            return text
        self.report(node, "key-not-text", f"the key {text} is not a text", f'quote it: "{text}"')
        return None

    def scalar(self, node: ScalarNode, path: Path) -> Value:
        self.check_tag(node)
        text: str = node.value
        if node.style:
            return text
        if text in _PLAIN:
            return _PLAIN[text]
        first = text[0]
        if first in "yYnNoO" and _IMPLICIT_BOOLEAN.match(text):
            self.implicit_boolean(node, text)
        elif first in "+-.0123456789":
            return self.number(node, text, path)
        return text

    def number(self, node: ScalarNode, text: str, path: Path) -> Value:
        if _INTEGER.match(text):
            return int(text)
        if _AMBIGUOUS.match(text):
            hint = f'write a plain number, or quote it: "{text}"'
            self.report(
                node, "ambiguous-number", f"{text} is one number in YAML 1.1 and another, or a text, in YAML 1.2", hint
            )
        elif _FLOAT.match(text):
            return float(text)
        elif _SPECIAL_FLOAT.match(text):
            return float(text.replace(".", "", 1))
        elif _DATE.match(text):
            self.dates.append(path)
        return text

    def implicit_boolean(self, node: Node, text: str) -> None:
        meant = "true" if text.lower() in {"yes", "on"} else "false"
        self.report(
            node,
            "implicit-boolean",
            f"{text} is a boolean in YAML 1.1 and a text in YAML 1.2",
            f'write {meant}, or quote it: "{text}"',
        )

    def duplicate(self, mapping: MappingNode, node: Node, key: str) -> None:
        first = next(known for known, _ in mapping.value if known.value == key)
        place = f"line {first.start_mark.line + 1}, column {first.start_mark.column + 1}"
        self.report(
            node, "duplicate-key", f'the key "{key}" appears twice in one mapping; first at {place}', "keep one of them"
        )

    def check_tag(self, node: Node) -> None:
        if node.tag not in _STRUCTURAL_TAGS:
            tag = node.tag.replace("tag:yaml.org,2002:", "!!")
            self.report(
                node, "unknown-tag", f"the tag {tag} is not allowed: a spec has plain values only", "remove the tag"
            )

    def endless(self, node: Node | None) -> None:
        if self.count > MAX_VALUES:
            message = f"the document has more than {MAX_VALUES} values once its aliases are expanded"
        else:
            message = "the alias is inside the value it names, so the value never ends"
        if not any(one.code == "endless-value" for one in self.diagnostics):
            self.report(node, "endless-value", message, "write the value out without aliases")

    def report(self, node: Node | None, code: str, message: str, hint: str | None = None) -> None:
        span = _span(self.document.file, node, self.document.lines)
        self.diagnostics.append(self.document.diagnostic_at(span, code, message, hint))


class _Positions:
    """Where the characters of a text are in its file, whatever its quotes, its escapes and its line breaks.

    YAML folds and indents with white space only: the n-th other character of the text is the n-th of its source.
    """

    def __init__(self, node: ScalarNode, lines: list[str]) -> None:
        self.text: str = node.value
        self.source = _source_characters(node, lines)

    def of(self, offset: int) -> tuple[int, int]:
        """Return line and column, from 0, of the character at `offset`; of white space, of the next other one."""
        nth = sum(not sign.isspace() for sign in self.text[:offset])
        return self.source[min(nth, len(self.source) - 1)]


def _source_characters(node: ScalarNode, lines: list[str]) -> list[tuple[int, int]]:
    """Return the places of the characters of a scalar that are not white space."""
    start, end, quote = node.start_mark, node.end_mark, node.style if node.style in ("'", '"') else ""
    found: list[tuple[int, int]] = []
    is_block = node.style in ("|", ">")
    for number in range(start.line + is_block, min(end.line + 1, len(lines))):
        line = lines[number]
        first = start.column + len(quote) if number == start.line else 0
        last = end.column - len(quote) if number == end.line else len(line)
        found += [(number, column) for column in _characters(line, first, last, quote)]
    return found or [(start.line, start.column)]


_ESCAPED = {"'": re.compile(r"''|\S"), '"': re.compile(r"\\(?:x..|u.{4}|U.{8}|.|$)|\S"), "": re.compile(r"\S")}
_SPACE = r"09|0[a-dA-D]|20|85|[aA]0"
_ESCAPED_SPACE = re.compile(rf"\\(?:[tnvfr NLP_\t]|$|x(?:{_SPACE})|u(?:00(?:{_SPACE})|202[89]))")


def _characters(line: str, first: int, last: int, quote: str) -> Iterator[int]:
    """Yield the column of each character of a line of a scalar; an escape is one, or none if it is white space."""
    for match in _ESCAPED[quote].finditer(line, first, last):
        if not (quote == '"' and _ESCAPED_SPACE.fullmatch(match.group())):
            yield match.start()


def value_at(value: Any, path: Path) -> Value:
    """Return what is at `path` in `value`; raise LookupError if nothing is."""
    for part in path:
        keyed = isinstance(value, dict) or (isinstance(value, list) and isinstance(part, int))
        if not keyed:
            raise LookupError(part)
        value = value[part]
    inner: Value = value
    return inner


def _child(node: Node | None, part: str | int) -> tuple[Node | None, Node] | None:
    if isinstance(node, MappingNode):
        return next(((key, value) for key, value in node.value if key.value == part), None)
    if isinstance(node, SequenceNode) and isinstance(part, int) and part < len(node.value):
        return None, node.value[part]
    return None


def _span(file: str, node: Node | None, lines: list[str]) -> Span:
    if node is None:
        return Span(file, 1, 1, 2)
    start, end = node.start_mark, node.end_mark
    line = start.line + 1
    width = len(lines[start.line]) if start.line < len(lines) else 0
    if isinstance(node, MappingNode) and not node.flow_style and node.value:
        end = node.value[0][0].end_mark
    stop = end.column + 1 if end.line == start.line else width + 1
    return Span(file, line, start.column + 1, max(stop, start.column + 2))


def _syntax_error(document: Document, error: yaml.MarkedYAMLError) -> Diagnostic:
    mark = error.problem_mark or error.context_mark
    if error.problem == "but found another document":
        return document.diagnostic_at(
            _mark_span(document, mark),
            "many-documents",
            "the file contains more than one YAML document",
            "one file, one pipeline: remove the ---",
        )
    if error.problem == "found undefined alias" or "alias" in (error.problem or ""):
        return document.diagnostic_at(
            _mark_span(document, mark), "syntax", f"{error.problem}", "name an anchor that is defined above"
        )
    where = f" {error.context}" if error.context else ""
    return document.diagnostic_at(
        _mark_span(document, mark), "syntax", f"not YAML: {error.problem}{where}", _syntax_hint(document, mark)
    )


def _mark_span(document: Document, mark: yaml.Mark | None) -> Span:
    line = min(mark.line, max(len(document.lines) - 1, 0)) if mark else 0
    column = mark.column + 1 if mark and mark.line == line else 1
    return Span(document.file, line + 1, column, column + 1)


def _syntax_hint(document: Document, mark: yaml.Mark | None) -> str | None:
    around = document.lines[max(mark.line - 1, 0) : mark.line + 1] if mark else []
    if any("\t" in line[: len(line) - len(line.lstrip())] for line in around):
        return "indent with spaces: YAML does not allow tabs there"
    if any(re.search(r":\s*\{\{", line) for line in around):
        return 'quote the template: "{{ … }}"'
    return "look at the indentation, quotes and brackets of this line and the one above"


def _bad_character(document: Document, text: str, error: yaml.YAMLError) -> Diagnostic:
    position = getattr(error, "position", None) or next(_unprintable(text), 0)
    before = text[:position]
    line, column = before.count("\n") + 1, position - (before.rfind("\n") + 1) + 1
    message = (
        f"the character U+{ord(text[position]):04X} is not allowed in YAML" if position < len(text) else str(error)
    )
    return document.diagnostic_at(Span(document.file, line, column, column + 1), "syntax", message, "remove it")


def _unprintable(text: str) -> Iterator[int]:
    return (index for index, sign in enumerate(text) if ord(sign) < 32 and sign not in "\t\n\r")


def _unreadable(text: bytes, error: UnicodeDecodeError, file: str) -> tuple[Document, list[Diagnostic]]:
    before = text[: error.start]
    line = before.count(b"\n") + 1
    column = len(before[before.rfind(b"\n") + 1 :].decode("utf-8", "replace")) + 1
    lines = text.decode("utf-8", "replace").splitlines()
    document = Document(file, lines, None, None)
    message = f"the byte 0x{text[error.start]:02x} is not UTF-8"
    return document, [
        document.diagnostic_at(Span(file, line, column, column + 1), "syntax", message, "save the file as UTF-8")
    ]
