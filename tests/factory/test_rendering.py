"""How a worker fills in a step's values."""

import datetime as dt
import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import Param
from airflow.sdk._shared.secrets_masker import DEFAULT_SENSITIVE_FIELDS
from airflow.sdk.definitions._internal.templater import SandboxedEnvironment, Templater

from factory.bridge.rendering import FilledLater, Item, label
from factory.compiler import compile_content
from factory.language.params import for_form
from factory.language.spec import ParamSpec
from factory.language.templates import Source, Template
from factory.language.value_types import ANY_OBJECT, DATE, DATETIME, INTEGER, NULL, NUMBER, TEXT, list_of
from factory.language.variables import SENSITIVE

OUTPUTS: dict[str, Any] = {
    "train": {"auc": 0.81, "files": ["a", "b"], "day": "2026-01-05", "none": None, "metrics": {"f1": 0.5}},
    "skip": None,
    "mapped": [{"rows": 1}, {"rows": 2}],
    "mapped_once": {"rows": 1},
    "mapped_never": None,
}
SOURCES = (
    Source(("steps", "train", "auc"), (NUMBER,), "train"),
    Source(("steps", "train", "files"), (list_of((TEXT,)),), "train"),
    Source(("steps", "train", "day"), (DATE,), "train"),
    Source(("steps", "train", "none"), (INTEGER, NULL), "train"),
    Source(("steps", "train", "metrics"), (ANY_OBJECT,), "train"),
    Source(("steps", "skip", "rows"), (INTEGER,), "skip"),
    Source(("steps", "mapped", "rows"), (list_of((INTEGER,)),), "mapped", is_mapped=True),
    Source(("steps", "mapped_once", "rows"), (list_of((INTEGER,)),), "mapped_once", is_mapped=True),
    Source(("steps", "mapped_never", "rows"), (list_of((INTEGER,)),), "mapped_never", is_mapped=True),
    Source(("params", "days"), (INTEGER,)),
    Source(("params", "site"), (TEXT,)),
    Source(("params", "since"), (DATE,)),
    Source(("params", "sites"), (list_of((TEXT,)),)),
    Source(("run", "interval_start"), (DATETIME,)),
    Source(("run", "date"), (DATE,)),
)
EVIL = "{{ macros.uuid.os.popen('id').read() }}{% raw %}{# x #}{{ params.days }}"


def context(**params: Any) -> dict[str, Any]:
    ti = SimpleNamespace(
        dag_id="d", run_id="r", task_id="t", try_number=2, map_index=-1, xcom_pull=lambda task_ids: OUTPUTS[task_ids]
    )
    dag_run = SimpleNamespace(
        logical_date=dt.datetime(2026, 1, 31, 23, tzinfo=dt.UTC),
        run_after=None,
        data_interval_start=None,
        data_interval_end=None,
        conf=None,
    )
    dag = SimpleNamespace(timezone=dt.timezone(dt.timedelta(hours=2)), dag_id="d")
    return {"ti": ti, "dag_run": dag_run, "dag": dag, "params": params, "ds": "2026-01-31", "conn": object()}


SPEC = """\
dag_id: made
params:
  days: {type: integer, default: 5}
  dry: {type: boolean, default: false}
  site: {type: string, default: BRASIL}
  items: {type: string, default: hers}
  since: {type: string, format: date, default: 2026-01-02}
  until: {type: string, format: date-time, default: "2026-01-02T03:00:00"}
  loose: {default: 1}
steps:
  train: {uses: messages.log, with: {message: a}}
  skip: {uses: messages.log, with: {message: a}}
  mapped: {uses: messages.log, expand: {message: [a, b]}}
  choose:
    branch:
      - if: "{{ params.days > 3 }}"
        then: made
      - else: other
  other: {uses: messages.log, with: {message: a}}
  made: {uses: messages.log, with: {message: %s}}
"""


def made(text: str, folder: Path, configs: str = "{}") -> FilledLater:
    """Return the values of a step with this text in it, as the factory plans them."""
    (folder / "configs").mkdir(exist_ok=True)
    (folder / "configs" / "defaults.yaml").write_text(configs)
    plan = compile_content((SPEC % json.dumps(text)).encode(), folder / "made.yaml").plan
    assert plan is not None
    return FilledLater("made", {"arguments": plan.node("made").arguments})


