"""Every password and key of the stack: made once, and kept in a file that only its owner may read."""

from __future__ import annotations

import base64
import os
import secrets
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from stack.objects import ObjectKeys
from stack.paths import write_private

if TYPE_CHECKING:
    from pathlib import Path


ACCESS_KEY = "taskflow"
"""The name that goes with the secret of the object store; like a user's name, it is not a secret."""


def password() -> str:
    """Return a new password of 32 characters."""
    return secrets.token_hex(16)


def key() -> str:
    """Return a new key of 96 characters."""
    return secrets.token_hex(48)


def fernet_key() -> str:
    """Return a new key in the format that Airflow encrypts with."""
    return base64.urlsafe_b64encode(os.urandom(32)).decode("ascii")


class Credentials(BaseModel):
    """What the services and their users log in with.

    Fields missing from the file of an older release are added; unknown fields of a newer release are kept.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    postgres_superuser: str = Field(default_factory=password)
    postgres_airflow: str = Field(default_factory=password)
    postgres_crypto: str = Field(default_factory=password)
    postgres_mlflow: str = Field(default_factory=password)
    objects_secret: str = Field(default_factory=key)
    objects_admin: str = Field(default_factory=password)
    objects_volume_write: str = Field(default_factory=key)
    objects_volume_read: str = Field(default_factory=key)
    objects_filer_write: str = Field(default_factory=key)
    objects_filer_read: str = Field(default_factory=key)
    airflow_admin: str = Field(default_factory=password)
    airflow_viewer: str = Field(default_factory=password)
    airflow_jwt: str = Field(default_factory=key)
    airflow_session: str = Field(default_factory=key)
    airflow_fernet: str = Field(default_factory=fernet_key)
    mlflow_admin: str = Field(default_factory=password)
    mlflow_session: str = Field(default_factory=key)
    spark_secret: str = Field(default_factory=key)
    spark_pages: str = Field(default_factory=key)
    app: str = Field(default_factory=password)
    redis: str = Field(default_factory=password)

    @property
    def objects(self) -> ObjectKeys:
        """The keys of the object store."""
        return ObjectKeys(
            access=ACCESS_KEY,
            secret=self.objects_secret,
            admin_password=self.objects_admin,
            volume_write=self.objects_volume_write,
            volume_read=self.objects_volume_read,
            filer_write=self.objects_filer_write,
            filer_read=self.objects_filer_read,
        )


def load(path: Path) -> Credentials:
    """Return the credentials in `path`, adding the missing ones."""
    kept = Credentials.model_validate_json(path.read_text(encoding="utf-8")) if path.exists() else Credentials()
    if kept.model_fields_set != set(Credentials.model_fields):
        write_private(path, kept.model_dump_json(indent=2))
    return kept
