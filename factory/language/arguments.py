"""The arguments of Airflow's DAGs and tasks that a spec may set, and how each is written in YAML.

The tables name every parameter of `airflow.sdk.DAG` and `BaseOperator` in Airflow 3.3 and 3.4; a test compares them
with the signatures, so none is dropped silently. Airflow itself is not imported.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from factory.language.document import Value

ArgumentKind = Literal[
    "boolean",
    "integer",
    "number",
    "text",
    "texts",
    "duration",
    "datetime",
    "links",
    "assets",
    "retry_policy",
    "deadline",
    "choice",
    "choices",
    "code",
    "spec",
]


@dataclass(frozen=True, slots=True)
class AssetSpec:
    """An asset that a task reads or makes."""

    name: str
    uri: str | None = None


RETRIED = ("unavailable", "locked", "timed_out", "unexpected")
"""The kinds of error after which a step is retried: a service does not answer, another session holds a lock, the
`execution_timeout`, and an error that nobody foresaw."""


@dataclass(frozen=True, slots=True)
class RetryRule:
    """How a step is retried after one kind of error: as its other arguments say, but for what is given here."""

    error: str
    retries: int | None = None
    """The step fails if it has been retried so often, after whatever errors."""
    retry_delay: dt.timedelta | None = None


REFERENCES = ("queued_at", "logical_date", "average_runtime")
"""From when a deadline counts: the moment when the run was queued, its logical date, or how long runs take on average.
"""


@dataclass(frozen=True, slots=True)
class Deadline:
    """When people are told that a run, or one of its steps, has not ended."""

    interval: dt.timedelta
    reference: str = "queued_at"


ArgumentValue: TypeAlias = Value | dt.timedelta | dt.datetime | list[AssetSpec] | list[RetryRule] | Deadline


@dataclass(frozen=True, slots=True)
class Argument:
    """How one argument is written.

    `code` cannot be set in a spec: it needs a Python object, or it is for Airflow's admin to decide. `spec` has its own
    reader.
    """

    kind: ArgumentKind
    minimum: float | None = None
    longest: int | None = None
    """How many characters of a text Airflow's database holds."""
    choices: tuple[str, ...] = ()
    instead: str = ""


_BOOLEAN, _TEXT, _TEXTS, _DURATION = Argument("boolean"), Argument("text"), Argument("texts"), Argument("duration")
_DATETIME, _ASSETS, _INTEGER = Argument("datetime"), Argument("assets"), Argument("integer")
_CODE, _POSITIVE, _NOT_NEGATIVE = Argument("code"), Argument("integer", 1), Argument("integer", 0)
_NAME = Argument("text", longest=250)
MAX_INTEGER = 2**31 - 1
"""What Airflow's database holds in an integer."""
_RUN_TYPES = ("backfill", "scheduled", "manual", "operator_triggered", "asset_triggered", "asset_materialization")

DAG_ARGUMENTS: Mapping[str, Argument] = {
    "dag_id": Argument("spec"),
    "description": _TEXT,
    "default_args": Argument("spec"),
    "start_date": _DATETIME,
    "end_date": _DATETIME,
    "schedule": Argument("spec"),
    "template_searchpath": Argument("code", instead="name a file of configs/sql/ in a step's with"),
    "template_undefined": _CODE,
    "user_defined_macros": _CODE,
    "user_defined_filters": _CODE,
    "max_active_tasks": _POSITIVE,
    "max_active_runs": _POSITIVE,
    "max_consecutive_failed_dag_runs": _NOT_NEGATIVE,
    "dagrun_timeout": _DURATION,
    "deadline": Argument("deadline"),
    "sla_miss_callback": _CODE,
    "catchup": _BOOLEAN,
    "on_success_callback": Argument("code", instead="write notify: {on_success: <connection>}"),
    "on_failure_callback": Argument("code", instead="write notify: {on_failure: <connection>}"),
    "doc_md": _TEXT,
    "params": Argument("spec"),
    "access_control": Argument("code", instead="who may see and run a pipeline is set in Airflow, by its admin"),
    "is_paused_upon_creation": _BOOLEAN,
    "jinja_environment_kwargs": _CODE,
    "render_template_as_native_obj": Argument("code", instead="a value that is a single {{ … }} keeps its type anyway"),
    "tags": _TEXTS,
    "owner_links": Argument("links"),
    "auto_register": _CODE,
    "fail_fast": _BOOLEAN,
    "allowed_run_types": Argument("choices", choices=_RUN_TYPES),
    "dag_display_name": _NAME,
    "task_group": Argument("code", instead="write a step with steps: below it"),
    "disable_bundle_versioning": _BOOLEAN,
    "rerun_with_latest_version": _BOOLEAN,
}

_TRIGGER_RULES = (
    "all_done", "all_done_min_one_success", "all_done_setup_success", "all_failed", "all_skipped", "all_success",
    "always", "none_failed", "none_failed_min_one_success", "none_skipped", "one_done", "one_failed", "one_success",
)  # fmt: skip

