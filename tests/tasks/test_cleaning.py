"""spark.clean_csv: what is kept, what is dropped and why, and what a broken file says."""

from __future__ import annotations

import datetime as dt
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from stack.objects import ObjectStore
from tasks.contract import DataRejected, MissingResource, PermanentError, Run
from tasks.files.places import Files, InBucket, InFolder
from tasks.files.run_files import files_of
from tasks.services.objects import object_store as store_client
from tasks.spark.cleaning import Cleaned, CsvSource, FromSource, FromSql, clean_csv
from tasks.spark.csv_columns import CsvColumn

PAYMENTS: dict[str, Any] = {
    "file": "raw/PAYMENTS.csv",
    "nulls": ["NULL"],
    "unique": ["paid_on", "user_id"],
    "columns": {
        "FECHA": {
            "name": "paid_on",
            "type": "date",
            "required": True,
            "not_after": {"date": "2026-01-05"},
            "not_before": {"date": "2026-01-05", "days_before": 30},
        },
        "BUY": {"name": "user_id", "type": "integer", "required": True, "minimum": 1},
        "SPENT": {"type": "number", "minimum": 0, "maximum": 1000},
        "SEGMENT": {"type": "text", "values": ["food", "a, b", 'say "hi"']},
        "BORN": {"type": "date", "format": "D/M/YYYY"},
        "SEEN": {"type": "boolean", "bad": "drop_row"},
    },
}
LINES = [
    "FECHA,BUY,SPENT,SEGMENT,BORN,SEEN",
    "2026-01-01,1,10.5,food,7/1/2001,true",
    "2026-01-01,1,99.5,food,7/1/2001,true",  # repeats the key of the line above
    ' 2026-01-02 ,2.0,,"a, b",07/01/2001,NO',
    '2026-01-02,3,1e2,"say ""hi""",,1',
    "",
    "2026-02-31,4,1,food,,",
    "2026-1-2,4,1,food,,",
    ",4,1,food,,",
    "2026-01-06,4,1,food,,",
    "2025-12-05,4,1,food,,",
    "2026-01-03,x,-1,food,,",
    "2026-01-03,,1,food,,",
    "2026-01-03,0,1,food,,",
    "2026-01-03,99999999999999999999,1,food,,",
    "2026-01-03,5,NaN,drink,31/2/2001,",
    "2026-01-03,6,-0.5,NULL,2001-01-07,",
    "2026-01-03,7,1000.5,food,,maybe",
    "2026-01-03,8,1d,food,,",
    "2026-01-03,9,1",
    '2026-01-03,9,1,"food,,',
    "2026-01-03,9,1,food,,,",
    "2026-01-04,9,1000,food,,f",
]
KEPT = [
    (dt.date(2026, 1, 1), 1, 10.5, "food", dt.date(2001, 1, 7), True),
    (dt.date(2026, 1, 2), 2, None, "a, b", dt.date(2001, 1, 7), False),
    (dt.date(2026, 1, 2), 3, 100.0, 'say "hi"', None, True),
    (dt.date(2026, 1, 3), 5, None, None, None, None),
    (dt.date(2026, 1, 3), 6, None, None, None, None),
    (dt.date(2026, 1, 3), 8, None, "food", None, None),
    (dt.date(2026, 1, 4), 9, 1000.0, "food", None, False),
]
LOG = """\
payments (raw/PAYMENTS.csv): 21 rows read, 7 kept, 14 dropped (66.7%); blank lines: 1
  (row) not 6 fields                                        2 dropped ("2026-01-03,9,1", "2026-01-03,9,1,food,,,")
  (row) ends within quotes                                  1 dropped ("2026-01-03,9,1,"food,,")
  FECHA missing                                             1 dropped
  FECHA not a date YYYY-MM-DD                               2 dropped ("2026-02-31", "2026-1-2")
  FECHA before 2025-12-06                                   1 dropped ("2025-12-05")
  FECHA after 2026-01-05                                    1 dropped ("2026-01-06")
  BUY missing                                               1 dropped
  BUY not an integer                                        2 dropped ("99999999999999999999", "x")
  BUY below 1                                               1 dropped ("0")
  SPENT not a number                                        2 made null ("1d", "NaN")
  SPENT below 0                                             1 made null ("-0.5")
  SEGMENT not one of food, a, b, say "hi"                   1 made null ("drink")
  BORN not a date D/M/YYYY                                  2 made null ("2001-01-07", "31/2/2001")
  SEEN not true or false                                    1 dropped ("maybe")
  (row) repeats paid_on, user_id of an earlier row          1 dropped
  lines that are part of a field in quotes: 1; set `multiline: true` if such a field is meant"""

