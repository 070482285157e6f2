"""The command line, as a person uses it."""

import json
import re
import subprocess
import sys
from contextlib import chdir
from pathlib import Path

import pytest
from typer.testing import CliRunner

from factory.command.cli import app
from tests.support.warm_taskflow import Warm

TASKFLOW = Path(sys.executable).parent / "taskflow"
GOOD = """\
dag_id: good
params: {who: {type: string, default: you}}
steps:
  say: {uses: messages.log, with: {message: "hello {{ params.who }}"}}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "configs").mkdir()
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "good.yaml").write_text(GOOD)
    return tmp_path


def installed(folder: Path, *arguments: str, code: int = 0) -> str:
    """Return what the installed command prints, in a process of its own."""
    done = subprocess.run([TASKFLOW, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    return ended(done, code)


def ended(done: subprocess.CompletedProcess[str], code: int = 0) -> str:
    """Return what a command has printed, which must have ended so."""
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def taskflow(folder: Path, *arguments: str, code: int = 0) -> str:
    """Return what the command prints, in this process."""
    with chdir(folder):
        done = CliRunner().invoke(app, arguments)
    assert done.exit_code == code, done.output
    return done.output


def test_lint_of_good_spec(project: Path) -> None:
    """Nothing wrong is said in one line."""
    assert installed(project, "lint") == "1 spec checked, no errors\n"


def test_lint_shows_place(project: Path) -> None:
    """A mistake is shown with its place, its line and a way out, and the exit code is 1."""
    (project / "pipelines" / "good.yaml").write_text(GOOD.replace("messages.log", "messages.lag"))

    assert installed(project, "lint", code=1) == (
        'pipelines/good.yaml:4:15: error: there is no task "messages.lag" [unknown-task]\n'
        '4 |   say: {uses: messages.lag, with: {message: "hello {{ params.who }}"}}\n'
        "  |               ^^^^^^^^^^^^\n"
        '  hint: did you mean "messages.log"?\n'
        "\n"
        "1 error in 1 spec\n"
    )


def test_lint_as_json(project: Path) -> None:
    """Programs get the same as a list."""
    (project / "pipelines" / "good.yaml").write_text(GOOD.replace("messages.log", "messages.lag"))

    assert json.loads(taskflow(project, "lint", "--format", "json", code=1)) == [
        {
            "file": "pipelines/good.yaml",
            "line": 4,
            "column": 15,
            "severity": "error",
            "code": "unknown-task",
            "message": 'there is no task "messages.lag"',
            "hint": 'did you mean "messages.log"?',
        }
    ]


def test_lint_for_github(project: Path) -> None:
    """GitHub puts each diagnostic at its line of a pull request."""
    (project / "pipelines" / "good.yaml").write_text(GOOD.replace("messages.log", "messages.lag"))

    assert taskflow(project, "lint", "--format", "github", code=1) == (
        "::error file=pipelines/good.yaml,line=4,col=15,endColumn=27,title=unknown-task::"
        'there is no task "messages.lag" (did you mean "messages.log"?)\n'
    )


def test_lint_finds_taken_dag_id(project: Path) -> None:
    """Two specs with one dag_id would replace each other in Airflow."""
    (project / "pipelines" / "other.yaml").write_text(GOOD)

    assert 'the dag_id "good" is taken by pipelines/good.yaml [duplicate-dag-id]' in taskflow(project, "lint", code=1)


def test_lint_of_missing_path(project: Path) -> None:
    """A path that is not there is no success."""
    assert taskflow(project, "lint", "nowhere", code=2) == "error: there is no file or folder nowhere\n"


def test_lint_of_unknown_environment(project: Path) -> None:
    """An environment without a file is named, with those that there are."""
    (project / "configs" / "environments").mkdir()
    (project / "configs" / "environments" / "production.yaml").write_text("")

    said = taskflow(project, "lint", "--environment", "prod", code=1)

    assert 'there is no environment "prod" [unknown-environment]\n  hint: environments: production' in said


DEFAULTS = """\
with:
  "*": {level: info, levle: info}
  messages.lg: {level: info}
  messages.log: {levl: warning}
