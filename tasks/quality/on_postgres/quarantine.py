"""Sets aside the rows that break a suite's rules, each under the reason of every rule that it breaks.

Knows how rows are identified and copied in SQL; none of them passes through Python. Does not know who judges.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from tasks.contract import MissingResource
from tasks.postgres.blame import blamed_text
from tasks.postgres.relations import columns_of
from tasks.postgres.sql import fragment, table_identifier
from tasks.postgres.statements import joined, name, names, statement, value
from tasks.quality.on_postgres.conditions import RowCondition, can_quarantine, row_condition
from tasks.quality.on_postgres.row_queries import SUBSELECT
from tasks.quality.suites import Quarantine

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from psycopg2.extensions import cursor as Cursor  # noqa: N812  psycopg2 spells its class in lower case
    from psycopg2.sql import Composable

    from tasks.contract import Run
    from tasks.quality.suites import Batch, Expectation, Suite

__all__ = ["RowCondition", "can_quarantine", "quarantine", "require_validation_id", "row_condition"]

_KEYS = ("suite", "dag_id", "run_id", "validation_id")
"""The columns that say who set a row aside."""


def quarantine(
    cursor: Cursor, suite: Suite, failed: Iterable[Expectation], run: Run, *, instead_of: Sequence[str] = ()
) -> dict[str, int]:
    """Set aside the rows that break `failed`; return counts by reason.

    A row that one of the tries `instead_of` has set aside for the same reason is from now on this try's; what else they
    have set aside stays theirs. Two rules with the same reason count as one rule. All in the transaction of `cursor`,
    in one pass over the batch: first into a temporary table, as Postgres uses parallel workers only then.
    """
    from psycopg2.sql import SQL

    rules = _rules(failed)
    if suite.quarantine is None or not rules:
        return {}
    # The planner cannot know how many rows break a rule: it expects many, and does without parallel workers.
    cursor.execute("SET LOCAL parallel_tuple_cost = 0")
    with blamed_text(cursor, partial(_columns_alone, suite, rules)):
        cursor.execute(_select_broken(suite.batch, suite.quarantine, rules))
        cursor.execute(_insert(suite.quarantine, suite, run, instead_of))
    rejected = dict.fromkeys(rules, 0) | dict(cursor.fetchall())
    cursor.execute(SQL("DROP TABLE pg_temp.__rejected"))
    return rejected


def _columns_alone(suite: Suite, rules: Mapping[str, list[RowCondition]]) -> dict[str, Composable]:
    """Return what computes each column of the quarantine alone, as the table stores it."""
    assert suite.quarantine is not None
    text = """
        {broken};
        CREATE TEMPORARY TABLE alone AS SELECT {column} FROM {table} WITH NO DATA;
        INSERT INTO alone SELECT {column} FROM pg_temp.__rejected
    """
    table = suite.quarantine.table
    return {
        f"quarantine.columns.{column} of suite {suite.name!r}": statement(
            text,
            broken=_select_broken(suite.batch, Quarantine(table=table, columns={column: sql}), rules),
            column=name(column),
            table=table_identifier(table),
        )
        for column, sql in suite.quarantine.columns.items()
    }


def require_validation_id(cursor: Cursor, target: Quarantine) -> None:
    """Raise MissingResource if the table cannot tell which validation set a row aside."""
    if "validation_id" not in columns_of(cursor, target.table):
        alter = statement("ALTER TABLE {table} ADD COLUMN validation_id uuid", table=table_identifier(target.table))
        where = f"table {target.table}, where rejected rows are set aside"
        raise MissingResource("column", "validation_id", where, f"add it: {alter.as_string(cursor)}")


def _rules(failed: Iterable[Expectation]) -> dict[str, list[RowCondition]]:
    """Return the conditions of each reason; an expectation without a reason or a condition sets nothing aside."""
    rules: dict[str, list[RowCondition]] = {}
    for expectation in failed:
        if expectation.reason and (condition := row_condition(expectation)):
            rules.setdefault(expectation.reason, []).append(condition)
    return rules


def _select_broken(batch: Batch, target: Quarantine, rules: Mapping[str, list[RowCondition]]) -> Composable:
    """Return the statement that finds the broken rows; only those are then tested rule by rule."""
    from psycopg2.sql import SQL, Identifier, Literal

    broken = {reason: SQL(" OR ").join(SQL(f"({rule.sql})") for rule in same) for reason, same in rules.items()}
    columns = [SQL("{} AS {}").format(fragment(sql), Identifier(name)) for name, sql in target.columns.items()]
    tests = [SQL("({}, {})").format(Literal(reason), condition) for reason, condition in broken.items()]
    return SQL(
        "CREATE TEMPORARY TABLE __rejected AS WITH {batch} AS NOT MATERIALIZED ({rows})"
        " SELECT __reason AS reason, {columns}"
        " FROM (SELECT * FROM {judged} WHERE {any_rule}) AS {batch}"
        " CROSS JOIN LATERAL (VALUES {tests}) AS rule (__reason, __is_broken) WHERE __is_broken"
    ).format(
        batch=Identifier(SUBSELECT),
        rows=batch_rows(batch),
        columns=SQL(", ").join(columns),
        judged=_judged([rule for same in rules.values() for rule in same]),
        any_rule=SQL(" OR ").join(broken.values()),
        tests=SQL(", ").join(tests),
    )


def condition_alone(batch: Batch) -> dict[str, Composable]:
    """Return what computes the condition of a batch alone, by its name."""
    if batch.where is None:
        return {}
    rows = statement("SELECT count(*) FROM ({batch}) AS {name}", batch=batch_rows(batch), name=name(SUBSELECT))
    return {"batch.where": rows}


def batch_rows(batch: Batch) -> Composable:
    """Return the query of a suite's batch."""
    from psycopg2.sql import SQL

    where = SQL(" WHERE {}").format(fragment(batch.where)) if batch.where else SQL("")
    return SQL("SELECT * FROM {}{}").format(table_identifier(batch.table), where)


