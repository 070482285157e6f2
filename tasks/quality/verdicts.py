"""Judges a batch by a suite: Great Expectations asks, Postgres answers, and only a few example rows reach Python.

Knows the library and its session; knows nothing about what follows from a verdict. The library works inside the
caller's transaction, so all of its queries see the same rows.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, cast

from tasks.contract import MissingResource, PermanentError, TransientError
from tasks.postgres.blame import blamed_text
from tasks.postgres.reached import require_known_calls_of
from tasks.postgres.relations import columns_of, require_columns
from tasks.postgres.statements import name, only_row, statement
from tasks.quality.expectations import QUERIES, alike, problems
from tasks.quality.on_postgres import row_queries
from tasks.quality.on_postgres.quarantine import batch_rows, condition_alone
from tasks.quality.on_postgres.values import keep_values, know_types, shown
from tasks.services.postgres import postgres, statement_errors

if TYPE_CHECKING:
    import psycopg2
    from great_expectations.core import ExpectationSuiteValidationResult, ExpectationValidationResult
    from great_expectations.datasource.fluent.interfaces import Batch as LibraryBatch
    from psycopg2.extensions import connection as PostgresSession  # noqa: N812  psycopg2 spells its class in lower case
    from psycopg2.extensions import cursor as Cursor  # noqa: N812
    from sqlalchemy.engine import ExceptionContext

    from tasks.contract import Run
    from tasks.quality.suites import Expectation, Suite

EXAMPLES = 5
"""How many values that break a rule are shown."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one expectation; if it failed, `found` has counts and examples."""

    expectation: Expectation
    passed: bool
    found: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of a suite, in its order; `results` is the library's own account."""

    rows: int
    outcomes: tuple[Outcome, ...]
    results: ExpectationSuiteValidationResult

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """The outcomes of the rules that the batch broke."""
        return tuple(outcome for outcome in self.outcomes if not outcome.passed)


class UnansweredError(PermanentError):
    """An expectation could not be judged: it needs something missing, or its column has the wrong type."""


