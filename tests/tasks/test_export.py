"""postgres.export."""

from __future__ import annotations

import datetime as dt
import gzip
import json
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stack.database import Database
from stack.objects import ObjectStore
from tasks.contract import DataRejected, MissingResource, PermanentError, Run, TransientError
from tasks.files.places import InBucket, InFolder
from tasks.files.run_files import files_of
from tasks.postgres.export import Exported, export
from tasks.postgres.loading.csv_rows import CsvForm
from tasks.postgres.loading.load_file import load_file
from tests.support.buckets import refusing_writes
from tests.support.database import Gate, Sql
from tests.support.memory import peak_memory

CONNECTION = "crypto_postgres"
COLUMNS = """
    i integer, n numeric(20, 5), f double precision, t text, b boolean, d date, z timestamptz, l timestamp, y bytea,
    u uuid, c time
"""
VALUES = """
    (1, 123456789012345.12345, 0.1, E'a\\tb\\n"c",\\\\N', true, '2026-01-05', '2026-01-05 12:00:00.123456+02',
     '2026-01-05 12:00:00', '\\x00ff', '00000000-0000-0000-0000-000000000001', '12:00:00.5'),
    (2, NULL, 'NaN', '', NULL, NULL, NULL, NULL, NULL, NULL, NULL),
    (NULL, -0.00001, '-Infinity', NULL, false, '0001-01-01', '9999-12-31 23:59:59.999999+00',
     '1969-12-31 23:59:59.5', '', NULL, '00:00')
"""


@pytest.fixture(autouse=True)
def table(sql: Sql) -> None:
    sql(f"CREATE SCHEMA s; CREATE TABLE s.t ({COLUMNS}); CREATE TABLE s.back (LIKE s.t)")
    sql(f"INSERT INTO s.t VALUES {VALUES}")


def exported(run: Run, folder: Path, form: str, output: str = "out/t", **how: Any) -> Path:
    """Export the table, or what `how` says; return the file that people know."""
    place = InFolder(folder=str(folder))
    given: dict[str, Any] = {} if "sql" in how else {"table": "s.t"}
    done = export(CONNECTION, output, place, form, **(given | how), run=run)  # type: ignore[arg-type]
    assert done.address == files_of(place, run).address(output)
    return folder / output


@pytest.mark.parametrize("form", ["csv", "json_lines", "parquet"])
def test_rows_come_back_the_same(run: Run, sql: Sql, tmp_path: Path, form: Any) -> None:
    """What is exported and loaded again are the same rows, in every type, with nulls apart from empty texts."""
    exported(run, tmp_path, form)
    if form == "parquet":  # of which a text is a text, not a uuid
        sql("ALTER TABLE s.back ALTER u TYPE text")
    load_file(CONNECTION, "s.back", InFolder(folder=str(tmp_path)), form, "out/t", run=run)
    assert sql("SELECT o::text FROM s.t AS o ORDER BY i") == sql("SELECT o::text FROM s.back AS o ORDER BY i")


def test_parquet_has_types(run: Run, tmp_path: Path) -> None:
    """Each column has the type that keeps it exactly."""
    table = pq.read_table(exported(run, tmp_path, "parquet"))
    assert {field.name: str(field.type) for field in table.schema} == {
        "i": "int32",
        "n": "decimal128(20, 5)",
        "f": "double",
        "t": "string",
        "b": "bool",
        "d": "date32[day]",
        "z": "timestamp[us, tz=UTC]",
        "l": "timestamp[us]",
        "y": "binary",
        "u": "string",
        "c": "time64[us]",
    }
    first, second, third = table.to_pylist()
    assert first["z"] == dt.datetime(2026, 1, 5, 10, 0, 0, 123456, dt.UTC)
    assert (first["n"], first["y"], first["t"]) == (Decimal("123456789012345.12345"), b"\x00\xff", 'a\tb\n"c",\\N')
    assert math.isnan(second["f"])
    assert (second["t"], third["t"], third["f"], third["y"]) == ("", None, -math.inf, b"")


REFUSED = {
    "SELECT interval '1 day' AS x": "x is interval; write x::text in the query",
    "SELECT ARRAY[1] AS x": "x is integer[]; write x::text",
    "SELECT 1::numeric AS x": "x is numeric; write x::numeric(38, 9), with the digits that you need",
    "SELECT 'infinity'::date AS x": "a value that parquet does not have",
    "SELECT '4713-01-01 BC'::timestamptz AS x": "a value that parquet does not have",
    "SELECT 'NaN'::numeric(5, 2) AS x": "a value that parquet does not have",
}


def test_parquet_refuses_what_it_does_not_keep(run: Run, tmp_path: Path) -> None:
    """Types and values without an exact place in parquet are named with the cast to write, and no file is made."""
    for text, message in REFUSED.items():
        with pytest.raises(DataRejected) as error:
            exported(run, tmp_path, "parquet", sql=text)
        assert message in str(error.value), text
    assert not (tmp_path / "out").exists()