"""
WRONG_DEFAULTS = """\
configs/defaults.yaml:2:22: error: "levle" is not an argument of any task [unknown-argument]
2 |   "*": {level: info, levle: info}
  |                      ^^^^^
  hint: did you mean "level"?

configs/defaults.yaml:3:3: error: there is no task "messages.lg" [unknown-task]
3 |   messages.lg: {level: info}
  |   ^^^^^^^^^^^
  hint: did you mean "messages.log"?

configs/defaults.yaml:4:18: error: "levl" is not an argument of "messages.log" [unknown-argument]
4 |   messages.log: {levl: warning}
  |                  ^^^^
  hint: did you mean "level"?
"""


def test_wrong_defaults_are_named(project: Path) -> None:
    """A default for a task or an argument that is not there is an error at its own line."""
    (project / "configs" / "defaults.yaml").write_text(DEFAULTS)

    assert WRONG_DEFAULTS in taskflow(project, "lint", code=1)


OF_CONFIGS = {
    "defaults.yaml": """\
default_args: {retrys: 2}
places: {data: {folder: data, keep_runs: 0}}
with:
  "*": {files: dat, lock_timeout: soon}
  messages.log: {level: loud, message: "{{ params.text }}"}
""",
    "suites/orders.yaml": """\
connection: shop
batch: {table: orders, where: "n > {{ params.n"}
expectations:
  - expect_column_values_to_be_unique: {colum: id}
""",
    "environments/production.yaml": "pool: large\nplaces: {cold: {connection: store}}\n",
}
REPORTS_ON_CONFIGS = {
    "defaults.yaml": """\
configs/defaults.yaml:1:16: error: "retrys" is not a key of default_args [unknown-key]
configs/defaults.yaml:2:42: error: keep_runs is 0; it should be greater than or equal to 1 [bad-argument]
configs/defaults.yaml:4:16: error: there is no place "dat" in configs/ [unknown-place]
configs/defaults.yaml:4:35: error: lock_timeout is "soon"; it should be a number [bad-argument]
configs/defaults.yaml:5:25: error: level is "loud"; it should be 'debug', 'info', 'warning' or 'error' [bad-argument]
""",
    "suites/orders.yaml": """\
configs/suites/orders.yaml:2:16: error: suite "orders": batch.table is "orders"; it should be schema.table, as the \
database spells it [bad-argument]
configs/suites/orders.yaml:2:36: error: the template has no closing }} [bad-template]
configs/suites/orders.yaml:4:5: error: suite "orders": "expect_column_values_to_be_unique" needs "column" \
[bad-expectation]
configs/suites/orders.yaml:4:48: error: suite "orders": "expect_column_values_to_be_unique" has no argument "colum" \
[bad-expectation]
""",
    "environments/production.yaml": """\