def _judged(rules: list[RowCondition]) -> Composable:
    """Return the batch with the extra columns that the rules need."""
    from psycopg2.sql import SQL, Identifier

    windows = {name: sql for rule in rules for name, sql in rule.windows.items()}
    statistics = {name: sql for rule in rules for name, sql in rule.statistics.items()}
    columns = SQL(", ").join([SQL("{}.*").format(Identifier(SUBSELECT)), *_named(windows)])
    judged = SQL("(SELECT {} FROM {}) AS {}").format(columns, Identifier(SUBSELECT), Identifier(SUBSELECT))
    if statistics:
        numbers = SQL(", ").join(_named(statistics))
        judged += SQL(" CROSS JOIN (SELECT {} FROM {}) AS numbers").format(numbers, Identifier(SUBSELECT))
    return judged


def _named(columns: Mapping[str, str]) -> list[Composable]:
    from psycopg2.sql import SQL, Identifier

    return [SQL("{} AS {}").format(SQL(sql), Identifier(name)) for name, sql in columns.items()]


def _insert(target: Quarantine, suite: Suite, run: Run, instead_of: Sequence[str]) -> Composable:
    """Return the statement that sets the rows aside, deletes those that it replaces, and counts them by reason."""
    text = """
        WITH inserted AS (
            INSERT INTO {table} ({columns}) SELECT {keys}, * FROM pg_temp.__rejected RETURNING reason, {content}
        ) {replaced}
        SELECT reason, count(*) FROM inserted GROUP BY reason
    """
    return statement(
        text,
        table=table_identifier(target.table),
        columns=names([*_KEYS, "reason", *target.columns]),
        keys=joined(", ", map(value, (suite.name, run.dag_id, run.run_id, run.attempt))),
        content=_content(target),
        replaced=_replaced(target, suite, run, instead_of) if instead_of else statement(""),
    )


def _content(target: Quarantine) -> Composable:
    """Return what rows are compared by, as they are stored."""
    return statement("ROW ({columns})::text AS content", columns=names(["reason", *target.columns]))


def _replaced(target: Quarantine, suite: Suite, run: Run, tries: Sequence[str]) -> Composable:
    """Return the part of the statement that deletes those rows of `tries` that are set aside again.

    Of rows that are equal, as many are deleted as there are new ones. No part of a statement sees what another writes.
    """
    text = """
        , earlier AS (
            SELECT *, row_number() OVER (PARTITION BY content) AS nth
            FROM (
                SELECT tableoid AS part, ctid AS place, {content} FROM {table}
                WHERE suite = {suite} AND dag_id = {dag_id} AND run_id = {run_id}
                    AND validation_id::text = ANY ({tries})
            ) AS rows
        ), counted AS (
            SELECT content, count(*) AS rows FROM inserted GROUP BY content
        ), replaced AS (
            DELETE FROM {table} AS target USING earlier JOIN counted USING (content)
            WHERE nth <= rows AND (target.tableoid, target.ctid) = (part, place)
        )
    """
    return statement(
        text,
        table=table_identifier(target.table),
        content=_content(target),
        suite=value(suite.name),
        dag_id=value(run.dag_id),
        run_id=value(run.run_id),
        tries=value(list(tries)),
    )
