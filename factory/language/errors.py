"""What can be wrong with a spec, and how it is shown.

    FactoryError
    ├── SpecError       a spec is wrong: its author must fix it
    └── RegistryError   a task is declared wrongly: its author must fix it

Knows positions and texts; it refuses to know YAML, tasks or Airflow.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from factory.language.codes import CODES, Severity

MAX_TEXT = 1000
"""The maximum length of a message and of a hint."""
MAX_EXCERPT = 200
"""The maximum length of a source line in a report; of a longer line, the part around the mistake is shown."""
MAX_NAMES = 60
"""The maximum number of names that a hint lists."""
MAX_WORD = 250
"""The maximum length of a word that is compared with the names; no name is longer."""

Hint: TypeAlias = str | Callable[[], str | None] | None
"""A hint, or what computes it: comparing a name with many others takes time."""

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
    hint: str | None = field(default=None, compare=False)
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
        start = max(0, self.span.column - MAX_EXCERPT // 2) if len(self.source) > MAX_EXCERPT else 0
        shown = self.source[start : start + MAX_EXCERPT]
        column = self.span.column - start
        indent = "".join("\t" if sign == "\t" else " " for sign in shown[: column - 1])
        carets = "^" * max(1, min(self.span.end - start, len(shown) + 1) - column)
        return [f"{self.span.line} | {shown}", f"{' ' * gutter} | {indent}{carets}"]


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


def hint_text(hint: Hint) -> str | None:
    """Return a hint's text."""
    return hint() if callable(hint) else hint


def did_you_mean(word: str, known: Iterable[str], what: str) -> str:
    """Return a hint: the closest of the `known` names, or all of them if none is close."""
    names = sorted(known)
    if near := closest(word, names):
        return f'did you mean "{near}"?'
    more = f" and {len(names) - MAX_NAMES:,} more" if len(names) > MAX_NAMES else ""
    return f"{what}: {', '.join(names[:MAX_NAMES])}{more}" if names else f"there are no {what}"


def closest(word: str, known: Iterable[str]) -> str | None:
    """Return the closest of the `known` names, however it is capitalized, or None if none is close."""
    folded = {name.casefold(): name for name in sorted(known, reverse=True)}
    near = difflib.get_close_matches(word[:MAX_WORD].casefold(), folded, n=1, cutoff=0.6)
    return folded[near[0]] if near else None


def shortened(text: str) -> str:
    """Return `text`, or its beginning if it is too long for a message."""
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"


def quoted_list(names: Sequence[str]) -> str:
    """Return `"a"`, `"a" and "b"` or `"a", "b" and "c"`."""
    shown = [f'"{name}"' for name in names]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
