"""What a text with `{{ … }}` refers to, and whether its expressions fit together.

Each text is read by itself and its meaning is returned; nothing is reported or collected here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import chain as chained

from factory.language.airflow_names import Former, former_names
from factory.language.airflow_names import Known as KnownNames
from factory.language.evaluation import expression_types, paths
from factory.language.expressions import Path
from factory.language.report import Problem
from factory.language.spec import ParamSpec
from factory.language.templates import (
    Expression,
    SqlForm,
    Template,
    check_written,
    piece_starts,
    pieces,
    sql_pieces,
    whole_expression,
)
from factory.language.tokens import TemplateProblem
from factory.language.value_types import TEXT, Types, ValueType, schema_types
from factory.language.variables import Variable
from factory.planning.inference import Computation, Known, Sample, Samples
from factory.planning.meanings import Meaning, Names
from factory.planning.scopes import Place
from factory.registry import Registry
from tasks.postgres.calls import Call, UnknownFunctionsError
from tasks.postgres.expressions import (
    QuotedValueError,
    check_expression,
    check_query,
    clocks_in_expression,
    clocks_in_query,
)

MAX_PROBLEMS = 20
"""After so many problems, the rest of a text is not read."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The result of reading a text."""

    template: Template
    types: Types = (TEXT,)
    samples: Samples = None
    """Values that it may have."""
    waits: frozenset[str] = frozenset()
    """The task_ids of the steps whose output it names."""
    params: frozenset[str] = frozenset()
    """The params that it names."""
    problems: tuple[Problem, ...] = ()


def waits_of(readings: Iterable[Reading]) -> frozenset[str]:
    """Return the task_ids of all steps that the texts name."""
    return frozenset(chained.from_iterable(reading.waits for reading in readings))


def params_of(readings: Iterable[Reading]) -> frozenset[str]:
    """Return all params that the texts name."""
    return frozenset(chained.from_iterable(reading.params for reading in readings))


@dataclass(frozen=True, slots=True)
class _Judged:
    """One expression of a text: its types, samples of its value, and what is wrong with it."""

    types: Types
    samples: Samples = None
    meanings: Mapping[Path, Meaning] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class SqlCheck:
    """How a text in SQL is judged: `check` raises ValueError for its pieces between values."""

    check: Callable[[tuple[str, ...]], object]
    code: str
    hint: str
    clocks: Callable[[tuple[str, ...]], tuple[Call, ...]] = clocks_in_expression
    """Returns what depends on when the SQL runs."""


@dataclass(frozen=True)
class References:
    """The names that the texts of one pipeline may use."""

    params: Mapping[str, ParamSpec]
    registry: Registry
    variables: Mapping[str, Variable] = field(default_factory=dict)
    functions: frozenset[str] = frozenset()
    """The SQL functions that expressions may call besides Postgres' harmless ones."""
    is_utc: bool = True
    computation: Computation = field(default_factory=Computation)

    @property
    def expressions(self) -> SqlCheck:
        """How an expression in SQL is judged."""
        check = partial(check_expression, functions=self.functions)
        return SqlCheck(check, "bad-sql", "write one expression over the row's columns")

    @property
    def queries(self) -> SqlCheck:
        """How a query of a step is judged."""
        check = partial(check_query, functions=self.functions)
        return SqlCheck(check, "bad-sql", "write one SELECT that only reads", clocks_in_query)

    def read(self, text: str, place: Place, *, sql: SqlForm = "") -> Reading:
        """Return what `text` refers to from `place`; with `sql`, values are inserted as literals."""
        try:
            expressions = [piece for piece in pieces(text) if isinstance(piece, Expression)]
        except TemplateProblem as problem:
            return Reading(Template(text, sql), problems=(_problem(problem),))
        whole = not sql and is_whole(text)
        judged: list[_Judged] = []
        wrong = 0
        for one in expressions:
            judged.append(self._judged(one, text, place, sql=bool(sql), whole=whole))
            wrong += len(judged[-1].problems)
            if wrong >= MAX_PROBLEMS:
                break
        meanings = [meaning for one in judged for meaning in one.meanings.values()]
        sources = dict.fromkeys(meaning.source for meaning in meanings if meaning.source)
        return Reading(
            Template(text, sql, tuple(sources)),
            judged[0].types if whole else (TEXT,),
            judged[0].samples if whole else (Sample("text"),),
            waits=frozenset(source.task_id for source in sources if source.task_id),
            params=frozenset(chained.from_iterable(meaning.params for meaning in meanings)),
            problems=tuple(problem for one in judged for problem in one.problems),
        )

    def _judged(self, expression: Expression, text: str, place: Place, *, sql: bool, whole: bool) -> _Judged:
        names = Names(self.params, self.registry, self.variables, place, lambda: self._every_param)
        meanings = {path: names.meaning(path) for path in paths(expression.node)}
        wrong = [(path.start, path.end, one.problem) for path, one in meanings.items() if one.problem]
        if not wrong:
            try:
                return self._computed(expression, text, meanings, sql=sql, whole=whole)
            except TemplateProblem as problem:
                wrong.append((*problem.span, _problem(problem)))
        known = KnownNames(self.params, self.variables, self.is_utc)
        former = list(former_names(expression.node, known, alone=not whole and not sql))
        problems = [_former_problem(one) for one in former]
        problems += [
            problem
            for start, end, problem in wrong
            if not any(one.span[0] < end and start < one.span[1] for one in former)
        ]
        return _Judged((TEXT,), None, meanings, tuple(problems))

    @cached_property
    def _every_param(self) -> Types:
        fields = tuple((name, schema_types(param.schema, {})) for name, param in self.params.items())
        return (ValueType("object", fields=fields),)

    def _computed(
        self, expression: Expression, text: str, meanings: Mapping[Path, Meaning], *, sql: bool, whole: bool
    ) -> _Judged:
        types = expression_types(expression.node, lambda path: meanings[path].types, text)
        if not whole:
            check_written(types, expression, text, sql=sql)
        known = {path: Known(one.types, one.exact) for path, one in meanings.items()}
        return _Judged(types, self.computation.samples(expression.node, text, types, known), meanings)


