"""CSV files brought to a declared schema: good rows are written as parquet, the rest is counted and reported.

Knows the order of things: headers first, then each file read once, the verdict, the outputs, the report. Does not know
which values fit (`tasks.spark.csv_columns`), what a complete file looks like (`tasks.spark.csv_files`) or what the
report looks like (`tasks.spark.cleaning_report`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, model_validator

from tasks.contract import (
    Column,
    ConnectionId,
    DataFile,
    DataRejected,
    Link,
    Model,
    Output,
    Run,
    SqlFile,
    TextKind,
    WrittenFile,
    reusable,
)
from tasks.files.places import Files
from tasks.spark.cleaning_report import Dropped, Sifted, as_json, rejection, table
from tasks.spark.csv_columns import CsvColumn, Doubts, Rule, converted, doubts, given, name_of, rules, wrong_type
from tasks.spark.csv_files import check_end, header_problems, read_header
from tasks.spark.csv_records import NUL
from tasks.spark.csv_rows import BROKEN, LINE, TEXT, CsvFile, is_blank, is_plain_file, rows, text_of
from tasks.spark.csv_text import Encoding
from tasks.spark.parquet import join_written, write_parts
from tasks.spark.queries import Query, run_query
from tasks.spark.query_text import value_problems
from tasks.spark.reach import Draft, Parts, Reach, reach_of
from tasks.spark.session import spark_errors, spark_session
from tasks.sql_files import refuse, sql_text

if TYPE_CHECKING:
    from pyspark.sql import Column as Expression
    from pyspark.sql import DataFrame, SparkSession

_DROP, _EARLIER = "#drop", "#earlier"
"""Columns of a frame: no column of a table has such names."""
_EXAMPLE_CHARACTERS = 60
_REASONS = 3
"""Numbers below it say why a line is not a row (`CsvFile.reasons`); the rules of the columns come after them."""


class CsvSource(Model):
    """A CSV file with a header, and the columns that it must have.

    The file is plain, or packed with gzip, bzip2, xz, or alone in a zip; its lines end in LF, CRLF or CR. A field may
    be in quotes (`"`), and a quote in it is doubled. A line that has too many or too few fields, or ends within quotes,
    is a broken row, and so is each line of a field of several lines, unless `multiline` is true: then that field is
    read, by one process. A field such as `"a"b` is kept as it is, with its quotes. A line of nothing but spaces, or
    Ctrl-Z (0x1A) as DOS programs end a text, is not a row. A column without a name in the header is `""` here.
    """

    file: DataFile
    columns: Annotated[dict[str, CsvColumn], Field(min_length=1)]
    unique: Annotated[list[Column], Field(min_length=1)] | None = None
    """Of rows with the same values in these columns, only the first in the file is kept."""
    separator: Annotated[str, Field(min_length=1, max_length=1)] = ","
    encoding: Encoding = "utf-8"
    """How its bytes are text: `utf-8`, `utf-16`, `latin-1`, `cp1252` or another; all but UTF-8 by one process."""
    multiline: bool = False
    """Whether a field in quotes may have several lines."""
    nulls: list[str] = Field(default_factory=list)
    """Texts that mean null, such as `NULL`; the empty text always does."""
    ignore_other_columns: bool = False
    """Whether the file may have columns that are not declared; they are left out."""

    @model_validator(mode="after")
    def _named(self) -> Self:
        names = list(self.names.values())
        folded = [name.casefold() for name in names]
        if repeated := sorted({name for name in names if folded.count(name.casefold()) > 1}):
            raise ValueError(f"has more than one column named {repeated[0]!r}; upper and lower case are the same here")
        if self.separator in _NO_SEPARATORS:
            raise ValueError(f"has a `separator` {self.separator!r}, which has another meaning in a CSV file")
        if unknown := [name for name in self.unique or () if name not in names]:
            raise ValueError(f"has {unknown[0]!r} in `unique`, which is not one of its columns: {', '.join(names)}")
        return self

    @property
    def names(self) -> dict[str, str]:
        """The new name of each CSV column."""
        return {csv_name: name_of(csv_name, column) for csv_name, column in self.columns.items()}


_NO_SEPARATORS = '"\\\r\n\0\x01\ufeff'
"""Quotes, line ends, what Spark reads as the beginning of another sign, and what no text has."""


class FromSource(Model):
    """The kept rows of a source."""

    source: Column
    """One of the keys of `sources`."""


class FromSql(Model):
    """The result of a query of `configs/sql/` over the kept rows: each source is a view with its name."""

    sql: Annotated[SqlFile, TextKind("sql_file", of="spark", views="sources")]


class Cleaned(Output):
    """What was read, kept and written, and the report on everything that was dropped."""

    rows_read: dict[str, int]
    rows_kept: dict[str, int]
    rows_dropped: dict[str, int]
    rows_written: dict[str, int]
    """Rows of each output; empty if the step failed."""
    report: Link


@reusable("spark.clean_csv", role="transform")
def clean_csv(
    connection: ConnectionId,
    sources: Annotated[dict[Column, CsvSource], Field(min_length=1)],
    outputs: Annotated[dict[WrittenFile, FromSource | FromSql], Field(min_length=1)],
    report: WrittenFile,
    files: Files,
    max_dropped: Annotated[float, Field(ge=0, le=1)] | None = None,
    *,
    run: Run,
) -> Cleaned:
    """Bring CSV files to a declared schema and write the good rows as parquet; count and report the rest.

    Each of `sources` is read once, by Spark, in parallel; what is not plain lines of UTF-8 is first copied by one
    process. A row is dropped for the first problem found in it, so the rows read are those kept and those dropped;
    `report`, a JSON file, counts the dropped rows and the values made null by column and reason, with the smallest and
    the largest text as examples, the blank lines, and the numbers that may have been meant otherwise (1.234). An output
    has the rows of one source, or of one query over all. Raises DataRejected if a file is empty or cut off, if a column
    is missing or not declared, if a column has no value or none of its type, if numbers like 1,5 and 1.234 are in one
    column, if no row is left, or if a source loses more than the share `max_dropped`; the report is still written once
    the rows were read, and every output stays as it was. All outputs are made before the first one is replaced.
    """
    reach, started = reach_of(files, run), monotonic()
    queries = _queries(outputs, sources, run)
    with ExitStack() as opened:
        plans = _plans(sources, reach, opened)
        session = opened.enter_context(spark_session(connection, run, files))
        made = opened.enter_context(_Outputs(reach, outputs))
        sifted = [_sifted(session, plan, made.source(plan.name), made.copy(plan.name), run) for plan in plans]
        run.log.info(table(sifted))
        problems = rejection(sifted, max_dropped)
        rows = {} if problems else made.write(session, sifted, queries)
        with reach.files.write(report) as file:
            file.write_bytes(as_json(sifted, rows, run, max_dropped))
        cleaned = _cleaned(sifted, rows, reach.files.address(report))
        if problems:
            raise DataRejected("\n".join([*problems, f"Nothing was written; see {cleaned.report}"]), cleaned)
    run.log.info("%s in %.1f s", ", ".join(f"{path}: {n:,} rows" for path, n in rows.items()), monotonic() - started)
    return cleaned


def _cleaned(sifted: list[Sifted], rows: dict[str, int], report: str) -> Cleaned:
    return Cleaned(
        rows_read={source.name: source.read for source in sifted},
        rows_kept={source.name: source.kept for source in sifted},
        rows_dropped={source.name: source.read - source.kept for source in sifted},
        rows_written=rows,
        report=report,
    )


def _queries(
    outputs: Mapping[str, FromSource | FromSql], sources: Mapping[str, CsvSource], run: Run
) -> dict[str, Query]:
    """Return the query of each SQL file; raise DataRejected for an output of an undeclared source."""
    for path, output in outputs.items():
        if isinstance(output, FromSource) and output.source not in sources:
            known = ", ".join(sources)
            raise DataRejected(f"output {path} is made of {output.source!r}, which is not one of the sources: {known}")
    texts = {output.sql: sql_text(output.sql, run) for output in outputs.values() if isinstance(output, FromSql)}
    for file, text in texts.items():
        refuse(file, text, value_problems(text, ()))
    return {file: Query(file, text, functions=run.functions) for file, text in texts.items()}


@dataclass(frozen=True, slots=True)
class _Plan:
    """A source whose header is as declared."""

    name: str
    source: CsvSource
    csv: CsvFile

    @property
    def header(self) -> list[str]:
        """The names of the CSV's columns."""
        return self.csv.header


