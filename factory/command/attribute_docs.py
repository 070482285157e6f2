"""What is written in the source about fields and named types: the docstring below an assignment, which Python drops.

Read from the syntax tree when the catalogue is made, so that importing a task costs nothing more.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class _Fields:
    """The fields of a class, or the parameters of a function, by name."""

    docs: Mapping[str, str]
    annotations: Mapping[str, ast.expr]


@dataclass(frozen=True, slots=True)
class _Module:
    """What the source of one module says."""

    docs: Mapping[str, str] = field(default_factory=dict)
    """Of names that are assigned, such as an alias of a type."""
    imports: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """The module and the name there of each name that is imported."""
    fields: Mapping[str, _Fields] = field(default_factory=dict)
    """By the name of the class or function."""


def field_doc(owner: object, name: str) -> str:
    """Return the docstring below a field of a class, or an empty text."""
    return _fields_of(owner).docs.get(name, "")


def type_doc(owner: object, name: str) -> str:
    """Return the docstring below the named type that annotates a field or parameter, or an empty text.

    That is the type itself, or the one that is left without `None`, `Annotated` and `list`.
    """
    annotation = _fields_of(owner).annotations.get(name)
    alias = _alias(annotation) if annotation is not None else None
    return _alias_doc(alias, _module_of(owner)) if alias else ""


def _module_of(owner: object) -> str:
    return str(getattr(inspect.unwrap(owner) if inspect.isfunction(owner) else owner, "__module__", ""))


def _fields_of(owner: object) -> _Fields:
    return _read(_module_of(owner)).fields.get(getattr(owner, "__name__", ""), _Fields({}, {}))


def _alias_doc(name: str, module: str) -> str:
    read = _read(module)
    if name in read.docs:
        return read.docs[name]
    if name in read.imports:
        source, original = read.imports[name]
        return _alias_doc(original, source)
    return ""


def _alias(annotation: ast.expr) -> str | None:
    match annotation:
        case ast.Name(id=name):
            return name
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            sides = [one for one in (left, right) if not (isinstance(one, ast.Constant) and one.value is None)]
            return _alias(sides[0]) if len(sides) == 1 else None
        case ast.Subscript(value=ast.Name(id="Annotated"), slice=ast.Tuple(elts=[first, *_])):
            return _alias(first)
        case ast.Subscript(value=ast.Name(id="list"), slice=item):
            return _alias(item)
    return None


@cache
def _read(module: str) -> _Module:
    loaded = sys.modules.get(module)
    if loaded is None or not getattr(loaded, "__file__", None):
        return _Module()
    tree = ast.parse(inspect.getsource(loaded))
    imports = {
        (alias.asname or alias.name): (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    fields = {node.name: _fields_in(node) for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    return _Module(dict(_docs(tree.body)), imports, fields)


def _fields_in(node: ast.ClassDef | ast.FunctionDef) -> _Fields:
    if isinstance(node, ast.ClassDef):
        given = [one for one in node.body if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)]
        return _Fields(dict(_docs(node.body)), {ast.unparse(one.target): one.annotation for one in given})
    parameters = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return _Fields({}, {one.arg: one.annotation for one in parameters if one.annotation is not None})


def _docs(body: Iterable[ast.stmt]) -> Iterator[tuple[str, str]]:
    """Yield each name that is assigned with a docstring right below it."""
    for statement, following in pairwise(body):
        match statement, following:
            case (
                ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                yield name, inspect.cleandoc(text)