def _problem(problem: TemplateProblem) -> Problem:
    return Problem(problem.code, str(problem), problem.given_hint, within=problem.span)


def _former_problem(former: Former) -> Problem:
    hint = f"write {former.instead.removeprefix(' | ')}" + ("; taskflow lint --fix writes it" if former.exact else "")
    message = f'"{former.name}" is Airflow\'s; templates here have a language of their own'
    replacement = former.instead if former.exact else None
    return Problem("airflow-name", message, hint, within=former.span, replacement=replacement)


def syntax_problems(text: str) -> Iterator[Problem]:
    """Yield why a text cannot be read, whatever its names mean."""
    try:
        pieces(text)
    except TemplateProblem as problem:
        yield _problem(problem)


def is_whole(text: str) -> bool:
    """Return whether `text` is a single `{{ … }}`, or unreadable, which is reported when it is read."""
    try:
        return whole_expression(text) is not None
    except TemplateProblem:
        return True


def sql_from_template(field: str | int) -> Problem:
    """Return the problem with a template that would give a whole value with SQL in it."""
    message = f"{field} holds SQL, which cannot come from a template"
    return Problem("bad-sql", message, "write the SQL here, with {{ … }} for the values in it")


def sql_problems(text: str, field: str, judge: SqlCheck) -> Iterator[Problem]:
    """Yield why `text` is not the SQL that it should be, whatever its values will be."""
    try:
        judge.check(sql_pieces(text))
        yield from _clock_problems(text, field, judge)
    except TemplateProblem:
        return  # an unreadable template is reported when it is read
    except QuotedValueError as error:
        yield Problem("quoted-template", str(error), "remove the quotes around {{ … }}")
    except UnknownFunctionsError as error:
        for call in error.calls:
            hint = partial(call.hint, error.allowed)
            yield Problem("unknown-function", f"{field} {call.problem}", hint, within=_within(call, text))
    except ValueError as error:
        yield Problem(judge.code, f"{field} {error}", judge.hint)


def _clock_problems(text: str, field: str, judge: SqlCheck) -> Iterator[Problem]:
    for call in judge.clocks(sql_pieces(text)):
        message = f"{field} reads the clock ({call.name}): a rerun or a backfill for the same date would differ"
        yield Problem("wall-clock", message, "compute it from {{ run.date }}", within=_within(call, text))


def _within(call: Call, text: str) -> tuple[int, int]:
    """Return where a call stands in the text."""
    number, index = call.place or (0, 0)
    start = piece_starts(text)[number] + index
    return start, start + len(call.name)