def value_of(text: str, folder: Path, configs: str = "{}", **params: Any) -> Any:
    given = {"days": 5, "dry": False, "site": "BRASIL", "items": "hers", "since": "2026-01-02", "loose": 1} | params
    return made(text, folder, configs).resolve(context(**given))["arguments"]["message"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{{ params.days }}", 5),
        ("{{ params.days + 1 }}", 6),
        ("{{ params.days > 3 and not params.dry }}", True),
        ("{{ params.items }}", "hers"),
        ("{{ params.since | add_days(1) }}", dt.date(2026, 1, 3)),
        ("{{ params.until }}", dt.datetime(2026, 1, 2, 3, tzinfo=dt.UTC)),
        ("{{ run.date }}", dt.date(2026, 2, 1)),
        ("{{ run.logical_date }}", dt.datetime(2026, 1, 31, 23, tzinfo=dt.UTC)),
        ("{{ run.try_number }}", 2),
        ("{{ params.days }} days, {{ params.dry }}", "5 days, false"),
        (" {{ params.days }}", " 5"),
        ("on {{ run.date }}", "on 2026-02-01"),
    ],
)
def test_value_keeps_its_type(text: str, value: object, tmp_path: Path) -> None:
    """One whole expression keeps its type, anything else is text; the date is that of the DAG's time zone."""
    assert value_of(text, tmp_path, until="2026-01-02T03:00:00") == value


def later(**texts: Any) -> FilledLater:
    """Return the values of a step with these templates, whose names are known."""
    filled = {name: Template(one, sources=SOURCES) if isinstance(one, str) else one for name, one in texts.items()}
    return FilledLater("load", {"uses": "messages.log", "arguments": filled})


def resolved(text: str, **params: Any) -> Any:
    return later(message=text).resolve(context(days=5, site=EVIL, **params))["arguments"]["message"]


def problem_of(text: str, **params: Any) -> str:
    (problem,) = later(message=text).resolve(context(**({"days": 5, "site": EVIL} | params)))["problems"]
    return str(problem)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{{ steps.train.auc }}", 0.81),
        ("{{ steps.train.files }}", ["a", "b"]),
        ("{{ steps.train.files[-1] }}", "b"),
        ("{{ steps.train.metrics.f1 }}", 0.5),
        ("{{ steps.train.day | add_days(1) }}", dt.date(2026, 1, 6)),
        ("{{ steps.mapped.rows }}", [1, 2]),
        ("{{ steps.mapped_once.rows }}", [1]),
        ("{{ steps.mapped_never.rows }}", []),
        ("{{ sum(steps.mapped.rows) }} rows", "3 rows"),
        ("{{ steps.train.none }}", None),
        ("{{ steps.skip.rows | default(0) }}", 0),
        ("{{ steps.train.none | default(7) }}", 7),
        ("{{ run.interval_start | default(run.date) }}", dt.date(2026, 2, 1)),
    ],
)
def test_outputs_are_typed(text: str, value: object) -> None:
    """A step's output has the types that its task declares: dates are dates, a mapped step's field is a list."""
    assert resolved(text) == value


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "n {{ steps.skip.rows + 1 }}",
            (
                'steps.skip.rows: step "skip" has no output "rows" in this run: it was skipped '
                "or has not run; write … | default(…) with the value to use then"
            ),
        ),
        (
            "{{ 1 / (params.days - 5) }}",
            ("1 / (params.days - 5): it divides by zero; divide only if the divisor is not 0: a / b if b != 0 else 0"),
        ),
        (
            "{{ steps.train.none + 1 }}",
            ("steps.train.none may be null; write steps.train.none | default(…) with the value to use instead"),
        ),
        (
            "{{ run.interval_start }}",
            (
                "run.interval_start: this run has no interval_start: it has no data interval; "
                "write … | default(run.logical_date)"
            ),
        ),
        (
            "{{ steps.train.files[2] }}",
            "steps.train.files[2]: the list has no item [2]: it has 2",
        ),
        (
            "{{ conn.x.password }}",
            "conn.x.password is not known to templates",
        ),
        (
            "{{ params.__class__ }}",
            "params.__class__ is not known to templates",
        ),
    ],
)
def test_problem_names_step_argument_and_remedy(text: str, problem: str) -> None:
    """What cannot be computed says where it is written, what is wrong and what to do."""
    assert problem_of(text) == f'step "load", with.message: {problem}'


def test_value_of_another_type_is_refused() -> None:
    """A param that the form did not check, or an output of an older task, is not of the type that lint relied on."""
    assert "params.days: '5' is not an integer" in problem_of("{{ params.days + 1 }}", days="5")
    assert "params.since: 'soon' is not a date" in problem_of("{{ params.since }}", since="soon")