def load_library() -> None:
    """Import the library, which takes seconds: do it before a transaction is open."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    logging.getLogger("great_expectations").setLevel(logging.WARNING)  # before the import, which logs 200 lines

    from tasks.quality.on_postgres.metrics import install

    install()


def judge(session: PostgresSession, suite: Suite, run: Run, *, rows: int | None = None) -> Verdict:
    """Judge the suite's batch in the transaction that `session` is in; its `rows` are counted unless they are known.

    Asks yes or no for every rule first, then counts and examples for the failed ones. Raises MissingResource for a
    missing column, and UnansweredError naming an expectation that the database could not answer.
    """
    load_library()
    with session.cursor() as cursor:
        _open_batch(cursor, suite)
        rows = _count(cursor, suite) if rows is None else rows
    with ExitStack() as others:
        compared = {name: others.enter_context(postgres(name, run=run, autocommit=True)) for name in _compared(suite)}
        sessions = {suite.connection: session, **compared}
        _require_known_calls(suite, run, sessions)
        library = _Library.open(suite, sessions)
        results = library.ask(range(len(suite.expectations)), "BOOLEAN_ONLY")
        failed = [place for place, answer in enumerate(results.results) if not answer.success]
        if failed:
            details = library.ask(failed, {"result_format": "BASIC", "partial_unexpected_count": EXAMPLES})
            for place, answer in zip(failed, details.results, strict=True):
                results.results[place] = answer
    outcomes = zip(suite.expectations, results.results, strict=True)
    return Verdict(rows, tuple(_outcome(expectation, answer) for expectation, answer in outcomes), results)


def check_arguments(suite: Suite) -> None:
    """Raise PermanentError for arguments that are wrong once their templates are filled."""
    for expectation in suite.expectations:
        for problem in problems(expectation):
            raise PermanentError(f"suite {suite.name!r}, {expectation.type}: {problem.message}; {problem.hint}")


_ABOUT_COLUMNS = frozenset(
    {
        "expect_column_to_exist",
        "expect_table_columns_to_match_set",
        "expect_table_columns_to_match_ordered_list",
    }
)
"""Expectations for which a missing column is an answer, not a mistake."""


def columns_named(expectation: Expectation) -> list[str]:
    """Return the columns that an expectation is about, which must exist before it can be asked."""
    if expectation.type in _ABOUT_COLUMNS:
        return []
    given = [expectation.arguments.get(name) for name in ("column", "column_A", "column_B")]
    listed = expectation.arguments.get("column_list")
    return [str(name) for name in [*given, *(listed if isinstance(listed, list) else ())] if name is not None]


def _open_batch(cursor: Cursor, suite: Suite) -> None:
    """Make the batch a temporary view with the name of its table."""
    from psycopg2.sql import SQL, Identifier

    schema, table = suite.batch.table.split(".")
    there = columns_of(cursor, suite.batch.table)
    require_columns(suite.batch.table, there, [name for rule in suite.expectations for name in columns_named(rule)])
    cursor.execute(SQL("CREATE TEMPORARY VIEW {} AS {}").format(Identifier(table), batch_rows(suite.batch)))
    # A rule may also name other tables of the batch's schema.
    path = "'pg_catalog, pg_temp, ' || quote_ident(%s) || ', ' || current_setting('search_path')"
    cursor.execute(f"SELECT set_config('search_path', {path}, true)", [schema])


def _count(cursor: Cursor, suite: Suite) -> int:
    view = name(suite.batch.table.split(".")[1])
    cursor.execute(statement("SELECT count(*) FROM pg_temp.{view}", view=view))
    return int(only_row(cursor)[0])


def _require_known_calls(suite: Suite, run: Run, sessions: Mapping[str, PostgresSession]) -> None:
    """Raise UnansweredError if a query calls a function of a database that the project does not allow."""
    from psycopg2.sql import SQL

    view = statement("SELECT * FROM pg_temp.{view}", view=name(suite.batch.table.split(".")[1]))
    for rule in suite.expectations:
        for argument, batch in QUERIES.items():
            if query := rule.arguments.get(argument):
                is_here = batch != "elsewhere"
                source = suite.connection if is_here else str(rule.arguments.get("comparison_data_source_name"))
                with _blamed(suite, rule), sessions[source].cursor() as cursor:
                    asked = row_queries.as_asked(str(query), view.as_string(cursor))
                    require_known_calls_of(cursor, SQL(asked), argument, run)


def _named(suite: Suite, rule: Expectation) -> str:
    return f"suite {suite.name!r}, {rule.type}"


@contextmanager
def _blamed(suite: Suite, rule: Expectation) -> Iterator[None]:
    """Say of an error in the block which rule it is about."""
    try:
        with statement_errors(suite.connection):
            yield
    except MissingResource as missing:
        raise replace(missing, where=f"{missing.where}, where {_named(suite, rule)} looks for it") from None
    except PermanentError as error:
        raise UnansweredError(f"{_named(suite, rule)}: {error}") from None


def _compared(suite: Suite) -> set[str]:
    """Return the other connections whose queries a rule compares with the batch's."""
    named = {rule.arguments.get("comparison_data_source_name") for rule in suite.expectations}
    return {str(name) for name in named if name is not None} - {suite.connection}


def _outcome(expectation: Expectation, answer: ExpectationValidationResult) -> Outcome:
    return Outcome(expectation, bool(answer.success), {} if answer.success else answer.result)


