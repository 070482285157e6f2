"""`taskflow lint --fix`: Airflow's names become the language's own, and everything else stays."""

from pathlib import Path

import pytest

from factory.command.fixing import fix
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