def test_all_problems_are_told_and_the_rest_is_shown() -> None:
    """The UI shows every value that could be computed; the task fails with all problems."""
    step = later(a="{{ steps.skip.rows }}", b="{{ params.days }}", c="{{ 1 // 0 }}").resolve(context(days=5))

    assert step["arguments"] == {"a": "{{ steps.skip.rows }}", "b": 5, "c": "{{ 1 // 0 }}"}
    assert len(step["problems"]) == 2


def test_sql_values_enter_quoted() -> None:
    """A value in SQL is a literal, whatever it holds."""
    text = "site = {{ params.site }} AND day > {{ run.date }} - {{ params.days }} AND x IN {{ params.sites }}"
    step = later(where=Template(text, sql="sql", sources=SOURCES))

    assert step.resolve(context(site="x'; DROP TABLE t; --", days=-5, sites=["a", "b'"]))["arguments"]["where"] == (
        "site = ('x''; DROP TABLE t; --') AND day > (DATE '2026-02-01') - ((-5)) AND x IN (('a'), ('b'''))"
    )


def test_query_keeps_its_batch() -> None:
    """A value in a query cannot name the batch: what the library would put in its place is SQL."""
    text = "SELECT * FROM {batch} WHERE site = {{ params.site }} OR site = '{}'"
    step = later(query=Template(text, sql="query", sources=SOURCES))

    assert (
        step.resolve(context(site="{batch} __batch__"))["arguments"]["query"]
        == r"SELECT * FROM {batch} WHERE site = ( E'\x7bbatch\x7d __batch__') OR site = '{}'"
    )


class Rendered(Templater):
    """What Airflow does with a task's arguments, with its own Jinja."""

    template_fields = ("op_kwargs",)
    template_ext = ()

    def __init__(self, **op_kwargs: Any) -> None:
        self.op_kwargs = op_kwargs

    def rendered(self, given: Mapping[str, Any]) -> Any:
        self._do_render_template_fields(self, self.template_fields, given, SandboxedEnvironment(), set())  # type: ignore[arg-type]  # a part of Airflow's context
        return self.op_kwargs


def test_airflow_renders_nothing_of_a_spec() -> None:
    """Airflow's Jinja sees no text of a spec and no value of the trigger form, whatever stands in it."""
    step = later(plain={"a": [EVIL]}, given="{{ params.site }}", long="x {{ params.site }}")

    assert Rendered(step=step, with_item=Item(EVIL)).rendered(context(site=EVIL)) == {
        "step": {"uses": "messages.log", "arguments": {"plain": {"a": [EVIL]}, "given": EVIL, "long": f"x {EVIL}"}},
        "with_item": EVIL,
    }


def test_serialized_values_are_as_written() -> None:
    """The serialized DAG keeps the texts of the spec."""
    step = later(message="{{ params.days }}", rows=[Template("{{ run.date }}")])

    assert step.serialize() == {
        "uses": "messages.log",
        "arguments": {"message": "{{ params.days }}", "rows": ["{{ run.date }}"]},
    }
    assert str(step) == json.dumps(step.serialize(), sort_keys=True)


def test_mapped_run_is_labelled() -> None:
    """The UI calls a run of a mapped step by its values, in short."""
    assert label({"with_file": "a.csv", "with_day": dt.date(2026, 1, 2)}) == "a.csv, 2026-01-02"
    assert len(label({"with_text": "x" * 1000})) == 100


# --- Variables ------------------------------------------------------------------------------------------------------


DECLARED = """\
variables:
  region: text
  max_rows: {type: integer, default: 100}
  share: number
  fast: boolean
  since: date
"""


