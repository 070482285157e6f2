"""A report on drift: the order of things.

Does not know how rows are read and drawn (`tasks.drift.reading`), how they are judged (`tasks.drift.judging`) or how
MLflow keeps it (`tasks.drift.report_run`). Bucket and MLflow are checked before anything is computed; the page is
replaced last, in the bucket and then among the files, so a run that fails leaves the old one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from pydantic import Field

from tasks.contract import Bucket, ConnectionId, DataFile, Link, Model, Output, Run, WrittenFile, reusable
from tasks.draws import draw_key
from tasks.drift.columns import Columns, tests
from tasks.drift.compared_rows import Source, parts
from tasks.drift.judging import Judgement, judge
from tasks.drift.page import headed
from tasks.drift.reading import Side, read
from tasks.drift.report_run import SHARE, Record, begin
from tasks.drift.sampling import Sampler
from tasks.files.places import Files
from tasks.files.run_files import files_of
from tasks.services.objects import bucket_errors, object_store
from tasks.services.tracking import ExperimentName, run_page, tracking, tracking_errors

Share = Annotated[float, Field(ge=0, le=1)]


class Publication(Model):
    """Where people read the report: `<prefix>/<date>.html` in a bucket of an object store.

    That is the last one of the date; each run's own stays in `<prefix>/runs/`.
    """

    connection: ConnectionId
    bucket: Bucket
    prefix: DataFile


class Recording(Model):
    """Where scores become lines over time: an MLflow experiment."""

    connection: ConnectionId
    experiment: ExperimentName


class Drift(Output):
    """What a report found, and where to see it."""

    drift_detected: bool
    """Whether the share of drifted columns is above the allowed maximum."""
    drift_share: float
    drifted_columns: list[str]
    columns: int
    """Columns that were compared."""
    scores: dict[str, float]
    """By column: a distance or a p-value, as its method gives it."""
    drifted_by_nulls: list[str]
    """Those of `drifted_columns` whose share of rows without a value has changed by `null_threshold` or more."""
    current_nulls: dict[str, float]
    """By column: the share of the rows used that have no value."""
    reference_nulls: dict[str, float]
    current_rows: int
    current_rows_used: int
    reference_rows: int
    reference_rows_used: int
    report_path: str = ""
    """The run's own page: its path on the workers' disk, or its address in the bucket of the files."""
    s3_key: str | None = None
    """Of the last page of the date, in the bucket of `publish`."""
    report: Link | None = None
    """The run's own page there."""
    run_page: Link | None = None
    summary: str
    """The result in one sentence."""


@reusable("drift.report", role="report")
def report(
    current: Source,
    reference: Source,
    columns: Columns,
    output: WrittenFile,
    files: Files,
    max_drift_share: Share = 0.5,
    sample_rows: Annotated[int, Field(ge=1, le=200_000)] = 20_000,
    publish: Publication | None = None,
    record: Recording | None = None,
    *,
    run: Run,
) -> Drift:
    """Compare the current rows with those of a reference, column by column, and report which columns have drifted.

    `current` and `reference` are each a parquet file, the last snapshots of a history, or a query in Postgres. At most
    `sample_rows` rows of each are drawn, with a seed computed from the run's date; page and output say how many. The
    page is Evidently's; it is written as `<date>.html` to the folder `output`, and to the bucket of `publish`. In the
    experiment of `record` each report is a run, and another run has share and scores as lines over time. Drift is
    detected if the share of drifted columns is above `max_drift_share`. A column has drifted if its values have, by its
    method, or if the share of rows without a value has changed by its `null_threshold`; page and output have both, and
    how many values were compared. A step that can run for several dates at the
    same time needs `max_active_tis_per_dag: 1`.

    Raises DataRejected for tables that cannot be compared (columns, types, no rows, no values, numbers that would be
    rounded), PermanentError for a column that its method cannot compare, with the methods that can, and MissingResource
    for a missing file, history, table or bucket. A step that fails leaves the last report as it was.
    """
    if publish:
        _check_bucket(publish)
    with _recorded(record, run) as kept:
        now = read("current", parts(current, columns.all, files, run), columns, _sampler("current", sample_rows, run))
        then = read(
            "reference",
            parts(reference, columns.all, files, run),
            columns,
            _sampler("reference", sample_rows, run),
            now,
        )
        judgement = judge(now, then, columns, max_drift_share)
        drift = _drift(judgement, now, then, max_drift_share)
        if kept:
            kept.log(_params(now, then, columns, max_drift_share), _metrics(drift))
        page = headed(judgement.page, f"Drift on {run.date}", _facts(now, then, drift, run))
        drift = drift.model_copy(update=_written(page, output, files, publish, run))
        if kept:
            kept.finish(drift.report or drift.report_path, drift.drifted_columns)
            assert record is not None
            drift = drift.model_copy(update={"run_page": run_page(record.connection, kept.run_id, kept.experiment)})
    run.log.info("%s; see %s", drift.summary, drift.report or drift.report_path)
    return drift