Clean = Callable[..., Cleaned]
FOLDER = InFolder(folder="data")


@pytest.fixture
def project(run: Run, tmp_path: Path) -> Run:
    """A run in a project of its own, with the payments and a query."""
    (tmp_path / "configs" / "sql").mkdir(parents=True)
    spent = "SELECT user_id, sum(spent) AS spent FROM payments GROUP BY user_id ORDER BY user_id"
    (tmp_path / "configs" / "sql" / "spent.sql").write_text(spent)
    put(tmp_path, "PAYMENTS", LINES)
    return replace(run, configs=tmp_path / "configs", log=logging.getLogger("test.cleaning"))


@pytest.fixture
def clean(spark_connection: str, project: Run) -> Clean:
    """Clean the payments, in the project's folder."""

    def once(max_dropped: float | None = None, files: Files | None = None, **sources: Any) -> Cleaned:
        outputs: dict[str, FromSource | FromSql] = {
            "payments.parquet": FromSource(source="payments"),
            "spent.parquet": FromSql(sql="spent.sql"),
        }
        declared = {"payments": PAYMENTS} | sources
        models = {name: CsvSource.model_validate_json(json.dumps(one)) for name, one in declared.items()}
        return clean_csv(spark_connection, models, outputs, "report.json", files or FOLDER, max_dropped, run=project)

    return once


def put(project: Path, name: str, lines: list[str], end: str = "\n") -> Path:
    file = project / "data" / "raw" / f"{name}.csv"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines) + end)
    return file


def rows(file: Path) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in pq.read_table(file).to_pylist()]


def test_each_dirt_is_counted(clean: Clean, tmp_path: Path, project: Run, caplog: pytest.LogCaptureFixture) -> None:
    """Values that fit are kept with their types; each row that is not has one reason; a rerun gives the same bytes."""
    project.log.setLevel(logging.INFO)
    project.log.addHandler(caplog.handler)  # its own: Airflow, imported on the way, takes those of the root
    data = tmp_path / "data"
    cleaned = clean()
    assert cleaned == Cleaned(
        rows_read={"payments": 21},
        rows_kept={"payments": 7},
        rows_dropped={"payments": 14},
        rows_written={"payments.parquet": 7, "spent.parquet": 7},
        report=files_of(FOLDER, project).address("report.json"),
    )
    assert sorted(rows(data / "payments.parquet")) == KEPT
    assert rows(data / "spent.parquet")[:3] == [(1, 10.5), (2, None), (3, 100.0)]
    logged = [record.getMessage() for record in caplog.records if record.name == project.log.name]
    assert LOG in logged
    report = json.loads((data / "report.json").read_text())
    assert report["sources"]["payments"]["dropped"][3] == {
        "column": "FECHA",
        "reason": "not a date YYYY-MM-DD",
        "rows": 2,
        "examples": ["2026-02-31", "2026-1-2"],
    }
    assert sum(one["rows"] for one in report["sources"]["payments"]["dropped"]) == 14
    first = {one.name: one.read_bytes() for one in data.glob("[a-z]*.*")}
    assert clean() == cleaned
    assert {one.name: one.read_bytes() for one in data.glob("[a-z]*.*")} == first


