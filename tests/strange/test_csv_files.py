"""CSV files as people have them: what is kept, what is set aside with which reason, and what is not read at all."""

from __future__ import annotations

import bz2
import datetime as dt
import gzip
import io
import json
import lzma
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from tasks.contract import DataRejected, Run
from tasks.files.places import InFolder
from tasks.spark.cleaning import Cleaned, CsvSource, FromSource, clean_csv

TEXTS = {"id": {"type": "integer"}, "v": {"type": "text"}}
REQUIRED = {"id": {"type": "integer", "required": True}, "v": {"type": "text"}}
NUMBERS = {"id": {"type": "integer"}, "v": {"type": "number"}}
BROKEN_TEXT = "not text in the `encoding` of the file"


def number(**options: Any) -> dict[str, Any]:
    return {"id": {"type": "integer"}, "v": {"type": "number"} | options}


def zipped(**files: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return packed.getvalue()


def damaged(content: bytes, place: int) -> bytes:
    """Return content with another byte."""
    return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


@dataclass(frozen=True)
class Case:
    """A file that is read, and what comes of it."""

    content: str | bytes
    rows: list[tuple[Any, ...]]
    columns: dict[str, Any] = field(default_factory=lambda: TEXTS)
    options: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    """Dropped rows and values made null, by column and reason."""
    notes: tuple[str, ...] = ()
    blank: int = 0
    file: str = "in.csv"

    @property
    def data(self) -> bytes:
        """The bytes of the file."""
        return self.content if isinstance(self.content, bytes) else self.content.encode()


PERHAPS = (
    'v: 1 numbers like "1.234" are read as fractions, and no other has a point; set `decimal: "."`, '
    'or `decimal: ","` and `thousands: "."`'
)
INSIDE, OPEN = " within a field of several lines", " ends within quotes"
PARTS = "lines that are part of a field in quotes: {}; set `multiline: true` if such a field is meant"
SEVERAL = 'id,v\n1,"hello"\n2,"line one\nline two"\n4,"first\n5,fake\nlast"\n6,end\n'
CASES = {
    # fields of several lines
    "several_lines": Case(SEVERAL, [(1, "hello"), (6, "end")], REQUIRED, reasons={INSIDE: 5}, notes=(PARTS.format(5),)),
    "several_lines_read": Case(
        SEVERAL,
        [(1, "hello"), (2, "line one\nline two"), (4, "first\n5,fake\nlast"), (6, "end")],
        options={"multiline": True},
    ),
    "several_lines_in_crlf": Case(
        'id,v\r\n1,"a\r\n\r\nb"\r\n2,c\r\n', [(1, "a\r\n\r\nb"), (2, "c")], options={"multiline": True}
    ),
    "several_lines_in_the_header": Case(
        'id,"v\nw"\n1,a\n',
        [(1, "a")],
        {"id": {"type": "integer"}, "v\nw": {"type": "text", "name": "v"}},
        {"multiline": True},
    ),
    "carriage_return_within_quotes": Case(
        'id,v\n1,"a\rb"\n2,c\n', [(2, "c")], reasons={INSIDE: 2}, notes=(PARTS.format(2),)
    ),
    "quote_never_closed": Case(
        'id,v\n1,"5 inch\n2,b\n3,c\n', [(2, "b"), (3, "c")], reasons={OPEN: 1}, notes=(PARTS.format(1),)
    ),
    "quote_never_closed_but_others_are": Case(
        'id,v\n1,"5 inch\n2,"b"\n3,c\n', [(2, "b"), (3, "c")], options={"multiline": True}, reasons={OPEN: 1}
    ),
    "stray_quote_in_the_last_line": Case('id,v\n1,5" disk\n2,"6" disk\n', [(1, '5" disk'), (2, '"6" disk')]),
    "open_quote_in_the_last_line": Case('id,v\n1,a\n2,"b\n', [(1, "a")], reasons={OPEN: 1}, notes=(PARTS.format(1),)),
    "even_quotes_and_still_open": Case(
        'id,v,w\n1,5",a\n1,5","b\nc"\n2,b,c\n',
        [(1, '5"', "a"), (2, "b", "c")],
        TEXTS | {"w": {"type": "text"}},
        reasons={INSIDE: 2},
        notes=(PARTS.format(2),),
    ),
    "too_many_fields_and_still_open": Case(
        'id,v\n1,2,3,"x\n3,4\n5,6\n7,8"\n9,c\n', [(9, "c")], reasons={INSIDE: 4}, notes=(PARTS.format(4),)
    ),
    "long_field": Case(f"id,v\n1,a\n2,{'x' * 150_000}", [(1, "a"), (2, "x" * 150_000)]),
    "long_field_of_several_lines": Case(
        'id,v\n1,"' + "line\n" * 40_000 + '"\n2,b\n',
        [(1, ("line\n" * 40_000).strip()), (2, "b")],
        options={"multiline": True},
    ),
    "last_line_beyond_a_mebibyte": Case(f"id,v\n1,{'x' * 1_500_000}\n", [(1, "x" * 1_500_000)]),
    "row_of_many_fields": Case("id,v\n1,a\n2" + "," * 30_000 + "\n", [(1, "a")], reasons={" not 2 fields": 1}),
    "ragged": Case("id,v\n1\n2,b\n3,c,d\n4,e,\n", [(2, "b")], reasons={" not 2 fields": 3}),
    "ragged_last_line": Case("id,v\n1,a\n2\n", [(1, "a")], reasons={" not 2 fields": 1}),
    # line ends
    "line_ends_cr": Case("id,v\r1,a\r2,b\r", [(1, "a"), (2, "b")]),
    "line_ends_crlf": Case("id,v\r\n1,a\r\n2,b", [(1, "a"), (2, "b")]),
    "line_ends_mixed": Case("id,v\r\n1,a\n2,b\r3,c\n\r\n", [(1, "a"), (2, "b"), (3, "c")], blank=1),
    "mark_at_the_beginning_of_a_row": Case("v,id\n\ufeffa,1\n", [(1, "\ufeffa")]),
    "line_separator_of_unicode": Case("id,v\n1,a\u2028b\x85c\n", [(1, "a\u2028b\x85c")]),
    "blank_lines": Case("id,v\n\n1,a\n   \n2,b\n\n", [(1, "a"), (2, "b")], blank=3),
    "end_mark_of_dos": Case("id,v\r\n1,a\r\n\x1a", [(1, "a")], blank=1),
    "end_mark_in_a_file_of_several_lines": Case(
        'id,v\n1,"a\nb"\n\x1a\x1a', [(1, "a\nb")], options={"multiline": True}, blank=1
    ),
    "end_mark_after_one_column": Case("v\na\n\x1a\n", [("a",)], {"v": {"type": "text"}}, blank=1),
    # encodings and packing
    "byte_order_mark": Case("\ufeffid,v\n1,ä\n", [(1, "ä")]),
    "utf_16": Case(
        "id,v\n1,ä\u0a41\u0100\n2,b\n".encode("utf-16"),
        [(1, "ä\u0a41\u0100"), (2, "b")],
        options={"encoding": "UTF-16"},
    ),
    "utf_16_be": Case("id,v\n1,ä\n".encode("utf-16-be"), [(1, "ä")], options={"encoding": "utf-16-be"}),
    "latin_1": Case("id,v\n1,é\n".encode("latin-1"), [(1, "é")], options={"encoding": "ISO-8859-1"}),
    "cp1252": Case("id,v\n1,€\n".encode("cp1252"), [(1, "€")], options={"encoding": "cp1252"}),
    "bytes_that_are_not_text": Case(
        "id,v\n1,é\n2,b\n".encode("latin-1"), [(1, None), (2, "b")], reasons={f"v {BROKEN_TEXT}": 1}
    ),
    "bytes_that_are_not_text_in_cp1252": Case(
        b"id,v\n1,\x81\n2,b\n", [(1, None), (2, "b")], options={"encoding": "cp1252"}, reasons={f"v {BROKEN_TEXT}": 1}
    ),
    "gzip": Case(gzip.compress(b"id,v\n1,a\n"), [(1, "a")], file="in.csv.gz"),
    "gzip_by_another_name": Case(gzip.compress(b"id,v\n1,a\n"), [(1, "a")]),
    "plain_by_the_name_of_gzip": Case("id,v\n1,a\n", [(1, "a")], file="in.csv.gz"),
    "bzip2_of_two_streams": Case(
        bz2.compress(b"id,v\n1,a\n") + bz2.compress(b"2,b\n"), [(1, "a"), (2, "b")], file="in.csv.bz2"
    ),
    "bzip2": Case(bz2.compress(b"id,v\n1,a\n"), [(1, "a")], file="in.csv.bz2"),
    "xz": Case(lzma.compress(b"id,v\n1,a\n"), [(1, "a")], file="in.csv.xz"),
    "zip": Case(zipped(**{"in.csv": 'id,v\n1,"a\nb"\n'}), [(1, "a\nb")], options={"multiline": True}, file="in.zip"),
    "nul": Case(
        "id,v\n1,a\0b\n2,b\n\x003,c\n",
        [(1, None), (2, "b"), (None, "c")],
        reasons={"v has a NUL character": 1, "id not an integer": 1},
    ),
    # headers
    "column_without_a_name": Case(
        "id,\n1,a\n", [(1, "a")], {"id": {"type": "integer"}, "": {"type": "text", "name": "v"}}
    ),
    "column_without_a_name_ignored": Case(",id,v,\n0,1,a,\n", [(1, "a")], options={"ignore_other_columns": True}),
    "header_in_quotes_with_spaces": Case('"id" , v \n1,a\n', [(1, "a")]),
    "repeated_columns_that_are_ignored": Case(
        "id,v,x,x\n1,a,b,c\n", [(1, "a")], options={"ignore_other_columns": True}
    ),
    # white space
    "white_space": Case(
        "id,g,name\n1,F\t,\tTab\t\n2,\xa0M,\xa0\n3,M ,\u2003 ok\u3000\u202f\n4,M\u200b,x\n",
        [(1, "F", "Tab"), (2, "M", None), (3, "M", "ok"), (4, None, "x")],
        {"id": {"type": "integer"}, "g": {"type": "text", "values": ["F", "M"]}, "name": {"type": "text"}},
        reasons={"g not one of F, M": 1},
    ),
    "white_space_around_numbers": Case("id,v\n\u20031\xa0,\t2.5\t\n", [(1, 2.5)], NUMBERS),
    # numbers
    "decimal_comma": Case(
        "id;v\n1;1.234,5\n2;-0,5\n3;12\n4;1.234\n5;1,2e3\n6;1.23\n7;1,234,5\n",
        [(1, 1234.5), (2, -0.5), (3, 12.0), (4, 1234.0), (5, 1200.0), (6, None), (7, None)],
        number(decimal=",", thousands="."),
        {"separator": ";"},
        {"v not a number": 2},
    ),
    "decimal_comma_without_thousands": Case(
        "id;v\n1;1,5\n2;1.234\n", [(1, 1.5), (2, None)], number(decimal=","), {"separator": ";"}, {"v not a number": 1}
    ),
    "thousands": Case(
        'id,v\n1,"1,234.5"\n2,"12,34,567"\n3,1234\n4,"1,2"\n',
        [(1, 1234.5), (2, 1234567.0), (3, 1234.0), (4, None)],
        number(thousands=","),
        reasons={"v not a number": 1},
    ),
    "spaces_between_thousands": Case(
        "id;v\n1;1 234,5\n2;1\xa0234\n3;1\u202f234\u202f567\n",
        [(1, 1234.5), (2, 1234.0), (3, 1234567.0)],
        number(decimal=",", thousands=" "),
        {"separator": ";"},
    ),
    "apostrophes_between_thousands": Case("id,v\n1,1'234.50\n", [(1, 1234.5)], number(thousands="'")),
    "integers_with_thousands": Case(
        "id;v\n1;1.234\n2;1.000\n3;3,0\n4;3,5\n",
        [(1, 1234), (2, 1000), (3, 3), (4, None)],
        {"id": {"type": "integer"}, "v": {"type": "integer", "decimal": ",", "thousands": "."}},
        {"separator": ";"},
        {"v not an integer": 1},
    ),
    "integers_that_may_be_thousands": Case(
        "id,v\n1,1.000\n2,1.0\n3,0.000\n",
        [(1, None), (2, 1), (3, 0)],
        {"id": {"type": "integer"}, "v": {"type": "integer"}},
        reasons={"v not an integer": 1},
    ),
    "numbers_that_may_be_thousands": Case(
        "id,v\n1,1.234\n2,5\n",
        [(1, 1.234), (2, 5.0)],
        NUMBERS,
        notes=(PERHAPS,),
    ),
    "numbers_that_are_said_to_be_fractions": Case("id,v\n1,1.234\n", [(1, 1.234)], number(decimal=".")),
    "commas_that_are_told": Case(
        'id,v\n1,"1,5"\n2,2.5\n', [(1, None), (2, 2.5)], NUMBERS, reasons={"v not a number": 1}
    ),
    "numbers_of_java": Case(
        "id,v\n1,0x1p3\n2,1d\n3,NaN\n4,Infinity\n5,1e999\n6,.5\n7,+1.\n",
        [(1, None), (2, None), (3, None), (4, None), (5, None), (6, 0.5), (7, 1.0)],
        NUMBERS,
        reasons={"v not a number": 5},
    ),
    "digits_of_other_scripts": Case("id,v\n1,١٢\n2,3\n", [(1, None), (2, 3.0)], NUMBERS, reasons={"v not a number": 1}),
    "numbers_that_are_rounded": Case(
        "id,v\n1,12345678901234567890\n2,9007199254740993\n3,0.1\n",
        [(1, 12345678901234567890.0), (2, 9007199254740992.0), (3, 0.1)],
        NUMBERS,
        notes=('v: 2 numbers have more digits than a 64-bit number keeps ("12345678901234567890"), and are rounded',),
    ),
}


@dataclass(frozen=True)
class Read:
    """What came of all files."""

    cleaned: Cleaned
    report: dict[str, Any]
    folder: Path


def place(folder: Path, name: str, case: Case) -> str:
    """Write a case's file; return its path."""
    path = folder / "data" / name / case.file
    path.parent.mkdir(parents=True)
    path.write_bytes(case.data)
    return f"{name}/{case.file}"


@pytest.fixture(scope="module")
def read(spark_connection: str, tmp_path_factory: pytest.TempPathFactory) -> Read:
    """All files, read by one step."""
    folder = tmp_path_factory.mktemp("strange")
    sources = {
        name: CsvSource.model_validate({"file": place(folder, name, case), "columns": case.columns, **case.options})
        for name, case in CASES.items()
    }
    outputs = {f"{name}.parquet": FromSource(source=name) for name in CASES}
    run = Run("strange", "manual__1", "clean", dt.date(2026, 1, 5), configs=folder / "configs")
    files = InFolder(folder=str(folder / "data"))
    cleaned = clean_csv(spark_connection, sources, outputs, "report.json", files, run=run)
    return Read(cleaned, json.loads((folder / "data" / "report.json").read_text()), folder / "data")


@pytest.mark.parametrize("name", CASES)
def test_every_row_is_kept_or_told(read: Read, name: str) -> None:
    """Kept with its values, or set aside with a reason; nothing is cut, invented or left out."""
    case, told = CASES[name], read.report["sources"][name]
    table = pq.read_table(read.folder / f"{name}.parquet")
    entries = [*told["dropped"], *told["made_null"]]

    assert [tuple(row.values()) for row in table.to_pylist()] == case.rows
    assert {f"{one.get('column', '')} {one['reason']}": one["rows"] for one in entries} == case.reasons
    assert (told["notes"], told["blank_lines"]) == (list(case.notes), case.blank)
    assert told["rows_read"] == len(case.rows) + sum(one["rows"] for one in told["dropped"])


REFUSED = {
    "empty": (Case("", []), "is empty"),
    "empty_but_a_mark": (Case("\ufeff", []), "is empty"),
    "header_only": (Case("id,v\n", []), "has a header and no rows"),
    "blank_first_line": (Case("\nid,v\n1,a\n", []), "has no header: its first line is empty"),
    "header_in_other_case": (
        Case("ID,V\n1,a\n", []),
        'has no column "id"; did you mean "ID"? its columns are ID, V\nheader_in_other_case: {file} has no column "v"',
    ),
    "header_repeated": (Case("id,v,v\n1,a,b\n", []), 'has 2 columns "v"; rename all but one in the file'),
    "header_without_a_name": (
        Case("id,v,\n1,a,b\n", []),
        'has columns that are not declared: "" (a column without a name); declare them',
    ),
    "header_open": (
        Case('id,"v\n1,a\n', []),
        "has a header that ends within quotes; set `multiline: true` if a name has several",
    ),
    "header_of_latin_1": (
        Case("id,v,é\n1,a,b\n".encode("latin-1"), []),
        "is not text of this encoding: character 6 of the header; set",
    ),
    "utf_16_unsaid": (
        Case("id,v\n1,a\n".encode("utf-16"), []),
        "is UTF-16 text, as its first bytes say; set `encoding: utf-16`",
    ),
    "utf_16_without_a_mark": (
        Case("id,v\n1,a\n".encode("utf-16-le"), []),
        "has NUL bytes in its header; is it UTF-16?",
    ),
    "utf_16_said_without_a_mark": (
        Case("id,v\n1,a\n".encode("utf-16-le"), [], options={"encoding": "utf-16"}),
        "does not begin with a byte order mark; set `encoding` to utf-16-le or utf-16-be",
    ),
    "utf_8_said_to_be_latin_1": (
        Case("\ufeffid,v\n1,a\n", [], options={"encoding": "latin-1"}),
        "is UTF-8 text, as its first bytes say; leave",
    ),
    "cut_within_quotes": (
        Case('id,v\n1,a\n2,"b', []),
        'ends in line 3 within quotes ("2,"b"): the file seems to be cut off',
    ),
    "cut_in_carriage_returns": (Case("id,v\r1,a\r2", []), 'ends in line 3 after 1 of 2 fields ("2"): the file'),
    "zip_of_two": (Case(zipped(a="id,v\n1,a\n", b="x"), []), "is a zip with 2 files (a, b); pack the CSV alone"),
    "zip_of_none": (Case(zipped(), []), "is a zip with 0 files (none); pack the CSV alone"),
    "workbook": (Case(zipped(**{"[Content_Types].xml": "", "xl/a.xml": ""}), []), "is an Excel workbook"),
    "zstd": (Case(b"\x28\xb5\x2f\xfd123456", []), "is zstd, not CSV; export it as CSV, plain or packed as gzip"),
    "parquet": (Case(b"PAR1\x15\x0423456", []), "is Parquet, not CSV; export it as CSV"),
    "broken_bzip2": (
        Case(damaged(bz2.compress(SEVERAL.encode()), 30), []),
        "is packed, and broken or cut off (Invalid",
    ),
    "zip_of_a_method_of_its_own": (
        Case(zipped(a="id,v\n1,a\n").replace(b"\x14\0\0\0\0\0", b"\x14\0\0\0\x09\0"), []),
        "is a zip whose file is packed in a way that is not known here",
    ),
    "end_mark_beside_the_last_value": (Case("id,v\n1,a\n2,b\x1a", []), "ends in line 3 with Ctrl-Z (0x1A) right after"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_read_is_refused_with_a_remedy(tmp_path: Path, name: str) -> None:
    """Before Spark is started, with the file's name, what is wrong and what to do."""
    case, problem = REFUSED[name]
    source = {"file": place(tmp_path, name, case), "columns": case.columns, **case.options}
    run = Run("strange", "manual__1", "clean", dt.date(2026, 1, 5), configs=tmp_path / "configs")

    with pytest.raises(DataRejected) as told:
        clean_csv(
            "no_connection",
            {name: CsvSource.model_validate(source)},
            {"out.parquet": FromSource(source=name)},
            "report.json",
            InFolder(folder=str(tmp_path / "data")),
            run=run,
        )

    file = tmp_path / "data" / name / case.file
    assert str(told.value).startswith(f"{name}: {file} {problem.format(file=file)}")


REJECTED = {
    "mixed": (
        Case('id,v\n1,1.234\n2,"1,5"\n', [], NUMBERS),
        'column "v" has numbers in two ways, 1 like "1,5" and 1 like "1.234"; set `decimal`, and `thousands`',
    ),
    "thousands": (
        Case("id,v\n1,1.234\n2,1.234.567\n", [], NUMBERS),
        'column "v" has numbers in two ways, 1 like "1.234.567" and 1 like "1.234"; set `decimal`, and `thousands`',
    ),
    "no_number": (Case('id,v\n1,"1,5"\n', [], NUMBERS), 'column "v" is not a number in any of its 1 values ("1,5")'),
}
BROKEN_OFF = {
    "header_only_in_gzip": (Case(gzip.compress(b"id,v\n"), []), "has a header and no rows"),
    "cut_gzip": (
        Case(gzip.compress(b"id,v\n" + bytes(range(48, 90)) * 99)[:60], []),
        "is packed, and broken or cut off",
    ),
    "open_at_the_end": (
        Case('id,v\n1,a\n2,"b\n3,c\n', [], options={"multiline": True}),
        'ends within quotes that open in line 3 ("2,"b")',
    ),
    "cut_in_gzip": (
        Case(gzip.compress(b"id,v\n1,a\n2"), []),
        'ends after 1 of 2 fields ("2"): the file seems to be cut',
    ),
}


@pytest.mark.parametrize("name", [*BROKEN_OFF, "columns"])
def test_what_cannot_be_right_is_rejected(spark_connection: str, tmp_path: Path, name: str) -> None:
    """What is seen only when the rows are read: a column in two ways, a quote that is never closed."""
    cases = {name: BROKEN_OFF[name]} if name in BROKEN_OFF else REJECTED
    sources = {
        one: CsvSource.model_validate({"file": place(tmp_path, one, case), "columns": case.columns, **case.options})
        for one, (case, _) in cases.items()
    }
    run = Run("strange", "manual__1", "clean", dt.date(2026, 1, 5), configs=tmp_path / "configs")

    with pytest.raises(DataRejected) as told:
        clean_csv(
            spark_connection,
            sources,
            {f"{one}.parquet": FromSource(source=one) for one in cases},
            "report.json",
            InFolder(folder=str(tmp_path / "data")),
            run=run,
        )

    assert all(problem in str(told.value) for _, problem in cases.values()), str(told.value)


SENSELESS = [
    ({"encoding": "utf-9"}, "utf-9 is not an encoding of text"),
    ({"encoding": "rot13"}, "rot13 is not an encoding of text"),
    ({"encoding": "unicode_escape"}, "is not an encoding of text"),
    ({"separator": '"'}, "which has another meaning in a CSV file"),
    ({"separator": "\n"}, "which has another meaning in a CSV file"),
    (
        {"columns": number(thousands=".")},
        r"has '\.' between thousands and before the fraction; set `decimal` to another",
    ),
    ({"columns": {"v": {"type": "text", "decimal": ","}}}, "has `decimal`, which a column of type text does not have"),
    ({"columns": {"": {"type": "text"}}}, "needs a `name` of letters, digits and _"),
    ({"columns": {"a": {"type": "text"}, "b": {"type": "text", "name": "A"}}}, "upper and lower case are the same"),
]


@pytest.mark.parametrize(("options", "problem"), SENSELESS)
def test_senseless_options_are_refused(options: dict[str, Any], problem: str) -> None:
    """When the spec is linted."""
    with pytest.raises(ValidationError, match=problem):
        CsvSource.model_validate({"file": "a.csv", "columns": TEXTS} | options)
