"""What checking and building a spec takes the first time, done once in a process before it forks others.

Knows which parts of the factory are made when they are first used; it reads no file of a project.
"""

from __future__ import annotations

import gc
from pathlib import Path

_REHEARSAL = b"""
dag_id: rehearsal
schedule: "0 0 * * *"
start_date: 2026-01-01
params: {go: {type: boolean, default: true}}
steps:
  first: {uses: messages.log, with: {message: "{{ run.date }}"}}
  choose: {needs: first, branch: [{if: "{{ params.go }}", then: second}, {else: third}]}
  second: {uses: messages.log, with: {message: second}}
  third: {uses: messages.log, with: {message: third}}
"""


def warm_up() -> None:
    """Import what checking a spec needs, for the children that Airflow forks for each file and task.

    It takes half a second once in each of Airflow's processes, instead of before every task.
    """
    import factory.compiler
    import factory.registry
    from tasks.postgres.expressions import check_expression
    from tasks.quality.lint import catalogue
    from tasks.spark.query_text import query_problems

    factory.registry.load_registry()
    catalogue()
    check_expression(("true",))
    query_problems("SELECT 1", (), ())


def rehearse() -> None:
    """Build a DAG, and what each task's arguments are checked with, to spare forked children the first time.

    All objects made so far are frozen, so the children's garbage collections do not copy their memory pages.
    """
    from factory.bridge.dag import build
    from factory.compiler import compile_content
    from factory.registry import load_registry

    for task in load_registry():
        assert task.arguments
    plan = compile_content(_REHEARSAL, Path(__file__).with_name("rehearsal.yaml")).plan
    assert plan is not None
    build(plan)
    gc.collect()
    gc.freeze()
