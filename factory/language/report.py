"""The collector that the stages pass on: everything that is wrong with one document, whichever stage noticed it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from factory.language.document import Document, value_at
from factory.language.errors import Diagnostic, Path, Span, SpecError, errors_of


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with a value, reported by code that does not know where the value is in the file.

    `path` leads from the value to the mistake: to its key if `key` is true, to the characters `within` its text if they
    are given; these can be replaced by `replacement`. `name` is the argument that the problem is about.
    """

    code: str
    message: str
    hint: str | None = None
    path: Path = ()
    key: bool = False
    within: tuple[int, int] | None = None
    replacement: str | None = None
    name: str = ""


@dataclass
class Report:
    """Diagnostics about `document`, in the order they were made, beginning with those from reading the text."""

    document: Document
    diagnostics: list[Diagnostic] = field(default_factory=list)
    unread: set[tuple[int, int]] = field(init=False)

    def __post_init__(self) -> None:
        self.unread = {(diagnostic.span.line, diagnostic.span.column) for diagnostic in self.diagnostics}

    def add(self, code: str, path: Path, message: str, hint: str | None = None, *, key: bool = False) -> None:
        """Report something about the value at `path`, or about its key."""
        self.extend([self.document.diagnose(code, path, message, hint, key=key)])

    def add_at(self, span: Span, code: str, message: str, hint: str | None = None) -> None:
        """Report something about a range of the text."""
        self.extend([self.document.diagnostic_at(span, code, message, hint)])

    def add_problem(self, problem: Problem, path: Path) -> None:
        """Report a problem with the value at `path`."""
        where = (*path, *problem.path)
        if problem.within is None:
            self.add_at(self.document.span(where, key=problem.key), problem.code, problem.message, problem.hint)
            return
        span = self.document.span_within(where, *problem.within)
        diagnostic = self.document.diagnostic_at(span, problem.code, problem.message, problem.hint)
        self.extend([replace(diagnostic, replacement=self.replacement(problem, where, span))])

    def replacement(self, problem: Problem, where: Path, span: Span) -> str | None:
        """Return what to write in the file in place of `span`, or None if it does not hold exactly what is replaced."""
        text = value_at(self.document.value, where)
        if problem.replacement is None or problem.within is None or not isinstance(text, str):
            return None
        line = self.document.lines[span.line - 1]
        if line[span.column - 1 : span.end - 1] != text[slice(*problem.within)]:
            return None
        is_single = self.document.quote_at(where) == "'"
        return problem.replacement.replace("'", '"') if is_single else problem.replacement

    def extend(self, diagnostics: Iterable[Diagnostic]) -> None:
        """Add diagnostics from elsewhere, except follow-ups about text that could not be read."""
        self.diagnostics += [
            diagnostic
            for diagnostic in diagnostics
            if diagnostic.span.file != self.document.file
            or (diagnostic.span.line, diagnostic.span.column) not in self.unread
        ]

    def require_no_errors(self) -> None:
        """Raise SpecError with everything reported so far, if any of it is an error."""
        if errors_of(self.diagnostics):
            raise SpecError(self.diagnostics)
