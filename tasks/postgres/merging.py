"""The statements of a merge: what differs between two tables, and how the differences are written.

Works on a cursor whose transaction holds the locks; opens no connection. The two tables are joined once, into a
temporary table of the differences. Target rows outside the window are only looked up for keys that are not in the
window, so the work of a run does not grow with the target's history.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Annotated, NoReturn

from pydantic import Field

from tasks.contract import DataRejected, Model, Output, PermanentError, Run, Sql, TableColumn
from tasks.postgres.blame import blamed_text
from tasks.postgres.relations import columns_of, require_columns, require_own_rows, require_unique_key
from tasks.postgres.sql import fragment, table_identifier
from tasks.postgres.statements import joined, name, names, only_row, statement, value
from tasks.postgres.versions import Build, foreign_rows, require_unchanged

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from psycopg2.extensions import cursor as Cursor  # noqa: N812  psycopg2 spells its class in lower case
    from psycopg2.sql import Composable

_WRITTEN = ("inserted", "updated", "reactivated")
"""Kinds of difference that the upsert writes; the others: `deactivated`, `absent` (inactive before), `unchanged`."""


class Merged(Output):
    """What a merge did to the target, in rows."""

    inserted: int
    updated: int
    """Rows that were active in the target, with other values."""
    reactivated: int
    """Rows that were inactive in the target, and came back."""
    deactivated: int
    unchanged: int
    """Rows of the source that the target already had: they were not written."""


class Deactivation(Model):
    """Which rows of the target are deactivated when they are no longer in the source."""

    window: Sql
    """A condition on the target's rows: nothing is deactivated outside it."""
    flag: TableColumn = "is_active"
    """The boolean column of the target that says whether a row is active."""
    max_deactivated_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Of the active rows of the window before the merge: where more would be deactivated, nothing is changed."""


class Timestamps(Model):
    """The columns of the target that say when a row was created and last changed."""

    created: TableColumn | None = None
    updated: TableColumn | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """What a step wants merged, and how."""

    source: str
    target: str
    keys: Sequence[str]
    columns: Sequence[str] | None
    deactivate: Deactivation | None
    timestamps: Timestamps
    build: Build | None = None
    """The version of the source that is loaded; None where no step of ours fills it."""
    allow_empty: bool = False
    every_column: bool = False
    """Whether a column that only one of the tables has is an error."""

    @property
    def kept(self) -> list[str]:
        """The target's own columns, which the source never fills."""
        own = (self.deactivate.flag if self.deactivate else None, self.timestamps.created, self.timestamps.updated)
        return [column for column in own if column]


def merge_tables(cursor: Cursor, terms: Terms, run: Run) -> Merged:
    """Write the differences to the target; raise DataRejected if two rows of the source have the same keys."""
    from psycopg2.errors import CardinalityViolation

    merge = _planned(cursor, terms, run)
    rows = merge.count_source(cursor, run)
    if merge.is_converted:
        with blamed_text(cursor, merge.converted_alone):
            merge.convert(cursor)
    if not rows and terms.deactivate and not terms.allow_empty:
        problem = f"{terms.source} is empty: deactivating all of its window in {terms.target} is refused"
        raise DataRejected(f"{problem}; say `allow_empty: true` where an empty source is right")
    cursor.execute("SAVEPOINT before_writing")
    try:
        counts = merge.write_differences(cursor, rows) if merge.target_has_rows(cursor) else merge.fill(cursor, rows)
    except CardinalityViolation:  # an INSERT had a key twice
        cursor.execute("ROLLBACK TO SAVEPOINT before_writing")
        merge.refuse_duplicates(cursor)
        raise
    written = {kind: counts.get(kind, 0) for kind in _WRITTEN}
    return Merged(**written, deactivated=counts.get("deactivated", 0), unchanged=rows - sum(written.values()))


