"""The codes of everything that can be wrong with a spec, with what each means.

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
    "empty-file": Code("The file holds no YAML."),
    "many-documents": Code("The file holds more than one YAML document."),
    "duplicate-key": Code("A key stands twice in one mapping; YAML would silently keep the last."),
    "key-not-text": Code("A key is a number, a boolean, a list or a mapping."),
    "merge-key": Code("A merge key (<<) is used."),
    "unknown-tag": Code("A value carries a YAML tag."),
    "implicit-boolean": Code("An unquoted yes, no, on or off, which YAML 1.1 and 1.2 read differently."),
    "implicit-date": Code("An unquoted date where no date is expected."),
    "ambiguous-number": Code("A number that YAML 1.1 and 1.2 read differently, such as 012, 0x1F, 1_000 or 12:30."),
    "endless-value": Code("An alias stands inside what it names, or aliases expand without bounds."),
    # the form
    "unknown-key": Code("A key that has no meaning there."),
    "missing-key": Code("A key that must be there is not."),
    "wrong-type": Code("A mapping, list or text is expected."),
    "wrong-value": Code("A value is not among those allowed."),
    "code-argument": Code("An argument of Airflow that takes a Python object; a spec chooses no code."),
    "bad-schedule": Code("The schedule is no cron, preset, duration, assets or timetable."),
    "bad-param": Code("A param is no JSON Schema, or its default breaks it."),
    "step-form": Code("A step is not exactly one of uses, branch and steps."),
    "branch-form": Code("An arm of a branch is neither if/then nor else."),
    "branch-without-else": Code("A branch has no else at its end."),
    "condition-form": Code("A condition is not one whole {{ … }}."),
    "expectation-form": Code("An item of a suite does not name exactly one expectation."),
    "unknown-environment": Code("The environment asked for has no file in configs/environments/."),
    # the names
    "unknown-task": Code("A step, or a default, names a task that is not in the registry."),
    "unknown-step": Code("A name of a step that this pipeline does not have."),
    "unknown-suite": Code("A name of a suite that neither the spec nor configs/suites/ has."),
    "unknown-param": Code("A name of a param that the pipeline does not declare."),
    "unknown-field": Code("A field that the output of a step, or a run, does not have."),
    "unknown-name": Code("A name in a template that nothing defines."),
    "unknown-sql-file": Code("A file that configs/sql/ does not have."),
    "unknown-queue": Code("A queue that is not among the `queues` of configs/, from which workers take tasks."),
    "unknown-expectation": Code("An expectation that Great Expectations does not have."),
    # the values
    "missing-argument": Code("A step does not give its task an argument that it needs."),
    "unknown-argument": Code("A step, or a default, gives a task an argument that it does not take."),
    "bad-argument": Code("An argument has the wrong type or is out of bounds."),
    "bad-expectation": Code("An argument of an expectation is missing, unknown, of the wrong type or out of bounds."),
    "reason-without-row": Code("A reason stands on an expectation from which no condition on a row can be derived."),
    "bad-template": Code("A template cannot be read, or computes with what cannot be computed with."),
    "template-type": Code("A template may have a value of a type that is not allowed where it stands."),
    "unknown-column": Code("A column that the query which makes the file does not give."),
    "secret-template": Code("A template reads a connection, whose secrets would be shown in the UI."),
    "quoted-template": Code("A template stands in quotes inside SQL, where values enter as quoted literals."),
    "bad-sql": Code("A text is not one SQL expression."),
    # the whole
    "cycle": Code("Steps wait for one another."),
    "ungated-load": Code("A load that may run although no gate has passed."),
    "unevaluated-promotion": Code("A promotion that may run although nothing has evaluated what it promotes."),
    "skipped-join": Code("A step that joins the ways of a branch and so is always skipped."),
    "suite-used-twice": Code("Two steps use one suite, whose record and rejects are kept once for each run."),
    "param-without-default": Code("A scheduled pipeline has a param without a default."),
    "no-start-date": Code("catchup without a start_date."),
    "duplicate-dag-id": Code("Two specs have one dag_id."),
    "unused-param": Code("Nothing uses a param.", "warning"),
    "unused-suite": Code("No step uses a suite.", "warning"),
}
