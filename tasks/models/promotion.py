"""The gate between a trained candidate and Production, and the promotion itself.

Knows when a candidate is good enough; does not know how models are measured (`tasks.models.comparison`) nor how the
registry keeps them (`tasks.models.versions`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from tasks.contract import ConnectionId, Link, Model, Output, Run, reusable
from tasks.models.comparison import ComparedOn, Comparison, NotComparable, holdout_of, measured, recorded
from tasks.models.digests import DIGEST, StoredModel, of_run
from tasks.models.versions import (
    ARCHIVED,
    DECISION,
    ModelName,
    Registry,
    RunId,
    check_ready,
    finished_run,
    logged_model,
    run_of,
)
from tasks.services.tracking import tracking, tracking_errors, version_page

if TYPE_CHECKING:
    from mlflow.entities import Run as TrackedRun
    from mlflow.entities.model_registry import ModelVersion

Auc = Annotated[float, Field(ge=0, le=1)]


class Terms(Model):
    """What a candidate must reach."""

    margin: float
    minimum: float


class Decision(Model):
    """The result of an evaluation: kept with the version, so a rerun returns the same."""

    promote: bool
    terms: Terms
    production_version: int | None
    roc_auc: float
    production_roc_auc: float | None
    compared_on: ComparedOn
    verdict: str

    @property
    def gain(self) -> float | None:
        """How much better the candidate is than Production."""
        return None if self.production_roc_auc is None else self.roc_auc - self.production_roc_auc

    @property
    def missed_by(self) -> float:
        """How much more was needed."""
        if self.promote:
            return 0.0
        lacking = self.terms.minimum - self.roc_auc if self.gain is None else self.terms.margin - self.gain
        return max(lacking, 0.0)


class Evaluation(Output):
    """Whether a candidate should become Production, and why."""

    promote: bool
    candidate_version: int
    production_version: int | None
    """The version that was Production when this was decided."""
    roc_auc: float
    production_roc_auc: float | None
    gain: float | None
    margin: float
    missed_by: float
    """How much more ROC AUC was needed; 0 if the candidate should be promoted."""
    compared_on: ComparedOn
    """`holdout`: both models scored the same rows. `recorded`: each was measured by its own training."""
    verdict: str
    """The decision in one sentence."""
    version_page: Link


class Promotion(Output):
    """The versions after a promotion."""

    version: int
    promoted: bool
    """Whether the version is Production now."""
    reason: str
    archived: list[int]
    """The older versions, all archived now; empty if the version was not promoted."""
    version_page: Link


@reusable("models.evaluate", role="evaluate")
def evaluate(
    mlflow: ConnectionId, model: ModelName, run_id: RunId, margin: Auc = 0.005, minimum: Auc = 0.5, *, run: Run
) -> Evaluation:
    """Register the candidate that a training run of MLflow logged, and judge it against Production.

    `run_id` is the training's run; its model becomes a version of the registered model `model`. The candidate passes
    if its ROC AUC beats Production's by `margin` or more, when both models score the rows that the candidate's
    training held out. If Production cannot score them (the list of features changed), the metrics recorded at training
    time are compared instead, and the output says so. Without a Production, the candidate must reach `minimum`. A
    model is loaded only if its files have the digest that its training recorded. Production itself is not touched. A
    rerun registers nothing again and, with the same terms, decides the same. Production is the version with the alias
    `production`; raises PermanentError if the stage Production names another version, or if only the stage names one:
    `make production` settles it.
    """
    terms = Terms(margin=margin, minimum=minimum)
    registry = Registry(tracking(mlflow), mlflow, model)
    with tracking_errors(mlflow):
        source = finished_run(registry, run_id)
        version = registry.version_from(source)
        _check_candidate(registry, version, run)
        production = registry.production(version)
        decision = _settled(version, production, terms)
        if decision is None:
            stored = _stored(registry, source, version)
            decision = _decided(registry, source, stored, production, terms)
            version = _kept(registry, source, version, decision, run)
        assert version is not None
    run.log.info("%s version %s: %s", model, version.version, decision.verdict)
    return _evaluation(decision, int(version.version), version_page(mlflow, model, version.version))


@reusable("models.promote", role="promote")
def promote(mlflow: ConnectionId, model: ModelName, version: Annotated[int, Field(ge=1)], *, run: Run) -> Promotion:
    """Make `version` of the registered model `model` Production, and archive all older versions.

    The alias `production` and the stage Production are both set. A version older than the current Production is not
    changed, and `promoted` is false: rerunning an old run does not undo newer ones. Raises PermanentError if alias and
    stage name different versions, unless one of them is `version` by its alias: then a promotion was interrupted.
    """
    registry = Registry(tracking(mlflow), mlflow, model)
    with tracking_errors(mlflow):
        candidate = registry.version(version)
        check_ready(candidate, registry)
        production = registry.production(candidate)
        page = version_page(mlflow, model, candidate.version)
        if production is not None and int(production.version) > version:
            reason = (
                f"version {production.version} is Production and newer than version {version}, which stays as it is"
            )
            remedy = f"to go back, make production MODEL={model} VERSION={version}"
            run.log.warning("%s: %s; %s", model, reason, remedy)
            return Promotion(version=version, promoted=False, reason=reason, archived=[], version_page=page)
        registry.make_production(candidate)
        older = [other for other in registry.versions() if int(other.version) < version]
        for other in older:
            registry.archive(other)
    archived = [int(other.version) for other in older]
    reason = _change(version, production)
    run.log.info("%s: %s; %s %s", model, reason, ARCHIVED.lower(), ", ".join(map(str, archived)) or "none")
    return Promotion(version=version, promoted=True, reason=reason, archived=archived, version_page=page)


def _check_candidate(registry: Registry, version: ModelVersion | None, run: Run) -> None:
    """Raise PermanentError for a version that is not ready; warn if the model may have had another name."""
    if version is not None:
        check_ready(version, registry)
    elif others := registry.renamed(run):
        known = f"this step has registered versions of {', '.join(others)}"
        run.log.warning("%s is not registered yet, and %s; was it renamed?", registry.model, known)


def _change(version: int, production: ModelVersion | None) -> str:
    if production is None:
        return f"version {version} is Production, the first one"
    if int(production.version) == version:
        return f"version {version} is already Production"
    return f"version {version} replaces version {production.version} as Production"


def _settled(version: ModelVersion | None, production: ModelVersion | None, terms: Terms) -> Decision | None:
    """Return the earlier decision, unless the terms have changed and the candidate could still meet them."""
    if version is None or DECISION not in version.tags:
        return None
    decision = Decision.model_validate_json(version.tags[DECISION])
    is_production = production is not None and production.version == version.version
    return decision if is_production or decision.terms == terms else None


def _stored(registry: Registry, source: TrackedRun, version: ModelVersion | None) -> StoredModel:
    """Return the candidate's model, with the digest that its training recorded, or its version if it has one."""
    if version is not None and DIGEST not in source.data.tags:
        return registry.stored(version)
    return of_run(logged_model(registry, source), source)