def _planned(cursor: Cursor, terms: Terms, run: Run) -> _Merge:
    """Look both tables up; raise if they lack what the step needs."""
    source, target = columns_of(cursor, terms.source), columns_of(cursor, terms.target)
    taken = {*terms.keys, *terms.kept}
    common = [column for column in source if column in target and column not in taken and not target[column].generated]
    carried = [*terms.keys, *(common if terms.columns is None else terms.columns)]
    require_columns(terms.source, source, carried)
    require_columns(terms.target, target, [*carried, *terms.kept])
    require_own_rows(cursor, terms.target)
    _refuse_generated(terms, [column for column in carried if target[column].generated])
    require_unique_key(cursor, terms.target, terms.keys)
    if terms.columns is None:
        free = [one for one in target if one not in carried]
        _refuse_other_case(terms, [one for one in source if one not in carried], free)
    own = [one for one in target if one not in carried and one not in terms.kept and not target[one].generated]
    _tell_carried(terms, carried, [one for one in source if one not in carried], own, run)
    is_converted = any(source[column].type != target[column].type for column in carried)
    return _Merge(terms, carried[len(terms.keys) :], is_converted)


def _refuse_generated(terms: Terms, generated: Sequence[str]) -> None:
    if generated:
        problem = f"only the server fills {', '.join(generated)} of {terms.target} (GENERATED ALWAYS)"
        raise PermanentError(f"{problem}, so no merge can; take others as keys and columns, or make it BY DEFAULT")


def _refuse_other_case(terms: Terms, left_out: Sequence[str], target: Iterable[str]) -> None:
    """Raise PermanentError for a column of the source that the target has with another case."""
    folded = {column.casefold(): column for column in target}
    for column in left_out:
        near = folded.get(column.casefold())
        if near and near != column:
            problem = f'column "{column}" of {terms.source} is "{near}" in {terms.target}, so it would not be carried'
            raise PermanentError(f"{problem}; rename one of them, or list `columns`")


def _tell_carried(terms: Terms, carried: Sequence[str], left_out: Sequence[str], own: Sequence[str], run: Run) -> None:
    """Say which columns are carried and which are not; raise PermanentError for the latter if the step insists."""
    others = [f"{', '.join(left_out)} of {terms.source}"] if left_out else []
    others += [f"{', '.join(own)} of {terms.target}"] if own else []
    if others and terms.every_column:
        problem = f"every_column: {' and '.join(others)} would not be carried"
        raise PermanentError(f"{problem}; give both tables the same columns, or remove every_column")
    not_carried = f"; not carried: {' and '.join(others)}" if others else ""
    run.log.info("%s: carries %s%s", terms.target, ", ".join(carried), not_carried)


