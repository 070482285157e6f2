"""How a step fails or is skipped in Airflow: its reason once, with the line of the spec, and without frames of Airflow.

A fault of the data, the spec or a service is told by one message. An error that nobody foresaw keeps its traceback:
it is a bug.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any, NoReturn

from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from factory.language.document import content_of, read, value_at
from factory.planning.project import find_root
from tasks.contract import ArgumentRefused, Locked, PermanentError, Run, TransientError


class StepFailed(AirflowFailException):
    """A step that a retry cannot help; the text is all that is told, and `reason` is the text without the step."""

    reason = ""


class StepInterrupted(AirflowException):
    """A step that is retried; the text is all that is told, and `reason` is the text without the step."""

    reason = ""
    is_locked = False
    """Whether it waited too long for a lock that another session holds."""


def fail(error: PermanentError, context: Mapping[str, Any]) -> NoReturn:
    """Fail the task without a retry."""
    _tell_once()
    failed = StepFailed(_told(str(error) + _written_at(error, context), context))
    failed.reason = str(error)
    raise failed from None


def fail_filling(problems: list[str]) -> NoReturn:
    """Fail the task, without a retry, for values that could not be filled in: each problem names the step."""
    _tell_once()
    raise StepFailed("\n".join(problems)) from None


def interrupt(error: TransientError, context: Mapping[str, Any]) -> NoReturn:
    """Fail this try of the task."""
    _tell_once()
    interrupted = StepInterrupted(_told(str(error), context))
    interrupted.reason = str(error)
    interrupted.is_locked = isinstance(error, Locked)
    raise interrupted from None


def skip(reason: str, run: Run) -> NoReturn:
    """Skip the task, and say why."""
    run.log.info("skipped: %s", reason)
    raise AirflowSkipException(reason) from None


def _told(text: str, context: Mapping[str, Any]) -> str:
    return f'step "{context["ti"].task_id}": {text}'


def _written_at(error: PermanentError, context: Mapping[str, Any]) -> str:
    """Return the line of the spec that has the argument at fault; nothing where the spec does not have it."""
    if not isinstance(error, ArgumentRefused):
        return ""
    file = Path(context["dag"].fileloc)
    document, _ = read(content_of(file), _shown(file))
    path = (*_path_of(context["ti"].task_id), "with", *error.path)
    try:
        value_at(document.value, path)
    except LookupError:
        return ""
    span = document.span(path)
    return f"\n{span.file}:{span.line}: {document.lines[span.line - 1].strip()}"


def _shown(file: Path) -> str:
    root = find_root(file)
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else str(file)


def _path_of(task_id: str) -> tuple[str, ...]:
    return tuple(part for name in task_id.split(".") for part in ("steps", name))


def _tell_once() -> None:
    """Let Airflow's log of the failure be the reason alone: it would add a traceback through its own code.

    Airflow logs any exception by `log.exception`, in this process, after the task has raised it.
    """
    import structlog

    processors = structlog.get_config()["processors"]
    if _reason_alone not in processors:
        processors.insert(0, _reason_alone)


def _reason_alone(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    error = sys.exc_info()[1] if event.get("exc_info") else None
    if isinstance(error, StepFailed | StepInterrupted):
        event["event"] = str(error)
        del event["exc_info"]
    return event
