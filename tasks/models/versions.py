"""The versions of a registered model of MLflow: which is Production, which belongs to a run, and what was decided.

Knows the registry's names for these things; knows nothing about how models compare. Production is the version with the
alias `production`, since one request moves it; the stage Production follows, for people who look at stages.
"""

from __future__ import annotations

import tempfile
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from tasks.contract import MissingResource, PermanentError, Run
from tasks.models.digests import DIGEST, StoredModel, digest_of, fetched, of_version
from tasks.models.training_run import LOGGED_AS
from tasks.services.tracking import airflow_tags

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.entities import Run as TrackedRun
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.\-]{0,199}$")]
"""The name of a registered model."""
RunId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_\-]{0,255}$")]
"""The id of an MLflow run."""

ALIAS = "production"
STAGE, ARCHIVED = "Production", "Archived"
DECISION = "taskflow.decision"
"""The tag of a version with the result of its evaluation, so a rerun returns the same."""


@dataclass(frozen=True, slots=True)
class Registry:
    """One registered model in the registry of an MLflow server."""

    client: MlflowClient
    connection: str
    model: str

    def __str__(self) -> str:
        return f"MLflow (connection {self.connection!r})"

    def production(self, candidate: ModelVersion | None = None) -> ModelVersion | None:
        """Return the version that is Production; None if the model is not registered or has none.

        Raises PermanentError if alias and stage do not say the same. Of the `candidate` they may: its promotion was
        interrupted between the two, and is repeated.
        """
        registered = self._registered()
        if registered is None:
            return None
        staged = [version.version for version in self.versions() if version.current_stage == STAGE]
        named = registered.aliases.get(ALIAS)
        if named is not None and candidate is not None and str(named) == str(candidate.version):
            return candidate
        if problem := _disagreement(registered.aliases, list(map(str, staged))):
            likely = named or (staged[0] if len(staged) == 1 else "N")
            raise PermanentError(f"{self.model} in {self}: {problem}; {self._settling(likely)}")
        return None if named is None else self._aliased(int(named))

    def _registered(self) -> RegisteredModel | None:
        try:
            with _absence("registered model", self.model, str(self), "evaluate a candidate first"):
                return self.client.get_registered_model(self.model)
        except MissingResource:
            return None

    def _aliased(self, number: int) -> ModelVersion:
        where = f"registered model {self.model!r} of {self}, though the alias {ALIAS} names it"
        with _absence("version", str(number), where, self._settling("N")):
            version = self.client.get_model_version(self.model, str(number))
        check_ready(version, self)
        if version.current_stage == ARCHIVED:
            problem = f"the alias {ALIAS} names version {number}, whose stage is {ARCHIVED}"
            raise PermanentError(f"{self.model} in {self}: {problem}; {self._settling(str(number))}")
        return version

    def _settling(self, number: str) -> str:
        command = f"make production MODEL={self.model} VERSION={number}"
        return f"decide which one is Production: `{command}` sets alias and stage"

    def renamed(self, run: Run) -> list[str]:
        """Return the registered models that have versions of the same step, if there is none of this name."""
        if self._registered() is not None:
            return []
        tags = airflow_tags(run)
        wanted = " and ".join(f"tags.`{name}` = '{tags[name]}'" for name in ("airflow.dag_id", "airflow.task_id"))
        return sorted({version.name for version in self.client.search_model_versions(wanted)})

    def version(self, number: int) -> ModelVersion:
        """Return a version of the model, or raise MissingResource."""
        remedy = "register a model under this name first (models.evaluate does), or correct `model` in the step"
        with _absence("registered model", self.model, str(self), remedy):
            self.client.get_registered_model(self.model)
        where, remedy = f"registered model {self.model!r} of {self}", "correct `version` in the step"
        with _absence("version", str(number), where, remedy):
            return self.client.get_model_version(self.model, str(number))

    def versions(self) -> list[ModelVersion]:
        """Return all versions of the model, oldest first."""
        versions: list[ModelVersion] = []
        token: str | None = None
        while token != "":
            page = self.client.search_model_versions(f"name = '{self.model}'", page_token=token)
            versions += page
            token = page.token or ""
        return sorted(versions, key=lambda version: int(version.version))

    def version_from(self, source: TrackedRun) -> ModelVersion | None:
        """Return the version that was registered from an MLflow run; the first if there are several."""
        return next((version for version in self.versions() if version.run_id == source.info.run_id), None)

    def register(self, logged: LoggedModel, run: Run, *, tags: dict[str, str], description: str) -> ModelVersion:
        """Make a logged model the next version of the model.

        One request creates the version with all its tags: wherever the task is killed, there is no version without
        tags, and a retry finds the existing one.
        """
        from mlflow.exceptions import MlflowException

        try:
            self.client.create_registered_model(self.model)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        return self.client.create_model_version(
            self.model,
            source=f"models:/{logged.model_id}",
            run_id=logged.source_run_id,
            model_id=logged.model_id,
            tags=airflow_tags(run) | tags,
            description=description,
            await_creation_for=0,
        )

    def stored(self, version: ModelVersion) -> StoredModel:
        """Return the model of a version, with the digest recorded for it."""
        return of_version(version, str(self.client.get_model_version_download_uri(self.model, version.version)))

    def trust(self, version: ModelVersion) -> str:
        """Record the digest of a version's files as they are now, and return it."""
        model = self.stored(version)
        with tempfile.TemporaryDirectory(prefix="taskflow-") as folder:
            digest = digest_of(fetched(model, Path(folder)))
        self.client.set_model_version_tag(self.model, version.version, DIGEST, digest)
        return digest

    def describe(self, version: ModelVersion, *, tags: dict[str, str], description: str) -> None:
        """Tag and describe an existing version."""
        self.client.update_model_version(self.model, version.version, description)
        for name, value in tags.items():
            self.client.set_model_version_tag(self.model, version.version, name, value)

    def make_production(self, version: ModelVersion) -> None:
        """Move the alias, then the stage, to a version; the stage's other versions are archived."""
        self.client.set_registered_model_alias(self.model, ALIAS, version.version)
        self._move(version, STAGE)

    def archive(self, version: ModelVersion) -> None:
        """Move a version to the stage Archived, unless it is already there."""
        if version.current_stage != ARCHIVED:
            self._move(version, ARCHIVED)

    def _move(self, version: ModelVersion, stage: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # stages are deprecated; people still look at them
            self.client.transition_model_version_stage(
                self.model, version.version, stage, archive_existing_versions=stage == STAGE
            )


def finished_run(registry: Registry, run_id: str) -> TrackedRun:
    """Return an MLflow run that finished; raise MissingResource or PermanentError."""
    remedy = "it may have been deleted; run the training step again, or correct `run_id` in the step"
    with _absence("run", run_id, str(registry), remedy):
        source = registry.client.get_run(run_id)
    if source.info.lifecycle_stage == "deleted":
        raise MissingResource("run", run_id, str(registry), remedy)
    if source.info.status != "FINISHED":
        raise PermanentError(
            f"run {run_id!r} of {registry} is {source.info.status}, not FINISHED: it has no candidate; train again"
        )
    return source


def run_of(registry: Registry, version: ModelVersion) -> TrackedRun:
    """Return the run that a version was registered from; raise MissingResource."""
    where = f"{registry}, which version {version.version} of {version.name} was registered from"
    remedy = "its recorded metrics are needed, as it cannot score the new data: restore the run, or register it again"
    with _absence("run", version.run_id or "", where, remedy):
        return registry.client.get_run(version.run_id or "")


def logged_model(registry: Registry, source: TrackedRun) -> LoggedModel:
    """Return the model that a run logged for registration; raise MissingResource."""
    condition = f"source_run_id = '{source.info.run_id}' AND name = '{LOGGED_AS}'"
    listed = registry.client.search_logged_models([source.info.experiment_id], condition)
    ready = [model for model in listed if model.status == "READY"]  # not in the condition: Postgres stores a number
    if not ready:
        where, remedy = f"run {source.info.run_id!r} of {registry}", "log it as `model` in the training step"
        raise MissingResource("logged model", LOGGED_AS, where, remedy)
    return max(ready, key=lambda model: model.creation_timestamp)


def _disagreement(aliases: Mapping[str, str], staged: Sequence[str]) -> str | None:
    """Return how the alias and the stage name other versions; None if they do not, or if nothing has the stage."""
    named = aliases.get(ALIAS)
    there = f"the stage {STAGE} {_numbered(staged)}"
    if named is None:
        spelt = next((f" (the alias {other!r} is another one)" for other in aliases if other.lower() == ALIAS), "")
        return f"{there}, but no version has the alias {ALIAS}{spelt}" if staged or spelt else None
    if set(staged) <= {str(named)}:
        return None
    return f"the alias {ALIAS} names version {named}, and {there}"


def _numbered(versions: Sequence[str]) -> str:
    if not versions:
        return "names no version"
    return f"names version{'s' if len(versions) > 1 else ''} {' and '.join(versions)}"


def check_ready(version: ModelVersion, where: object) -> None:
    """Raise PermanentError for a version whose registration has not ended well."""
    if version.status != "READY":
        why = f" ({version.status_message})" if version.status_message else ""
        remedy = "delete it in MLflow, and clear the step that registers it"
        raise PermanentError(
            f"version {version.version} of {version.name} in {where} is {version.status}{why}; {remedy}"
        )


@contextmanager
def _absence(kind: str, name: str, where: str, remedy: str) -> Iterator[None]:
    """Raise MissingResource if MLflow says that something does not exist."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise MissingResource(kind, name, where, remedy) from error
