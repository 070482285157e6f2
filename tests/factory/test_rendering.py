"""How a worker renders a template."""

import datetime as dt
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.definitions._internal.templater import SandboxedEnvironment
from jinja2 import StrictUndefined

from factory.bridge.rendering import RenderedLater
from factory.language.templates import CLOSED_NAMES, Template
from tasks.contract import PermanentError

OUTPUTS = {"train": {"auc": 0.81, "files": ["a", "b"]}, "skip": None}


def context(**params: Any) -> dict[str, Any]:
    ti = SimpleNamespace(
        dag_id="d", run_id="r", task_id="t", try_number=2, map_index=-1, xcom_pull=lambda task_ids: OUTPUTS[task_ids]
    )
    dag_run = SimpleNamespace(
        logical_date=dt.datetime(2026, 1, 31, 23, tzinfo=dt.UTC),
        run_after=None,
        data_interval_start=None,
        data_interval_end=None,
    )
    dag = SimpleNamespace(timezone=dt.timezone(dt.timedelta(hours=2)), dag_id="d")
    task = SimpleNamespace(get_template_env=lambda: SandboxedEnvironment(undefined=StrictUndefined))
    return {
        "ti": ti,
        "dag_run": dag_run,
        "dag": dag,
        "task": task,
        "params": params,
        "ds": "2026-01-31",
        "conn": object(),
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{{ params.days }}", 5),
        ("{{ params.days + 1 }}", 6),
        ("{{ params.days > 3 and not params.dry }}", True),
        ("{{ run.date }}", dt.date(2026, 2, 1)),
        ("{{ run.try_number }}", 2),
        ("{{ steps.train.auc }}", 0.81),
        ("{{ steps.train.files }}", ["a", "b"]),
        ("auc {{ steps.train.auc }} on {{ ds }}", "auc 0.81 on 2026-01-31"),
        ("{{ params.days }} days", "5 days"),
        (" {{ params.days }}", " 5"),
    ],
)
def test_rendered_value_keeps_type(text: str, value: object) -> None:
    """One whole expression keeps its type, anything else is text; the date is that of the DAG's time zone."""
    template = Template(text, tasks=((("train",), "train"),))

    assert RenderedLater(template).resolve(context(days=5, dry=False)) == value


def test_sql_values_enter_quoted() -> None:
    """A value in SQL is a literal, whatever it holds."""
    template = Template("site = {{ params.site }} AND day > {{ run.date }} - {{ params.days }}", sql=True)

    assert (
        RenderedLater(template).resolve(context(site="x'; DROP TABLE t; --", days=5))
        == "site = 'x''; DROP TABLE t; --' AND day > DATE '2026-02-01' - 5"
    )


def test_skipped_step_has_no_output() -> None:
    """A field of a step that did not run is a clear error."""
    template = Template("{{ steps.skip.rows }}", tasks=((("skip",), "skip"),))

    with pytest.raises(
        PermanentError, match='step "skip" has no output "rows" in this run: it was skipped or has not run'
    ):
        RenderedLater(template).resolve(context())


def test_connections_are_out_of_reach() -> None:
    """A template cannot read a secret, even when lint was not asked."""
    with pytest.raises(Exception, match="'conn' is undefined"):
        RenderedLater(Template("{{ conn.crypto_postgres.password }} x")).resolve(context())


@pytest.mark.parametrize("closed", ["''.__class__.__mro__", "run.date.__class__", "steps.train._step"])
def test_sandbox_refuses_internals(closed: str) -> None:
    """A sandbox stands between a template and Python."""
    with pytest.raises(Exception, match="unsafe"):
        RenderedLater(Template("{{ " + closed + " }}", tasks=((("train",), "train"),))).resolve(context())


@pytest.mark.parametrize("name", [*CLOSED_NAMES, "range", "cycler", "lipsum"])
def test_objects_are_out_of_reach(name: str) -> None:
    """No object of Airflow's and no function of Jinja's is in the names of a template, even when lint was not asked."""
    everything = context() | dict.fromkeys(CLOSED_NAMES, SimpleNamespace()) | {"ti": context()["ti"]}

    with pytest.raises(Exception, match=f"'{name}' is undefined"):
        RenderedLater(Template("{{ " + name + ".x }}")).resolve(
            everything | {k: context()[k] for k in ("dag", "dag_run", "task")}
        )