def _plans(sources: Mapping[str, CsvSource], reach: Reach, opened: ExitStack) -> list[_Plan]:
    """Check every file before any is read; raise DataRejected with all problems."""
    plans, problems = [], list[str]()
    for name, source in sources.items():
        reached = opened.enter_context(reach.read(source.file))
        csv = CsvFile(name, reached, [], source.separator, source.encoding, source.multiline)
        header, faults = _faults(csv, source)
        plans.append(_Plan(name, source, replace(csv, header=header)))
        problems += [f"{name}: {reached.shown} {fault}" for fault in faults]
    if problems:
        raise DataRejected("\n".join(problems))
    return plans


def _faults(csv: CsvFile, source: CsvSource) -> tuple[list[str], list[str]]:
    """Return a file's header, and what is wrong with the file. What is read row by row is checked to its end then."""
    header = list[str]()
    try:
        with text_of(csv.source, csv.encoding) as text:
            header = read_header(text, csv.separator, multiline=csv.multiline)
        closed = not source.ignore_other_columns
        if faults := list(header_problems(header, source.columns, csv.separator, closed=closed)):
            return header, faults
        if is_plain_file(csv) and not csv.multiline:
            with csv.source.open() as file:
                check_end(file, csv.separator, len(header))
    except ValueError as error:
        return header, [str(error)]
    return header, []


