"""What can be wrong with a spec, and how it is shown.

    FactoryError
    ├── SpecError       a spec is wrong: its author must fix it
    └── RegistryError   a task is declared wrongly: its author must fix it

Knows positions and texts; it refuses to know YAML, tasks or Airflow.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from factory.language.codes import CODES, Severity

Path = tuple[str | int, ...]
"""Where a value is in a document: keys and indexes from the root."""


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A range of one line in a file; lines and columns count from 1, `end` is the column after the last."""

    file: str
    line: int
    column: int
    end: int


@dataclass(frozen=True, slots=True, order=True)
class Diagnostic:
    """One mistake, where it is and what to do about it."""

    span: Span
    code: str
    message: str
    hint: str | None = None
    source: str = field(default="", compare=False)
    replacement: str | None = field(default=None, compare=False)
    """What to write in place of the span, if that mends it without changing its meaning."""

    @property
    def severity(self) -> Severity:
        """`error` keeps the pipeline out of Airflow, `warning` does not."""
        return CODES[self.code].severity

    def __str__(self) -> str:
        head = f"{self.span.file}:{self.span.line}:{self.span.column}: {self.severity}: {self.message} [{self.code}]"
        return "\n".join([head, *self._excerpt(), *([f"  hint: {self.hint}"] if self.hint else [])])

    def _excerpt(self) -> list[str]:
        if not self.source.strip():
            return []
        gutter = len(str(self.span.line))
        indent = "".join("\t" if sign == "\t" else " " for sign in self.source[: self.span.column - 1])
        carets = "^" * max(1, min(self.span.end, len(self.source) + 1) - self.span.column)
        return [f"{self.span.line} | {self.source}", f"{' ' * gutter} | {indent}{carets}"]


def render(diagnostics: Iterable[Diagnostic]) -> str:
    """Return the report of all `diagnostics`, in the order of the file."""
    return "\n\n".join(str(diagnostic) for diagnostic in sorted(set(diagnostics)))


def errors_of(diagnostics: Iterable[Diagnostic]) -> list[Diagnostic]:
    """Return those of `diagnostics` that keep a pipeline out of Airflow, in the order of the file."""
    return sorted({diagnostic for diagnostic in diagnostics if diagnostic.severity == "error"})


class FactoryError(Exception):
    """The base of every exception that this package raises."""


class SpecError(FactoryError):
    """A spec is wrong; the text is the whole report."""

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics: tuple[Diagnostic, ...] = tuple(sorted(set(diagnostics)))

    def __str__(self) -> str:
        return render(self.diagnostics)


class RegistryError(FactoryError):
    """A function declared `@reusable` breaks the contract of a task."""


def did_you_mean(word: str, known: Iterable[str], what: str) -> str:
    """Return a hint: the closest of the `known` names, or all of them if none is close."""
    names = sorted(known)
    if near := difflib.get_close_matches(word, names, n=1, cutoff=0.6):
        return f'did you mean "{near[0]}"?'
    return f"{what}: {', '.join(names)}" if names else f"there are no {what}"


def quoted_list(names: Sequence[str]) -> str:
    """Return `"a"`, `"a" and "b"` or `"a", "b" and "c"`."""
    shown = [f'"{name}"' for name in names]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