@dataclass(frozen=True)
class _Library:
    """The library, working in open sessions."""

    suite: Suite
    session: PostgresSession
    batch: LibraryBatch
    errors: list[psycopg2.Error]

    @classmethod
    def open(cls, suite: Suite, sessions: Mapping[str, PostgresSession]) -> _Library:
        import great_expectations
        from great_expectations.data_context.types.base import (
            DataContextConfig,
            InMemoryStoreBackendDefaults,
            ProgressBarsConfig,
        )

        config = DataContextConfig(
            store_backend_defaults=InMemoryStoreBackendDefaults(),
            progress_bars=ProgressBarsConfig(globally=False),
            analytics_enabled=False,
        )
        context = great_expectations.get_context(mode="ephemeral", project_config=config)
        errors: list[psycopg2.Error] = []
        sources = {name: _source(context, name, lent, errors) for name, lent in sessions.items()}
        table = suite.batch.table.split(".")[1]
        asset = sources[suite.connection].add_table_asset(suite.batch.table, table_name=f'"{table}"')
        batch = asset.add_batch_definition_whole_table("batch").get_batch()
        session = sessions[suite.connection]
        with session.cursor() as cursor:
            know_types(sources[suite.connection].get_execution_engine().engine, cursor, suite.batch.table)
            cursor.execute("SAVEPOINT asked")
        return cls(suite, session, batch, errors)

    def ask(self, places: Sequence[int], result_format: Any) -> ExpectationSuiteValidationResult:
        """Return the library's answers about the expectations at `places`, in that order."""
        results = self._answers(places, result_format)
        unanswered = [place for place, answer in zip(places, results.results, strict=True) if _exception(answer)]
        if unanswered:
            self._raise_for(unanswered, result_format)
        return results

    def _answers(self, places: Sequence[int], result_format: Any) -> ExpectationSuiteValidationResult:
        from great_expectations.core import ExpectationSuite

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # one for each text row_condition, many times over
            asked = ExpectationSuite(self.suite.name, expectations=[self._expectation(place) for place in places])
            results: Any = self.batch.validate(asked, result_format=result_format)
        results.results.sort(key=lambda answer: answer.expectation_config.meta["place"])
        for answer in results.results:
            answer.result = shown(answer.result)
        return cast("ExpectationSuiteValidationResult", results)

    def _expectation(self, place: int) -> Any:
        """Return a new library object: they cannot be shared between suites."""
        from great_expectations.expectations.registry import get_expectation_impl

        written = self.suite.expectations[place]
        implementation: Any = get_expectation_impl(written.type)
        return implementation(**for_library(written.arguments), meta={"place": place})

    def _raise_for(self, places: Sequence[int], result_format: Any) -> NoReturn:
        """Raise for the expectation to blame: when asked together, one failure takes others with it."""
        for place in places:
            with self.session.cursor() as cursor:
                cursor.execute("ROLLBACK TO SAVEPOINT asked")
            self.errors.clear()
            (answer,) = self._answers([place], result_format).results
            if problem := _exception(answer):
                self._raise(self.suite.expectations[place], problem)
        named = ", ".join(self.suite.expectations[place].type for place in places)
        raise TransientError("Great Expectations", f"could not answer {named} together, but each alone")

    def _raise(self, expectation: Expectation, problem: str) -> NoReturn:
        if not self.errors:
            raise UnansweredError(f"{_named(self.suite, expectation)}: {problem}")
        alone = partial(condition_alone, self.suite.batch)
        with _blamed(self.suite, expectation), self.session.cursor() as cursor, blamed_text(cursor, alone):
            raise self.errors[0]


def for_library(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments as the library takes them: it compares bounds, and reads braces and colons in its own way."""
    queries = {
        name: row_queries.for_library(str(arguments[name]), batch)
        for name, batch in QUERIES.items()
        if arguments.get(name)
    }
    return {**arguments, **queries, **alike(arguments)}


def _source(context: Any, name: str, session: PostgresSession, errors: list[psycopg2.Error]) -> Any:
    """Return a data source that works in an open session without touching its transaction."""
    import psycopg2
    from sqlalchemy import event
    from sqlalchemy.pool import StaticPool

    class Lent(StaticPool):
        """Keeps the session open when the library is done: its owner closes it."""

        def dispose(self) -> None:
            """Leave the session open."""

        def recreate(self) -> Lent:
            """Return the same pool, which still has its session."""
            return self

    keep_values(session)
    source = context.data_sources.add_postgres(
        name,
        connection_string="postgresql+psycopg2://lent@session/open",
        kwargs={"creator": lambda: session, "poolclass": Lent},
    )

    def note(failure: ExceptionContext) -> None:
        if isinstance(failure.original_exception, psycopg2.Error):
            errors.append(failure.original_exception)

    event.listen(source.get_execution_engine().engine, "handle_error", note)
    return source


def _exception(answer: ExpectationValidationResult) -> str | None:
    """Return why an expectation could not be answered: the library says it once, or once per metric."""
    info = answer.exception_info or {}
    several = [info] if "raised_exception" in info else list(info.values())
    raised = [exception for exception in several if exception["raised_exception"]]
    return str(raised[0]["exception_message"]).strip() if raised else None