@dataclass(frozen=True, slots=True)
class _Check:
    """A rule of one column, as a column of counts."""

    column: str
    rule: Rule
    drops: bool
    text: str
    """The frame's column with the text of the value."""
    problem: str
    """The frame's column with the number of the broken rule; null if none is broken."""
    number: int

    def count(self) -> Expression:
        """Return in how many rows this was the first broken rule."""
        from pyspark.sql import functions as sql

        return sql.count_if(self._hit()).alias(f"rows_{self.number}")

    def examples(self) -> list[Expression]:
        """Return the smallest and the largest text that broke it: the same ones in any partitioning."""
        from pyspark.sql import functions as sql

        text = sql.when(self._hit(), sql.left(self.text, sql.lit(_EXAMPLE_CHARACTERS)))
        return [sql.min(text).alias(f"min_{self.number}"), sql.max(text).alias(f"max_{self.number}")]

    def _hit(self) -> Expression:
        from pyspark.sql import functions as sql

        if self.drops:
            return sql.col(_DROP) == self.number
        return sql.col(_DROP).isNull() & (sql.col(self.problem) == self.number)


def _sifted(session: SparkSession, plan: _Plan, parts: Parts, copy: Parts, run: Run) -> Sifted:
    """Read a source once: write the kept rows as `parts`, and count the others."""
    from pyspark.sql import Observation
    from pyspark.sql import functions as sql

    with spark_errors(f"{plan.name} ({plan.source.file})"):
        lines, blank = rows(session, plan.csv, copy, run.log), Observation(f"{plan.name} blank")
        empty = is_blank(plan.csv)
        filled = lines.observe(blank, sql.count_if(empty).alias("lines")).where(~empty)
        frame, checks = _judged(filled, plan)
        counted = Observation(plan.name)
        kept = _kept(frame.observe(counted, *_counts(checks, plan)), checks, plan)
        written = write_parts(kept, parts)
        session.read.schema(kept.schema).parquet(parts.address).createOrReplaceTempView(plan.name)
    return _tally(plan, checks, {**counted.get, "blank": blank.get["lines"]}, written, parts)


