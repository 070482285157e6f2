"""Train a classifier over a grid on Spark, and record it in MLflow: the order of things.

Does not know how rows become vectors (`tasks.models.preparation`), how candidates are measured
(`tasks.models.scoring`), how a model leaves Spark (`tasks.models.portable`) or how MLflow keeps it
(`tasks.models.training_run`). Nothing is recorded before MLflow has answered and the data has been checked; the model
is logged last, after it has been proved equal to Spark's.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from tasks.contract import ConnectionId, DataColumn, DataFile, Link, Output, Run, reusable
from tasks.files.places import Files
from tasks.models.classifiers import Candidate, Classifier, estimator
from tasks.models.explanations import explained
from tasks.models.portable import check_same, portable, save_model
from tasks.models.preparation import (
    HELD_OUT,
    LABEL,
    VECTOR,
    Features,
    Input,
    Layout,
    Profile,
    assembled,
    checked_columns,
    fitted_inputs,
    profiled,
    sampled,
    split_rows,
    vector_stages,
)
from tasks.models.scoring import Scores, Threshold, score_candidates
from tasks.models.training_plots import draw
from tasks.models.training_run import HOLDOUT, RESULT, Dataset, Recorder, recorder
from tasks.services.tracking import ExperimentName, run_page, tracking, tracking_errors
from tasks.spark.parquet import read_frame
from tasks.spark.reach import reach_of
from tasks.spark.session import spark_session

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.ml import PipelineModel
    from pyspark.ml.base import Transformer
    from pyspark.ml.classification import ProbabilisticClassificationModel
    from pyspark.sql import DataFrame

_SAMPLE_ROWS = 100_000
"""Holdout rows kept with the run: enough to compare two models, few enough for one process."""
_FORMAT = 2
"""Part of the fingerprint: raise it when the same data and arguments would give another result."""


class Training(Output):
    """The best candidate, how good it is, and where to see it."""

    run_id: str
    run_page: Link
    model_uri: str
    """The address to load the model from in MLflow; `models.evaluate` finds it by `run_id`."""
    experiment: str
    best: str
    """The point of the grid with the best ROC AUC on the holdout."""
    candidates: int
    train_rows: int
    holdout_rows: int
    roc_auc: float
    pr_auc: float
    log_loss: float
    brier: float
    accuracy: float
    threshold: float
    """The decision threshold; `accuracy` uses it."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """A candidate, fitted."""

    candidate: Candidate
    model: ProbabilisticClassificationModel
    seconds: float


@dataclass(frozen=True, slots=True)
class Measured:
    """A candidate, fitted and measured on the holdout."""

    fitted: Fitted
    scores: Scores

    @property
    def roc_auc(self) -> float:
        """The metric that decides which candidate is best."""
        return self.scores.metrics["roc_auc"]


@dataclass(frozen=True, slots=True)
class Job:
    """What to train, and for which run."""

    layout: Layout
    candidates: list[Candidate]
    threshold: Threshold
    parallelism: int
    run: Run


@reusable("spark.train_classifier", role="train")
def train_classifier(
    spark: ConnectionId,
    mlflow: ConnectionId,
    experiment: ExperimentName,
    files: Files,
    data: DataFile,
    key: DataColumn,
    label: DataColumn,
    features: Features,
    classifier: Classifier,
    holdout: Annotated[float, Field(gt=0, lt=0.9)] = 0.2,
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0,
    threshold: Threshold = 0.5,
    parallelism: Annotated[int, Field(ge=1, le=16)] = 3,
    *,
    run: Run,
) -> Training:
    """Fit a classifier over a grid on the rows of `data`, and record the best and all others in MLflow.

    `classifier` names one of `logistic_regression`, `decision_tree`, `random_forest` and `gradient_boosted_trees`, with
    lists of values to try. Nulls of numeric features become the mean, numbers are standardised, and each level of a
    categorical feature becomes an indicator, with one more for null and unknown levels: all learned from the training
    rows. A hash of `key` and `seed` holds out the share `holdout` of the rows, to measure the candidates on. The run in
    MLflow has the candidates as nested runs, plots, SHAP values, a sample of the holdout, Spark's own model and the one
    that scores without Java, logged once they are known to agree to 1e-9. A retry or rerun on the same data with the
    same arguments returns the existing run. Raises DataRejected for data that nothing can be learned from,
    MissingResource for a missing column, TransientError if Spark or MLflow does not answer.
    """
    layout = Layout(data, key, label, features, holdout, seed)
    job = Job(layout, classifier.candidates(), threshold, parallelism, run)
    client, reach = tracking(mlflow), reach_of(files, run)
    with tracking_errors(mlflow):
        client.search_experiments(max_results=1)  # let MLflow refuse before Spark has worked for minutes

    def _training(result: dict[str, Any]) -> Training:
        page = run_page(mlflow, result["run_id"], records.experiment)
        return Training(**result, experiment=experiment, run_page=page)

    with ExitStack() as open_files, spark_session(spark, run, files) as session:
        source = open_files.enter_context(reach.read(data))
        frame = read_frame(session, source)
        with prepared(frame, job) as rows, tracking_errors(mlflow):
            made_from = {"spark": [layout, classifier, threshold], "data": rows.profile.digest}
            records = recorder(client, experiment, run, _fingerprint(made_from))
            if before := records.finished():
                run.log.info("already trained on the same data with the same arguments: run %s", before.info.run_id)
                return _training(json.loads(before.data.tags[RESULT]))
            records.clear()
            schema = {field.name: field.dataType.simpleString() for field in frame.schema.fields}
            dataset = Dataset(data, rows.profile.digest, source.shown, schema, rows.profile.rows)
            return _training(_recorded(rows, job, records, dataset))


def _fingerprint(made_from: dict[str, Any]) -> str:
    text = json.dumps({"format": _FORMAT, **made_from}, sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump()
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


@dataclass(frozen=True, slots=True)
class Prepared:
    """Rows that were checked, and the frame to read them from again."""

    frame: DataFrame
    rows: DataFrame
    profile: Profile


@contextmanager
def prepared(frame: DataFrame, job: Job) -> Iterator[Prepared]:
    """Check the rows and keep them in Spark's memory during the block."""
    checked_columns(frame, job.layout)
    rows = split_rows(frame, job.layout).persist()
    try:
        yield Prepared(frame, rows, profiled(rows, job.layout, job.run.log))
    finally:
        rows.unpersist()


