"""The codes of everything that can be wrong with a spec, and what each means.

The reference in docs/diagnostics.md and the cases in tests/cases/ follow this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Code:
    """What a diagnostic of this code means."""

    meaning: str
    severity: Severity = "error"


CODES: Mapping[str, Code] = {
    # the text
    "syntax": Code("The file is not YAML, or not UTF-8."),
    "empty-file": Code("The file contains no YAML."),
    "many-documents": Code("The file contains more than one YAML document."),
    "duplicate-key": Code("A key appears twice in one mapping; YAML would silently keep the last."),
    "key-not-text": Code("A key is a number, a boolean, a list or a mapping."),
    "merge-key": Code("A merge key (<<) is used."),
    "unknown-tag": Code("A value has a YAML tag."),
    "implicit-boolean": Code("An unquoted yes, no, on or off, which YAML 1.1 and 1.2 read differently."),
    "implicit-date": Code("An unquoted date where no date is expected."),
    "cut-text": Code("A text goes on after ' #', which YAML reads as a comment."),
    "ambiguous-number": Code("A number that YAML 1.1 and 1.2 read differently, such as 012, 0x1F, 1_000 or 12:30."),
    "endless-value": Code("An alias is inside the value it names, or aliases expand without bounds."),
    "too-large": Code("A file, a number or a pipeline is larger than the factory reads."),
    "too-deep": Code("Lists and mappings are inside each other too deeply."),
    "more-errors": Code("There are more errors than a report shows."),
    "more-warnings": Code("There are more warnings than a report shows.", "warning"),
    # the form
    "unknown-key": Code("A key is not allowed there."),
    "missing-key": Code("A required key is missing."),
    "wrong-type": Code("A value is not the mapping, list or text that it should be."),
    "wrong-value": Code("A value is not allowed there."),
    "code-argument": Code("An Airflow argument that no spec can set: it needs Python, or is for the admin to decide."),
    "bad-schedule": Code("The schedule is not a cron, preset, duration, assets or timetable."),
    "bad-param": Code("A param is not a JSON Schema, or its default does not match it."),
    "step-form": Code("A step does not have exactly one of uses, branch or steps."),
    "branch-form": Code("An arm of a branch is neither if/then nor else."),
    "branch-without-else": Code("A branch does not end with an else."),
    "condition-form": Code("A condition is not a single {{ … }}."),
    "expectation-form": Code("An item of a suite does not name exactly one expectation."),
    "unknown-environment": Code("The chosen environment has no file in configs/environments/."),
    # the names
    "unknown-task": Code("A step or a default names a task that is not in the registry."),
    "unknown-step": Code("The pipeline has no step of this name."),
    "unknown-suite": Code("Neither the spec nor configs/suites/ has a suite of this name."),
    "unknown-param": Code("The pipeline does not declare a param of this name."),
    "unknown-field": Code("The output of a step, or the run, has no field of this name."),
    "unknown-name": Code("A template uses a name or a function that does not exist."),
    "unknown-variable": Code("A template reads a Variable that no `variables:` of configs/ declares."),
    "airflow-name": Code("A template is written in Airflow's way; `taskflow lint --fix` rewrites it."),
    "unknown-sql-file": Code("There is no such file in configs/sql/."),
    "bad-sql-file": Code("A SQL file cannot be read, or does what its step cannot run."),
    "unbound-value": Code("The names that a SQL file binds and the `values` of its step differ."),
    "unknown-view": Code("A query for Spark reads a table that is not a view of its step."),
    "unknown-place": Code("A step names a place that configs/ do not declare."),
    "unnamed-place": Code("A step chooses a folder or a bucket itself, which only configs/ do."),
    "unknown-queue": Code("A queue is not in the `queues` of configs/, so no worker takes tasks from it."),
    "unknown-pool": Code("A pool is not in the `pools` of configs/, so Airflow would not start the task."),
    "unknown-expectation": Code("Great Expectations has no expectation of this name."),
    # the values
    "missing-argument": Code("A step does not set an argument that its task needs."),
    "unknown-argument": Code("A step or a default sets an argument that the task does not take."),
    "bad-argument": Code("An argument has the wrong type or is out of bounds."),
    "bad-expectation": Code("An argument of an expectation is missing, unknown, of the wrong type or out of bounds."),
    "reason-without-row": Code("An expectation has a reason, but cannot tell which rows break it."),
    "bad-template": Code("A template cannot be read or computed, or combines values that cannot be combined."),
    "template-type": Code("A template may have a value of a type that is not allowed there."),
    "uncarried-column": Code("A load that insists on `every_column` would leave one behind."),
    "unknown-column": Code("The query that makes a file does not return this column."),
    "secret-template": Code("A template reads a connection, or a Variable that is a secret: the UI would show it."),
    "quoted-template": Code("A template is in quotes inside SQL, where values are inserted as quoted literals."),
    "bad-sql": Code("A text is not a single SQL expression."),
    "unknown-function": Code("SQL calls a function that is neither a harmless one of Postgres nor listed in configs/."),
    # the whole
    "cycle": Code("Steps wait for each other."),
    "ungated-load": Code("A load could run although no gate has passed."),
    "unjudged-load": Code("A gate before the load judges its table only in part, or not at all."),
    "unjudged-arrival": Code("Rows come from outside into a table that no gate after it judges, or only in part."),
    "unbuilt-load": Code("No step of the pipeline builds the rows of a load, and nothing says that they are external."),
    "rebuilt-load": Code("A table could be built again between its gate and its load."),
    "contested-build": Code("Two steps, or two items of a mapped step, may build one table at the same time."),
    "deadlocked-build": Code("A step waits for an earlier run while its own run keeps tables from that."),
    "unseen-failure": Code("If this gate or load failed, the run could still end as success."),
    "unevaluated-promotion": Code("A promotion could run although nothing has evaluated the model."),
    "skipped-join": Code("A step is always skipped: it waits for several arms of a branch, or for no arm of it."),
    "param-without-default": Code("A scheduled pipeline has a param without a default."),
    "no-start-date": Code("catchup or a timezone is set without a start_date, from which Airflow takes both."),
    "duplicate-dag-id": Code("Two specs have the same dag_id."),
    "wall-clock": Code("SQL reads the clock, so that a rerun for the same date would differ.", "warning"),
    "unused-param": Code("Nothing uses this param.", "warning"),
    "unused-suite": Code("No step uses this suite.", "warning"),
}
