"""The two shapes of the stack on one machine, and which of them a state folder has.

Knows their names; `stack.assembly` puts together their services.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from stack.paths import write_private

if TYPE_CHECKING:
    from pathlib import Path


class Profile(StrEnum):
    """How tasks are run."""

    LOCAL = "local"
    """In child processes of the scheduler, with one Spark worker and files in a folder."""
    DISTRIBUTED = "distributed"
    """By Celery workers that share no folder, with two Spark workers, and files and logs in the object store."""


def recall(file: Path) -> Profile:
    """Return the profile of an earlier start."""
    return Profile(file.read_text(encoding="utf-8")) if file.exists() else Profile.LOCAL


def choose(wanted: Profile | None, file: Path, *, running: bool) -> Profile:
    """Return the profile to start: the wanted one, else the running one, else local; remember it.

    Raises ValueError if services of another profile are running.
    """
    kept = recall(file)
    if running and wanted not in {None, kept}:
        raise ValueError(f"the stack is running in the profile {kept}; `make down` first, then start it as {wanted}")
    chosen = kept if running else wanted or Profile.LOCAL
    write_private(file, chosen)
    return chosen