@dataclass(frozen=True, slots=True)
class Fit:
    """All candidates, measured, and what turns rows into vectors."""

    measured: list[Measured]
    inputs: list[Input]
    stages: list[Transformer]

    @property
    def best(self) -> Measured:
        """The highest ROC AUC; the first in the grid among equals."""
        return max(self.measured, key=lambda candidate: candidate.roc_auc)


def fit_grid(given: Prepared, job: Job) -> Fit:
    """Fit every candidate on the training rows, and measure it on the others."""
    inputs = fitted_inputs(given.frame, given.rows, job.layout, given.profile)
    stages = vector_stages(inputs)
    # A checkpoint, not only a cache: else each of some hundred jobs would carry the whole plan of the vectors.
    vectors = assembled(given.rows, stages).localCheckpoint()
    given.rows.unpersist()
    fitted = fit_candidates(vectors, job)
    scores = score_candidates(vectors, HELD_OUT, [candidate.model for candidate in fitted], LABEL, job.threshold)
    return Fit([Measured(*both) for both in zip(fitted, scores, strict=True)], inputs, stages)


def fit_candidates(vectors: DataFrame, job: Job) -> list[Fitted]:
    """Return all candidates fitted, `parallelism` of them at a time, in the order of the grid."""
    train = vectors.where(f"NOT {HELD_OUT}").select(LABEL, VECTOR)

    def fit(candidate: Candidate) -> Fitted:
        started = monotonic()
        model: Any = estimator(candidate, label=LABEL, features=VECTOR, seed=job.layout.seed).fit(train)
        return Fitted(candidate, model, monotonic() - started)

    done: dict[int, Fitted] = {}
    threads = ThreadPoolExecutor(job.parallelism)
    try:
        for future in as_completed([threads.submit(fit, candidate) for candidate in job.candidates]):
            fitted = future.result()
            done[fitted.candidate.number] = fitted
            many = f"{len(done)} of {len(job.candidates)}"
            job.run.log.info("fitted %s in %.1f s (%s)", fitted.candidate, fitted.seconds, many)
    finally:
        threads.shutdown(cancel_futures=True)  # after an error, do not fit the rest
    return [done[number] for number in sorted(done)]


def _recorded(given: Prepared, job: Job, records: Recorder, dataset: Dataset) -> dict[str, Any]:
    """Train within an MLflow run, which ends as finished or failed."""
    run_id = records.begin(_params(job), dataset)
    try:
        records.check_store(run_id)
        fit = fit_grid(given, job)
        job.run.log.info("%s", _table(fit))
        for measured in fit.measured:
            candidate = measured.fitted.candidate
            metrics = {**measured.scores.metrics, "fit_seconds": measured.fitted.seconds}
            records.nested(run_id, f"{candidate.number + 1:02} {candidate}", candidate.params, metrics)
        with tempfile.TemporaryDirectory(prefix="taskflow-") as folder:
            uri = _logged(given, job, fit, records, run_id, Path(folder))
        result = _result(run_id, uri, given.profile, fit)
        records.finish(run_id, json.dumps(result))
    except BaseException:
        records.fail(run_id)
        raise
    return result


def _params(job: Job) -> dict[str, object]:
    layout = job.layout
    return {
        "data": layout.file,
        "key": layout.key,
        "label": layout.label,
        "numeric_features": len(layout.features.numeric),
        "categorical_features": len(layout.features.categorical),
        "holdout": layout.holdout,
        "seed": layout.seed,
        "threshold": job.threshold,
        "candidates": len(job.candidates),
    }


