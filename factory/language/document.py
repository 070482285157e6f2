"""From YAML text to plain values, with a span for every key and value.

The only module that sees YAML. It rejects whatever YAML 1.1 would turn into something that the author did not write:
`yes/no/on/off` booleans, dates, sexagesimal and octal numbers, duplicate keys, tags. It knows no field of a spec.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any, TypeAlias

import yaml
from yaml.cyaml import CParser  # type: ignore[attr-defined]  # the stubs do not re-export it
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from factory.language.errors import Diagnostic, Path, Span, shortened
from factory.language.positions import CUT_OFF, Positions, after_anchor, is_cut_off

Entries: TypeAlias = dict[str | int, tuple[Node, Node]]
"""The nodes of a mapping's keys and values, by key."""

Value = None | bool | int | float | str | list["Value"] | dict[str, "Value"]

MAX_BYTES = 1_000_000
"""The maximum size of a file; a pipeline of 5,000 steps has about 600,000."""
MAX_DEPTH = 50
"""The maximum number of lists and mappings around a value; libyaml's own recursion would end the process."""
MAX_DIGITS = 300
"""The maximum length of a number; no integer of more digits is a finite float."""
MAX_VALUES = 100_000
"""The maximum number of values in a document after its aliases are expanded; more is a mistake or an attack."""

_PLAIN = {"null": None, "Null": None, "NULL": None, "~": None, "": None,
          "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}  # fmt: skip
_IMPLICIT_BOOLEAN = re.compile(r"(?:yes|no|on|off)\Z", re.IGNORECASE)
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)\Z")
_FLOAT = re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)(?:[eE][-+]?[0-9]+)?\Z")
_DATE = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt ].*)?\Z")
_AMBIGUOUS = re.compile(
    r"[-+]?(?:0[0-9_]+|0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+|[0-9]+_[0-9_]*|[0-9]+(?::[0-5]?[0-9])+(?:\.[0-9]*)?)\Z"
)
_SPECIAL_FLOAT = re.compile(r"[-+]?\.(?:inf|Inf|INF)\Z|\.(?:nan|NaN|NAN)\Z")
_STRUCTURAL_TAGS = {"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:str", "", None}


class _TooDeep(yaml.MarkedYAMLError):
    """Lists and mappings are inside each other too deeply."""


class _Composer(CParser):
    """libyaml's parser; it composes nodes with their marks and leaves scalars untyped."""

    depth = 0

    def resolve(self, _kind: type[Node], _value: str, _implicit: object) -> str:
        return ""

    def ascend_resolver(self) -> None:
        self.depth -= 1

    def descend_resolver(self, parent: Node | None, _index: object) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH and parent is not None:
            raise _TooDeep(problem_mark=parent.start_mark)


@dataclass(frozen=True)
class Document:
    """A file's values; `span` and `diagnose` say where one of them is."""

    file: str
    lines: list[str]
    value: Value
    root: Node | None
    dates: frozenset[Path] = frozenset()
    """Paths of unquoted dates: texts that are allowed only where a date is expected."""
    _entries: dict[int, Entries] = field(default_factory=dict, repr=False, compare=False)
    """The entries of each mapping that was looked into, by the node's id."""

    def span(self, path: Path, *, key: bool = False) -> Span:
        """Return where the value at `path`, or its key, is; for a missing value, the key of what should contain it."""
        node, key_node, exists = self.root, None, True
        for part in path:
            step = self._child(node, part)
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
            step = self._child(node, part)
            node = step[1] if step else None
        if not isinstance(node, ScalarNode):
            return self.span(path)
        begin, stop = ((mark.line, mark.column) for mark in (node.start_mark, node.end_mark))
        positions = Positions(node.value, node.style, after_anchor(self.lines, *begin), stop, self.lines)
        line, column = positions.of(start)
        last_line, last_column = positions.of(max(end - 1, start))
        last = last_column + 1 if last_line == line else len(self.lines[line])
        return Span(self.file, line + 1, column + 1, max(last, column + 1) + 1)

    def quote_at(self, path: Path) -> str:
        """Return the quotation mark around the text at `path`, or nothing."""
        span = self.span(path)
        line, column = after_anchor(self.lines, span.line - 1, span.column - 1)
        sign = self.lines[line][column : column + 1]
        return sign if sign in ("'", '"') else ""

    def diagnose(
        self, code: str, path: Path, message: str, hint: str | None = None, *, key: bool = False
    ) -> Diagnostic:
        """Return a diagnostic about the value (or the key) at `path`."""
        return self.diagnostic_at(self.span(path, key=key), code, message, hint)

    def diagnostic_at(self, span: Span, code: str, message: str, hint: str | None = None) -> Diagnostic:
        """Return a diagnostic at `span`, with its source line."""
        source = self.lines[span.line - 1] if span.line <= len(self.lines) else ""
        return Diagnostic(span, code, shortened(message), hint and shortened(hint), source)

    def _child(self, node: Node | None, part: str | int) -> tuple[Node | None, Node] | None:
        if isinstance(node, MappingNode):
            if id(node) not in self._entries:
                self._entries[id(node)] = _entries_of(node)
            return self._entries[id(node)].get(part)
        if isinstance(node, SequenceNode) and isinstance(part, int) and part < len(node.value):
            return None, node.value[part]
        return None


