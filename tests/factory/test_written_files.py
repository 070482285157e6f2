"""What a step is told of the files that steps before it write."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from factory.bridge.runtime import paths_by_step
from factory.compiler import compile_file
from factory.language.templates import Template
from tests.support.warm_taskflow import Warm

CLEAN = """
  clean:
    uses: spark.clean_csv
    with:
      connection: spark_default
      sources: {people: {file: raw/people.csv, columns: {id: {type: integer}}}}
      outputs: {people.parquet: {source: people}, "again/people.parquet": {source: people}}
      report: reports/clean.json
"""
INVENT = """
  invent:
    uses: synthetic.churn_sources
    with: {users: 100, until: "2026-01-05", horizon_days: 30, folder: raw}
"""
COPY = """
  copy:
    needs: [clean]
    uses: drift.snapshot
    with: {source: people.parquet, output: "copies/{{ run.date }}.parquet"}
"""
MAPPED = """
  copies:
    uses: drift.snapshot
    expand: {output: [a.parquet, b.parquet]}
    with: {source: people.parquet}
"""
READ = """
  read:
    needs: [NEEDS]
    uses: files.keep_snapshot
    with: {source: SOURCE, history: history.parquet, keep: 3}
"""


def read(source: str, *needs: str) -> str:
    return READ.replace("NEEDS", ", ".join(needs)).replace("SOURCE", source)


def before(folder: Path, *steps: str) -> dict[str, list[tuple[str, str]]]:
    """Return the files before each step of a pipeline, each with the step that writes it."""
    (folder / "configs").mkdir()
    (folder / "configs" / "defaults.yaml").write_text('with: {"*": {files: {folder: data}}}\n')
    (folder / "made.yaml").write_text(f"dag_id: made\nsteps:{''.join(steps)}")
    compiled = compile_file(folder / "made.yaml")
    assert compiled.plan is not None
    assert compiled.errors == []
    return {
        step: [(shown(one.path), one.task_id) for one in guards.files] for step, guards in compiled.plan.before.items()
    }


def shown(path: str | Template) -> str:
    return path.text if isinstance(path, Template) else path


def test_files_of_earlier_steps(tmp_path: Path) -> None:
    """A step that reads files knows those that earlier steps write, also as keys, folders and templates."""
    found = before(tmp_path, INVENT, CLEAN.replace("uses:", "needs: [invent]\n    uses:"), COPY, read("x", "copy"))

    cleaned = [("people.parquet", "clean"), ("again/people.parquet", "clean"), ("reports/clean.json", "clean")]
    assert found == {
        "clean": [("raw", "invent")],
        "copy": [("raw", "invent"), *cleaned],
        "read": [("raw", "invent"), *cleaned, ("copies/{{ run.date }}.parquet", "copy")],
    }


def test_others_are_not_told(tmp_path: Path) -> None:
    """A step that does not wait for the writer, or reads no file, is told of none."""
    log = "\n  log: {uses: messages.log, needs: [clean], with: {message: done}}\n"

    assert before(tmp_path, CLEAN, read("people.parquet"), log) == {}


def test_last_writer_counts(tmp_path: Path) -> None:
    """Of two steps that write a file one after the other, the later one is to be cleared."""
    again = COPY.replace("copies/{{ run.date }}", "people")
    (_, *_, last) = before(tmp_path, CLEAN, again, read("people.parquet", "copy"))["read"]

    assert last == ("people.parquet", "copy")
    assert paths_by_step([{"path": "a", "task_id": "one"}, {"path": "a", "task_id": "two"}]) == {"a": "two"}


def test_mapped_writers(tmp_path: Path) -> None:
    """A mapped step writes each of its files."""
    assert before(tmp_path, MAPPED, read("a.parquet", "copies"))["read"] == [
        ("a.parquet", "copies"),
        ("b.parquet", "copies"),
    ]
    assert paths_by_step([{"path": ["a", "b"], "task_id": "copies"}]) == {"a": "copies", "b": "copies"}


@pytest.mark.parametrize("source", ["x.parquet", '"{{ steps.copy.file }}"'])
def test_names_from_outputs(tmp_path: Path, source: str) -> None:
    """A path that another step's output is part of is told only to a step that reads it in the same words."""
    copy = COPY.replace('"copies/{{ run.date }}.parquet"', '"{{ steps.say.message }}.parquet"')
    say = "\n  say: {uses: messages.log, with: {message: x}}\n"
    both = before(
        tmp_path,
        CLEAN,
        say,
        copy,
        read('"{{ steps.say.message }}.parquet"', "copy"),
        read(source, "copy").replace("read:", "other:"),
    )

    assert both["read"][-1] == ("{{ steps.say.message }}.parquet", "copy")
    assert [path for path, step in both["other"] if step == "copy"] == []


SPEC = """\
dag_id: copies
start_date: 2026-01-01
params: {name: {type: string, default: now}}
steps:
  first:
    uses: drift.snapshot
    with: {source: table.parquet, output: "copies/{{ params.name }}.parquet"}
  second:
    uses: drift.snapshot
    needs: first
    with: {source: copies/now.parquet, output: last.parquet}
"""


def test_run_reads_its_own(warm_taskflow: Warm, tmp_path: Path) -> None:
    """A run of an older date reads what it wrote, although the name has the file of a later one."""
    for name in ("configs", "pipelines", "data"):
        (tmp_path / name).mkdir()
    (tmp_path / "configs" / "defaults.yaml").write_text('with: {"*": {files: {folder: data}}}\n')
    (tmp_path / "pipelines" / "copies.yaml").write_text(SPEC)
    for date, number in (("2026-02-10", 1), ("2026-02-03", 2)):
        pq.write_table(pa.table({"id": [number]}), tmp_path / "data" / "table.parquet")
        done = warm_taskflow(tmp_path, "run", "copies", "--date", date)
        assert done.returncode == 0, done.stdout + done.stderr

    runs = sorted((tmp_path / "data" / ".runs" / "files" / "copies").iterdir())
    assert [re.sub("--[0-9a-f]{8}$", "", run.name) for run in runs] == ["2026-02-03", "2026-02-10"]
    ids = [pq.ParquetFile(folder / "last.parquet").read()["id"].to_pylist() for folder in (*runs, tmp_path / "data")]
    assert ids == [[2], [1], [1]]
