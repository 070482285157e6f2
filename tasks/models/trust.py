"""Record the digest of a registered version's files: `python -m tasks.models.trust MODEL VERSION [CONNECTION]`.

For versions that were registered without a digest, or whose files were changed on purpose: nothing loads them until
somebody who trusts their files as they are now says so. The connection to MLflow is in AIRFLOW_CONN_<ID>.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tasks.models.by_hand import done
from tasks.models.versions import Registry
from tasks.services.tracking import tracking, tracking_errors

if TYPE_CHECKING:
    from collections.abc import Sequence


def trust(model: str, version: int, connection: str) -> str:
    """Record the digest of the files of a version, and say which."""
    registry = Registry(tracking(connection), connection, model)
    with tracking_errors(connection):
        digest = registry.trust(registry.version(version))
    return f"the digest of its files is recorded, {digest}"


def main(arguments: Sequence[str]) -> int:
    """Do what the arguments say, and return the exit code."""
    return done(arguments, trust)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