def _decided(
    registry: Registry, source: TrackedRun, stored: StoredModel, production: ModelVersion | None, terms: Terms
) -> Decision:
    compared = _compared(registry, source, stored, production)
    gain = None if compared.production is None else compared.candidate - compared.production
    passed = compared.candidate >= terms.minimum if gain is None else gain > 0 and gain >= terms.margin
    return Decision(
        promote=passed,
        terms=terms,
        production_version=None if production is None else int(production.version),
        roc_auc=compared.candidate,
        production_roc_auc=compared.production,
        compared_on=compared.on,
        verdict=_verdict(compared, production, terms, passed=passed),
    )


def _compared(
    registry: Registry, source: TrackedRun, stored: StoredModel, production: ModelVersion | None
) -> Comparison:
    holdout = holdout_of(registry.client, source)
    reached = measured(stored, holdout)
    if production is None:
        return Comparison(reached, None, "holdout")
    try:
        return Comparison(reached, measured(registry.stored(production), holdout), "holdout")
    except NotComparable as problem:
        before = recorded(run_of(registry, production))
        return Comparison(recorded(source), before, "recorded", str(problem))


def _verdict(compared: Comparison, production: ModelVersion | None, terms: Terms, *, passed: bool) -> str:
    candidate = f"ROC AUC {compared.candidate:.4f}"
    if production is None or compared.production is None:
        if passed:
            return f"{candidate} reaches the minimum {terms.minimum:g}; there was no Production before"
        lacking = terms.minimum - compared.candidate
        return f"{candidate} misses the minimum {terms.minimum:g} by {lacking:.4f}; there was no Production before"
    gain = compared.candidate - compared.production
    rival = f"Production {compared.production:.4f} (version {production.version})"
    why = (
        f"; recorded metrics compared, since Production cannot score this data: {compared.why}" if compared.why else ""
    )
    if passed:
        return f"{candidate} beats {rival} by {gain:.4f}; the margin is {terms.margin:g}{why}"
    missed = f"misses the margin {terms.margin:g} by {max(terms.margin - gain, 0):.4f}"
    return f"{candidate} against {rival}: a gain of {gain:+.4f} {missed}{why}"


def _kept(
    registry: Registry, source: TrackedRun, version: ModelVersion | None, decision: Decision, run: Run
) -> ModelVersion:
    """Return the candidate's version with the decision and the digest on it, registering it if needed."""
    tags = {DECISION: decision.model_dump_json()}
    if DIGEST in source.data.tags:
        tags[DIGEST] = source.data.tags[DIGEST]
    if version is not None:
        registry.describe(version, tags=tags, description=decision.verdict)
        return version
    return registry.register(logged_model(registry, source), run, tags=tags, description=decision.verdict)


def _evaluation(decision: Decision, version: int, page: str) -> Evaluation:
    return Evaluation(
        promote=decision.promote,
        candidate_version=version,
        production_version=decision.production_version,
        roc_auc=decision.roc_auc,
        production_roc_auc=decision.production_roc_auc,
        gain=decision.gain,
        margin=decision.terms.margin,
        missed_by=decision.missed_by,
        compared_on=decision.compared_on,
        verdict=decision.verdict,
        version_page=page,
    )