configs/environments/production.yaml:1:1: error: "pool" is not a key of the defaults [unknown-key]
configs/environments/production.yaml:2:10: error: the place "cold" needs "bucket", which is missing [missing-argument]
""",
}


@pytest.mark.parametrize("name", OF_CONFIGS)
def test_lint_of_configs(project: Path, name: str) -> None:
    """A file of configs/ is checked as what it is, by itself or with its folder."""
    file = project / "configs" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(OF_CONFIGS[name])

    said = taskflow(project, "lint", f"configs/{name}", code=1)

    assert [line for line in said.splitlines() if line.startswith("configs/")] == REPORTS_ON_CONFIGS[name].splitlines()
    assert said.endswith("in 1 file\n")
    assert taskflow(project, "lint", "configs", code=1) == said


def test_lint_of_empty_defaults(project: Path) -> None:
    """Defaults that set nothing are right, and names in the templates of a suite are no matter of the suite."""
    (project / "configs" / "suites").mkdir()
    (project / "configs" / "defaults.yaml").write_text("# nothing yet\n")
    rows = "expect_table_row_count_to_be_between: {min_value: '{{ params.rows }}'}"
    suite = f"connection: x\nbatch: {{table: a.b, where: 'n > {{{{ params.n }}}}'}}\nexpectations: [{rows}]\n"
    (project / "configs" / "suites" / "some.yaml").write_text(suite)

    assert taskflow(project, "lint", "configs", "pipelines") == "3 files checked, no errors\n"


def test_lint_of_other_file_of_configs(project: Path) -> None:
    """A file of configs/ that nothing reads is not taken for a spec."""
    (project / "configs" / "default.yaml").write_text("with: {}\n")

    said = taskflow(project, "lint", "configs/default.yaml", code=2)

    assert said.startswith("error: configs/default.yaml is not a file that lint knows; in configs/ it checks ")


def test_default_of_every_task(project: Path) -> None:
    """What stands below "*" reaches each task that takes it, unless the task has a default of its own."""
    (project / "configs" / "defaults.yaml").write_text('with:\n  "*":\n    level: warning\n')
    assert "level warning configs/defaults.yaml:3" in " ".join(taskflow(project, "plan", "good").split())

    (project / "configs" / "environments").mkdir()
    (project / "configs" / "environments" / "loud.yaml").write_text("with:\n  messages.log: {level: error}\n")
    said = " ".join(taskflow(project, "plan", "good", "--environment", "loud").split())
    assert "level error configs/environments/loud.yaml:2" in said


def test_plan_tells_origins(project: Path) -> None:
    """Each value is shown with the file and line that set it."""
    (project / "configs" / "defaults.yaml").write_text("default_args:\n  retries: 3\n")

    said = " ".join(taskflow(project, "plan", "good").split())

    assert "default_args.retries 3 configs/defaults.yaml:2" in said
    assert "params.who you line 2" in said
    assert "message hello {{ params.who }} line 4" in said


def test_plan_as_json(project: Path) -> None:
    """The whole plan is there for programs."""
    plan = json.loads(taskflow(project, "plan", "pipelines/good.yaml", "--json"))

    assert [(node["task_id"], node["uses"], node["arguments"]) for node in plan["nodes"]] == [
        ("say", "messages.log", {"message": "hello {{ params.who }}"})
    ]


def test_run_here(project: Path) -> None:
    """A pipeline runs in this process, with params and a date."""
    said = installed(project, "run", "good", "--date", "2026-02-03", "--param", "who=them")

    assert "hello them" in said
    assert "good 2026-02-03" in said
    assert "success" in said


def test_value_is_no_template(project: Path, warm_taskflow: Warm, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a param or a Variable holds is a text, whatever it looks like; an unset Variable has its default."""
    evil = "{{ macros.uuid.os.popen('id').read() }}{% raw %}"
    monkeypatch.setenv("AIRFLOW_VAR_REGION", evil)
    declared = "variables: {region: text, rows: {type: integer, default: 7}}\n"
    (project / "configs" / "defaults.yaml").write_text(declared)
    text = GOOD.replace("{{ params.who }}", "{{ params.who }} in {{ variables.region }}, {{ variables.rows }} rows")
    (project / "pipelines" / "good.yaml").write_text(text)

    said = ended(warm_taskflow(project, "run", "good", "--param", f"who={evil}"))

    assert f"hello {evil} in {evil}, 7 rows" in " ".join(said.split())


STOPPED = """\
dag_id: good
params: {rows: {type: integer, default: 0}}
steps:
  enough: {uses: flow.stop_if, with: {condition: "{{ params.rows == 0 }}", reason: no new rows}}
  load: {uses: messages.log, needs: enough, with: {message: loading}}
  end: {uses: messages.log, needs: load, trigger_rule: none_failed, with: {message: the end}}
"""


def test_run_without_work_ends_quietly(project: Path, warm_taskflow: Warm) -> None:
    """A step that stops the run is skipped with what needs it, says why, and the run is a success."""
    (project / "pipelines" / "good.yaml").write_text(STOPPED)

    said = ended(warm_taskflow(project, "run", "good"))
    assert "skipped: no new rows" in said
    assert re.findall(r"(enough|load|end) +│ (\w+)", said) == [
        ("enough", "skipped"),
        ("load", "skipped"),
        ("end", "success"),
    ]
    assert "loading" in ended(warm_taskflow(project, "run", "good", "--param", "rows=1"))


