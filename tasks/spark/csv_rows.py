"""The rows of a CSV file as a Spark frame of texts, with the lines that are not rows marked.

Spark reads the lines of a plain file itself, in parallel. Where a line may be less than a row, or where the bytes are
not plain UTF-8, the driver first copies the rows one by one. Knows nothing about what the texts mean.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from tasks.blocks import blocks
from tasks.contract import DataRejected
from tasks.spark.csv_files import END_MARK, cut, is_nothing
from tasks.spark.csv_records import END, NUL, Record, bare, records
from tasks.spark.csv_text import is_plain, opened_text

if TYPE_CHECKING:
    import logging

    from pyspark.sql import Column as Expression
    from pyspark.sql import DataFrame, SparkSession

    from tasks.spark.reach import Parts, Source

TEXT, LINE, BROKEN = "#text", "#line", "#broken"
"""Columns of the frame: a row as it is in the file, its number, and why it is not a row; no CSV column has such names.
The numbers are in the order of the file's lines, however it is split for reading."""
_INSIDE, _ROW, _BEGIN, _END, _CORRUPT = "#inside", "#row", "_begin", "_end", "_corrupt"
_BETWEEN = "\x02"
_MOST_COLUMNS = 1_000_000
"""Spark's own limit, 20,480, is also that of a broken row, and ends the whole reading."""
_BATCH_ROWS, _BATCH_CHARACTERS = 65_536, 1 << 24


@dataclass(frozen=True, slots=True)
class CsvFile:
    """A CSV file whose header is as declared."""

    name: str
    """Its name in the step."""
    source: Source
    header: list[str]
    separator: str
    encoding: str
    multiline: bool

    @property
    def reasons(self) -> tuple[str, str, str]:
        """Why a line is not a row; `BROKEN` has the place of the reason here."""
        return f"not {len(self.header)} fields", "ends within quotes", "within a field of several lines"


@contextmanager
def text_of(source: Source, encoding: str) -> Iterator[TextIO]:
    """Provide the text of a file; raise ValueError as `opened_text` does."""
    with source.open() as file, opened_text(file, encoding) as text:
        yield text


def rows(session: SparkSession, file: CsvFile, copy: Parts, log: logging.Logger) -> DataFrame:
    """Return the lines with the texts of their fields, `t0`, `t1`, …, and `TEXT`, `LINE` and `BROKEN`.

    `copy` is a place for a copy, should the driver have to make one. Raises DataRejected for a file that breaks off.
    """
    if not file.multiline and is_plain_file(file):
        lines = _lines(session, file)
        if not _opens_fields(lines, file):
            return _parsed(lines, file)
        log.info("%s: some lines end within quotes, so one process reads all of them in their order", file.name)
    return _parsed(_copied(session, file, copy), file)


def is_blank(file: CsvFile) -> Expression:
    """Return whether a line has nothing but spaces, or the end mark of DOS, and so is not a row."""
    from pyspark.sql import functions as sql

    return sql.trim(sql.col(TEXT), sql.lit(END_MARK if file.separator == " " else f" {END_MARK}")) == ""


def is_plain_file(file: CsvFile) -> bool:
    """Return whether Spark can read the file's lines."""
    with file.source.open() as content:
        return is_plain(content, file.source.address, file.encoding)


def _lines(session: SparkSession, file: CsvFile) -> DataFrame:
    from pyspark.sql import functions as sql

    lines = session.read.text(file.source.address).withColumnRenamed("value", TEXT)
    numbered = lines.withColumn(LINE, sql.monotonically_increasing_id())
    return numbered.where(sql.col(LINE) > 0).withColumn(_INSIDE, sql.lit(False))  # the first is the header


def _opens_fields(lines: DataFrame, file: CsvFile) -> bool:
    """Return whether a line ends within quotes, so the next may be no row."""
    from pyspark.sql import functions as sql

    quoted = lines.where(sql.contains(TEXT, sql.lit('"')))
    # Not only where BROKEN says so: of a line with several fields too many, Spark does not give the last one.
    (answer,) = _parsed(quoted, file).agg(sql.bool_or(sql.col(BROKEN).isNotNull())).collect()
    return bool(answer[0])


