"""The versions of a registered model of MLflow: which is Production, which belongs to a run, and what was decided.

Knows the registry's names for these things; knows nothing of how models compare. Production is the version that the
alias `production` names, since one request moves it; the stage Production follows, for those who look at stages.
"""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from tasks.contract import MissingResource, PermanentError, Run
from tasks.models.training_run import LOGGED_AS
from tasks.services.tracking import airflow_tags

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.entities import Run as TrackedRun
    from mlflow.entities.model_registry import ModelVersion

ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.\-]{0,199}$")]
"""The name of a registered model."""
RunId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_\-]{0,255}$")]
"""The id of a run of MLflow."""

ALIAS = "production"
STAGE, ARCHIVED = "Production", "Archived"
DECISION = "taskflow.decision"
"""The tag of a version that keeps what its evaluation gave, so that a rerun gives the same."""


@dataclass(frozen=True, slots=True)
class Registry:
    """The registry of one MLflow server, as far as one registered model goes."""

    client: MlflowClient
    connection: str
    model: str

    def __str__(self) -> str:
        return f"MLflow (connection {self.connection!r})"

    def production(self) -> ModelVersion | None:
        """Return the version that is Production, if the model is registered and one of its versions is."""
        try:
            with _absence("registered model", self.model, str(self), "evaluate a candidate first"):
                number = self.client.get_registered_model(self.model).aliases.get(ALIAS)
        except MissingResource:
            return None
        return None if number is None else self.version(int(number))

    def version(self, number: int) -> ModelVersion:
        """Return a version of the model, or raise MissingResource."""
        remedy = "register a model under this name first (models.evaluate does), or correct `model` in the step"
        with _absence("registered model", self.model, str(self), remedy):
            self.client.get_registered_model(self.model)
        where, remedy = f"registered model {self.model!r} of {self}", "correct `version` in the step"
        with _absence("version", str(number), where, remedy):
            return self.client.get_model_version(self.model, str(number))

    def versions(self) -> list[ModelVersion]:
        """Return all versions of the model, the oldest first."""
        found: list[ModelVersion] = []
        token: str | None = None
        while token != "":
            page = self.client.search_model_versions(f"name = '{self.model}'", page_token=token)
            found += page
            token = page.token or ""
        return sorted(found, key=lambda version: int(version.version))

    def version_from(self, source: TrackedRun) -> ModelVersion | None:
        """Return the version that was registered from a run of MLflow: the first, should there be several."""
        return next((one for one in self.versions() if one.run_id == source.info.run_id), None)

    def register(self, logged: LoggedModel, run: Run, *, tags: dict[str, str], description: str) -> ModelVersion:
        """Make a logged model the next version of the model.

        All that is known of it goes in with the request that makes it: killed at any point, there is no version
        without its tags, and a retry finds the one that is there.
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

    def describe(self, version: ModelVersion, *, tags: dict[str, str], description: str) -> None:
        """Tag a version that is there, and describe it."""
        self.client.update_model_version(self.model, version.version, description)
        for name, value in tags.items():
            self.client.set_model_version_tag(self.model, version.version, name, value)

    def make_production(self, version: ModelVersion) -> None:
        """Move the alias, then the stage, to a version; whatever was at the stage is archived."""
        self.client.set_registered_model_alias(self.model, ALIAS, version.version)
        if version.current_stage != STAGE:
            self._move(version, STAGE)

    def archive(self, version: ModelVersion) -> None:
        """Move a version to the stage Archived, unless it is there."""
        if version.current_stage != ARCHIVED:
            self._move(version, ARCHIVED)

    def _move(self, version: ModelVersion, stage: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # stages are to go some day; people still look at them
            self.client.transition_model_version_stage(
                self.model, version.version, stage, archive_existing_versions=stage == STAGE
            )


def finished_run(registry: Registry, run_id: str) -> TrackedRun:
    """Return a run of MLflow that came to its end; raise MissingResource or PermanentError."""
    remedy = "it may have been deleted; run the training step again, or correct `run_id` in the step"
    with _absence("run", run_id, str(registry), remedy):
        found = registry.client.get_run(run_id)
    if found.info.lifecycle_stage == "deleted":
        raise MissingResource("run", run_id, str(registry), remedy)
    if found.info.status != "FINISHED":
        raise PermanentError(
            f"run {run_id!r} of {registry} is {found.info.status}, not FINISHED: it has no candidate; train again"
        )
    return found


def logged_model(registry: Registry, source: TrackedRun) -> LoggedModel:
    """Return the model that a run logged to be registered; raise MissingResource."""
    condition = f"source_run_id = '{source.info.run_id}' AND name = '{LOGGED_AS}'"
    listed = registry.client.search_logged_models([source.info.experiment_id], condition)
    found = [one for one in listed if one.status == "READY"]  # not in the condition: Postgres keeps it as a number
    if not found:
        where, remedy = f"run {source.info.run_id!r} of {registry}", "log it as `model` in the training step"
        raise MissingResource("logged model", LOGGED_AS, where, remedy)
    return max(found, key=lambda one: one.creation_timestamp)


@contextmanager
def _absence(kind: str, name: str, where: str, remedy: str) -> Iterator[None]:
    """Raise MissingResource where MLflow says that something does not exist."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise MissingResource(kind, name, where, remedy) from error
