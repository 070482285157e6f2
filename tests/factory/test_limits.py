"""What is too large, too deep or too much is a mistake like any other; it neither ends nor delays a process."""

import difflib
import subprocess
import sys
from pathlib import Path
from types import FrameType

import pytest

from factory.compiler import compile_content, compile_file
from factory.language.document import MAX_BYTES, MAX_DEPTH, read, scalar_at_top
from factory.language.errors import MAX_EXCERPT, MAX_NAMES, MAX_TEXT, did_you_mean, render
from factory.language.report import MAX_SHOWN, Problem, Report
from factory.language.spec import MAX_STEPS
from factory.planning.load_rules import MAX_PAIRS
from factory.planning.wiring import MAX_EDGES
from tests.support.large_specs import SAY, groups_that_need_each_other, loads_in_a_line, steps_apart


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project with an empty `configs/`."""
    (tmp_path / "configs" / "suites").mkdir(parents=True)
    (tmp_path / "configs" / "sql").mkdir()
    return tmp_path


def mistakes(folder: Path, text: str) -> list[tuple[str, str]]:
    report = compile_content(text.encode(), folder / "made.yaml").report
    return [(one.code, one.message) for one in report.diagnostics]


@pytest.mark.parametrize("opening", ["[", "{", "{a: ", "- ", "? ", "[{a: ", "- - ? "])
def test_deep_nesting_ends_no_process(opening: str) -> None:
    """30 KB of opening brackets, which overflow the parser's stack, are one error; a signal would end the child."""
    text = opening * (30_000 // len(opening))
    code = (
        "import sys; from factory.language.document import read; print(read(sys.stdin.buffer.read(), 'x')[1][0].code)"
    )

    child = subprocess.run([sys.executable, "-c", code], input=text, capture_output=True, text=True, check=False)

    assert (child.returncode, child.stdout.strip()) == (0, "too-deep"), child.stderr


def test_depth_has_exact_limit() -> None:
    """The last allowed depth is read, one more is refused; aliases cannot go deeper than brackets."""
    allowed = MAX_DEPTH - 1
    aliases = "\n".join(["a0: &a0 [x]", *(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 100))])

    assert read(("[" * allowed + "]" * allowed).encode(), "x")[1] == []
    assert [one.code for one in read(("[" * 99 + "]" * 99).encode(), "x")[1]] == ["too-deep"]
    assert [one.code for one in read(aliases.encode(), "x")[1]] == ["too-deep"]


@pytest.mark.parametrize("opening", ["[", "{a: "])
def test_deep_nesting_delays_no_discovery(opening: str) -> None:
    """What only looks for a dag_id stops at the same depth: libyaml needs minutes for a megabyte of brackets."""
    tail = b"\ndag_id: late\n"

    assert scalar_at_top(b"dag_id: early\nx: " + opening.encode() * 200_000, "dag_id") == "early"
    assert scalar_at_top(b"x: " + opening.encode() * 200_000 + tail, "dag_id") is None


def test_large_spec_is_not_parsed(folder: Path) -> None:
    """Of a file that is too large, no more is read than is needed to see that."""
    (folder / "large.yaml").write_bytes(b"dag_id: large\n" + b"#" * MAX_BYTES)

    compiled = compile_file(folder / "large.yaml")

    assert compiled.plan is None
    assert render(compiled.report.diagnostics) == (
        "large.yaml:1:1: error: the file is larger than 1,000,000 bytes [too-large]\n"
        "  hint: split it; SQL belongs in configs/sql/, and suites in configs/suites/"
    )


def test_large_files_of_configs(folder: Path) -> None:
    """Defaults, suites and SQL files have the same limit as specs."""
    for file in ("defaults.yaml", "suites/big.yaml", "sql/big.sql"):
        (folder / "configs" / file).write_bytes(b"#" * (MAX_BYTES + 1))
    text = """dag_id: made
steps:
  gate: {uses: quality.validate, with: {suite: big}}
  make: {uses: postgres.run_sql, with: {connection: c, file: big.sql}}
"""
    report = compile_content(text.encode(), folder / "made.yaml").report

    assert [(one.span.file, one.code) for one in report.diagnostics if "larger" in one.message] == [
        ("configs/suites/big.yaml", "too-large"),
        ("made.yaml", "unknown-sql-file"),
        ("configs/defaults.yaml", "too-large"),
    ]