def test_too_much_dirt_is_rejected(clean: Clean, tmp_path: Path, project: Run) -> None:
    """Above `max_dropped` nothing is written but the report, and the error says the most frequent reasons."""
    put(tmp_path, "PAYMENTS", [*LINES[:4], "2026-01-09,4,1,food,,", "x,4,1,food,,", "y,4,1,food,,"])
    with pytest.raises(DataRejected) as raised:
        clean(max_dropped=0.5)
    assert str(raised.value) == (
        "payments (raw/PAYMENTS.csv): 4 of 6 rows were dropped (66.7%), but `max_dropped` allows only 50.0%: FECHA not "
        'a date YYYY-MM-DD 2 ("x", "y"); FECHA after 2026-01-05 1 ("2026-01-09"); repeats paid_on, user_id of an'
        f" earlier row 1\nNothing was written; see {files_of(FOLDER, project).address('report.json')}"
    )
    assert isinstance(raised.value.output, Cleaned)
    assert raised.value.output.rows_dropped == {"payments": 4}
    assert sorted(one.name for one in (tmp_path / "data").glob("*.*")) == [".runs", ".scratch", "report.json"]


def test_hollow_columns_are_rejected(clean: Clean, tmp_path: Path) -> None:
    """A column with no value, or none of its type, is told of, and an old output stays as it was."""
    old = tmp_path / "data" / "payments.parquet"
    old.write_text("old")
    put(tmp_path, "PAYMENTS", [LINES[0], "2026-01-01,1,a lot,,07.01.2001,", "2026-01-02,2,much,,8.1.2001,"])
    with pytest.raises(DataRejected) as raised:
        clean()
    where = "payments (raw/PAYMENTS.csv): column"
    assert str(raised.value).splitlines()[:-1] == [
        f'{where} "SPENT" is not a number in any of its 2 values ("a lot", "much")',
        f'{where} "SEGMENT" has no value in any row',
        f'{where} "BORN" is not a date D/M/YYYY in any of its 2 values ("07.01.2001", "8.1.2001")',
        f'{where} "SEEN" has no value in any row',
    ]
    assert old.read_text() == "old"


def test_broken_query_leaves_outputs(clean: Clean, tmp_path: Path) -> None:
    """A mistake in the SQL of one output leaves every output as it was."""
    old = tmp_path / "data" / "payments.parquet"
    old.write_text("old")
    (tmp_path / "configs" / "sql" / "spent.sql").write_text("SELECT user,\n  spent\nFROM payment")
    with pytest.raises(PermanentError, match=r"^configs/sql/spent.sql reads payment, which is not a view of the step"):
        clean()
    assert old.read_text() == "old"


def test_bucket_holds_files(clean: Clean, object_store: ObjectStore, tmp_path: Path, project: Run) -> None:
    """The same step reads from a bucket and writes to it."""
    files = InBucket(connection="object_store", bucket="ge-artifacts", prefix="churn")
    s3 = store_client("object_store")
    s3.upload_file(str(tmp_path / "data" / "raw" / "PAYMENTS.csv"), "ge-artifacts", "churn/raw/PAYMENTS.csv")
    assert clean(files=files).report == files_of(files, project).address("report.json")
    s3.download_file("ge-artifacts", "churn/payments.parquet", str(tmp_path / "copy.parquet"))
    assert sorted(rows(tmp_path / "copy.parquet")) == KEPT


HEADER = LINES[0]
BROKEN = [
    ("", "is empty"),
    ("\n2026-01-01\n", "has no header: its first line is empty"),
    (f"{HEADER}\n\n", "has a header and no rows"),
    (
        "FECHA_PAGO,BUY,SPENT,SEGMENT,BORN,SEEN\n1,2,3,4,5,6\n",
        'has no column "FECHA"; did you mean "FECHA_PAGO"? its columns are FECHA_PAGO, BUY, SPENT, SEGMENT, BORN, SEEN',
    ),
    (f"{HEADER},BUY\n", 'has 2 columns "BUY"; rename all but one'),
    (
        f"{HEADER},NEW,NEWER\n",
        "has columns that are not declared: NEW, NEWER; declare them, or set ignore_other_columns: true",
    ),
    (
        f"{HEADER}\n{LINES[1]}\n2026-01-02,2,7",
        (
            'ends in line 3 after 3 of 6 fields ("2026-01-02,2,7"): the file seems to be cut off;'
            " export or copy it again"
        ),
    ),
    (
        f'{HEADER}\n2026-01-02,2,7,"a, b',
        "ends in line 2 within quotes",
    ),
    (f"{HEADER}\n2026-01-02,2,7,caf\xc3".encode("latin-1"), "ends in line 2 within a character"),
    ("CAF\xc9".encode("latin-1"), "is not text of this encoding: character 4 of the header; set `encoding` (latin-1,"),
]


