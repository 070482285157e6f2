"""A plan to a DAG: wiring, types, and the same bytes every time."""

import datetime as dt
import json
import subprocess
import sys
from pathlib import Path

import pytest
from airflow.sdk import DAG
from airflow.sdk.definitions.asset import Asset, AssetAll, AssetAny
from airflow.sdk.definitions.timetables.trigger import CronTriggerTimetable
from airflow.serialization.serialized_objects import DagSerialization

from factory import load_dag
from factory.language.errors import SpecError

HEAD = "dag_id: made\n"
SAY = "{uses: messages.log, with: {message: hello}}"


def dag_of(folder: Path, text: str) -> DAG:
    (folder / "configs").mkdir(exist_ok=True)
    (folder / "made.yaml").write_text(text)
    return load_dag(folder / "made.yaml")


def edges(dag: DAG) -> dict[str, list[str]]:
    return {task.task_id: sorted(task.upstream_task_ids) for task in dag.tasks}


def test_needs_and_references_are_edges(tmp_path: Path) -> None:
    """A step waits for what it needs and for what it refers to."""
    dag = dag_of(
        tmp_path,
        f"""{HEAD}steps:
  a: {SAY}
  b: {{uses: messages.log, with: {{message: "{{{{ steps.a.message }}}}"}}}}
  c: {{uses: messages.log, with: {{message: hello}}, needs: [a, b]}}
""",
    )

    assert edges(dag) == {"a": [], "b": ["a"], "c": ["a", "b"]}


def test_groups_stand_for_their_ends(tmp_path: Path) -> None:
    """Who needs a group waits for its last steps; what a group needs, its first steps wait for."""
    dag = dag_of(
        tmp_path,
        f"""{HEAD}steps:
  before: {SAY}
  middle:
    needs: before
    steps:
      one: {SAY}
      two: {{uses: messages.log, with: {{message: hello}}, needs: one}}
      inner:
        needs: one
        steps:
          three: {SAY}
  after: {{uses: messages.log, with: {{message: "{{{{ steps.middle.inner.three.message }}}}"}}, needs: middle}}
""",
    )

    assert edges(dag) == {
        "before": [],
        "middle.one": ["before"],
        "middle.two": ["middle.one"],
        "middle.inner.three": ["middle.one"],
        "after": ["middle.inner.three", "middle.two"],
    }


def test_branch_leads_to_targets(tmp_path: Path) -> None:
    """The ways of a branch wait for it, a group by its first step."""
    dag = dag_of(
        tmp_path,
        f"""{HEAD}params: {{go: {{type: boolean, default: true}}}}
steps:
  choose:
    branch:
      - if: "{{{{ params.go }}}}"
        then: many
      - else: [one, other]
  many:
    steps:
      first: {SAY}
      second: {{uses: messages.log, with: {{message: hello}}, needs: first}}
  one: {SAY}
  other: {SAY}
""",
    )

    choose = dag.get_task("choose")

    assert edges(dag) == {
        "choose": [],
        "many.first": ["choose"],
        "many.second": ["many.first"],
        "one": ["choose"],
        "other": ["choose"],
    }
    assert choose.op_kwargs["step"].values["exits"][1] == {"then": ["one", "other"]}


def test_arguments_reach_airflow(tmp_path: Path) -> None:
    """DAG and task arguments arrive with Airflow's types."""
    dag = dag_of(
        tmp_path,
        """dag_id: made
description: What it does
start_date: 2026-01-01
timezone: America/Buenos_Aires
schedule: "0 6 * * 1-5"
catchup: true
fail_fast: true
max_active_runs: 1
dagrun_timeout: 2h
tags: [a, b]
owner_links: {me: "https://example.com"}
default_args: {retries: 2, retry_delay: 1m 30s}
steps:
  say:
    uses: messages.log
    with: {message: hello}
    retries: 5
    pool: small
    execution_timeout: 10m
    outlets: [{name: a, uri: "s3://b/c"}]
""",
    )
    say = dag.get_task("say")

    assert (dag.fail_fast, dag.max_active_runs, dag.catchup, dag.tags) == (True, 1, True, {"a", "b"})
    assert dag.dagrun_timeout == dt.timedelta(hours=2)
    assert dag.start_date == dt.datetime(2026, 1, 1, 3, tzinfo=dt.UTC)
    assert str(dag.timezone) == "America/Buenos_Aires"
    assert (say.retries, say.retry_delay, say.pool) == (5, dt.timedelta(seconds=90), "small")
    assert say.execution_timeout == dt.timedelta(minutes=10)
    assert say.outlets == [Asset(name="a", uri="s3://b/c")]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("null", None),
        ('"@daily"', "@daily"),
        ("6h", dt.timedelta(hours=6)),
    ],
)
def test_simple_schedules(tmp_path: Path, schedule: str, expected: object) -> None:
    """A preset, a duration or nothing arrives as it is."""
    assert dag_of(tmp_path, f"{HEAD}schedule: {schedule}\nsteps:\n  say: {SAY}\n").schedule == expected