@pytest.mark.parametrize("name", ["a" * 300, "../made", "a/b", "a\\0b", "", ".."])
def test_no_suite_of_such_name(name: str, folder: Path) -> None:
    """A name that no file of `configs/suites/` can have is an unknown suite, and leads to no other folder."""
    (folder / "configs" / "made.yaml").write_text("connection: c\n")
    text = f'dag_id: made\nsteps: {{gate: {{uses: quality.validate, with: {{suite: "{name}"}}}}}}\n'

    assert [code for code, _ in mistakes(folder, text)] == ["unknown-suite"]


def test_errors_hide_no_later_error(folder: Path) -> None:
    """What a full report leaves out is counted once each, and still keeps the pipeline out of Airflow."""
    needs = ", ".join(["x0", *(f"x{index}" for index in range(150))])
    found = mistakes(folder, f"dag_id: made\nsteps:\n  say: {{uses: messages.log, needs: [{needs}]}}\n")

    assert len(found) == 101
    assert found[-1] == ("more-errors", "52 more errors are not shown")


def test_hints_are_computed_when_shown() -> None:
    """Beyond what a report shows, no hint is computed and no place within a text is looked for."""
    document, _ = read(("texts:\n" + "- a {{ ds }}\n" * 150).encode(), "x.yaml")
    report, computed = Report(document), []

    for index in range(150):
        problem = Problem("airflow-name", f"ds {index}", lambda: computed.append(1), within=(5, 7), replacement="b")
        report.add_problem(problem, ("texts", index))

    shown = report.diagnostics[:MAX_SHOWN]
    assert len(computed) == MAX_SHOWN
    assert {(one.span.column, one.span.end, one.replacement) for one in shown} == {(8, 10, "b")}
    assert report.diagnostics[-1].message == "50 more errors are not shown"


@pytest.mark.parametrize(
    "text",
    [
        "{uses: messages.log, with: {message: '{{ params.x }}'}}",
        "{uses: messages.log, with: {message: '{{ variables.x }}'}}",
        "{uses: messages.log, with: {message: '{{ steps.x.y }}'}}",
        "{uses: messages.log, with: {message: '{{ steps.first.y }}'}}",
        "{uses: messages.log, with: {message: '{{ run.x }}'}}",
        "{uses: messages.log, with: {message: '{{ x }}'}}",
        "{uses: messages.log, with: {message: '{{ x(1) }}'}}",
        "{uses: messages.log, with: {message: '{{ run.dag_id.x() }}'}}",
        "{uses: postgres.rebuild_table, with: {connection: c, source: a.b, target: a.c, columns: {id: x(id)}}}",
    ],
)
def test_no_name_is_compared_in_vain(text: str, folder: Path) -> None:
    """The name in a mistake that is not shown is compared with no other names."""
    compared = 0

    def count(frame: FrameType, event: str, _argument: object) -> None:
        nonlocal compared
        compared += event == "call" and frame.f_code is difflib.get_close_matches.__code__

    steps = "".join(f"  s{index}: {text}\n" for index in range(150))
    before = sys.getprofile()
    sys.setprofile(count)
    try:
        found = mistakes(folder, f"dag_id: made\nsteps:\n  first: {SAY}\n{steps}")
    finally:
        sys.setprofile(before)

    assert found[-1] == ("more-errors", "50 more errors are not shown")
    assert compared <= MAX_SHOWN