def _judged(frame: DataFrame, plan: _Plan) -> tuple[DataFrame, list[_Check]]:
    """Add to each line, for each column, the text `g`, the value `v` and the first broken rule `p`; and `_drop`."""
    from pyspark.sql import functions as sql

    source, checks = plan.source, list[_Check]()
    texts, values, problems, fatal = {}, {}, {}, [sql.col(BROKEN)]
    for place, (csv_name, column) in enumerate(source.columns.items()):
        text, value, problem = f"g{place}", f"v{place}", f"p{place}"
        texts[text] = given(sql.col(f"t{plan.header.index(csv_name)}"), source.nulls)
        values[value] = converted(sql.col(text), column)
        own = [
            _Check(csv_name, rule, column.drops, text, problem, number)
            for number, rule in enumerate(rules(sql.col(text), sql.col(value), column), start=len(checks) + _REASONS)
        ]
        checks += own
        if own:
            problems[problem] = sql.coalesce(*(sql.when(check.rule.broken, check.number) for check in own))
        if own and column.drops:
            fatal.append(sql.col(problem))
    judged = frame.withColumns(texts).withColumns(values).withColumns(problems)
    return judged.withColumn(_DROP, sql.coalesce(*fatal)), checks


def _counts(checks: list[_Check], plan: _Plan) -> list[Expression]:
    from pyspark.sql import functions as sql

    every = [sql.count(sql.lit(1)).alias("read"), sql.count_if(sql.col(_DROP).isNull()).alias("sound")]
    for number in range(_REASONS):
        broken = sql.when(sql.col(_DROP) == number, sql.left(TEXT, sql.lit(_EXAMPLE_CHARACTERS)))
        every += [sql.count(broken).alias(f"rows_{number}")]
        every += [sql.min(broken).alias(f"min_{number}"), sql.max(broken).alias(f"max_{number}")]
    for place, column in enumerate(plan.source.columns.values()):
        text, value = sql.col(f"g{place}"), sql.col(f"v{place}")
        every += [sql.count(text).alias(f"given_{place}"), sql.count(value).alias(f"fit_{place}")]
        every += [counted.alias(f"{name}_{place}") for name, counted in doubts(text, value, column).items()]
    for check in checks:
        every += [check.count(), *(check.examples() if check.rule.problem != "missing" else [])]
    return every


def _kept(frame: DataFrame, checks: list[_Check], plan: _Plan) -> DataFrame:
    from pyspark.sql import Window
    from pyspark.sql import functions as sql

    forgiving = {check.problem for check in checks if not check.drops}
    columns = [_value(place, forgiving).alias(name) for place, name in enumerate(plan.source.names.values())]
    sound = frame.where(sql.col(_DROP).isNull())
    if plan.source.unique is None:
        return sound.select(*columns)
    # Not dropDuplicates, which keeps any row. Sorted by the key, so the same lines make the same file.
    same = Window.partitionBy(*plan.source.unique).orderBy(LINE)
    marked = sound.select(*columns, LINE).withColumn(_EARLIER, sql.lag(LINE).over(same))
    return marked.where(sql.col(_EARLIER).isNull()).drop(_EARLIER, LINE)


def _value(place: int, forgiving: Collection[str]) -> Expression:
    """Return a column's value: null if it broke a rule that does not drop the row."""
    from pyspark.sql import functions as sql

    value = sql.col(f"v{place}")
    return sql.when(sql.isnull(f"p{place}"), value) if f"p{place}" in forgiving else value


