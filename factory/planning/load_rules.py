"""What must hold of the data that a load takes: built in this pipeline, then judged whole, then loaded.

And of the run in which that fails: Airflow judges a run by its last steps alone.
"""

from __future__ import annotations

from factory.language.errors import Path, quoted_list
from factory.language.report import Report
from factory.planning.failures import Failures
from factory.planning.guards import Guards
from factory.planning.plan import Node, Plan
from factory.planning.skips import Skips
from factory.registry import Registry

MAX_PAIRS = 20_000
"""The maximum number of pairs of a load and a gate before it, and of a build and a table that the pipeline builds."""


def unproven_loads(plan: Plan, report: Report, registry: Registry) -> None:
    """Report a load of rows that no step builds, that no gate judges whole, or that are built again after the gate."""
    guards = Guards(plan, registry)
    for node in (node for node in plan.nodes if node.role == "load"):
        for table in sorted(guards.tables(node, "load")):
            _check_load(node, table, guards, report)
        for name in guards.unnamed(node, "load"):
            part = "expand" if name in node.expand else "with"
            message = (
                f'which table step "{node.task_id}" loads is known only when it runs, so no gate can be found for it'
            )
            hint = "write schema.table, and one step for each table"
            report.add("unjudged-load", (*node.path, part, name), message, hint)


def _check_load(node: Node, table: str, guards: Guards, report: Report) -> None:
    if not guards.count_before(node, "gate"):
        return  # reported as an ungated load
    judging = [gate for gate in guards.gates.get(table, ()) if guards.guards(gate, node)]
    whole = [gate for gate in judging if guards.judges_whole(gate, table)]
    path = (*node.path, "with", "source")
    if not judging:
        message = f'step "{node.task_id}" loads {table}, which no gate before it judges'
        report.add("unjudged-load", path, message, f"add a gate whose suite has batch: {{table: {table}}}")
    elif not whole:
        names = quoted_list([gate.task_id for gate in judging])
        message = f'step "{node.task_id}" loads all of {table}, of which {names} judges only a part'
        report.add("unjudged-load", path, message, "remove `where` from the batch of its suite")
    elif node.arguments.get("external_source") is True:
        _check_external(node, table, guards, report)
    else:
        _check_builds(node, table, whole, guards, report)


def _check_external(node: Node, table: str, guards: Guards, report: Report) -> None:
    if builders := guards.builders(table):
        path = (*node.path, "with", "external_source")
        message = f'{table} is not filled from outside: step "{builders[0].task_id}" builds it'
        report.add("unbuilt-load", path, message, "remove external_source")


def _check_builds(node: Node, table: str, gates: list[Node], guards: Guards, report: Report) -> None:
    path = (*node.path, "with", "source")
    in_time = {gate.task_id: guards.builders_before(table, gate) for gate in gates}
    if not any(in_time.values()):
        message = f'step "{node.task_id}" loads {table}, which no step before its gate builds'
        hint = "build it (postgres.rebuild_table, postgres.load_file, `builds` of postgres.run_sql)"
        hint += "; or say external_source: true"
        report.add("unbuilt-load", path, message, hint)
        return
    later = [
        one.task_id
        for one in guards.builders(table)
        if not guards.is_earlier(node, one) and any(one not in builders for builders in in_time.values())
    ]
    if later:
        message = f'{quoted_list(later)} may build {table} after its gate and before step "{node.task_id}" loads it'
        report.add("rebuilt-load", path, message, "let the gate need it")


def unjudged_arrivals(plan: Plan, report: Report, registry: Registry) -> None:
    """Report a step that brings rows into a table from outside the database, where no gate after it judges them all."""
    guards = Guards(plan, registry)
    for node in (node for node in plan.nodes if node.uses in registry):
        for name in guards.arguments_for_arrivals(node):
            part, given = ("expand", None) if name in node.expand else ("with", node.arguments.get(name))
            path = (*node.path, part, name)
            if isinstance(given, str):
                _check_arrival(node, given, path, guards, report)
            else:
                message = f'which table step "{node.task_id}" fills is known only when it runs'
                hint = "write schema.table, and one step for each table: a gate must judge it"
                report.add("unjudged-arrival", path, message, hint)


def _check_arrival(node: Node, table: str, path: Path, guards: Guards, report: Report) -> None:
    judging = [gate for gate in guards.gates.get(table, ()) if guards.is_earlier(node, gate)]
    if not judging:
        message = f'step "{node.task_id}" fills {table} from outside, and no gate after it judges these rows'
        hint = f"let a gate whose suite has batch: {{table: {table}}} need it; postgres.merge brings the rows on"
        report.add("unjudged-arrival", path, message, hint)
    elif not any(guards.judges_whole(gate, table) for gate in judging):
        named = quoted_list([gate.task_id for gate in judging])
        message = f'step "{node.task_id}" fills {table} from outside, of which {named} judges only a part'
        report.add("unjudged-arrival", path, message, "remove `where` from the batch of its suite")


def too_many_pairs(plan: Plan, report: Report, registry: Registry) -> None:
    """Report a pipeline in which each of many loads has many gates before it, or each of many builds many tables.

    A load gets all of its gates, and a build the tables of all builds: Airflow keeps that with each task.
    """
    if len(plan.nodes) ** 2 <= MAX_PAIRS:
        return
    guards = Guards(plan, registry)
    gates = sum(guards.count_before(node, "gate") for node in plan.nodes if node.role == "load")
    builds = sum(bool(guards.tables(node, "build")) for node in plan.nodes) * len(guards.built)
    hint = f"the maximum is {MAX_PAIRS:,}: split the pipeline"
    if gates > MAX_PAIRS:
        message = f"the loads of the pipeline have {gates:,} gates before them, counted for each load"
        report.add("too-large", ("steps",), message, hint, key=True)
    if builds > MAX_PAIRS:
        message = f"the pipeline builds so many tables that its builds know of {builds:,}, counted for each build"
        report.add("too-large", ("steps",), message, hint, key=True)


def unseen_failures(plan: Plan, report: Report, registry: Registry) -> None:
    """Report a gate or load after whose failure the run can still succeed: none of its last steps need fail."""
    if not (watched := [node for node in plan.nodes if node.role in ("gate", "load")]):
        return
    failures = Failures(watched, Skips(Guards(plan, registry)))
    is_fast = plan.airflow.get("fail_fast") is True
    for index, node in enumerate(watched):
        failing, last = failures.ends(index), quoted_list(failures.last)
        if node.task_id in failing:
            continue
        if is_fast:
            problem = f"would end as success: fail_fast skips what has not begun, its last steps, {last}, too"
            _report_unseen(node, problem, "remove fail_fast", report)
        elif not failing:
            problem = f"would end as success: of its last steps, {last}, none fails"
            _report_unseen(node, problem, _second_end(node), report)
        elif cases := failures.unheard(index):
            makers = quoted_list([one.task_id for one in failures.skips.makers(cases)])
            ends = f"its last steps that would fail, {quoted_list(failing)}, may be skipped, or succeed"
            _report_unseen(node, f"could end as success: {ends}, because of {makers}", _second_end(node), report)


def _second_end(node: Node) -> str:
    example = f"end: {{uses: messages.log, needs: {node.task_id}, with: {{message: done}}}}"
    return f"add a second last step, such as {example}"


def _report_unseen(node: Node, problem: str, hint: str, report: Report) -> None:
    message = f'a run in which step "{node.task_id}" fails {problem}'
    report.add("unseen-failure", node.path, message, hint, key=True)