@dataclass(frozen=True, slots=True)
class _Merge:
    """A merge over columns that both tables are known to have."""

    terms: Terms
    columns: Sequence[str]
    is_converted: bool
    """Whether a column has another type in the target: then values are compared as they will be stored."""

    def convert(self, cursor: Cursor) -> None:
        """Copy the source to a temporary table with the target's types, by the same rules as an INSERT.

        A cast would permit more: it cuts what is too long for a domain, where an INSERT fails.
        """
        carried = names(self.carried)
        text = """
            CREATE TEMPORARY TABLE pg_temp.converted ON COMMIT DROP AS SELECT {carried} FROM {target} WITH NO DATA;
            INSERT INTO pg_temp.converted SELECT {carried} FROM {source};
            ANALYZE pg_temp.converted
        """
        cursor.execute(statement(text, carried=carried, target=self.target, source=self.source))

    def converted_alone(self) -> Mapping[str, Composable]:
        """Return what converts each column alone."""
        text = """
            CREATE TEMPORARY TABLE alone ON COMMIT DROP AS SELECT {column} FROM {target} WITH NO DATA;
            INSERT INTO alone SELECT {column} FROM {source}
        """
        return {
            f'column "{column}" of {self.terms.source}': statement(
                text, column=name(column), target=self.target, source=self.source
            )
            for column in self.carried
        }

    def count_source(self, cursor: Cursor, run: Run) -> int:
        """Return how many rows the source has; refuse rows that are not of its build, and rows without a key."""
        keys, build = self.terms.keys, self.terms.build
        foreign = foreign_rows(build.transaction) if build else value(0)
        lacks_key = joined(" OR ", (statement("{key} IS NULL", key=name(key)) for key in keys))
        text = "SELECT count(*), {foreign}, count(*) FILTER (WHERE {lacks_key}) FROM {source}"
        cursor.execute(statement(text, foreign=foreign, lacks_key=lacks_key, source=self.source))
        rows, written_by_others, lacking = only_row(cursor)
        if build:
            require_unchanged(build, rows, written_by_others, run)
        if lacking:
            self.refuse_missing_keys(cursor)
        return int(rows)

    def refuse_missing_keys(self, cursor: Cursor) -> NoReturn:
        """Raise DataRejected with how many rows of the source lack each key: counted only where some do."""
        counts = (statement("count(*) - count({key})", key=name(key)) for key in self.terms.keys)
        cursor.execute(statement("SELECT {counts} FROM {source}", counts=joined(", ", counts), source=self.source))
        counted = zip(only_row(cursor), self.terms.keys, strict=True)
        lacking = ", ".join(f"{count:,} without {key}" for count, key in counted if count)
        problem = f"has rows that lack a key of the merge: {lacking}"
        raise DataRejected(f"{self.terms.source} {problem}; nothing was written to {self.terms.target}")

    def target_has_rows(self, cursor: Cursor) -> bool:
        """Return whether there is anything to compare with."""
        cursor.execute(statement("SELECT EXISTS (SELECT FROM {target})", target=self.target))
        return bool(only_row(cursor)[0])

    def fill(self, cursor: Cursor, rows: int) -> dict[str, int]:
        """Write the whole source to an empty target."""
        self.write(cursor, self.typed_source, rows)
        return {"inserted": rows}

    def write_differences(self, cursor: Cursor, rows: int) -> dict[str, int]:
        """Find what differs, make sure that keys are unique, and write it; return the rows of each kind."""
        cursor.execute(self.find_differences)
        cursor.execute("ANALYZE pg_temp.difference")
        counts = self.count_differences(cursor)
        if not self.keys_are_unique(cursor, counts, rows):
            self.refuse_duplicates(cursor)
        if self.terms.deactivate and counts.get("deactivated"):
            self.refuse_mass_deactivation(cursor, self.terms.deactivate, counts["deactivated"])
        if self.terms.deactivate and counts.get("inserted"):
            counts = self.look_outside_window(cursor, counts)
        if to_write := sum(counts.get(kind, 0) for kind in _WRITTEN):
            self.write(cursor, self.differences_to_write, to_write)
        if counts.get("deactivated"):
            cursor.execute(self.switch_off)
        return counts

    def write(self, cursor: Cursor, rows: Composable, expected: int) -> None:
        """Upsert `rows`, and make sure that every row was written."""
        cursor.execute(self.upsert(rows))
        if (taken := cursor.rowcount) != expected:
            self.refuse_duplicates(cursor)
            problem = f"took {taken:,} of {expected:,} rows: one of its triggers or rules holds rows back"
            raise PermanentError(f"{self.terms.target} {problem}, so the merge cannot say what it did")

    def count_differences(self, cursor: Cursor) -> dict[str, int]:
        """Return the rows of each kind of difference."""
        text = "SELECT {kind}, count(*) FROM pg_temp.difference GROUP BY {kind}"
        cursor.execute(statement(text, kind=self.kind))
        return dict(cursor.fetchall())

    def keys_are_unique(self, cursor: Cursor, counts: dict[str, int], rows: int) -> bool:
        """Return whether the counts prove that no two rows of the source matched the same row of the target.

        The differences include all rows of either table without a match. If two rows of the source are both new, the
        INSERT fails.
        """
        met = rows - counts.get("inserted", 0)
        if self.terms.deactivate is None or not met:
            return not met
        window = fragment(self.terms.deactivate.window)
        cursor.execute(statement("SELECT count(*) FROM {target} WHERE {window}", target=self.target, window=window))
        return bool(met == only_row(cursor)[0] - counts.get("deactivated", 0) - counts.get("absent", 0))

    def refuse_duplicates(self, cursor: Cursor) -> None:
        """Raise DataRejected, with a sample, if two rows of the source share their keys."""
        keys = names(self.terms.keys)
        text = """
            SELECT {texts}, count(*) FROM ({source}) AS s GROUP BY {keys} HAVING count(*) > 1
            ORDER BY count(*) DESC, {keys} LIMIT 3
        """
        # As the server writes them: some values are none of Python's.
        texts = joined(", ", (statement("{key}::text", key=name(key)) for key in self.terms.keys))
        cursor.execute(statement(text, keys=keys, texts=texts, source=self.typed_source))
        if sample := cursor.fetchall():
            shown = "; ".join(f"({', '.join(map(str, key))}) {count} times" for *key, count in sample)
            problem = f"has several rows with the same key ({', '.join(self.terms.keys)}), among them {shown}"
            raise DataRejected(f"{self.terms.source} {problem}; nothing was written to {self.terms.target}")

    def refuse_mass_deactivation(self, cursor: Cursor, deactivate: Deactivation, deactivated: int) -> None:
        """Raise DataRejected where more of the window's active rows would be deactivated than the step allows."""
        text = "SELECT count(*) FROM {target} AS t WHERE {window} AND {flag}"
        window, flag = fragment(deactivate.window), name(deactivate.flag, of="t")
        cursor.execute(statement(text, target=self.target, window=window, flag=flag))
        active = int(only_row(cursor)[0])
        if deactivated > active * deactivate.max_deactivated_share:
            allowed = f"max_deactivated_share {deactivate.max_deactivated_share:g}"
            problem = f"{deactivated:,} of {active:,} active rows of the window would be deactivated, above {allowed}"
            raise DataRejected(f"{problem}; nothing was written to {self.terms.target}")

    def look_outside_window(self, cursor: Cursor, counts: dict[str, int]) -> dict[str, int]:
        """Look for keys that are not in the window elsewhere in the target."""
        text = """
            UPDATE pg_temp.difference AS s SET {kind} = {kind_of_match}
            FROM {target} AS t WHERE s.{kind} = 'inserted' AND {same_key}
        """
        terms = {"kind": self.kind, "kind_of_match": self.kind_of_match}
        cursor.execute(statement(text, target=self.target, same_key=self.same_key, **terms))
        if not cursor.rowcount:
            return counts
        self.refuse_duplicates(cursor)
        return self.count_differences(cursor)

    @property
    def source(self) -> Composable:
        return table_identifier(self.terms.source)

    @property
    def target(self) -> Composable:
        return table_identifier(self.terms.target)

    @property
    def carried(self) -> list[str]:
        """The columns that come from the source: keys and values."""
        return [*self.terms.keys, *self.columns]

    @property
    def kind(self) -> Composable:
        """The column of the differences that says what becomes of a row: no column of the tables has its name."""
        free = (f"__kind{number}" for number in count() if f"__kind{number}" not in self.carried)
        return name(next(free))

    @property
    def typed_source(self) -> Composable:
        """The source's rows, in the target's types."""
        rows = statement("pg_temp.converted") if self.is_converted else self.source
        return statement("SELECT {carried} FROM {rows}", carried=names(self.carried), rows=rows)

    @property
    def same_key(self) -> Composable:
        return joined(
            " AND ", (statement("{s} = {t}", s=name(key, of="s"), t=name(key, of="t")) for key in self.terms.keys)
        )

    @property
    def differs(self) -> Composable:
        """A condition on a pair with the same key: the source has another value."""
        if not self.columns:
            return value(False)
        # Not IS DISTINCT FROM: 30 days are equal to a month and two boxes to each other if their areas are, and json
        # has no equality. What counts is what would be stored.
        rows = (joined(", ", (name(column, of=side) for column in self.columns)) for side in "st")
        return statement("ROW ({s})::record *<> ROW ({t})::record", **dict(zip("st", rows, strict=True)))

    @property
    def inactive(self) -> Composable:
        """A condition on a row of the target: it is deactivated."""
        flag = self.terms.deactivate and name(self.terms.deactivate.flag, of="t")
        return statement("{flag} IS NOT TRUE", flag=flag) if flag else value(False)

    @property
    def kind_of_match(self) -> Composable:
        text = "CASE WHEN {inactive} THEN 'reactivated' WHEN {differs} THEN 'updated' ELSE 'unchanged' END"
        return statement(text, inactive=self.inactive, differs=self.differs)

    @property
    def find_differences(self) -> Composable:
        """Create the table of differences; with a window, it includes target rows without a match."""
        keys = self.terms.keys
        both = (
            statement("coalesce({s}, {t}) AS {key}", s=name(k, of="s"), t=name(k, of="t"), key=name(k)) for k in keys
        )
        deactivate = self.terms.deactivate
        text = """
            CREATE TEMPORARY TABLE pg_temp.difference ON COMMIT DROP AS
            SELECT {carried},
                CASE WHEN {no_source} THEN CASE WHEN {inactive} THEN 'absent' ELSE 'deactivated' END
                     WHEN {no_target} THEN 'inserted' ELSE {kind_of_match} END AS {kind}
            FROM ({source}) AS s {join} (SELECT * FROM {target} WHERE {window}) AS t ON {same_key}
            WHERE {no_source} OR {no_target} OR {inactive} OR {differs}
        """
        return statement(
            text,
            carried=joined(", ", (*both, *(name(column, of="s") for column in self.columns))),
            no_source=statement("{s} IS NULL", s=name(keys[0], of="s")),
            no_target=statement("{t} IS NULL", t=name(keys[0], of="t")),
            inactive=self.inactive,
            differs=self.differs,
            kind=self.kind,
            kind_of_match=self.kind_of_match,
            source=self.typed_source,
            join=statement("FULL JOIN" if deactivate else "LEFT JOIN"),
            target=self.target,
            window=fragment(deactivate.window if deactivate else "TRUE"),
            same_key=self.same_key,
        )

    @property
    def differences_to_write(self) -> Composable:
        text = "SELECT {carried} FROM pg_temp.difference WHERE {kind} = ANY ({written})"
        return statement(text, carried=names(self.carried), kind=self.kind, written=value(list(_WRITTEN)))

    def upsert(self, rows: Composable) -> Composable:
        """Return the INSERT of `rows` that updates if the key exists."""
        stamps, deactivate = self.terms.timestamps, self.terms.deactivate
        own = {stamps.created: "now()", stamps.updated: "now()", deactivate.flag if deactivate else None: "TRUE"}
        filled = {column: text for column, text in own.items() if column}
        replaced = [*self.columns, *(column for column in filled if column != stamps.created)]
        assignments = (statement("{c} = EXCLUDED.{c}", c=name(column)) for column in replaced)
        text = "INSERT INTO {target} ({columns}) SELECT {values} FROM ({rows}) AS s ON CONFLICT ({keys}) DO {action}"
        return statement(
            text,
            target=self.target,
            columns=names([*self.carried, *filled]),
            values=joined(", ", (*(name(column, of="s") for column in self.carried), *map(statement, filled.values()))),
            rows=rows,
            keys=names(self.terms.keys),
            action=statement("UPDATE SET {all}", all=joined(", ", assignments)) if replaced else statement("NOTHING"),
        )

    @property
    def switch_off(self) -> Composable:
        assert self.terms.deactivate is not None
        updated = self.terms.timestamps.updated
        text = """
            UPDATE {target} AS t SET {flag} = FALSE {stamp}
            FROM pg_temp.difference AS s WHERE s.{kind} = 'deactivated' AND {same_key}
        """
        return statement(
            text,
            target=self.target,
            flag=name(self.terms.deactivate.flag),
            kind=self.kind,
            stamp=statement(", {updated} = now()", updated=name(updated)) if updated else statement(""),
            same_key=self.same_key,
        )