def _tally(plan: _Plan, checks: list[_Check], counts: Mapping[str, Any], rows: int, parts: Parts) -> Sifted:
    tallies = [
        Dropped("", reason, counts[f"rows_{number}"], _examples(counts, number), drops=True)
        for number, reason in enumerate(plan.csv.reasons)
    ]
    tallies += [
        Dropped(
            check.column,
            check.rule.problem,
            counts[f"rows_{check.number}"],
            _examples(counts, check.number),
            check.drops,
        )
        for check in checks
    ]
    if plan.source.unique:
        repeated = f"repeats {', '.join(plan.source.unique)} of an earlier row"
        tallies.append(Dropped("", repeated, counts["sound"] - rows, (), drops=True))
    doubtful = _doubts(plan, counts)
    return Sifted(
        name=plan.name,
        file=plan.source.file,
        read=counts["read"],
        kept=rows,
        tallies=tuple(tally for tally in tallies if tally.rows),
        hollow=(*_hollow(plan, tallies, counts), *(doubt.mixed for doubt in doubtful if doubt.mixed)),
        notes=(*_hints(plan, counts), *(note for doubt in doubtful if not doubt.mixed for note in doubt.notes)),
        blank=counts["blank"],
        parts=parts,
    )


def _hints(plan: _Plan, counts: Mapping[str, Any]) -> Iterator[str]:
    if (lines := counts["rows_1"] + counts["rows_2"]) and not plan.source.multiline:
        yield f"lines that are part of a field in quotes: {lines:,}; set `multiline: true` if such a field is meant"


def _doubts(plan: _Plan, counts: Mapping[str, Any]) -> list[Doubts]:
    numbers = [place for place, column in enumerate(plan.source.columns.values()) if column.type == "number"]
    names, counted = list(plan.source.columns), [field.name for field in fields(Doubts)[1:]]
    return [Doubts(names[place], **{name: counts[f"{name}_{place}"] for name in counted}) for place in numbers]


def _hollow(plan: _Plan, tallies: list[Dropped], counts: Mapping[str, Any]) -> Iterator[str]:
    """Yield the problems of whole columns: no values, or none of their type."""
    for place, (name, column) in enumerate(plan.source.columns.items()):
        texts = counts[f"given_{place}"]
        if not texts:
            yield f'column "{name}" has no value in any row'
        elif not counts[f"fit_{place}"]:
            shown = ", ".join(f'"{text}"' for tally in tallies if tally.column == name for text in tally.examples)
            yield f'column "{name}" is {wrong_type(column)} in any of its {texts:,} values ({shown})'


def _examples(counts: Mapping[str, Any], number: int) -> tuple[str, ...]:
    ends = (counts.get(f"min_{number}"), counts.get(f"max_{number}"))
    return tuple(dict.fromkeys(end.replace(NUL, "\0") for end in ends if end is not None))


class _Outputs:
    """The outputs while they are made: when the block ends, all are replaced, or none."""

    def __init__(self, reach: Reach, outputs: Mapping[str, FromSource | FromSql]) -> None:
        self._reach = reach
        self._outputs = outputs
        self._opened = ExitStack()
        self._made: dict[str, Draft] = {}

    def __enter__(self) -> Self:
        self._made = {path: self._opened.enter_context(self._reach.write(path)) for path in self._outputs}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return self._opened.__exit__(kind, error, traceback)

    def source(self, name: str) -> Parts:
        """Return a private place for the rows of a source, which Spark reaches as it reaches the outputs."""
        return next(iter(self._made.values())).parts(f"source-{name}")

    def copy(self, name: str) -> Parts:
        """Return a private place for a copy of a source's rows."""
        return next(iter(self._made.values())).parts(f"copy-{name}")

    def write(self, session: SparkSession, sifted: list[Sifted], queries: Mapping[str, Query]) -> dict[str, int]:
        """Make every output; return the rows of each."""
        sources, rows = {source.name: source for source in sifted}, {}
        for path, output in self._outputs.items():
            draft = self._made[path]
            if isinstance(output, FromSource):
                parts, rows[path] = sources[output.source].parts, sources[output.source].kept
            else:
                parts = draft.parts("parts")
                with spark_errors(f"configs/sql/{output.sql}"):
                    rows[path] = write_parts(run_query(session, queries[output.sql], sources), parts)
            join_written(parts, draft.file, rows[path])
        return rows