def test_asset_schedules(tmp_path: Path) -> None:
    """Assets may be asked for together, or any of them."""
    dag = dag_of(tmp_path, f"{HEAD}schedule: {{assets: [a, {{any: [b, {{name: c}}]}}]}}\nsteps:\n  say: {SAY}\n")

    assert isinstance(dag.schedule, AssetAll)
    assert isinstance(dag.schedule.objects[1], AssetAny)


def test_timetable_schedules(tmp_path: Path) -> None:
    """One of Airflow's timetables may be named with its arguments."""
    text = "{timetable: CronTriggerTimetable, expression: 0 6 * * *, timezone: Europe/Rome, interval: 1d}"
    dag = dag_of(tmp_path, f"{HEAD}schedule: {text}\nsteps:\n  say: {SAY}\n")

    assert isinstance(dag.schedule, CronTriggerTimetable)


def test_params_become_form(tmp_path: Path) -> None:
    """A param keeps its schema, its title and its default."""
    text = "{n: {type: integer, default: 5, minimum: 1, title: How many, description: More is more}}"
    dag = dag_of(tmp_path, f"{HEAD}params: {text}\nsteps:\n  say: {{uses: messages.log, with: {{message: a}}}}\n")
    param = dag.params.get_param("n")

    assert (param.value, param.description, param.schema) == (
        5,
        "More is more",
        {"type": "integer", "minimum": 1, "title": "How many"},
    )


def test_error_is_whole_report(tmp_path: Path) -> None:
    """load_dag raises one error whose text holds every diagnostic."""
    with pytest.raises(SpecError) as raised:
        dag_of(tmp_path, f"{HEAD}nope: 1\nsteps:\n  say: {{uses: nothing.here}}\n  other: {SAY}\n")

    assert [one.code for one in raised.value.diagnostics] == ["unknown-key", "unknown-task"]
    assert 'made.yaml:2:1: error: "nope" is not a key of a pipeline [unknown-key]\n2 | nope: 1\n  | ^^^^' in str(
        raised.value
    )


def test_serialized_bytes_are_stable(tmp_path: Path) -> None:
    """Two processes with other hash seeds serialize a spec to the same bytes: no new DAG version without a change."""
    spec = Path(__file__).parents[1] / "cases" / "good.yaml"
    code = (
        "import json, sys; from airflow.serialization.serialized_objects import DagSerialization;"
        "from factory import load_dag; dag = DagSerialization.to_dict(load_dag(sys.argv[1]));"
        "print('DAG', json.dumps(dag, sort_keys=True))"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code, str(spec)],
            env={"PATH": "/usr/bin:/bin", "PYTHONHASHSEED": seed, "AIRFLOW_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.partition("DAG ")[2]
        for seed in ("1", "2")
    ]

    assert runs[0]
    assert runs[0] == runs[1]


def test_serialized_dag_has_no_paths(tmp_path: Path) -> None:
    """Where the project lies does not change what is serialized, but for the file's own location."""
    texts = []
    for name in ("here", "there"):
        folder = tmp_path / name
        folder.mkdir()
        dag = dag_of(folder, f"{HEAD}steps:\n  say: {SAY}\n")
        dag.fileloc = dag.relative_fileloc = "made.yaml"
        texts.append(json.dumps(DagSerialization.to_dict(dag)))

    assert texts[0] == texts[1]


def test_documentation_opens_no_file(tmp_path: Path) -> None:
    """Airflow opens the file that a DAG's doc_md names; a spec's is a text, whatever it ends with."""
    secret = tmp_path / "secret.md"
    secret.write_text("secret")
    dag = dag_of(tmp_path, f"{HEAD}doc_md: {secret}\nsteps:\n  say: {SAY}\n")

    assert dag.doc_md == f"{secret}\n"


def test_airflow_gets_one_template(tmp_path: Path) -> None:
    """The only text that Airflow renders for a step is ours: the name of a mapped run's label."""
    text = "{uses: messages.log, with: {level: info}, expand: {message: [a, b]}}"
    mapped = dag_of(tmp_path, f"{HEAD}steps:\n  say: {text}\n").get_task("say")

    assert mapped.map_index_template == "{{ taskflow_item | default('', true) }}"
    assert [type(one).__name__ for one in mapped.partial_kwargs["op_kwargs"].values()] == ["FilledLater"]
    assert [type(one).__name__ for one in mapped.op_kwargs_expand_input.value["with_message"]] == ["Item", "Item"]