def content_of(file: FilePath) -> bytes:
    """Return the bytes of a file: of one that is too large, only so many that `read` notices."""
    with file.open("rb") as stream:
        return stream.read(MAX_BYTES + 1)


def read(content: bytes, file: str) -> tuple[Document, list[Diagnostic]]:
    """Read one YAML document; anything that cannot be read is reported and left out of the value."""
    if len(content) > MAX_BYTES:
        return _too_large(file)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return _unreadable(content, error, file)
    document = Document(file, text.splitlines(), None, None)
    try:
        root = _compose(text)
    except _TooDeep as error:
        return document, [_too_deep(document, error.problem_mark)]
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
            if depth > MAX_DEPTH:
                return None
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
    is_cut: bool = False

    def value(self, node: Node | None, path: Path) -> Value:
        self.count += 1
        if isinstance(node, ScalarNode):
            return self.scalar(node, path)
        if id(node) in self.open_nodes or self.count > MAX_VALUES or len(path) >= MAX_DEPTH:
            self.cut(node, path)
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
        first: dict[str, Node] = {}
        for key_node, value_node in node.value:
            key = self.key(key_node)
            if key is None:
                continue
            if key in values:
                self.duplicate(first[key], key_node, key)
                continue
            first[key] = key_node
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
        if is_cut_off(self.document.lines, node.end_mark.line, node.end_mark.column):
            self.report(node, "cut-text", *CUT_OFF)
        if text in _PLAIN:
            return _PLAIN[text]
        first = text[0]
        if first in "yYnNoO" and _IMPLICIT_BOOLEAN.match(text):
            self.implicit_boolean(node, text)
        elif first in "+-.0123456789":
            return self.number(node, text, path)
        return text

    def number(self, node: ScalarNode, text: str, path: Path) -> Value:
        if len(text) > MAX_DIGITS and (_INTEGER.match(text) or _FLOAT.match(text)):
            self.report(node, "too-large", f"a number of {len(text)} digits is too long", "quote it if it is a text")
            return text
        if _INTEGER.match(text):
            return int(text)
        if _AMBIGUOUS.match(text):
            message = f"{text} is one number in YAML 1.1 and another, or a text, in YAML 1.2"
            self.report(node, "ambiguous-number", message, f'write a plain number, or quote it: "{text}"')
        elif _FLOAT.match(text) and math.isfinite(value := float(text)):
            return value
        elif _FLOAT.match(text) or _SPECIAL_FLOAT.match(text):
            hint = f'write a finite number, or quote it if it is a text: "{text}"'
            self.report(node, "wrong-value", f"{text} is not a finite number", hint)
        elif _DATE.match(text):
            self.dates.append(path)
        return text

    def implicit_boolean(self, node: Node, text: str) -> None:
        meant = "true" if text.lower() in {"yes", "on"} else "false"
        message = f"{text} is a boolean in YAML 1.1 and a text in YAML 1.2"
        self.report(node, "implicit-boolean", message, f'write {meant}, or quote it: "{text}"')

    def duplicate(self, first: Node, node: Node, key: str) -> None:
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

    def cut(self, node: Node | None, path: Path) -> None:
        """Report, once, that the values from here on are left out."""
        if self.is_cut:
            return
        self.is_cut = True
        code, hint = "endless-value", "write the value out without aliases"
        if self.count > MAX_VALUES:
            message = f"the document has more than {MAX_VALUES} values once its aliases are expanded"
        elif len(path) >= MAX_DEPTH:
            code, message = "too-deep", _TOO_DEEP
        else:
            message = "the alias is inside the value it names, so the value never ends"
        self.report(node, code, message, hint)

    def report(self, node: Node | None, code: str, message: str, hint: str | None = None) -> None:
        span = _span(self.document.file, node, self.document.lines)
        self.diagnostics.append(self.document.diagnostic_at(span, code, message, hint))


def value_at(value: Any, path: Path) -> Value:
    """Return what is at `path` in `value`; raise LookupError if nothing is."""
    for part in path:
        keyed = isinstance(value, dict) or (isinstance(value, list) and isinstance(part, int))
        if not keyed:
            raise LookupError(part)
        value = value[part]
    inner: Value = value
    return inner


def _entries_of(mapping: MappingNode) -> Entries:
    """Return the entries of a mapping by their keys; of a repeated key, the first."""
    return {key.value: (key, value) for key, value in reversed(mapping.value) if isinstance(key, ScalarNode)}


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


_TOO_DEEP = f"more than {MAX_DEPTH} lists and mappings are inside each other"


def _too_deep(document: Document, mark: yaml.Mark | None) -> Diagnostic:
    hint = "write fewer levels, and close every bracket"
    return document.diagnostic_at(_mark_span(document, mark), "too-deep", _TOO_DEEP, hint)


def _too_large(file: str) -> tuple[Document, list[Diagnostic]]:
    document = Document(file, [], None, None)
    message = f"the file is larger than {MAX_BYTES:,} bytes"
    hint = "split it; SQL belongs in configs/sql/, and suites in configs/suites/"
    return document, [document.diagnostic_at(Span(file, 1, 1, 2), "too-large", message, hint)]


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