TASK_ARGUMENTS: Mapping[str, Argument] = {
    "task_id": Argument("code", instead="the key of the step is its task_id"),
    "owner": _NAME,
    "email": _TEXTS,
    "email_on_retry": _BOOLEAN,
    "email_on_failure": _BOOLEAN,
    "retries": _NOT_NEGATIVE,
    "retry_delay": _DURATION,
    "retry_exponential_backoff": Argument("number", 0),
    "max_retry_delay": _DURATION,
    "retry_policy": Argument("retry_policy"),
    "start_date": _DATETIME,
    "end_date": _DATETIME,
    "depends_on_past": _BOOLEAN,
    "ignore_first_depends_on_past": _BOOLEAN,
    "wait_for_past_depends_before_skipping": _BOOLEAN,
    "wait_for_downstream": _BOOLEAN,
    "dag": _CODE,
    "params": Argument("code", instead="declare params at the top of the spec"),
    "default_args": Argument("code", instead="set default_args at the top of the spec"),
    "priority_weight": _INTEGER,
    "weight_rule": Argument("choice", choices=("absolute", "downstream", "upstream")),
    "queue": _NAME,
    "pool": _NAME,
    "pool_slots": _POSITIVE,
    "sla": _CODE,
    "execution_timeout": _DURATION,
    "on_execute_callback": _CODE,
    "on_failure_callback": Argument("code", instead="write notify: {on_failure: <connection>}"),
    "on_success_callback": Argument("code", instead="write notify: {on_success: <connection>}"),
    "on_retry_callback": Argument("code", instead="write notify: {on_retry: <connection>}"),
    "on_skipped_callback": _CODE,
    "pre_execute": _CODE,
    "post_execute": _CODE,
    "trigger_rule": Argument("choice", choices=_TRIGGER_RULES),
    "resources": Argument("code", instead="name a `queue`: its workers have the resources"),
    "run_as_user": Argument("code", instead="a task runs as the user of its worker"),
    "map_index_template": Argument("code", instead="Airflow renders it with its own objects"),
    "max_active_tis_per_dag": _POSITIVE,
    "max_active_tis_per_dagrun": _POSITIVE,
    "executor": Argument("code", instead="the executor is set in Airflow, by its admin; name a `queue`"),
    "executor_config": Argument("code", instead="the executor is set in Airflow, by its admin; name a `queue`"),
    "do_xcom_push": Argument("code", instead="other steps may refer to what a task returns, so it is always kept"),
    "multiple_outputs": Argument("code", instead="refer to a field with {{ steps.<id>.<field> }}"),
    "inlets": _ASSETS,
    "outlets": _ASSETS,
    "task_group": Argument("code", instead="write a step with steps: below it"),
    "doc": _TEXT,
    "doc_md": _TEXT,
    "doc_json": _TEXT,
    "doc_yaml": _TEXT,
    "doc_rst": _TEXT,
    "task_display_name": _NAME,
    "logger_name": _TEXT,
    "allow_nested_operators": _CODE,
    "render_template_as_native_obj": Argument("code", instead="a value that is a single {{ … }} keeps its type anyway"),
}

GROUP_ARGUMENTS: Mapping[str, Argument] = {
    "tooltip": _TEXT,
    "ui_color": _TEXT,
    "ui_fgcolor": _TEXT,
    "group_display_name": _TEXT,
}

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)")
DURATION = re.compile(r"\s*\d+(?:\.\d+)?\s*(?:ms|s|m|h|d|w)(?:\s*\d+(?:\.\d+)?\s*(?:ms|s|m|h|d|w))*\s*\Z")


def read_argument(argument: Argument, value: Value) -> ArgumentValue:
    """Return `value` as Airflow takes it; raise ValueError, whose text is what was expected."""
    reader = _READERS[argument.kind]
    return reader(argument, value)


def read_duration(value: Value) -> dt.timedelta:
    """Return `30s`, `5m` or `1h 30m` as a timedelta."""
    if not isinstance(value, str) or not DURATION.match(value):
        raise ValueError("a duration such as 30s, 5m or 1h 30m")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _DURATION_PART.findall(value))
    try:
        return dt.timedelta(seconds=seconds)
    except OverflowError:
        raise ValueError(f"a duration of at most {dt.timedelta.max.days}d") from None


def read_datetime(value: Value) -> dt.datetime:
    """Return `2026-01-01` or `2026-01-01 06:30` as a datetime, without a zone if none is written."""
    try:
        read = dt.datetime.fromisoformat(value) if isinstance(value, str) else _refuse_datetime()
    except ValueError:
        return _refuse_datetime()
    return read if dt.MINYEAR < read.year < dt.MAXYEAR else _refuse_datetime()  # in UTC it could be outside


def _refuse_datetime() -> dt.datetime:
    raise ValueError("a date such as 2026-01-01 or 2026-01-01 06:30")


def _boolean(_argument: Argument, value: Value) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def _number(argument: Argument, value: Value) -> int | float:
    kinds: tuple[type, ...] = (int,) if argument.kind == "integer" else (int, float)
    noun = "a whole number" if argument.kind == "integer" else "a number"
    bound = "" if argument.minimum is None else f" of at least {argument.minimum:g}"
    if isinstance(value, bool) or not isinstance(value, kinds) or not isinstance(value, int | float):
        raise ValueError(f"{noun}{bound}")
    if argument.minimum is not None and value < argument.minimum:
        raise ValueError(f"{noun}{bound}")
    if abs(value) > MAX_INTEGER:
        raise ValueError(f"{noun} of at most {MAX_INTEGER:,}")
    return value


