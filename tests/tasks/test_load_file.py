"""postgres.load_file."""

from __future__ import annotations

import bz2
import datetime as dt
import gzip
import io
import math
import os
import signal
import subprocess
import sys
import textwrap
import zipfile
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stack.database import Database
from stack.objects import ObjectStore
from stack.paths import REPOSITORY
from tasks.contract import Before, DataRejected, MissingResource, PermanentError, Run, TransientError
from tasks.files.places import InBucket, InFolder
from tasks.files.run_files import files_of
from tasks.postgres.loading.csv_rows import CsvFile, CsvForm
from tasks.postgres.loading.load_file import Loaded, load_file
from tests.support.database import Gate, Sql
from tests.support.memory import peak_memory
from tests.support.waiting import eventually

CONNECTION, TARGET = "crypto_postgres", "staging.orders"
TABLE = """
    CREATE SCHEMA staging;
    CREATE TABLE staging.orders (id integer NOT NULL, price numeric(10, 2), note text, seen timestamptz DEFAULT now())
"""
ROWS = "SELECT id, price, note FROM staging.orders ORDER BY id"
GOOD = b'id,price,note\n1,9.50,first\n2,,""\n'


def zipped(*names: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in names:
            archive.writestr(name, GOOD)
    return packed.getvalue()


@pytest.fixture(autouse=True)
def table(sql: Sql) -> None:
    """The table that files are loaded into: one column has a default, one may not be null."""
    sql(TABLE)


@pytest.fixture
def load(run: Run, tmp_path: Path) -> Any:
    """A function that writes `content` as a file, and loads it or what `change` says."""

    def loaded(content: bytes | None = None, **change: Any) -> Loaded:
        if content is not None:
            (tmp_path / "orders.csv").write_bytes(content)
        given: dict[str, Any] = {"format": "csv", "run": run}
        if "folder" not in change:
            given["file"] = "orders.csv"
        return load_file(CONNECTION, TARGET, InFolder(folder=str(tmp_path)), **(given | change))

    return loaded


def test_rows_are_typed_and_counted(load: Any, sql: Sql, run: Run) -> None:
    """An unquoted empty field is null, a quoted one an empty text; the table is the run's own build."""
    assert load(GOOD) == Loaded(files=1, read=2, rows=2, set_aside=0)
    assert sql(ROWS) == [(1, Decimal("9.50"), "first"), (2, None, "")]
    assert sql("SELECT table_name, row_count, run_id FROM taskflow.builds") == [(TARGET, 2, run.run_id)]


def test_rerun_leaves_same_rows(load: Any, sql: Sql) -> None:
    """A file is loaded once, however often its step runs: the table is replaced."""
    load(GOOD)
    load(GOOD)
    assert sql("SELECT count(*) FROM staging.orders") == [(2,)]


CSV = {
    "fields of several lines": (b'id,price,note\r\n1,2,"a\r\nb ""c"""\r\n', {}, 'a\r\nb "c"'),
    "byte order mark": (b"\xef\xbb\xbfid,price,note\n1,2,x\n", {}, "x"),
    "no last line break": (b"id,price,note\n1,2,x", {}, "x"),
    "only carriage returns": (b"id,price,note\r1,2,x\r", {}, "x"),
    "columns in another order": (b"note,price,id\nx,2,1\n", {}, "x"),
    "a quoted header": (b'"id","price","note"\n1,2,x\n', {}, "x"),
    "semicolons and single quotes": (b"id;price;note\n1;2;'x;y'\n", {"separator": ";", "quote": "'"}, "x;y"),
    "tabs": (b"id\tprice\tnote\n1\t2\tx,y\n", {"separator": "\t"}, "x,y"),
    "latin-1": ("id,price,note\n1,2,é\n".encode("latin-1"), {"encoding": "latin-1"}, "é"),
    "utf-16": ("id,price,note\n1,2,é\n".encode("utf-16"), {"encoding": "utf-16"}, "é"),
    "its own null": (b"id,price,note\n1,NULL,\n", {"null_text": "NULL"}, ""),
    "no header": (b"1,2,x,2026-01-05\n", {"header": False}, "x"),
    "gzip": (gzip.compress(b"id,price,note\n1,2,x\n"), {}, "x"),
    "bzip2": (bz2.compress(b"id,price,note\n1,2,x\n"), {}, "x"),
    "the end mark of DOS": (b"id,price,note\r\n1,2,x\r\n\x1a", {}, "x"),
    "backslashes": (b"id,price,note\n1,2,a\\nb\\\\\n", {}, r"a\nb" + "\\\\"),
    "spaces are kept": (b"id,price,note\n1,2, x \n", {}, " x "),
    "a quoted null text": (b'id,price,note\n1,2,"NULL"\n', {"null_text": "NULL"}, "NULL"),
    "quotes within a field": (b'id,price,note\n1,2,a"b,c"d\n', {}, "ab,cd"),
}


def test_csv_is_read_as_written(load: Any, sql: Sql) -> None:
    """Every way of writing CSV gives the value that was meant."""
    read = {}
    for name, (content, form, _) in CSV.items():
        assert load(content, csv=CsvForm(**form)).rows == 1, name
        read[name] = sql("SELECT note FROM staging.orders")
    assert read == {name: [(note,)] for name, (_, _, note) in CSV.items()}


def test_rows_are_cut_as_the_server_does(tmp_path: Path) -> None:
    """What COPY takes for a value, the reading row by row does too."""
    read = {}
    for name, (content, form, _) in CSV.items():
        (tmp_path / "orders.csv").write_bytes(content)
        source = CsvFile.opened(tmp_path / "orders.csv", "", CsvForm(**form), ["id", "price", "note", "seen"])
        read[name] = [row.fields[source.columns.index("note")] for row in source.rows()]
    assert read == {name: [note] for name, (_, _, note) in CSV.items()}


WRONG = {
    "nothing in it": (b"", "orders.csv is empty"),
    "only blank lines": (b"\n\n", "orders.csv is empty"),
    "a header only": (b"id,price,note\n", "orders.csv has no rows, so staging.orders would be empty; say `allow_"),
    "a value of another type": (
        b"id,price,note\n1,2,x\n2,dear,y\n",
        'orders.csv, line 3, column price: invalid input syntax for type numeric: "dear"; mend the file, or ',
    ),
    "the line after fields of several lines": (
        b'id,price,note\n1,2,"a\nb"\nx,3,y\n',
        'orders.csv, line 4, column id: invalid input syntax for type integer: "x"',
    ),
    "a null": (
        b"id,price,note\n,2,x\n",
        'orders.csv, line 2, column id: null value in column "id" of relation "orders" violates not-null constraint',
    ),
    "too many fields": (
        b"id,price,note\n1,2,x,y\n",
        'orders.csv, line 2: extra data after last expected column in "1,2,x,y"',
    ),
    "half a row": (b"id,price,note\n1,2,x\n2,3", 'orders.csv, line 3: missing data for column "note"'),
    "half a quoted field": (b'id,price,note\n1,2,"x\n2,3,y\n', "unterminated CSV quoted field"),
    "other columns": (
        b"id,prize,note\n1,2,x\n",
        (
            "orders.csv has other columns than staging.orders: price missing; 'prize' not known (it has 'id', "
            "'prize', 'note'; staging.orders takes id, price, note, seen); is 'prize' for price?"
        ),
    ),
    "another separator": (b"id;price;note\n1;2;x\n", "is it separated by ';'? Then set `csv: {separator: ';'}`"),
    "a column twice": (b"id,price,note,note\n1,2,x,y\n", "note repeated"),
    "other characters": (
        "id,price,note\n1,2,é\n".encode("latin-1"),
        'orders.csv, line 2: invalid byte sequence for encoding "UTF8": 0xe9 0x0a; set `csv: {encoding: …}`',
    ),
    "wide characters": (
        "id,price,note\n1,2,é\n".encode("utf-16"),
        "orders.csv is UTF-16; set `csv: {encoding: utf-16}`",
    ),
    "half of a gzip file": (
        gzip.compress(b"id,price,note\n" + os.urandom(999).hex().encode() + b",2,x\n")[:300],
        "orders.csv is packed, and broken or cut off (Compressed file ended before the end-of-stream marker was",
    ),
    "a damaged bzip2 file": (
        bz2.compress(GOOD)[:-12] + bytes(12),
        "orders.csv is packed, and broken or cut off (Invalid data stream); export or copy it again",
    ),
    "a workbook": (
        zipped("[Content_Types].xml"),
        "orders.csv is an Excel workbook or another document, not CSV; export",
    ),
    "a zip of two": (zipped("a.csv", "b.csv"), "orders.csv is a zip with 2 files (a.csv, b.csv); pack the CSV alone"),
    "an end of data in the middle": (b"id,price,note\n1,2,x\n\\.\n2,3,y\n", "orders.csv, line 3"),
    "a date in another order": (
        b"id,price,note,seen\n1,2,x,01/02/2026\n",
        'orders.csv, line 2, column seen: date/time field value out of range: "01/02/2026"',
    ),
    "a number out of range": (
        b"id,price,note\n99999999999,2,x\n",
        'value "99999999999" is out of range for type integer',
    ),
}


def test_wrong_file_changes_nothing(load: Any, sql: Sql) -> None:
    """The error names file, line, column and value, and the table is as it was."""
    sql("INSERT INTO staging.orders VALUES (0, 0, 'old')")
    for name, (content, message) in WRONG.items():
        with pytest.raises(DataRejected) as error:
            load(content)
        assert message in str(error.value), name
    assert sql(ROWS) == [(0, Decimal("0.00"), "old")]


BAD = b"""id,price,note
1,2,x
2,dear,y
,3,z
4,5
"x",6,"a
b"
7,8,\xff
9,1e99,n
10,1,ok
"""


def test_bad_rows_are_set_aside(load: Any, sql: Sql, run: Run, tmp_path: Path) -> None:
    """What does not fit is kept with its place, its reason and its own text; the counts add up."""
    done = load(BAD, on_bad_row="set_aside", quarantine="staging.bad", max_set_aside_share=0.9)
    assert done == Loaded(files=1, read=8, rows=2, set_aside=6)
    assert sql(ROWS) == [(1, Decimal("2.00"), "x"), (10, Decimal("1.00"), "ok")]
    assert sql("SELECT line, reason, raw FROM staging.bad ORDER BY line") == [
        (3, 'column price: invalid input syntax for type numeric: "dear"', "2,dear,y"),
        (4, "column id: is null", ",3,z"),
        (5, "has 2 fields, not 3", "4,5"),
        (6, 'column id: invalid input syntax for type integer: "x"', '"x",6,"a\nb"'),
        (8, "holds bytes that are not text in this encoding", "7,8,\\udcff"),
        (9, "column price: numeric field overflow", "9,1e99,n"),
    ]
    kept = "SELECT DISTINCT target, file, dag_id, run_id, run_date FROM staging.bad"
    assert sql(kept) == [(TARGET, str(tmp_path / "orders.csv"), run.dag_id, run.run_id, run.date)]


def test_retry_sets_aside_once(load: Any, sql: Sql) -> None:
    """The same content read again replaces its rows in the quarantine; a mended file leaves them as evidence."""
    how = {"on_bad_row": "set_aside", "quarantine": "staging.bad", "max_set_aside_share": 0.9}
    load(BAD, **how)
    load(BAD, **how)
    assert sql("SELECT count(*) FROM staging.bad") == [(6,)]
    load(GOOD, **how)
    assert sql("SELECT count(*) FROM staging.bad") == [(6,)]


def test_mass_of_bad_rows_stops(load: Any, sql: Sql) -> None:
    """Above the share, nothing is written anywhere, and the error shows the first of them."""
    with pytest.raises(
        DataRejected, match=r"6 of 8 rows do not fit, above max_set_aside_share 0\.1; the first: .*, line 3: "
    ):
        load(BAD, on_bad_row="set_aside", quarantine="staging.bad")
    assert sql("SELECT to_regclass('staging.bad')::text") == [(None,)]


HALVES = {
    b"id,price,note\n1,2,x\n2,3": "ends in line 3 after 2 of 3 fields: the file seems to be cut off",
    b'id,price,note\n1,2,"x\n2,3,y\n': "ends within quotes that open in line 2: the file seems to be cut off",
}


def test_half_a_file_is_not_set_aside(load: Any) -> None:
    """A file that breaks off is no row that does not fit."""
    for content, message in HALVES.items():
        with pytest.raises(DataRejected, match=message):
            load(content, on_bad_row="set_aside", quarantine="staging.bad")


def test_quarantine_lacks_column(load: Any, sql: Sql) -> None:
    """A quarantine of another shape is named with what it lacks."""
    sql("CREATE TABLE staging.bad (line bigint)")
    with pytest.raises(MissingResource, match=r"column 'target' does not exist in table staging\.bad"):
        load(GOOD, on_bad_row="set_aside", quarantine="staging.bad")


def test_declared_columns_make_table(load: Any, sql: Sql, run: Run, tmp_path: Path) -> None:
    """A table that is missing is made of the declared columns; one that differs is an error that names both."""
    (tmp_path / "orders.csv").write_bytes(b'id,tags\n1,"{a,b}"\n')
    made = {"id": "bigint", "tags": "text[]"}
    for _ in range(2):
        load_file(
            CONNECTION, "staging.made", InFolder(folder=str(tmp_path)), "csv", "orders.csv", columns=made, run=run
        )
    assert sql("SELECT id, tags FROM staging.made") == [(1, ["a", "b"])]
    with pytest.raises(
        PermanentError, match=r"other columns than the step declares: id \(integer, in the table bigint\)"
    ):
        load_file(CONNECTION, "staging.made", InFolder(folder=str(tmp_path)), "csv", "orders.csv",
                  columns=made | {"id": "int"}, run=run)  # fmt: skip


def test_columns_without_header(load: Any, sql: Sql) -> None:
    """Without a header the fields are in the order of the declared columns; those with a default may be missing."""
    declared = {"note": "text", "id": "integer", "price": "numeric(10, 2)"}
    assert load(b"x,1,2\n", columns=declared, csv=CsvForm(header=False)).rows == 1
    assert sql("SELECT id, price, note, seen IS NOT NULL FROM staging.orders") == [(1, Decimal("2.00"), "x", True)]


def test_missing_table_and_type(load: Any, sql: Sql) -> None:
    """What does not exist is named with what to do."""
    sql("DROP TABLE staging.orders")
    with pytest.raises(MissingResource, match=r"table 'staging.orders' does not exist .* or declare `columns`"):
        load(GOOD)
    with pytest.raises(MissingResource, match="type 'nonsense' does not exist"):
        load(b"a\n1\n", columns={"a": "nonsense"})


# --- which files ------------------------------------------------------------------------------------------------------


def test_folder_is_loaded_by_pattern(load: Any, sql: Sql, tmp_path: Path) -> None:
    """The files of a folder that match are loaded in the order of their names; hidden ones and others are not."""
    (tmp_path / "in" / "below").mkdir(parents=True)
    for name, rows in {
        "b.csv": b"2,2,b\n",
        "a.csv": b"1,1,a\n",
        ".c.csv": b"x",
        "c.txt": b"x",
        "below/d.csv": b"x",
    }.items():
        (tmp_path / "in" / name).write_bytes(b"id,price,note\n" + rows)
    assert load(folder="in", pattern="*.csv") == Loaded(files=2, read=2, rows=2, set_aside=0)
    assert sql(ROWS) == [(1, 1, "a"), (2, 2, "b")]
    with pytest.raises(
        MissingResource, match=r"file '\*\.parquet' does not exist in .*/in; it has a\.csv, b\.csv, c\.txt"
    ):
        load(folder="in", pattern="*.parquet")


def test_missing_file_is_named(load: Any) -> None:
    with pytest.raises(MissingResource, match=r"file 'orders\.csv' does not exist"):
        load()


def test_own_runs_file_is_read(load: Any, sql: Sql, run: Run, tmp_path: Path) -> None:
    """What an earlier step writes is read as this run wrote it, whatever another run wrote since."""
    other = replace(run, run_id="scheduled__2026-02-01", date=dt.date(2026, 2, 1))
    place = InFolder(folder=str(tmp_path))
    for one, number in ((run, 1), (other, 2)):
        with files_of(place, one).write("in/orders.csv") as file:
            file.write_text(f"id,price,note\n{number},1,x\n")
    reader = replace(run, before=Before(files={"in/orders.csv": "make"}))
    load_file(CONNECTION, TARGET, place, "csv", "in/orders.csv", run=reader)
    assert sql("SELECT id FROM staging.orders") == [(1,)]
    load_file(CONNECTION, TARGET, place, "csv", folder="in", run=reader)
    assert sql("SELECT id FROM staging.orders") == [(1,)]


def test_bucket_is_read(object_store: ObjectStore, run: Run, sql: Sql) -> None:
    """Files in a bucket are loaded as those in a folder; a bucket that is missing, or refuses, is named."""
    client = object_store.client()
    client.put_object(Bucket="pipeline-files", Key="loads/in/a.csv", Body=GOOD)
    place = InBucket(connection="object_store", bucket="pipeline-files", prefix="loads")
    assert load_file(CONNECTION, TARGET, place, "csv", folder="in", run=run).rows == 2
    with pytest.raises(MissingResource, match=r"file 'in/b\.csv' does not exist in s3://pipeline-files/loads"):
        load_file(CONNECTION, TARGET, place, "csv", "in/b.csv", run=run)
    with pytest.raises(MissingResource, match="bucket 'no-such-bucket'"):
        load_file(CONNECTION, TARGET, place.model_copy(update={"bucket": "no-such-bucket"}), "csv", "a.csv", run=run)
    assert sql("SELECT count(*) FROM staging.orders") == [(2,)]


def test_bucket_that_refuses(object_store: ObjectStore, run: Run, sql: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that are refused are told at once, and nothing has changed."""
    import json

    stranger = json.loads(object_store.airflow_connection) | {"password": "wrong"}
    monkeypatch.setenv("AIRFLOW_CONN_STRANGER", json.dumps(stranger))
    place = InBucket(connection="stranger", bucket="pipeline-files")
    with pytest.raises(PermanentError, match="refused access to bucket 'pipeline-files'"):
        load_file(CONNECTION, TARGET, place, "csv", "a.csv", run=run)


# --- JSON lines -------------------------------------------------------------------------------------------------------


JSON_TABLE = (
    "CREATE TABLE staging.docs (id bigint, n numeric, t text, j jsonb, a integer[], b boolean, x text DEFAULT 'd')"
)


def load_json(run: Run, folder: Path, content: bytes, **how: Any) -> Loaded:
    (folder / "docs.jsonl").write_bytes(content)
    return load_file(
        CONNECTION, "staging.docs", InFolder(folder=str(folder)), "json_lines", "docs.jsonl", run=run, **how
    )


def test_json_keeps_digits(run: Run, sql: Sql, tmp_path: Path) -> None:
    """Numbers keep their digits, also within JSON; texts their characters; a key that is missing is null."""
    sql(JSON_TABLE)
    line = r'{"id": 9007199254740993, "n": 0.10000000000000000001, "t": "a\tb\\c\n\"é", "j": {"p": 1.50},'
    line += r' "a": [1, null, 3], "b": true}'
    assert load_json(run, tmp_path, f'{line}\n{{"t": ""}}\n\n'.encode()).rows == 2
    assert sql("SELECT DISTINCT x FROM staging.docs") == [("d",)]
    found = sql("SELECT id, n, t, j::text, a, b FROM staging.docs ORDER BY id")
    assert found[0] == (
        9007199254740993,
        Decimal("0.10000000000000000001"),
        'a\tb\\c\n"é',
        '{"p": 1.50}',
        [1, None, 3],
        True,
    )
    assert found[1] == (None, None, "", None, None, None)


EVERY = b'{"id": 1, "n": 1, "t": "x", "j": 1, "a": [], "b": true}\n'
WRONG_JSON = {
    "nothing": (b"\n", "docs.jsonl is empty"),
    "half a line": (b'{"id": 1}\n{"id": 2, "t": "x', "ends in the middle of line 2: the file seems to be cut off"),
    "no JSON": (b'{"id": 1}\n{id: 2}\n{"id": 3}\n', "docs.jsonl, line 2 is not JSON ("),
    "no object": (b"[1]\n", "line 1 is not an object"),
    "an unknown key": (
        b'{"idd": 1}\n',
        "line 1 has 'idd', which the table or the first line does not have; it takes id, n,",
    ),
    "a key twice": (b'{"id": 1, "id": 2}\n', 'line 1 has the key "id" twice'),
    "NaN": (b'{"n": NaN}\n', "line 1 holds NaN, which is not JSON"),
    "a list for a number": (b'{"id": [1]}\n', "line 1 has a list for id, which is bigint"),
    "a value of another type": (EVERY + b'{"id": "x"}\n', "docs.jsonl, line 2, column id: invalid input syntax"),
    "a column that no line has": (
        b'{"id": 1, "n": 1, "j": 1, "a": [], "b": 0}',
        "has no line with t; its keys are a, b, id, j, n",
    ),
    "a blank line": (b'{"id": 1}\n\n{"id": 2}\n', "docs.jsonl, line 2 is blank"),
}


def test_wrong_json_is_told(run: Run, sql: Sql, tmp_path: Path) -> None:
    sql(JSON_TABLE)
    for name, (content, message) in WRONG_JSON.items():
        with pytest.raises(DataRejected) as error:
            load_json(run, tmp_path, content)
        assert message in str(error.value), name


def test_json_rows_are_set_aside(run: Run, sql: Sql, tmp_path: Path) -> None:
    """Lines that are not JSON, and values that do not fit, are set aside as they stand in the file."""
    sql(JSON_TABLE)
    done = load_json(run, tmp_path, EVERY + b'{id}\n{"id": "x"}\n{"t": "\\u0000"}\n', on_bad_row="set_aside",
                     quarantine="staging.bad", max_set_aside_share=1.0)  # fmt: skip
    assert (done.rows, done.set_aside) == (1, 3)
    assert sql("SELECT line, raw FROM staging.bad ORDER BY line") == [
        (2, "{id}"),
        (3, '{"id": "x"}'),
        (4, '{"t": "\\u0000"}'),
    ]


# --- parquet ----------------------------------------------------------------------------------------------------------


PARQUET_TABLE = """
    CREATE TABLE staging.typed (
        i bigint, f double precision, n numeric(12, 3), t text, b boolean, d date, z timestamptz, l timestamp, y bytea,
        c text
    )
"""
MOMENT = dt.datetime(2026, 1, 5, 12, 0, 0, 123456, dt.UTC)
TYPED = pa.table(
    {
        "i": pa.array([1, None], pa.int32()),
        "f": pa.array([0.1, math.inf]),
        "n": pa.array([Decimal("1.125"), None], pa.decimal128(10, 3)),
        "t": pa.array(["a\tb\n\\N\r", ""]),
        "b": pa.array([True, None]),
        "d": pa.array([dt.date(2026, 1, 5), None]),
        "z": pa.array([MOMENT, None], pa.timestamp("ns", "Europe/Berlin")),
        "l": pa.array([MOMENT.replace(tzinfo=None), None], pa.timestamp("us")),
        "y": pa.array([b"\x00\xff", None]),
        "c": pa.array(["x", None]).dictionary_encode(),
    }
)


def load_parquet(run: Run, folder: Path, table: pa.Table, **how: Any) -> Loaded:
    pq.write_table(table, folder / "typed.parquet")
    return load_file(
        CONNECTION, "staging.typed", InFolder(folder=str(folder)), "parquet", "typed.parquet", run=run, **how
    )


@pytest.mark.parametrize("i", [None, 70_000], ids=["copy", "row by row"])
def test_parquet_keeps_values(run: Run, sql: Sql, tmp_path: Path, i: int | None) -> None:
    """Every type comes in as it is, by COPY and, where a row does not fit, row by row."""
    sql(PARQUET_TABLE)
    sql("ALTER TABLE staging.typed ALTER i TYPE smallint")
    more = pa.Table.from_pylist([{"i": i}], pa.schema([*TYPED.schema])) if i else TYPED.slice(0, 0)
    done = load_parquet(
        run,
        tmp_path,
        pa.concat_tables([TYPED, more]).unify_dictionaries(),
        on_bad_row="set_aside",
        quarantine="staging.bad",
        max_set_aside_share=0.5,
    )
    assert (done.rows, done.set_aside) == (2, 1 if i else 0)
    found = sql("SELECT * FROM staging.typed ORDER BY i")
    first = [bytes(one) if isinstance(one, memoryview) else one for one in found[0]]
    assert first == [
        1,
        0.1,
        Decimal("1.125"),
        "a\tb\n\\N\r",
        True,
        dt.date(2026, 1, 5),
        MOMENT,
        MOMENT.replace(tzinfo=None),
        b"\x00\xff",
        "x",
    ]
    assert found[1] == (None, math.inf, None, "", None, None, None, None, None, None)


LOSSY = [
    ("i", pa.array([1.5, 2.0]), "i is double, which bigint does not take exactly"),
    ("n", pa.array([1.5, 2.0]), "n is double, which numeric(12,3) does not take exactly"),
    ("n", pa.array([Decimal("1.12345")] * 2), "n is decimal128(6, 5), which numeric(12,3) does not take exactly"),
    ("l", pa.array([MOMENT] * 2), "l is timestamp[us, tz=UTC], which timestamp without time zone does not take"),
    ("z", pa.array([MOMENT.replace(tzinfo=None)] * 2), "z is timestamp[us], which timestamp with time zone"),
    ("d", pa.array([MOMENT.replace(tzinfo=None)] * 2), "d is timestamp[us], which date does not take exactly"),
    ("t", pa.array([[1], [2]]), "t is list<"),
    ("l", pa.array([1, 2], pa.timestamp("ns")), "would lose data"),
]


def test_parquet_types_that_would_lose(run: Run, sql: Sql, tmp_path: Path) -> None:
    """A type whose values a column would round, cut or move is refused before a row is read."""
    sql(PARQUET_TABLE)
    for column, values, message in LOSSY:
        place = TYPED.schema.get_field_index(column)
        with pytest.raises(DataRejected) as error:
            load_parquet(run, tmp_path, TYPED.set_column(place, column, values))
        assert message in str(error.value)


def test_parquet_row_is_named(run: Run, sql: Sql, tmp_path: Path) -> None:
    """A value that does not fit is told with its row, also where texts have line breaks."""
    sql("CREATE TABLE staging.typed (i smallint, t text)")
    table = pa.table({"i": pa.array([1, 2, 70_000]), "t": ["a\nb\nc", "", "x"]})
    with pytest.raises(
        DataRejected, match=r'typed\.parquet, row 3, column i: value "70000" is out of range for type smallint'
    ):
        load_parquet(run, tmp_path, table)
    assert (
        load_parquet(
            run, tmp_path, table, on_bad_row="set_aside", quarantine="staging.bad", max_set_aside_share=0.5
        ).rows
        == 2
    )
    assert sql("SELECT line, raw FROM staging.bad") == [(3, '{"i": "70000", "t": "x"}')]


def test_half_a_parquet_file(run: Run, sql: Sql, tmp_path: Path) -> None:
    sql(PARQUET_TABLE)
    load_parquet(run, tmp_path, TYPED)
    content = (tmp_path / "typed.parquet").read_bytes()
    (tmp_path / "half.parquet").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataRejected, match=r"half\.parquet cannot be read as parquet"):
        load_file(CONNECTION, "staging.typed", InFolder(folder=str(tmp_path)), "parquet", "half.parquet", run=run)


# --- locks, kills, memory ---------------------------------------------------------------------------------------------


def test_locked_table_is_named(load: Any, database: Database) -> None:
    """A lock that no task holds is waited for so long, and the error names its session."""
    with database.connect() as session, session.cursor() as cursor:
        cursor.execute("BEGIN; LOCK TABLE staging.orders")
        with pytest.raises(TransientError, match=r"for a lock that the session with pid \d+ holds"):
            load(GOOD, lock_timeout=0.2)


def test_trigger_that_holds_rows_back(load: Any, sql: Sql) -> None:
    """What the server took is compared with what the file has."""
    sql("CREATE FUNCTION staging.none() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$")
    sql(
        "CREATE TRIGGER none BEFORE INSERT ON staging.orders FOR EACH ROW WHEN (NEW.id = 2)"
        " EXECUTE FUNCTION staging.none()"
    )
    with pytest.raises(PermanentError, match=r"the server took 1 of the 2 rows of .*orders\.csv: a trigger or rule"):
        load(GOOD)
    with pytest.raises(PermanentError, match=r"staging\.orders took 1 of 2 rows"):
        load(GOOD + b"x,3,z\n", on_bad_row="set_aside", quarantine="staging.bad", max_set_aside_share=0.5)


def test_broken_constraint_stops(load: Any, sql: Sql) -> None:
    """A row that breaks a constraint is told with its line, whatever becomes of others."""
    sql("ALTER TABLE staging.orders ADD UNIQUE (id), ADD CHECK (price < 100)")
    for row, message in (
        (b"1,1,again\n", "Key (id)=(1) already exists"),
        (b"3,100,dear\n", "violates check constraint"),
    ):
        with pytest.raises(DataRejected) as error:
            load(GOOD + row, on_bad_row="set_aside", quarantine="staging.bad")
        assert "orders.csv, line 4" in str(error.value)
        assert message in str(error.value)


def test_file_that_changes_meanwhile(load: Any, gate: Gate, database: Database, sql: Sql, tmp_path: Path) -> None:
    """A file that is replaced while it is read is read again by the retry."""
    gate.hold("staging.orders", "NEW.id = 2")
    with gate.closed(database):
        loading = gate.start(load, GOOD)
        gate.waiting()
        (tmp_path / "orders.csv").write_bytes(GOOD + b"3,3,late\n")
    with pytest.raises(TransientError, match=r"orders\.csv was changed while it was read"):
        loading.result(60)
    assert sql("SELECT count(*) FROM staging.orders") == [(0,)]


KILLED = """
    import datetime as dt, sys
    from tasks.contract import Run
    from tasks.files.places import InFolder
    from tasks.postgres.loading.load_file import load_file

    run = Run("crypto_events_dag", "manual__1", "some_task", dt.date(2026, 1, 5))
    load_file("crypto_postgres", "staging.orders", InFolder(folder=sys.argv[1]), "csv", "orders.csv", run=run)
"""


def test_killed_load_is_retried(load: Any, gate: Gate, database: Database, sql: Sql, tmp_path: Path) -> None:
    """A load that is killed in the middle leaves the table as it was; its retry waits for nobody and is whole."""
    load(b"id,price,note\n0,0,old\n")
    (tmp_path / "orders.csv").write_bytes(GOOD)
    gate.hold("staging.orders", "NEW.id = 2")
    with gate.closed(database):
        script = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path)]
        with subprocess.Popen(script, cwd=REPOSITORY, env=dict(os.environ)) as process:
            (pid,) = gate.waiting()
            process.send_signal(signal.SIGKILL)
        gone = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s"
        gate.terminate(pid)
        eventually("the session to end", lambda: sql(gone, pid), lambda rows: rows == [(0,)])
        assert sql(ROWS) == [(0, Decimal("0.00"), "old")]
    load()
    assert sql(ROWS) == [(1, Decimal("9.50"), "first"), (2, None, "")]


@pytest.mark.parametrize("last", ["", "x,1,bad\n"], ids=["copy", "row by row"])
def test_memory_is_flat(load: Any, tmp_path: Path, last: str) -> None:
    """More rows need no more memory."""
    how = {"on_bad_row": "set_aside", "quarantine": "staging.bad"}
    peaks = []
    for rows in (25_000, 60_000):
        with (tmp_path / "orders.csv").open("w") as file:
            file.write("id,price,note\n")
            file.writelines(f'{row},1.5,"note {row}"\n' for row in range(rows))
            file.write(last)
        with peak_memory() as peak:
            assert load(**how).rows == rows
        peaks.append(peak())
    assert peaks[1] < max(peaks[0] * 1.2, 12_000_000)
