"""The digest of a model's files: recorded when the model is made, and required before the model's code runs.

Whoever can write to the artifact store could otherwise have any code run wherever a model is loaded. Knows MLflow's
artifacts and tags; knows nothing about what models do.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.contract import MissingResource, PermanentError

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel
    from mlflow.entities import Run as TrackedRun
    from mlflow.entities.model_registry import ModelVersion

DIGEST = "taskflow.digest"
"""The tag of a training's run, and of a version, with the digest of the model's files."""
_ALWAYS_THERE = "MLmodel"


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A model in an artifact store, and the digest that its files must have."""

    address: str
    """What it is called in messages."""
    location: str
    digest: str | None
    remedy: str
    """What to do if no digest was recorded."""
    lost: str
    """What to do if the files are gone."""

    def loaded(self, folder: Path) -> Any:
        """Return the model, its files copied to `folder`; raise PermanentError before any of them is read as code."""
        from mlflow import pyfunc

        if self.digest is None:
            raise PermanentError(f"no digest was recorded of the files of {self.address}: {self.remedy}")
        files = fetched(self, folder)
        found = digest_of(files)
        if found != self.digest:
            change = f"their digest is {found}, and {self.digest} was recorded"
            raise PermanentError(f"the files of {self.address} were changed: {change}; {self.remedy}")
        return pyfunc.load_model(str(files))


def of_run(logged: LoggedModel, source: TrackedRun) -> StoredModel:
    """Return the model that a training's run logged."""
    remedy = "train again: clear the training step"
    location = str(logged.artifact_location)
    return StoredModel(f"models:/{logged.model_id}", location, source.data.tags.get(DIGEST), remedy, remedy)


def of_version(version: ModelVersion, location: str) -> StoredModel:
    """Return the model of a registered version whose files are at `location`."""
    command = f"make trust-model MODEL={version.name} VERSION={version.version}"
    remedy = f"if you trust the files as they are now, `{command}` records their digest"
    lost = "restore its files, or make another version Production"
    return StoredModel(f"models:/{version.name}/{version.version}", location, version.tags.get(DIGEST), remedy, lost)


def digest_of(folder: Path) -> str:
    """Return the SHA-256 of all files below `folder`: of the lines that `sha256sum` writes, sorted by path."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    lines = [f"{_sha256(files[name])}  {name}\n" for name in sorted(files)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def fetched(model: StoredModel, folder: Path) -> Path:
    """Copy a model's files to `folder`, and return where they are; raise MissingResource."""
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    files: Path | None = None
    try:
        files = Path(download_artifacts(artifact_uri=model.location, dst_path=str(folder)))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
    if files is None or not (files / _ALWAYS_THERE).exists():
        raise MissingResource("model", model.address, "the artifact store of MLflow", model.lost)
    return files


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
