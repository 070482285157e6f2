"""The same pipeline of 8 tasks with a branch, N times over, in the form that each contender reads."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

HAND_WRITTEN = """\
from datetime import datetime

from airflow.sdk import dag, task


@dag(
    dag_id="bench_{i:04d}",
    description="pipeline number {i}",
    schedule="{m} {h} * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    tags=["bench", "team_{t}"],
    default_args={{"owner": "team_{t}", "retries": 2}},
)
def pipeline():
    @task(retries=3)
    def extract(message: str, level: str = "info"):
        return message

    @task
    def validate(message: str):
        return message

    @task.branch
    def choose(level: str):
        return "full_load"

    @task
    def full_load(message: str):
        return message

    @task
    def incremental_load(message: str):
        return message

    @task(trigger_rule="none_failed_min_one_success")
    def join(message: str):
        return message

    @task
    def publish(message: str):
        return message

    @task
    def notify(message: str):
        return message

    branch = choose(level="info")
    done = join(message="any")
    extract(message="s3://raw/table_{i}", level="info") >> validate(message="threshold") >> branch
    branch >> [full_load(message="wh.table_{i}"), incremental_load(message="wh.table_{i}")] >> done
    done >> publish(message="topic_{i}") >> notify(message="#team_{t}")


pipeline()
"""

OURS = """\
dag_id: bench_{i:04d}
description: pipeline number {i}
schedule: "{m} {h} * * *"
start_date: 2026-01-01
catchup: false
tags: [bench, team_{t}]
default_args: {{owner: team_{t}, retries: 2}}
steps:
  extract: {{uses: messages.log, with: {{message: "s3://raw/table_{i}", level: info}}, retries: 3}}
  validate: {{uses: messages.log, with: {{message: threshold}}, needs: extract}}
  choose:
    needs: validate
    branch:
      - if: "{{{{ steps.validate.message == 'threshold' }}}}"
        then: full_load
      - else: incremental_load
  full_load: {{uses: messages.log, with: {{message: wh.table_{i}}}}}
  incremental_load: {{uses: messages.log, with: {{message: wh.table_{i}}}}}
  join:
    uses: messages.log
    needs: [full_load, incremental_load]
    trigger_rule: none_failed_min_one_success
    with: {{message: any}}
  publish: {{uses: messages.log, with: {{message: topic_{i}}}, needs: join}}
  notify: {{uses: messages.log, with: {{message: "#team_{t}"}}, needs: publish}}
"""

DAG_FACTORY_HEAD = """\
bench_{i:04d}:
  description: pipeline number {i}
  schedule: "{m} {h} * * *"
  start_date: 2026-01-01
  catchup: false
  tags: [bench, team_{t}]
  default_args: {{owner: team_{t}, retries: 2}}
  tasks:
"""

BLUEPRINT = """\
dag_id: bench_{i:04d}
description: pipeline number {i}
schedule: "{m} {h} * * *"
owner: team_{t}
retries: 2
tags: [bench, team_{t}]
steps:
  extract: {{blueprint: say, message: "s3://raw/table_{i}", retries: 3}}
  validate: {{blueprint: say, message: threshold, depends_on: [extract]}}
  choose: {{blueprint: choose, level: info, depends_on: [validate]}}
  full_load: {{blueprint: say, message: wh.table_{i}, depends_on: [choose]}}
  incremental_load: {{blueprint: say, message: wh.table_{i}, depends_on: [choose]}}
  join:
    blueprint: say
    message: any
    depends_on: [full_load, incremental_load]
    trigger_rule: none_failed_min_one_success
  publish: {{blueprint: say, message: topic_{i}, depends_on: [join]}}
  notify: {{blueprint: say, message: "#team_{t}", depends_on: [publish]}}
"""

BLUEPRINTS = """\
from datetime import datetime

import bench_tasks
from airflow.sdk import task
from blueprint import BaseModel, Blueprint, BlueprintDagArgs


class ArgsConfig(BaseModel):
    schedule: str | None = None
    description: str | None = None
    owner: str = "team"
    retries: int = 1
    tags: list[str] = []


class Args(BlueprintDagArgs[ArgsConfig]):
    def render(self, config):
        defaults = {"owner": config.owner, "retries": config.retries}
        start = datetime(2026, 1, 1)
        return dict(schedule=config.schedule, description=config.description, tags=config.tags, catchup=False,
                    start_date=start, default_args=defaults)


class SayConfig(BaseModel):
    message: str
    retries: int = 2


class Say(Blueprint[SayConfig]):
    def render(self, config):
        return task(task_id=self.step_id, retries=config.retries)(bench_tasks.say)(message=config.message).operator


class ChooseConfig(BaseModel):
    level: str = "info"


class Choose(Blueprint[ChooseConfig]):
    def render(self, config):
        return task.branch(task_id=self.step_id)(bench_tasks.choose)(level=config.level).operator
"""

CALLABLES = """\
def say(message: str, level: str = "info"):
    return message


def choose(level: str):
    return "full_load"
"""

_DAG_FACTORY_TASKS = (
    ("extract", "say", "s3://raw/table_{i}", (), "      retries: 3\n"),
    ("validate", "say", "threshold", ("extract",), ""),
    ("choose", "choose", "info", ("validate",), ""),
    ("full_load", "say", "wh.table_{i}", ("choose",), ""),
    ("incremental_load", "say", "wh.table_{i}", ("choose",), ""),
    ("join", "say", "any", ("full_load", "incremental_load"), "      trigger_rule: none_failed_min_one_success\n"),
    ("publish", "say", "topic_{i}", ("join",), ""),
    ("notify", "say", "#team_{t}", ("publish",), ""),
)


def write_all(root: Path, count: int) -> None:
    """Write `count` pipelines for each contender below `root`."""
    folders = {
        name: root / name for name in ("hand_written", "ours/pipelines", "ours/configs", "dag_factory", "blueprint")
    }
    for folder in folders.values():
        folder.mkdir(parents=True)
    (root / "bench_tasks.py").write_text(CALLABLES)
    (folders["blueprint"] / "blueprints.py").write_text(BLUEPRINTS)
    for i in range(count):
        values = {"i": i, "t": i % 7, "h": i % 24, "m": i % 60}
        (folders["hand_written"] / f"bench_{i:04d}.py").write_text(HAND_WRITTEN.format(**values))
        (folders["ours/pipelines"] / f"bench_{i:04d}.yaml").write_text(OURS.format(**values))
        (folders["dag_factory"] / f"bench_{i:04d}.yml").write_text(_dag_factory(values))
        (folders["blueprint"] / f"bench_{i:04d}.dag.yaml").write_text(BLUEPRINT.format(**values))


def _dag_factory(values: dict[str, int]) -> str:
    return DAG_FACTORY_HEAD.format(**values) + "".join(_dag_factory_task(*one, values) for one in _DAG_FACTORY_TASKS)


def _dag_factory_task(
    name: str, callable_: str, value: str, needs: tuple[str, ...], more: str, values: dict[str, int]
) -> str:
    branch = callable_ == "choose"
    decorator = "airflow.providers.standard.decorators.branch_python.branch_task" if branch else "airflow.sdk.task"
    text = f"""\
        - task_id: {name}
          decorator: {decorator}
          python_callable: bench_tasks.{callable_}
          {"level" if branch else "message"}: "{value.format(**values)}"
          dependencies: [{", ".join(needs)}]
    """
    return "\n".join(f"    {line}" for line in dedent(text).rstrip().splitlines()) + f"\n{more}"