def _text(argument: Argument, value: Value) -> str:
    if not isinstance(value, str):
        raise ValueError("a text")
    if "\0" in value:
        raise ValueError("a text without the character NUL")
    if argument.longest is not None and len(value) > argument.longest:
        raise ValueError(f"a text of at most {argument.longest} characters")
    return value


def _texts(_argument: Argument, value: Value) -> list[Value]:
    values: list[Value] = list(value) if isinstance(value, list) else [value]
    if not all(isinstance(one, str) and "\0" not in one for one in values):
        raise ValueError("a list of texts")
    return values


_LINK = re.compile(r"(?:https?://[\w.:@-]+(?:[/?#][^\s<>\"']*)?|mailto:[^\s<>\"']+)\Z")
_LONGEST_LINK = 500


def _links(_argument: Argument, value: Value) -> dict[str, Value]:
    links = value.values() if isinstance(value, dict) else [None]
    if not isinstance(value, dict) or not all(
        isinstance(one, str) and len(one) <= _LONGEST_LINK and _LINK.match(one) for one in links
    ):
        raise ValueError("a mapping from owners to addresses that begin with https://, http:// or mailto:")
    return value


def _assets(_argument: Argument, value: Value) -> list[AssetSpec]:
    return [read_asset(one) for one in (value if isinstance(value, list) else [value])]


def read_asset(value: Value) -> AssetSpec:
    """Return an asset written as its name, or as `{name: …, uri: …}`."""
    if isinstance(value, str) and value.strip():
        return AssetSpec(value)
    if isinstance(value, dict) and set(value) <= {"name", "uri"}:
        name, uri = value.get("name"), value.get("uri")
        if isinstance(name, str) and name and (uri is None or isinstance(uri, str)):
            return AssetSpec(name, uri)
    raise ValueError("an asset: its name, or {name: …, uri: …}")


def _retry_policy(_argument: Argument, value: Value) -> list[RetryRule] | None:
    if value is None:
        return None
    if not isinstance(value, dict) or not value or not set(value) <= set(RETRIED):
        raise ValueError(f"a mapping with the keys {', '.join(RETRIED[:-1])} and {RETRIED[-1]}, or some of them")
    return [_retry_rule(error, rule) for error, rule in value.items()]


def _retry_rule(error: str, rule: Value) -> RetryRule:
    if not isinstance(rule, dict) or not rule or not set(rule) <= {"retries", "retry_delay"}:
        raise ValueError(f"one whose {error} is like {{retries: 1, retry_delay: 5m}}, or one of the two")
    retries, delay = (_part_of_rule(error, rule, name) for name in ("retries", "retry_delay"))
    assert isinstance(retries, int | None)
    assert isinstance(delay, dt.timedelta | None)
    return RetryRule(error, retries, delay)


def _part_of_rule(error: str, rule: dict[str, Value], name: str) -> ArgumentValue:
    try:
        return read_argument(TASK_ARGUMENTS[name], rule[name]) if name in rule else None
    except ValueError as wrong:
        raise ValueError(f"one whose {error}.{name} is {wrong}") from None


def _deadline(argument: Argument, value: Value) -> Deadline | None:
    if value is None:
        return None
    given = value if isinstance(value, dict) else {"interval": value}
    reference, references = given.get("reference", REFERENCES[0]), argument.choices or REFERENCES
    if "interval" not in given or not set(given) <= {"interval", "reference"}:
        raise ValueError("a duration such as 2h, or {interval: 2h, reference: logical_date}")
    if not isinstance(reference, str) or reference not in references:
        raise ValueError(f"one whose reference is {' or '.join(references)}")
    interval = read_duration(given["interval"])
    if not interval:
        raise ValueError("a duration above 0")
    return Deadline(interval, reference)


STEP_DEADLINE = Argument("deadline", choices=REFERENCES[:2])
"""When a step should have ended, counted for its run: Airflow has no such argument."""


def _choice(argument: Argument, value: Value) -> str:
    if not isinstance(value, str) or value not in argument.choices:
        raise ValueError(f"one of {', '.join(argument.choices)}")
    return value


def _choices(argument: Argument, value: Value) -> list[Value]:
    values = value if isinstance(value, list) else [value]
    chosen: list[Value] = [_choice(argument, one) for one in values]
    return chosen


_READERS: Mapping[ArgumentKind, Callable[[Argument, Value], ArgumentValue]] = {
    "boolean": _boolean,
    "integer": _number,
    "number": _number,
    "text": _text,
    "texts": _texts,
    "duration": lambda _, value: read_duration(value),
    "datetime": lambda _, value: read_datetime(value),
    "links": _links,
    "assets": _assets,
    "retry_policy": _retry_policy,
    "deadline": _deadline,
    "choice": _choice,
    "choices": _choices,
}
