"""`taskflow lint --fix`: Airflow's names become the language's own, and everything else stays."""

from pathlib import Path

import pytest

from factory.command.fixing import FixError, fix
from factory.compiler import compile_file
from factory.language.errors import render
from factory.planning.project import find_root

HEAD = "dag_id: made\nparams: {days: {type: integer, default: 5}}\n"


def fixed(folder: Path, text: str) -> str:
    """Return the spec after the fix, and let what is left be reported."""
    (folder / "configs").mkdir(exist_ok=True)
    (folder / "configs" / "defaults.yaml").write_text("variables: {region: text}\n")
    spec = folder / "made.yaml"
    spec.write_bytes(text.encode())
    fix(compile_file(spec).report.diagnostics, find_root(spec))
    return spec.read_bytes().decode()


def left(folder: Path) -> str:
    return render(compile_file(folder / "made.yaml").report.diagnostics)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"on {{ ds }}"', '"on {{ run.date }}"'),
        ('"{{ ds }}"', '"{{ run.date | text }}"'),
        ('"{{ ds ~ ts }}!"', '"{{ run.date | text ~ run.logical_date | text }}!"'),
        ('"{{ds_nodash}}"', "\"{{run.date | format('%Y%m%d')}}\""),
        ("'{{ ds_nodash }} it''s'", "'{{ run.date | format(\"%Y%m%d\") }} it''s'"),
        ('"{{ ts }} {{ ts_nodash }}"', "\"{{ run.logical_date }} {{ run.logical_date | format('%Y%m%dT%H%M%S') }}\""),
        (
            '"{{ ts_nodash_with_tz }}"',
            "\"{{ run.logical_date | text | replace('-', '') | replace(':', '') }}\"",
        ),
        ('"{{ data_interval_start | ds }}"', "\"{{ run.interval_start | format('%Y-%m-%d') }}\""),
        ('"{{ data_interval_end | ts }}"', '"{{ run.interval_end | text }}"'),
        ("\"{{ logical_date.strftime('%Y/%m') }}\"", "\"{{ run.logical_date | format('%Y/%m') }}\""),
        ('"{{ run_id }} {{ dag.dag_id }}"', '"{{ run.run_id }} {{ run.dag_id }}"'),
        ('"{{ ti.task_id }} {{ ti.try_number }}"', '"{{ run.task_id }} {{ run.try_number }}"'),
        ("\"{{ dag_run.conf['days'] }} {{ dag_run.conf.days }}\"", '"{{ params.days }} {{ params.days }}"'),
        ('"in {{ var.value.region }}"', '"in {{ variables.region }}"'),
        (r'"\"\t\u00e9 {{ ds }}"', r'"\"\t\u00e9 {{ run.date }}"'),
    ],
)
def test_former_name_is_rewritten(before: str, after: str, tmp_path: Path) -> None:
    """What has an exact equivalent is rewritten, in the quotes that are there, and passes lint."""
    spec = f"{HEAD}steps:\n  say: {{uses: messages.log, with: {{message: WRITTEN}}}}\n  # {{{{ ds }}}}\n"

    assert fixed(tmp_path, spec.replace("WRITTEN", before)) == spec.replace("WRITTEN", after)
    assert "error" not in left(tmp_path)


@pytest.mark.parametrize(
    "kept",
    [
        '"{{ data_interval_start }}!"',  # Airflow writes it with a space
        '"{{ dag_run.conf.other }}"',
        "\"{{ dag_run.conf.get('days') }}\"",  # None, where params.days is its default
        '"{{ var.value.other }}"',
        '"{{ macros.ds_format(1, 2, 3) }}"',
        '"{{ ti.xcom_pull(1) }}"',
        '"{{ ds }"',
    ],
)
def test_inexact_name_is_kept(kept: str, tmp_path: Path) -> None:
    """What has no exact equivalent is an error that a person has to mend."""
    spec = f"{HEAD}steps:\n  say: {{uses: messages.log, with: {{message: {kept}}}}}\n"

    assert fixed(tmp_path, spec) == spec
    assert "error" in left(tmp_path)