def _parsed(lines: DataFrame, file: CsvFile) -> DataFrame:
    """Split each line at its separators, as Spark's reader does.

    A field before it keeps the reader from taking a U+FEFF at its beginning for a file's mark; one after it shows where
    the line ends.
    """
    from pyspark.sql import functions as sql

    texts = [f"t{place}" for place in range(len(file.header))]
    schema = ", ".join(f"{name} STRING" for name in (_BEGIN, *texts, _END, _CORRUPT))
    options = {
        "sep": file.separator,
        "escape": '"',  # a quote within quotes is doubled; Spark's own default is a backslash
        "columnNameOfCorruptRecord": _CORRUPT,
        "maxColumns": str(_MOST_COLUMNS),
        "multiLine": "true",  # else line ends within quotes are replaced
    }
    text = sql.when(sql.contains(TEXT, sql.lit("\0")), sql.translate(TEXT, "\0", NUL)).otherwise(sql.col(TEXT))
    framed = sql.concat(sql.lit(f"{END}{file.separator}"), text, sql.lit(f"{file.separator}{END}"))
    parsed = lines.withColumn(_ROW, sql.from_csv(framed, schema, options))
    fields = [sql.col(f"{_ROW}.{name}").alias(name) for name in texts]
    return parsed.select(TEXT, LINE, _reason(texts, file.separator).alias(BROKEN), *fields)


def _reason(texts: list[str], separator: str) -> Expression:
    """Return the place of the reason in `CsvFile.reasons`; null for a row."""
    from pyspark.sql import functions as sql

    end, corrupt = sql.col(f"{_ROW}.{_END}"), sql.col(f"{_ROW}.{_CORRUPT}")
    fields = sql.concat_ws(_BETWEEN, *(sql.col(f"{_ROW}.{name}") for name in (*texts, _END)))
    return (
        sql.when(sql.col(_INSIDE), sql.lit(2))
        .when(corrupt.isNull() & (end == END), sql.lit(None).cast("int"))
        .when(fields.endswith(f"{separator}{END}"), sql.lit(1))
        .otherwise(sql.lit(0))
    )


def _copied(session: SparkSession, file: CsvFile, copy: Parts) -> DataFrame:
    """Read the rows in this process, one by one, and return them from a Parquet file that Spark can split."""
    from pyspark.sql import functions as sql

    with tempfile.TemporaryDirectory(prefix="taskflow-") as folder:
        made = Path(folder) / "part-00000.parquet"
        try:
            with text_of(file.source, file.encoding) as text:
                _write(records(text, file.separator, multiline=file.multiline), made, file)
        except ValueError as error:
            raise DataRejected(f"{file.name}: {file.source.shown} {error}") from None
        copy.put(made)
    return session.read.parquet(copy.address).withColumn(LINE, sql.monotonically_increasing_id())


def _write(found: Iterator[Record], made: Path, file: CsvFile) -> None:
    """Write the rows after the header; raise ValueError if there are none, or if the last one breaks off."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    next(found)
    schema, last = pa.schema([(TEXT, pa.string()), (_INSIDE, pa.bool_())]), ""
    with pq.ParquetWriter(made, schema, compression="snappy") as writer:
        for batch in blocks(found, lambda one: one.text, most=_BATCH_ROWS, characters=_BATCH_CHARACTERS):
            last = next((record.text for record in reversed(batch) if not is_nothing(record.text)), last)
            texts = [bare(record.text) for record in batch]
            writer.write_table(pa.table([texts, [record.inside for record in batch]], schema=schema))
    if not last:
        raise ValueError("has a header and no rows")
    if problem := cut(last, file.separator, len(file.header)):
        raise ValueError(f"ends {problem}")