@pytest.mark.parametrize(("content", "problem"), BROKEN)
def test_broken_file_is_rejected(clean: Clean, tmp_path: Path, content: str | bytes, problem: str) -> None:
    """What is wrong with a file as a whole is said before Spark is started."""
    file = put(tmp_path, "PAYMENTS", [])
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataRejected) as raised:
        clean()
    assert str(raised.value).startswith(f"payments: {file} {problem}")


def test_other_separator_is_suspected(clean: Clean, tmp_path: Path) -> None:
    """A file that is separated by something else is told of once for each column, with the likely separator."""
    put(tmp_path, "PAYMENTS", [HEADER.replace(",", ";"), "1;2"])
    with pytest.raises(
        DataRejected,
        match=r"""has no column "FECHA"; is it separated by ';'\? Then set `separator`; its columns are FECHA;B""",
    ):
        clean()


def test_missing_file_is_named(clean: Clean, tmp_path: Path) -> None:
    """A file that is not there is no reason to retry."""
    (tmp_path / "data" / "raw" / "PAYMENTS.csv").unlink()
    with pytest.raises(MissingResource, match=r"^file 'raw/PAYMENTS.csv' does not exist in .*/data; run the step"):
        clean()


def test_all_files_are_looked_at(clean: Clean, tmp_path: Path) -> None:
    """One error tells of every broken file."""
    put(tmp_path, "PAYMENTS", [HEADER])
    put(tmp_path, "USERS", [], end="")
    with pytest.raises(DataRejected, match=r"(?s)^payments: .* has a header and no rows\nusers: .*USERS.csv is empty$"):
        clean(users={"file": "raw/USERS.csv", "columns": {"ID": {"type": "integer"}}})


DECLARED = [
    ({"type": "text", "minimum": 1}, "has `minimum`, which a column of type text does not have"),
    ({"type": "integer", "minimum": 3, "maximum": 1}, r"has a `minimum` \(3\) above its `maximum` \(1\)"),
    ({"type": "text", "required": True, "bad": "null"}, "has `bad: null`, but is `required`"),
    ({"type": "date", "format": "D/D/YYYY"}, "does not give day, month and year once each"),
]


@pytest.mark.parametrize(("column", "problem"), DECLARED)
def test_senseless_rules_are_refused(column: dict[str, Any], problem: str) -> None:
    """A rule that means nothing for its column is refused when the spec is linted."""
    with pytest.raises(ValidationError, match=problem):
        CsvColumn.model_validate_json(json.dumps(column))


SCHEMAS = [
    ({"columns": {"Fecha de pago": {"type": "date"}}}, "needs a `name` of letters, digits and _"),
    ({"columns": {"A": {"type": "text"}, "a": {"type": "text"}}}, "more than one column named 'a'"),
    ({"columns": {"A": {"type": "text"}}, "unique": ["b"]}, "has 'b' in `unique`, which is not one of its columns: a"),
]


@pytest.mark.parametrize(("source", "problem"), SCHEMAS)
def test_senseless_sources_are_refused(source: dict[str, Any], problem: str) -> None:
    """Columns without a usable name of their own are refused when the spec is linted."""
    with pytest.raises(ValidationError, match=problem):
        CsvSource.model_validate_json(json.dumps({"file": "a.csv"} | source))