@pytest.mark.parametrize(
    ("name", "written", "value"),
    [
        ("region", EVIL, EVIL),
        ("max_rows", " 7 ", 7),
        ("share", "0.5", 0.5),
        ("share", "2", 2.0),
        ("fast", "True", True),
        ("since", "2026-01-02", dt.date(2026, 1, 2)),
    ],
)
def test_variable_is_typed(
    name: str, written: str, value: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A declared Variable is read when the task starts, as its type; what stands in it is not read again."""
    monkeypatch.setenv(f"AIRFLOW_VAR_{name.upper()}", written)

    assert value_of(f"{{{{ variables.{name} }}}}", tmp_path, DECLARED) == value


@pytest.mark.parametrize(
    ("name", "written", "problem"),
    [
        ("max_rows", "many", "'many' is not an integer"),
        ("fast", "1", "'1' is not a boolean"),
        ("since", "today", "'today' is not a date"),
        ("share", "1e999", "'1e999' is not a number"),
    ],
)
def test_variable_of_another_type_is_refused(
    name: str, written: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Variable that is not of its declared type fails the task with what to correct."""
    monkeypatch.setenv(f"AIRFLOW_VAR_{name.upper()}", written)

    (told,) = made(f"{{{{ variables.{name} }}}}", tmp_path, DECLARED).resolve(context())["problems"]

    assert told == (
        f'step "made", with.message: variables.{name}: the Variable "{name}": {problem}; '
        "correct it under Admin > Variables"
    )


def test_secret_variable_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Variable that this Airflow masks by a word of its own is refused when the task starts."""
    monkeypatch.setenv("AIRFLOW__CORE__SENSITIVE_VAR_CONN_NAMES", "other, regi")
    monkeypatch.setenv("AIRFLOW_VAR_REGION", "EU")

    (told,) = made("{{ variables.region }}", tmp_path, DECLARED).resolve(context())["problems"]

    assert 'Airflow takes the Variable "region" for a secret' in told


def test_sensitive_names_are_airflows() -> None:
    """The names that lint refuses are those that Airflow masks."""
    assert SENSITIVE == DEFAULT_SENSITIVE_FIELDS


def started_with(conf: dict[str, Any] | None = None, **params: Any) -> list[str]:
    """Return what a step says of the values with which its run was started."""
    declared = (
        ParamSpec("site", (), {"type": "string", "pattern": "^(a+)+$"}, "a"),
        ParamSpec("sites", (), {"type": "array", "items": {"type": "string", "pattern": "^[A-Z]+$"}}, []),
        ParamSpec("until", (), {"type": "string", "format": "date-time"}, "2026-01-01T00:00:00"),
    )
    run = context(**params)
    run["dag_run"].conf = conf
    found: list[str] = FilledLater("load", {"arguments": {}}, declared).resolve(run).get("problems", [])
    return found


def test_patterns_are_checked_when_a_run_starts() -> None:
    """Airflow is given no pattern, since some keep its engine busy for hours: each step checks it before its effect."""
    assert started_with(site="aaa", sites=["A", "B"], until="2026-01-01T03:00:00Z") == []
    assert started_with(site="a" * 40 + "!", sites=["A", "b"], until="tomorrow") == [
        f"param \"site\": '{'a' * 40}!' does not match '^(a+)+$'",
        "param \"sites.1\": 'b' does not match '^[A-Z]+$'",
        "param \"until\": 'tomorrow' is not a 'date-time'",
    ]
    assert started_with(sites=[math.nan]) == ['param "sites.0": nan is not a finite number']


def test_items_are_compared_by_the_factory() -> None:
    """Airflow would compare each item with each, for a minute where there are some thousand: it is not asked to."""
    schema = {"type": "array", "uniqueItems": True, "items": {}}
    items: list[Any] = [{"a": place, "b": [1]} for place in range(5000)]
    declared = (ParamSpec("rows", (), {"type": "object", "properties": {"x": schema}}, {}),)

    def problems(value: list[Any]) -> list[str]:
        Param({}, schema=for_form(declared[0].schema)).resolve({"x": value})
        run = FilledLater("load", {"arguments": {}}, declared).resolve(context(rows={"x": value}))
        return run.get("problems", [])  # type: ignore[no-any-return]  # of values that may be anything

    assert problems(items) == []
    assert problems([*items, {"b": [1.0], "a": 7}]) == [
        'param "rows.x": has two equal items, [7] and [5000]; they should be unique'
    ]
    assert problems([1, True, "1", None, False, 0]) == []


def test_flood_of_wrong_values_is_told_in_short() -> None:
    """A run that was started with a hundred thousand wrong names and values fills no log, and no step compares them."""
    names = {f"x{place}": 1 for place in range(100_000)} | {"y" * 1_000_000: 1}
    found = started_with(names, sites=["b" * 1_000_000] * 1000)

    assert found[10] == "the run was started with 99,991 more names that are not params"
    assert len(found) == 11 + 10
    assert max(map(len, found)) < 300


def test_name_that_is_no_param_is_refused() -> None:
    """A run that was started through the API with a misspelt param would do something else than was asked."""
    assert started_with({"site": "a"}, site="a") == []
    assert started_with({"siet": "a"}, site="a") == [
        'the run was started with "siet", which is not a param; did you mean "site"?'
    ]
