"""The two shapes in which the stack runs on one machine, and which of them a state folder has.

Knows their names; what belongs to each is put together in `stack.assembly`.
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
    """In processes below the scheduler's, one worker of Spark, files in a folder."""
    DISTRIBUTED = "distributed"
    """By Celery workers that share no folder, two workers of Spark, files and logs in the object store."""


def recall(file: Path) -> Profile:
    """Return the profile of an earlier start."""
    return Profile(file.read_text(encoding="utf-8")) if file.exists() else Profile.LOCAL


def choose(wanted: Profile | None, file: Path, *, running: bool) -> Profile:
    """Return the profile to start: the wanted one, else that of what is running, else the local one; note it.

    Raises ValueError where services of another profile are running.
    """
    kept = recall(file)
    if running and wanted not in {None, kept}:
        raise ValueError(f"the stack is running in the profile {kept}; `make down` first, then start it as {wanted}")
    chosen = kept if running else wanted or Profile.LOCAL
    write_private(file, chosen)
    return chosen
