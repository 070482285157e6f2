"""The collector that the stages pass on: everything that is wrong with one document, whichever stage noticed it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

from factory.language.codes import CODES, Severity
from factory.language.document import Document, value_at
from factory.language.errors import Diagnostic, Hint, Path, Span, SpecError, hint_text

MAX_SHOWN = 100
"""How many errors, and how many warnings, a report shows; it counts the others."""

_Mistake: TypeAlias = tuple[Span, str, str]
"""Where it is, its code and its message."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with a value, reported by code that does not know where the value is in the file.

    `path` leads from the value to the mistake: to its key if `key` is true, to the characters `within` its text if they
    are given; these can be replaced by `replacement`. `name` is the argument that the problem is about.
    """

    code: str
    message: str
    hint: Hint = None
    path: Path = ()
    key: bool = False
    within: tuple[int, int] | None = None
    replacement: str | None = None
    name: str = ""


class Report:
    """Diagnostics about `document`, in the order they were made, beginning with those from reading the text."""

    def __init__(self, document: Document, diagnostics: Iterable[Diagnostic] = ()) -> None:
        self.document = document
        self._shown: dict[Severity, dict[_Mistake, Diagnostic]] = {"error": {}, "warning": {}}
        self._hidden: dict[Severity, set[_Mistake]] = {"error": set(), "warning": set()}
        self._unread: set[tuple[int, int]] = set()
        unread = list(diagnostics)
        self.extend(unread)
        self._unread = {(diagnostic.span.line, diagnostic.span.column) for diagnostic in unread}

    @property
    def diagnostics(self) -> list[Diagnostic]:
        """What the report shows, with a diagnostic that counts the rest."""
        return [*self._shown["error"].values(), *self._shown["warning"].values(), *self._more()]

    @property
    def has_errors(self) -> bool:
        """Whether anything keeps the pipeline out of Airflow."""
        return bool(self._shown["error"])

    def add(self, code: str, path: Path, message: str, hint: Hint = None, *, key: bool = False) -> None:
        """Report something about the value at `path`, or about its key."""
        self.add_at(self.document.span(path, key=key), code, message, hint)

    def add_at(self, span: Span, code: str, message: str, hint: Hint = None, replacement: str | None = None) -> None:
        """Report something about a range of the text, which `replacement` would mend."""
        if self._takes(mistake := (span, code, message)):
            diagnostic = self.document.diagnostic_at(span, code, message, hint_text(hint))
            self._show(mistake, replace(diagnostic, replacement=replacement))

    def add_problem(self, problem: Problem, path: Path) -> None:
        """Report a problem with the value at `path`."""
        where = (*path, *problem.path)
        span = self.document.span(where, key=problem.key)
        if problem.within is None or self._is_full(problem.code):
            self.add_at(span, problem.code, problem.message, problem.hint)
            return
        span = self.document.span_within(where, *problem.within)
        self.add_at(span, problem.code, problem.message, problem.hint, self.replacement(problem, where, span))

    def replacement(self, problem: Problem, where: Path, span: Span) -> str | None:
        """Return what to write in the file in place of `span`, or None if it does not hold exactly what is replaced."""
        if problem.replacement is None or problem.within is None:
            return None
        try:
            text = value_at(self.document.value, where)
        except LookupError:  # it is a key, or is written elsewhere
            return None
        if not isinstance(text, str):
            return None
        line = self.document.lines[span.line - 1]
        if line[span.column - 1 : span.end - 1] != text[slice(*problem.within)]:
            return None
        is_single = self.document.quote_at(where) == "'"
        return problem.replacement.replace("'", '"') if is_single else problem.replacement

    def extend(self, diagnostics: Iterable[Diagnostic]) -> None:
        """Add diagnostics from elsewhere, except follow-ups about text that could not be read."""
        for diagnostic in diagnostics:
            if self._takes(mistake := (diagnostic.span, diagnostic.code, diagnostic.message)):
                self._show(mistake, diagnostic)

    def require_no_errors(self) -> None:
        """Raise SpecError with everything reported so far, if any of it is an error."""
        if self.has_errors:
            raise SpecError(self.diagnostics)

    def _is_full(self, code: str) -> bool:
        return len(self._shown[CODES[code].severity]) >= MAX_SHOWN

    def _takes(self, mistake: _Mistake) -> bool:
        """Return whether to show a mistake; if there are too many, count it. Each is taken once."""
        span, code, _ = mistake
        severity = CODES[code].severity
        is_own = span.file == self.document.file
        if (is_own and (span.line, span.column) in self._unread) or mistake in self._shown[severity]:
            return False
        if self._is_full(code):
            self._hidden[severity].add(mistake)
            return False
        return True

    def _show(self, mistake: _Mistake, diagnostic: Diagnostic) -> None:
        self._shown[diagnostic.severity][mistake] = diagnostic

    def _more(self) -> Iterator[Diagnostic]:
        for severity, hidden in self._hidden.items():
            if hidden:
                end = max(len(self.document.lines), 1)
                message = f"{len(hidden):,} more {severity}s are not shown"
                hint = f"mend some of the {MAX_SHOWN} that are shown, then lint again"
                yield Diagnostic(Span(self.document.file, end, 1, 2), f"more-{severity}s", message, hint)