def test_csv_is_written_as_asked(run: Run, tmp_path: Path) -> None:
    """Separator, quote, header, null and encoding are those of the step; gzip makes the same bytes of the same rows."""
    text = "SELECT 1 AS a, 'é' AS b, NULL AS c, '' AS d"
    form = CsvForm(separator=";", quote="'", encoding="latin-1", null_text="NULL")
    assert exported(run, tmp_path, "csv", sql=text, csv=form).read_bytes() == "a;b;c;d\n1;é;NULL;\n".encode("latin-1")
    packed = exported(run, tmp_path, "csv", "out/t.csv.gz", sql=text, compressed=True).read_bytes()
    assert gzip.decompress(packed).decode() == 'a,b,c,d\n1,é,,""\n'
    assert exported(run, tmp_path, "csv", "out/t.csv.gz", sql=text, compressed=True).read_bytes() == packed
    with pytest.raises(PermanentError, match='has no equivalent in encoding "LATIN1"'):
        exported(run, tmp_path, "csv", sql="SELECT '€' AS a", csv=form)


def test_json_keeps_digits(run: Run, tmp_path: Path) -> None:
    """Each line is one object, with all digits of its numbers, also where a value of type json has line breaks."""
    text = """SELECT 9007199254740993 AS a, 0.10000000000000000001 AS b, E'{"x":\n1}'::json AS c, ARRAY[1, NULL] AS d"""
    written = exported(run, tmp_path, "json_lines", sql=text).read_text()
    assert written == '{"a":9007199254740993,"b":0.10000000000000000001,"c":{"x": 1},"d":[1,null]}\n'
    assert json.loads(written)["d"] == [1, None]


def test_empty_result(run: Run, tmp_path: Path) -> None:
    """No rows are an error unless the step allows them: then there is a file with columns."""
    for form in ("csv", "json_lines", "parquet"):
        with pytest.raises(DataRejected, match="the query has no rows; say `allow_empty: true`"):
            exported(run, tmp_path, form, sql="SELECT 1 AS a WHERE false")
    assert exported(run, tmp_path, "csv", sql="SELECT 1 AS a WHERE false", allow_empty=True).read_text() == "a\n"
    empty = exported(run, tmp_path, "parquet", sql="SELECT 1 AS a WHERE false", allow_empty=True)
    assert pq.read_table(empty).schema == pa.schema({"a": pa.int32()})


def test_failure_leaves_last_file(run: Run, tmp_path: Path) -> None:
    """An export that fails in the middle leaves the file as it was; what does not exist is named."""
    file = exported(run, tmp_path, "csv", sql="SELECT 1 AS a")
    with pytest.raises(PermanentError, match="division by zero"):
        exported(run, tmp_path, "csv", sql="SELECT 1 / (5000 - n) AS a FROM generate_series(1, 9000) AS n")
    with pytest.raises(MissingResource, match=r"table 's\.none' does not exist"):
        exported(run, tmp_path, "csv", table="s.none")
    with pytest.raises(PermanentError, match="two columns a; name them with AS"):
        exported(run, tmp_path, "parquet", sql="SELECT 1 AS a, 2 AS a")
    assert file.read_text() == "a\n1\n"
    assert [path.name for path in (tmp_path / ".scratch").glob("*")] == []


STOP = """
    CREATE FUNCTION gate.stop(n integer) RETURNS integer LANGUAGE plpgsql AS $$
    BEGIN
        IF n = 2 THEN PERFORM pg_advisory_xact_lock_shared(4711); END IF;
        RETURN n;
    END $$
"""


def test_nobody_sees_half_a_file(run: Run, tmp_path: Path, gate: Gate, database: Database, sql: Sql) -> None:
    """While rows are written, the last file is there; a session that ends in the middle changes nothing."""
    sql(STOP)
    sql("CREATE VIEW s.slow AS SELECT n, gate.stop(n) FROM generate_series(1, 3) AS n")
    file = exported(run, tmp_path, "csv", sql="SELECT 1 AS a")
    with gate.closed(database):
        writing = gate.start(exported, run, tmp_path, "csv", table="s.slow")
        (pid,) = gate.waiting()
        assert file.read_text() == "a\n1\n"
        gate.terminate(pid)
    with pytest.raises(TransientError):
        writing.result(60)
    assert file.read_text() == "a\n1\n"


def test_locked_table_is_named(run: Run, tmp_path: Path, database: Database) -> None:
    with database.connect() as session, session.cursor() as cursor:
        cursor.execute("BEGIN; LOCK TABLE s.t")
        with pytest.raises(TransientError, match=r"for a lock that the session with pid \d+ holds"):
            exported(run, tmp_path, "csv", lock_timeout=0.2)


def test_bucket_has_file(run: Run, object_store: ObjectStore) -> None:
    """An export goes to a bucket as to a folder; one that may not be written is named."""
    place = InBucket(connection="object_store", bucket="pipeline-files", prefix="exports")
    done = export(CONNECTION, "t.csv", place, "csv", sql="SELECT 1 AS a", run=run)
    assert done == Exported(file="t.csv", rows=1, address=files_of(place, run).address("t.csv"))
    body = object_store.client().get_object(Bucket="pipeline-files", Key="exports/t.csv")["Body"].read()
    assert body == b"a\n1\n"
    with (
        refusing_writes(object_store, "pipeline-files"),
        pytest.raises(PermanentError, match="refused access to bucket"),
    ):
        export(CONNECTION, "t.csv", place, "csv", sql="SELECT 2 AS a", run=run)


def test_memory_is_flat(run: Run, tmp_path: Path) -> None:
    """Four times the rows need no more memory."""
    for form in ("csv", "parquet"):
        peaks = []
        for rows in (100_000, 400_000):
            with peak_memory() as peak:
                exported(run, tmp_path, form, sql=f"SELECT n, 'note ' || n AS t FROM generate_series(1, {rows}) AS n")
            peaks.append(peak())
        assert peaks[1] < max(peaks[0] * 2, 200_000_000), form