def test_date_outside_utc_is_airflows(tmp_path: Path) -> None:
    """Airflow's ds is the day in UTC, which run.date is not in another zone."""
    step = "{uses: messages.log, with: {message: 'on {{ ds }}'}}"
    spec = f"{HEAD}timezone: America/Lima\nsteps:\n  say: {step}\n"

    assert '{{ run.logical_date | format("%Y-%m-%d") }}' in fixed(tmp_path, spec)


def test_everything_else_is_kept(tmp_path: Path) -> None:
    """Line ends, indentation, comments, a byte order mark and the file's mode stay as they are."""
    before = "\ufeffdag_id: made\r\n# {{ ds }}\r\nsteps:\r\n  say:\r\n    uses: messages.log\r\n    with:\r\n"
    before += "      message: >-   # {{ ds }}\r\n        a {{ ds }}\r\n\r\n        'b'   {{ ds }}\r\n"
    (tmp_path / "made.yaml").touch(mode=0o640)

    after = fixed(tmp_path, before)

    assert after == before.replace("a {{ ds }}", "a {{ run.date }}").replace("'b'   {{ ds }}", "'b'   {{ run.date }}")
    assert (tmp_path / "made.yaml").stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in tmp_path.iterdir()) == ["configs", "made.yaml"]


SAY = 'dag_id: made\nsteps:\n  say: {uses: messages.log, with: {message: "on {{ ds }}"}}\n'


def test_no_file_outside_of_the_project_is_written(tmp_path: Path) -> None:
    """A link to a file of the project is followed; one that leads out of it is told, and nothing is written."""
    project, outside = tmp_path / "project", tmp_path / "outside.yaml"
    (project / "configs").mkdir(parents=True)
    outside.write_text(SAY)
    (project / "inside.txt").write_text(SAY)
    (project / "out.yaml").symlink_to(outside)
    (project / "in.yaml").symlink_to("inside.txt")

    with pytest.raises(FixError, match=r"out.yaml is a link to .*/outside.yaml, which is not in the project"):
        fix(compile_file(project / "out.yaml").report.diagnostics, project)
    fix(compile_file(project / "in.yaml").report.diagnostics, project)

    assert outside.read_text() == SAY
    assert (project / "in.yaml").is_symlink()
    assert "run.date" in (project / "inside.txt").read_text()


@pytest.mark.parametrize("now", ["", "x\n" + SAY, SAY.replace("on {{", "at {{")])
def test_file_that_has_changed_is_kept(now: str, tmp_path: Path) -> None:
    """What somebody has saved since the file was read is neither lost nor cut in the wrong place."""
    (tmp_path / "configs").mkdir()
    spec = tmp_path / "made.yaml"
    spec.write_text(SAY)
    found = compile_file(spec).report.diagnostics
    spec.write_text(now)

    with pytest.raises(FixError, match=r"made.yaml has changed since it was read; run it again"):
        fix(found, tmp_path)

    assert spec.read_text() == now


@pytest.mark.parametrize(
    "other", ["{uses: messages.log, with: {message: *a}}", "{uses: messages.log, doc_md: *a, with: {message: *a}}"]
)
def test_alias_is_rewritten_once(other: str, tmp_path: Path) -> None:
    """A text that an anchor gives to several steps stands once in the file; the second fix finds nothing."""
    text = SAY.replace('message: "on', 'message: &a "on') + f"  again: {other}\n"

    once = fixed(tmp_path, text)

    assert once == text.replace("{{ ds }}", "{{ run.date }}")
    assert fixed(tmp_path, once) == once


def test_suite_of_another_file_is_fixed(tmp_path: Path) -> None:
    """A diagnostic in a shared suite is mended in the suite's file."""
    suite = tmp_path / "configs" / "suites" / "rows.yaml"
    suite.parent.mkdir(parents=True)
    suite.write_text(
        'connection: c\nbatch: {table: a.b, where: "day = {{ ds }}"}\n'
        "expectations: [expect_table_row_count_to_be_between: {min_value: 1}]\n"
    )

    fixed(tmp_path, "dag_id: made\nsteps:\n  gate: {uses: quality.validate, with: {suite: rows}}\n")

    assert 'where: "day = {{ run.date | text }}"' in suite.read_text()
