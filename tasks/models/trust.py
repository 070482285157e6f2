"""Record the digest of a registered version's files: `python -m tasks.models.trust MODEL VERSION [CONNECTION]`.

For versions that were registered without a digest, or whose files were changed on purpose: nothing loads them until
somebody who trusts their files as they are now says so. The connection to MLflow is in AIRFLOW_CONN_<ID>.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tasks.contract import MissingResource, PermanentError, TransientError
from tasks.models.versions import Registry
from tasks.services.tracking import tracking, tracking_errors

if TYPE_CHECKING:
    from collections.abc import Sequence

_USAGE = "expected the name of a registered model and a version, such as: churn-model 3"


def trust(model: str, version: int, connection: str) -> str:
    """Record the digest of the files of a version, and return it."""
    registry = Registry(tracking(connection), connection, model)
    with tracking_errors(connection):
        return registry.trust(registry.version(version))


def main(arguments: Sequence[str]) -> int:
    """Do what the arguments say, and return the exit code."""
    match arguments:
        case [model, version, *rest] if version.isdecimal() and len(rest) <= 1:
            (connection,) = rest or ["mlflow_default"]
        case _:
            sys.stderr.write(f"error   {_USAGE}\n")
            return 2
    try:
        digest = trust(model, int(version), connection)
    except (MissingResource, PermanentError, TransientError) as error:
        sys.stderr.write(f"error   {error}\n")
        return 1
    sys.stdout.write(f"{model}, version {version}: the digest of its files is recorded, {digest}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
