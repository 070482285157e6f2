"""The file `stack/.env`, with the secrets that `stack/compose.yaml` needs: made once, readable only by its owner.

Knows which variables there are and what values they may have; what they mean is up to the containers.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from stack.credentials import fernet_key, key, password
from stack.paths import REPOSITORY, write_private

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

FILE = REPOSITORY / "stack" / ".env"
SECRETS: Mapping[str, Callable[[], str]] = {
    "POSTGRES_SUPERUSER_PASSWORD": password,
    "POSTGRES_AIRFLOW_PASSWORD": password,
    "POSTGRES_CRYPTO_PASSWORD": password,
    "POSTGRES_MLFLOW_PASSWORD": password,
    "REDIS_PASSWORD": password,
    "OBJECTS_SECRET": key,
    "AIRFLOW_ADMIN_PASSWORD": password,
    "AIRFLOW_VIEWER_PASSWORD": password,
    "AIRFLOW_JWT_KEY": key,
    "AIRFLOW_SESSION_KEY": key,
    "AIRFLOW_FERNET_KEY": fernet_key,
    "MLFLOW_ADMIN_PASSWORD": password,
    "MLFLOW_SESSION_KEY": key,
    "SPARK_SECRET": key,
    "SPARK_PAGES_KEY": key,
    "APP_PASSWORD": password,
    "PGADMIN_PASSWORD": password,
}
"""The variables that Compose requires, and how each is generated."""

_LINE = re.compile(r"\s*(?:export\s+)?(?P<name>\w+)\s*=\s*(?P<value>.*?)\s*")
_PLAIN = re.compile(r"[A-Za-z0-9_=-]{8,}")
"""What needs no quoting in an address, in JSON or in a properties file; MinIO requires 8 characters."""


def complete(path: Path) -> list[str]:
    """Add the missing variables and return their names; raise ValueError for values that would break an address."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    kept = read(text)
    if broken := [name for name in SECRETS if kept.get(name) and not _PLAIN.fullmatch(kept[name])]:
        raise ValueError(
            f"{path} gives {', '.join(broken)} a value that does not fit into the addresses of the services; "
            "it needs 8 or more letters and digits. Remove the line to get a generated value"
        )
    added = {name: made() for name, made in SECRETS.items() if not kept.get(name)}
    lines = [line for line in text.splitlines() if not added.keys() & read(line).keys()]
    write_private(
        path, "".join(f"{line}\n" for line in [*lines, *(f"{name}={value}" for name, value in added.items())])
    )
    path.chmod(0o600)
    return list(added)


def read(text: str) -> dict[str, str]:
    """Return the variables that the lines of an `.env` file set."""
    matches = (_LINE.fullmatch(line) for line in text.splitlines())
    return {match["name"]: match["value"] for match in matches if match}
