"""What MLflow knows about the Production model: its version, and what the training recorded.

Knows the alias, tags and artifacts that the pipeline writes; an MLflow that does not answer is noticed in seconds.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException

ALIAS = "production"
_DIGEST = "taskflow.digest"
_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_DISABLE_AGENT_HINT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}
"""Read by MLflow's client at each request: with its own defaults it retries for minutes."""
_ABSENT = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}
"""What the registry answers if there is no such model, and no such alias."""
_NO_ANSWER = ("Connection refused", "timed out", "Name or service not known", "Connection reset", "Connection aborted")


class Unusable(Exception):
    """The Production model, or what is known about it, is not available; the text says why."""


@dataclass(frozen=True, slots=True)
class Release:
    """A version of the registered model, and the run that made it."""

    name: str
    version: int
    run_id: str
    experiment_id: str
    created: dt.datetime
    description: str
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    """The run's tags: `airflow.dag_id` and `airflow.run_id` name the Airflow run."""
    digest: str | None
    """The digest recorded of the model's files; None if it was registered without one."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the training recorded about a model, for people to look at."""

    importance: Mapping[str, float]
    """The mean absolute SHAP value of each column."""
    plots: Mapping[str, bytes]
    """The plots by name, as PNG."""


@dataclass(frozen=True, slots=True)
class Registry:
    """An MLflow server; its login is in MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."""

    address: str

    def run_page(self, release: Release) -> str:
        """Return the page of the run that made a release."""
        return f"{self.address}/#/experiments/{release.experiment_id}/runs/{release.run_id}"

    def version_page(self, release: Release) -> str:
        """Return the page of a version."""
        return f"{self.address}/#/models/{release.name}/versions/{release.version}"

    def production(self, name: str) -> Release | None:
        """Return the version with the alias, None if nothing was promoted yet; raise Unusable."""
        from mlflow.exceptions import RestException

        with self.answering():
            client = self.client()
            try:
                version = client.get_model_version_by_alias(name, ALIAS)
            except RestException as error:
                if error.error_code in _ABSENT:
                    return None
                raise
            run = client.get_run(version.run_id or "")
        return Release(
            name=name,
            version=int(version.version),
            run_id=run.info.run_id,
            experiment_id=run.info.experiment_id,
            created=dt.datetime.fromtimestamp(version.creation_timestamp / 1000, dt.UTC),
            description=version.description or "",
            metrics=dict(run.data.metrics),
            tags=dict(run.data.tags),
            digest=version.tags.get(_DIGEST),
        )

    def files(self, release: Release, folder: Path) -> Path:
        """Copy the files of a release to `folder`; raise Unusable unless they are those whose digest was recorded."""
        from mlflow.artifacts import download_artifacts

        title = f"{release.name}, version {release.version}"
        command = f"make trust-model MODEL={release.name} VERSION={release.version}"
        remedy = f"if you trust its files as they are now, `{command}` records their digest"
        if release.digest is None:
            raise Unusable(f"{title}, is not loaded, because no digest of its files was recorded; {remedy}")
        with self.answering():
            location = self.client().get_model_version_download_uri(release.name, str(release.version))
            files = Path(download_artifacts(artifact_uri=location, dst_path=str(folder)))
        if not (files / "MLmodel").exists():
            raise Unusable(f"MLflow at {self.address} has no files of {title}; promote another version")
        if digest_of(files) != release.digest:
            raise Unusable(f"{title}, is not loaded, because its files are not those that were recorded; {remedy}")
        return files

    def evidence(self, release: Release) -> Evidence:
        """Return what the training of a release recorded; raise Unusable."""
        with self.answering(), tempfile.TemporaryDirectory(prefix="churn-app-") as folder:
            client, place = self.client(), Path(folder)
            recorded = {artifact.path for artifact in client.list_artifacts(release.run_id)}
            for artifact in sorted(recorded & {"plots", "shap"}):
                client.download_artifacts(release.run_id, artifact, folder)
            values = place / "shap" / "mean_absolute.json"
            return Evidence(
                importance=json.loads(values.read_text()) if values.exists() else {},
                plots={plot.stem: plot.read_bytes() for plot in sorted(place.glob("plots/*.png"))},
            )

    def client(self) -> MlflowClient:
        """Return a client that gives up within seconds, and make its server MLflow's default in this process."""
        os.environ.update(_SETTINGS)
        import mlflow

        mlflow.set_tracking_uri(self.address)
        mlflow.set_registry_uri(self.address)
        return mlflow.MlflowClient(self.address, self.address)

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Turn what MLflow's client raises in the block into Unusable."""
        from mlflow.exceptions import MlflowException
        from requests.exceptions import RequestException

        try:
            yield
        except (MlflowException, RequestException) as error:
            raise Unusable(f"MLflow at {self.address}{_problem(error)}") from error


def digest_of(folder: Path) -> str:
    """Return the SHA-256 of all files below `folder`: of the lines that `sha256sum` writes, sorted by path.

    The training records it; its own function is not to be had here, so a test compares both.
    """
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    lines = [f"{_sha256(files[name])}  {name}\n" for name in sorted(files)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _problem(error: MlflowException | RequestException) -> str:
    text = " ".join(str(error).split())
    for sign in _NO_ANSWER:
        if sign.lower() in text.lower():
            return f" does not answer ({sign.lower()})"
    return f": {text if len(text) <= 300 else f'{text[:299]}…'}"
