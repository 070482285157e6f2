"""The text about a validation: in the log, and in the error that stops the run.

Pure text from a verdict; knows neither the database nor the object store.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tasks.quality.on_postgres.conditions import can_quarantine

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tasks.contract import Run
    from tasks.quality.data_docs import Links
    from tasks.quality.suites import Expectation, Suite
    from tasks.quality.verdicts import Outcome, Verdict


def report(verdict: Verdict, suite: Suite) -> str:
    """Return the block for the log of a gate that passes: a line for each expectation."""
    width = max(len(outcome.expectation.type) for outcome in verdict.outcomes)
    lines = _head(verdict, suite)
    for outcome in verdict.outcomes:
        lines.append(f"  ok  {outcome.expectation.type:{width}}  {_outcome_text(outcome)}")
    return "\n".join(lines)


def rejection(
    verdict: Verdict,
    suite: Suite,
    run: Run,
    rejected: Mapping[str, int],
    links: Links | None,
    problem: Exception | None,
) -> str:
    """Return the message that stops the run: the broken rules, and where to look."""
    lines = _head(verdict, suite)
    for outcome in verdict.failed:
        expectation = outcome.expectation
        reason = f" [{expectation.reason}]" if expectation.reason else ""
        lines.append(f"  {expectation.type} {_outcome_text(outcome)}{reason}")
    if rejected and suite.quarantine:
        counts = ", ".join(f"{reason} {count:,}" for reason, count in rejected.items())
        lines.append(f"rejected rows: {counts}; in {suite.quarantine.table} where validation_id = '{run.attempt}'")
    lines += [f"not set aside: {text}" for text in _without_condition(verdict, suite)]
    if links:
        lines.append(f"Data Docs: {links.data_docs}")
    if problem:
        lines.append(f"no Data Docs: {problem}")
    clear = run.before.builds.get(suite.batch.table, run.task_id)
    lines.append(f"after mending the source, clear {clear!r} with its downstream")
    return "\n".join(lines)


def _head(verdict: Verdict, suite: Suite) -> list[str]:
    empty = ["  the batch is empty: no row can break a rule"] if verdict.rows == 0 else []
    return [_headline(verdict, suite), *empty]


def _headline(verdict: Verdict, suite: Suite) -> str:
    count, failed = len(verdict.outcomes), len(verdict.failed)
    kept = f"rejected, {failed} of {count} expectations failed" if failed else f"passed all of {count} expectations"
    return f"suite {suite.name} on {suite.batch.table}, {_rows(verdict.rows)}: {kept}"


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"


def _outcome_text(outcome: Outcome) -> str:
    given = ", ".join(f"{name}={_short(value)}" for name, value in outcome.expectation.arguments.items())
    return f"({given}){_counted(outcome.found)}"


def _counted(found: Mapping[str, Any]) -> str:
    """Return what the library found about a rule that failed."""
    parts = []
    count, percent = found.get("unexpected_count"), found.get("unexpected_percent")
    if count is not None:
        share = f" ({percent:.3g} %)" if percent is not None else ""
        parts.append(f"{count:,} of {found.get('element_count', count):,}{share}")
    if examples := found.get("partial_unexpected_list"):
        shown = ", ".join(dict.fromkeys(map(_short, examples)))
        parts.append(f"for example {shown}")
    if count is None and "observed_value" in found:
        parts.append(f"observed {_short(found['observed_value'])}")
    return ": " + ", ".join(parts) if parts else ""


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:79] + "…"


def _without_condition(verdict: Verdict, suite: Suite) -> list[str]:
    """Return the reasons of broken rules that no single row can break."""

    def is_lost(expectation: Expectation) -> bool:
        return bool(suite.quarantine and expectation.reason and not can_quarantine(expectation))

    lost = [outcome.expectation for outcome in verdict.failed if is_lost(outcome.expectation)]
    return [f"{rule.reason}: {rule.type} is not a rule that a single row can break" for rule in lost]