def test_unset_variable_fails_at_once(project: Path, warm_taskflow: Warm) -> None:
    """A Variable without a value fails its step without a retry, with where it is read and what to do."""
    (project / "configs" / "defaults.yaml").write_text("variables: {region: text}\n")
    step = "{uses: messages.log, with: {message: 'in {{ variables.region }}'}, retries: 5, retry_delay: 1h}"
    (project / "pipelines" / "good.yaml").write_text(f"dag_id: good\nsteps:\n  say: {step}\n")

    said = ended(warm_taskflow(project, "run", "good"), 1)

    assert 'step "say", with.message: variables.region: the Variable "region" is not set in Airflow; set it' in said


def test_fix_is_shown(project: Path) -> None:
    """`lint --fix` says what it rewrites, and then reports what is left."""
    (project / "pipelines" / "good.yaml").write_text(GOOD.replace("params.who", "ds").replace("hello", "{{ x }}"))

    said = taskflow(project, "lint", "--fix", code=1)

    assert "pipelines/good.yaml:4:57: ds -> run.date" in said
    assert '"x" is not known to templates [unknown-name]' in said
    assert "airflow-name" not in said


def test_fix_goes_on(project: Path) -> None:
    """`lint --fix` also rewrites what one report has no room for."""
    steps = "".join(f"  s{index}: {{uses: messages.log, with: {{message: '{{{{ ds }}}}'}}}}\n" for index in range(250))
    spec = project / "pipelines" / "many.yaml"
    spec.write_text(f"dag_id: many\nsteps:\n{steps}")

    said = taskflow(project, "lint", "--fix", "pipelines/many.yaml")

    assert said.count("ds -> run.date | text") == 250
    assert spec.read_text().count("{{ run.date | text }}") == 250


def test_run_of_unknown_param(project: Path) -> None:
    """A misspelt param is refused before anything runs."""
    assert '"woh" is not a param of good; did you mean "who"?' in taskflow(
        project, "run", "good", "-p", "woh=x", code=2
    )


def test_unknown_pipeline_is_named(project: Path) -> None:
    """A pipeline that is neither file nor dag_id gets the nearest name."""
    assert 'did you mean "good"?' in taskflow(project, "plan", "goood", code=2)


def test_tasks_are_listed(project: Path) -> None:
    """Every task is listed with its role, and one is shown in full."""
    assert "postgres.merge" in taskflow(project, "tasks")
    assert "| `message` | text | required |" in taskflow(project, "tasks", "messages.log")
    assert 'did you mean "messages.log"?' in taskflow(project, "tasks", "messages.lag", code=2)


def test_missing_connection_fails_at_once(project: Path, warm_taskflow: Warm) -> None:
    """What a retry cannot mend is not retried, and the error names what is missing and what to do."""
    (project / "configs" / "sql").mkdir()
    (project / "configs" / "sql" / "x.sql").write_text("SELECT 1;")
    step = "{uses: postgres.run_sql, with: {connection: nowhere, file: x.sql}, retries: 5, retry_delay: 1h}"
    (project / "pipelines" / "good.yaml").write_text(f"dag_id: good\nsteps:\n  run: {step}\n")

    said = ended(warm_taskflow(project, "run", "good"), 1)

    assert "connection 'nowhere' does not exist" in said
    assert "failed" in said


def test_spec_of_no_project_is_told(tmp_path: Path) -> None:
    """A spec that has no configs/ above it says where its project was looked for."""
    (tmp_path / "alone.yaml").write_text(GOOD)

    told = " ".join(taskflow(tmp_path, "lint", "alone.yaml").split())

    assert f"note: alone.yaml is of no project: neither {tmp_path} nor a folder above has configs/" in told


def test_running_stack_gives_its_connections(
    project: Path, warm_taskflow: Warm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no stack was made, a run has the connections of the environment alone."""
    monkeypatch.setenv("TASKFLOW_HOME", str(tmp_path / "none"))

    assert "with the connections" not in ended(warm_taskflow(project, "run", "good"))