def test_sql_file_of_other_encoding(folder: Path) -> None:
    """A SQL file that is not UTF-8 is a mistake of the step that names it."""
    (folder / "configs" / "sql" / "old.sql").write_bytes("SELECT 'ñ'".encode("latin-1"))
    text = "dag_id: made\nsteps: {make: {uses: postgres.run_sql, with: {connection: c, file: old.sql}}}\n"

    assert mistakes(folder, text) == [
        ("unknown-sql-file", "configs/sql/old.sql is not UTF-8 text: byte 8 cannot be read")
    ]


def test_warnings_hide_no_error(folder: Path) -> None:
    """Errors are shown however many warnings there are."""
    params = "".join(f"  p{index}: {{default: 1}}\n" for index in range(150))
    compiled = compile_content(f"dag_id: made\nparams:\n{params}steps: {{say: {SAY}}}\n".encode(), folder / "made.yaml")
    assert compiled.errors == []

    compiled.report.add("duplicate-dag-id", ("dag_id",), "taken")

    assert [one.code for one in compiled.errors] == ["duplicate-dag-id"]


def test_long_line_is_cut_around_mistake(folder: Path) -> None:
    """A report shows the part of a long line where the mistake is, and its carets below that part."""
    text = f"{{dag_id: made, description: {'a' * 5000}, stepz: 1, steps: {{say: {SAY}}}, doc_md: {'b' * 5000}}}"
    head, source, carets, _ = render(compile_content(text.encode(), folder / "made.yaml").report.diagnostics).split(
        "\n"
    )

    assert head.startswith(f"made.yaml:1:{text.index('stepz') + 1}: ")
    assert len(source) == len("1 | ") + MAX_EXCERPT
    assert source[carets.index("^") : carets.rindex("^") + 1] == "stepz"


def test_long_names_are_cut(folder: Path) -> None:
    """Neither a message nor a hint repeats a text of any length."""
    text = f"dag_id: made\nsteps: {{say: {{uses: messages.log, needs: {'a' * 50_000}, with: {{message: hello}}}}}}\n"

    assert [len(message) for _, message in mistakes(folder, text)] == [MAX_TEXT]


def test_hint_lists_some_names() -> None:
    """Of many names, a hint lists the first and counts the rest."""
    hint = did_you_mean("zzz", [f"step_{index:04}" for index in range(2000)], "steps")

    assert hint.count("step_") == MAX_NAMES
    assert hint.endswith(f"step_{MAX_NAMES - 1:04} and 1,940 more")


def test_too_many_steps(folder: Path) -> None:
    """A pipeline with more steps than Airflow can show is an error."""
    assert mistakes(folder, steps_apart(MAX_STEPS)) == []
    assert mistakes(folder, steps_apart(MAX_STEPS + 1)) == [
        ("too-large", "the pipeline has 5,001 steps; the maximum is 5,000")
    ]


def test_too_many_items(folder: Path) -> None:
    """Items inside items multiply: their steps are counted before one of them is read."""
    names = ", ".join(f"item_{index}" for index in range(1000))
    text = f"a: {SAY}"
    for level in range(3):
        text = f"group_{level}: {{for_each: [{names}], steps: {{{text}}}}}"

    assert mistakes(folder, f"dag_id: made\nsteps: {{{text}}}\n") == [
        ("too-large", "the pipeline has 1,000,000,000 steps; the maximum is 5,000")
    ]


def test_too_many_edges(folder: Path) -> None:
    """Two groups whose steps all wait for each other are an error once these are too many pairs."""
    half = 320
    assert half * half > MAX_EDGES

    assert mistakes(folder, groups_that_need_each_other(half)) == [
        ("too-large", "the steps wait for each other in 102,400 pairs; the maximum is 100,000")
    ]


def test_too_many_gates_before_loads(folder: Path) -> None:
    """A load gets all gates before it, so a line of many gates and loads is an error."""
    count = 210
    assert count * (count + 1) // 2 > MAX_PAIRS

    assert mistakes(folder, loads_in_a_line(3 * count)) == [
        ("too-large", "the loads of the pipeline have 22,155 gates before them, counted for each load"),
        ("too-large", "the pipeline builds so many tables that its builds know of 44,100, counted for each build"),
    ]
