"""A table built on Spark by a SQL file, from files that other steps wrote.

Knows how files become views, how values are bound in the SQL, and the rules that a table must keep to be passed on;
knows nothing about what the columns mean.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from tasks.contract import (
    BuiltFile,
    Column,
    ConnectionId,
    DataFile,
    DataRejected,
    Output,
    PermanentError,
    Run,
    SqlFile,
    TextKind,
    reusable,
)
from tasks.files.places import Files
from tasks.spark.parquet import join_written, read_frame, write_parts
from tasks.spark.queries import Query, run_query
from tasks.spark.query_text import unused, value_problems
from tasks.spark.reach import reach_of
from tasks.spark.session import spark_errors, spark_session
from tasks.sql_files import refuse, sql_text

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.parquet import FileMetaData
    from pyspark.sql import DataFrame, SparkSession

Value = str | int | float | bool | dt.date
"""A value bound to a `:name` in a SQL file."""

_ISO_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_EXAMPLES = 5


class Built(Output):
    """The table that was written."""

    rows: int
    columns: int
    path: str
    """Where the run's own is: a path, or s3://bucket/key."""


@reusable("spark.build_table", role="transform")
def build_table(
    connection: ConnectionId,
    inputs: Annotated[dict[Column, DataFile], Field(min_length=1)],
    sql: Annotated[SqlFile, TextKind("sql_file", of="spark", views="inputs")],
    keys: Annotated[list[Annotated[Column, TextKind("column", of="output")]], Field(min_length=1)],
    output: BuiltFile,
    files: Files,
    values: dict[Column, Value] | None = None,
    *,
    run: Run,
) -> Built:
    """Build a table with one query of Spark SQL, and write it as one parquet file, sorted by `keys`.

    `inputs` names parquet files; each becomes a view of that name. `sql` is a file below `configs/sql/` with one query;
    each of `values` is bound to `:name` in it, never pasted; text like 2026-01-31 is bound as a date. Raises
    PermanentError if the names in the file and in `values` differ, and for a mistake in the SQL, with its line; and
    DataRejected if `keys` are null or not unique, if a column is null in all rows, or if there are no rows. The output
    then stays as it was.
    """
    text = sql_text(sql, run)
    bound = {name: _typed(value) for name, value in (values or {}).items()}
    refuse(sql, text, value_problems(text, bound))
    for name in unused(text, bound):
        raise PermanentError(f"configs/sql/{sql} has no :{name}; remove {name} from `values`, or use it")
    reach, started = reach_of(files, run), monotonic()
    with spark_session(connection, run, files) as session, ExitStack() as opened:
        for name, path in inputs.items():
            source = opened.enter_context(reach.read(path))
            with spark_errors(source.shown):
                read_frame(session, source).createOrReplaceTempView(name)
        with spark_errors(f"configs/sql/{sql}"), reach.write(output) as draft:
            query = Query(sql, text, bound, run.functions)
            frame, parts = _query(session, query, inputs, keys), draft.parts("parts")
            rows = write_parts(frame.sortWithinPartitions(*keys), parts)
            join_written(parts, draft.file, rows, keys)
            _check(draft.file, sql, keys)
    run.log.info("%s: %s rows of %s columns in %.1f s", output, f"{rows:,}", len(frame.columns), monotonic() - started)
    return Built(rows=rows, columns=len(frame.columns), path=reach.files.address(output))


def _typed(value: Value) -> Value:
    """Return text that is an ISO date as a date: values travel as JSON, which has no dates."""
    if isinstance(value, str) and _ISO_DATE.fullmatch(value):
        with suppress(ValueError):
            return dt.date.fromisoformat(value)
    return value


def _query(
    session: SparkSession,
    query: Query,
    views: Collection[str],
    keys: Sequence[str],
) -> DataFrame:
    frame = run_query(session, query, views)
    if lacking := [key for key in keys if key not in frame.columns]:
        problem = f"configs/sql/{query.file} returns no column {lacking[0]}, which is one of `keys`"
        raise PermanentError(f"{problem}; its columns are {', '.join(frame.columns)}")
    return frame


def _check(file: Path, sql: str, keys: Sequence[str]) -> None:
    """Raise DataRejected for a table that should not be passed on; reads the keys, and statistics for the rest."""
    from pyarrow.parquet import ParquetFile

    with ParquetFile(file) as table:
        rows, nulls = table.metadata.num_rows, _nulls(table.metadata)
        what = f"configs/sql/{sql} returned {rows:,} rows"
        if not rows:
            raise DataRejected(f"{what}; check that the inputs have rows within the limits of `values`")
        if empty := [column for column, count in nulls.items() if count == rows]:
            problem = f"and {', '.join(empty)} {'is' if len(empty) == 1 else 'are'} null in all of them"
            raise DataRejected(f"{what}, {problem}; check the inputs, or leave out the column")
        for key in keys:
            if nulls[key]:
                raise DataRejected(f"{what}, and {nulls[key]:,} of them have no {key}; none of `keys` may be null")
        repeated, examples = _repeated(table.iter_batches(columns=list(keys)), keys)
    if repeated:
        shown = "; ".join(", ".join(f"{key} {row[key]}" for key in keys) for row in examples)
        problem = f"and {repeated:,} of them repeat the keys of another, such as {shown}"
        raise DataRejected(f"{what}, {problem}; group or join so that one row per key is left")


def _nulls(metadata: FileMetaData) -> dict[str, int]:
    """Return how many nulls each plain column has."""
    nulls: dict[str, int] = {}
    for group in range(metadata.num_row_groups):
        for place in range(metadata.num_columns):
            column = metadata.row_group(group).column(place)
            nulls[column.path_in_schema] = nulls.get(column.path_in_schema, 0) + column.statistics.null_count
    return nulls


def _repeated(batches: Iterator[pa.RecordBatch], keys: Sequence[str]) -> tuple[int, list[dict[str, Any]]]:
    """Return how many rows have the same keys as the row before, and the first few; rows are sorted by `keys`."""
    import pyarrow as pa
    from pyarrow import compute

    count, last = 0, None
    examples: list[dict[str, Any]] = []
    for batch in batches:
        rows = pa.Table.from_batches([batch] if last is None else [last, batch]).combine_chunks()
        same = pa.repeat(pa.scalar(value=True), max(len(rows) - 1, 0))
        for key in keys:
            same = compute.and_(same, compute.equal(rows[key].slice(1), rows[key].slice(0, len(rows) - 1)))
        repeated = rows.slice(1).filter(same)
        count += len(repeated)
        examples += repeated.slice(0, _EXAMPLES - len(examples)).to_pylist()
        last = batch.slice(len(batch) - 1)
    return count, examples
