"""No file can make the factory raise, hang or end: mutations of real specs, in a process of their own.

`--fuzz 200000` plays more of them, from `--seed` on. `python -m tests.support.fuzzing --first SEED --count 1` repeats
one, and `tests.support.mutations.case_of(SEED)` is its input.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from factory.compiler import compile_content
from tests.support.mutations import case_of

ROOT = Path(__file__).parents[2]
SAY = "{uses: messages.log, with: {message: hello}}"
SAY_X = '{uses: messages.log, with: {message: "{{ params.x }}"}}'
QUERY = "SELECT * FROM {batch:>3000000000} WHERE a = 1"
RULES = f'[unexpected_rows_expectation: {{unexpected_rows_query: "{QUERY}"}}]'
FOUND = {
    "type of a param is a list of mappings": (
        f"params: {{x: {{type: [string, {{a: 1}}], default: a}}}}\nsteps: {{say: {SAY_X}}}",
        ["bad-param"],
    ),
    "anyOf of a param is a text": (
        f"params: {{x: {{anyOf: text, default: a}}}}\nsteps: {{say: {SAY_X}}}",
        ["bad-param"],
    ),
    "duration of a schedule beyond Python's": (f"schedule: 99999999999999w\nsteps: {{say: {SAY}}}", ["bad-schedule"]),
    "duration of an argument beyond Python's": (
        f"dagrun_timeout: 99999999999999w\nsteps: {{say: {SAY}}}",
        ["wrong-value"],
    ),
    "date that does not exist in UTC": (
        f"start_date: 0001-01-01T00:00:00+23:59\nsteps: {{say: {SAY}}}",
        ["wrong-value"],
    ),
    "integer of more digits than Python reads": (
        f"steps: {{say: {{uses: messages.log, retries: {'9' * 5000}, with: {{message: hello}}}}}}",
        ["too-large"],
    ),
    "name of a SQL file beyond the file system's": (
        f"steps: {{make: {{uses: postgres.run_sql, with: {{connection: c, file: {'a' * 300}.sql}}}}}}",
        ["unknown-sql-file"],
    ),
    "brackets in a template": (
        f'steps: {{say: {{uses: messages.log, with: {{message: "{{{{ {"(" * 200}1{")" * 200} }}}}"}}}}}}',
        ["bad-template"],
    ),
    "template in place of an expectation's name": (
        """suites: {u: {connection: c, batch: {table: a.b}, expectations: ["{{ ds }}": {min_value: 1}]}}
steps: {gate: {uses: quality.validate, with: {suite: u}}}""",
        ["unknown-expectation", "airflow-name"],
    ),
    "templates inside of the names of columns": (
        """steps: {load: {uses: postgres.merge, with: {connection: c, source: a.b, target: a.c,
keys: [{a: "{{ run.date }}"}, ["{{ run.date }}"]], external_source: true}}}""",
        ["ungated-load"],
    ),
    "mapped over another step's list, with trigger_rule always": (
        """steps:
  find: {uses: messages.log, expand: {message: [a, b]}}
  say: {uses: messages.log, trigger_rule: always, expand: {message: "{{ steps.find.message }}"}}""",
        ["wrong-value"],
    ),
    "name of an asset that is Airflow's own": (
        f"steps: {{say: {SAY[:-1]}, outlets: [self, 's3://']}}}}",
        ["wrong-value", "wrong-value"],
    ),
    "list with a template in place of a key": (
        """steps:
  q: {uses: postgres.query, with: {connection: c, sql: SELECT 1 AS a}}
  m: {uses: postgres.merge, with: {connection: c, source: a.b, target: a.c, keys: [["{{ steps.q.value }}"]]}}""",
        ["ungated-load"],
    ),
    "width in a query's braces": (
        f"""suites: {{u: {{connection: c, batch: {{table: a.b}}, expectations: {RULES}}}}}
steps: {{gate: {{uses: quality.validate, with: {{suite: u}}}}}}""",
        ["bad-expectation"],
    ),
}
"""What was found, and its errors now."""


@pytest.fixture
def child(pytestconfig: pytest.Config, tmp_path: Path) -> list[str]:
    """The command that plays the cases that were asked for."""
    count, first = pytestconfig.getoption("--fuzz"), pytestconfig.getoption("--seed")
    return [sys.executable, "-W", "ignore", "-m", "tests.support.fuzzing", "--first", str(first), "--count", str(count)]


def test_no_case_raises_or_hangs(child: list[str], tmp_path: Path) -> None:
    """Each gives a report or a DAG that Airflow can serialize, within 10 seconds."""
    with (tmp_path / "seeds").open("w+") as seeds, (tmp_path / "traces").open("w+") as traces:
        subprocess.run(child, cwd=ROOT, stdout=seeds, stderr=traces, check=False)
        seeds.seek(0)
        traces.seek(0)
        lines, trace = seeds.read().splitlines(), traces.read()[-4000:]

    failed = [json.loads(line.removeprefix("FAILED ")) for line in lines if line.startswith("FAILED ")]
    assert not failed, f"seeds {[seed for seed, _ in failed]}; of the first:\n{failed[0][1]}"
    assert lines[-1:] == ["DONE"], f"the process ended or hung at {lines[-1:]}:\n{trace}"


@pytest.mark.parametrize(("text", "codes"), FOUND.values(), ids=list(FOUND))
def test_found_before(text: str, codes: list[str], tmp_path: Path) -> None:
    """What once raised or hung is an error with a line."""
    (tmp_path / "configs").mkdir()

    report = compile_content(f"dag_id: made\n{text}\n".encode(), tmp_path / "made.yaml").report

    assert [one.code for one in report.diagnostics] == codes


def test_seed_gives_same_case() -> None:
    """A seed that failed can be played again, and its neighbour is another case."""
    assert case_of(7) == case_of(7)
    assert case_of(7) != case_of(8)