def _result(run_id: str, uri: str, profile: Profile, fit: Fit) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "model_uri": uri,
        "best": str(fit.best.fitted.candidate),
        "candidates": len(fit.measured),
        "train_rows": profile.train.rows,
        "holdout_rows": profile.held_out.rows,
        **fit.best.scores.metrics,
    }


def _table(fit: Fit) -> str:
    """Return a line for each candidate, best first."""
    shown = ("roc_auc", "pr_auc", "log_loss", "brier", "accuracy")
    width = max(len(str(measured.fitted.candidate)) for measured in fit.measured)
    lines = [f"{'candidate':{width}}  {'  '.join(f'{name:>8}' for name in shown)}   seconds"]
    for measured in sorted(fit.measured, key=lambda measured: -measured.roc_auc):
        numbers = "  ".join(f"{measured.scores.metrics[name]:8.5f}" for name in shown)
        lines.append(f"{measured.fitted.candidate!s:{width}}  {numbers}  {measured.fitted.seconds:8.1f}")
    return "measured on the holdout:\n" + "\n".join(lines)


def _logged(given: Prepared, job: Job, fit: Fit, records: Recorder, run_id: str, folder: Path) -> str:
    """Make, check and upload everything about the best candidate; return the address of its model."""
    best, artifacts = fit.best, folder / "artifacts"
    metrics = dict(best.scores.metrics)
    pipeline = _pipeline(best.fitted.model, fit.stages)
    sample = _sample(given, job.layout, fit.inputs, pipeline)
    saved = _save_native(pipeline, artifacts / "spark_model", folder / "scratch")
    numbers = portable(best.fitted.model, saved, fit.inputs, metrics["threshold"])
    model = save_model(numbers, fit.inputs, sample, folder)
    difference = check_same(model, sample, fit.inputs, job.layout.key)
    job.run.log.info("scores without Java match Spark's to %.1e on %s rows", difference, f"{len(sample):,}")
    _draw(best, model, sample, fit.inputs, artifacts)
    sample.to_parquet(artifacts / HOLDOUT, index=False)
    params = best.fitted.candidate.params
    records.log(run_id, params, metrics, artifacts)
    return records.log_model(run_id, model, params, metrics)


def _draw(best: Measured, model: Path, sample: pd.DataFrame, inputs: list[Input], artifacts: Path) -> None:
    """Write the plots and the SHAP values for people and the app."""
    shap = explained(model, sample, [column.name for column in inputs])
    draw(best.scores.curve, best.scores.confusion, dict(best.scores.metrics), shap, artifacts / "plots")
    (artifacts / "shap").mkdir()
    (artifacts / "shap" / "mean_absolute.json").write_text(json.dumps(shap.mean_absolute(), indent=1))


def _pipeline(model: ProbabilisticClassificationModel, stages: list[Transformer]) -> PipelineModel:
    """Return the model with all stages before it, with the column names that Spark's users expect."""
    from pyspark.ml import PipelineModel

    for name in ("rawPrediction", "probability", "prediction"):
        model.set(model.getParam(f"{name}Col"), name)
    return PipelineModel([*stages, model])


def _sample(given: Prepared, layout: Layout, inputs: list[Input], pipeline: PipelineModel) -> pd.DataFrame:
    """Return rows of the holdout, in the types of the model's signature, with Spark's probability."""
    from pyspark.ml.functions import vector_to_array
    from pyspark.sql import functions as sql

    share = min(1.0, _SAMPLE_ROWS / given.profile.held_out.rows)
    held_out = sampled(layout.key, layout.seed, layout.holdout)
    kept = held_out & sampled(layout.key, layout.seed, share, "sample")
    typed = [sql.col(column.name).cast(column.type).alias(column.name) for column in inputs]
    names = [layout.key, layout.label, *(column.name for column in inputs)]
    rows = given.frame.where(kept).select(layout.key, sql.col(layout.label).cast("int").alias(layout.label), *typed)
    probability = vector_to_array(sql.col("probability"))[1].alias("probability")
    frame: pd.DataFrame = pipeline.transform(rows).select(*names, probability).toPandas()
    return frame.sort_values(layout.key, ignore_index=True)


def _save_native(pipeline: PipelineModel, folder: Path, scratch: Path) -> Path:
    """Save the pipeline as MLflow saves Spark models, in `folder`; return the folder of its last stage."""
    from importlib.metadata import version

    import mlflow.spark

    scratch.mkdir()
    mlflow.spark.save_model(
        pipeline, str(folder), dfs_tmpdir=str(scratch), pip_requirements=[f"pyspark=={version('pyspark')}"]
    )
    stages = sorted((folder / "sparkml" / "stages").iterdir(), key=lambda stage: int(stage.name.partition("_")[0]))
    return stages[-1]