def _sampler(side: str, rows: int, run: Run) -> Sampler:
    return Sampler(rows, draw_key("drift.report", run.date, side))


@contextmanager
def _recorded(record: Recording | None, run: Run) -> Iterator[Record | None]:
    """Provide the MLflow run to record in; it is deleted if the block fails."""
    if record is None:
        yield None
        return
    client = tracking(record.connection)
    with tracking_errors(record.connection):
        kept = begin(client, record.experiment, run)
        try:
            yield kept
        except BaseException:
            kept.discard()
            raise


def _drift(judgement: Judgement, now: Side, then: Side, max_share: float) -> Drift:
    detected, named = judgement.share > max_share, ", ".join(_named(judgement)) or "none"
    sign, verdict = (">", "drift") if detected else ("<=", "no drift")
    counted = f"{len(judgement.drifted)} of {len(judgement.scores)} columns drifted ({named})"
    return Drift(
        drift_detected=detected,
        drift_share=judgement.share,
        drifted_columns=judgement.drifted,
        columns=len(judgement.scores),
        scores=dict(judgement.scores),
        drifted_by_nulls=judgement.by_nulls,
        current_nulls=_rounded(now.nulls),
        reference_nulls=_rounded(then.nulls),
        current_rows=now.total,
        current_rows_used=now.used,
        reference_rows=then.total,
        reference_rows_used=then.used,
        summary=f"{verdict}: {counted}, a share of {judgement.share:.3g} {sign} {max_share:.3g}",
    )


def _named(judgement: Judgement) -> list[str]:
    return [f"{name} by its nulls" if name in judgement.by_nulls else name for name in judgement.drifted]


def _rounded(shares: dict[str, float]) -> dict[str, float]:
    return {name: round(share, 6) for name, share in shares.items()}


def _facts(now: Side, then: Side, drift: Drift, run: Run) -> dict[str, str]:
    """Return the facts at the head of the page."""
    return {
        "Verdict": drift.summary,
        "Current": _described(now),
        "Reference": _described(then),
        "Values compared": "; ".join(_counted(name, now, then) for name in drift.scores),
        "Below": "what the methods say of these values; rows without a value are counted only here",
        "Pipeline": f"{run.dag_id}, run {run.run_id}",
    }


def _counted(name: str, now: Side, then: Side) -> str:
    counts = f"{now.values[name]:,} now and {then.values[name]:,} in the reference"
    if not (now.nulls[name] or then.nulls[name]):
        return f"{name} {counts}"
    return f"{name} {counts} (no value in {now.nulls[name]:.1%} and {then.nulls[name]:.1%} of the rows)"


def _described(side: Side) -> str:
    rows = f"{side.used:,} of {side.total:,} rows used"
    places = side.addresses[0] if len(side.addresses) == 1 else f"{len(side.addresses)} snapshots, {_ends(side)}"
    return f"{rows}, from {places}"


def _ends(side: Side) -> str:
    return f"{side.addresses[0]} to {side.addresses[-1].rpartition('/')[2]}"


def _params(now: Side, then: Side, columns: Columns, max_share: float) -> dict[str, object]:
    """Return the params of the MLflow run."""
    judged = {f"test/{name}": f"{test.method} {test.threshold:g}" for name, test in tests(columns).items()}
    return {"max_drift_share": max_share, "current": _described(now), "reference": _described(then)} | judged


def _metrics(drift: Drift) -> dict[str, float]:
    """Return the metrics that become lines over time."""
    scores = {f"score/{name.replace('$', '-')}": score for name, score in drift.scores.items()}
    nulls = {f"nulls/{name.replace('$', '-')}": share for name, share in drift.current_nulls.items()}
    return {SHARE: drift.drift_share, "drifted_columns": len(drift.drifted_columns)} | scores | nulls


# --- where the page goes ----------------------------------------------------------------------------------------


def _written(page: str, output: str, files: Files, publish: Publication | None, run: Run) -> dict[str, str]:
    """Write the page to its places, the bucket first: if the bucket refuses it, the file stays as it was."""
    of_run, path = files_of(files, run), f"{output}/{run.date}.html"
    places = {"report_path": of_run.address(path)}
    with of_run.write(path) as file:
        file.write_text(page, encoding="utf-8")
        if publish:
            own, key = f"{publish.prefix}/runs/{of_run.name}.html", f"{publish.prefix}/{run.date}.html"
            for one in (own, key):
                _upload(page.encode(), publish, one)
            places |= {"s3_key": key, "report": f"s3://{publish.bucket}/{own}"}
    return places


def _check_bucket(publish: Publication) -> None:
    """Raise if the bucket is missing or refuses access, before anything is computed."""
    with bucket_errors(publish.connection, publish.bucket):
        object_store(publish.connection).head_bucket(Bucket=publish.bucket)


def _upload(page: bytes, publish: Publication, key: str) -> None:
    with bucket_errors(publish.connection, publish.bucket):
        object_store(publish.connection).put_object(Bucket=publish.bucket, Key=key, Body=page, ContentType="text/html")
