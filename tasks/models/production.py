"""Make a registered version Production by hand: `python -m tasks.models.production MODEL VERSION [CONNECTION]`.

For a model whose alias and stage name different versions, which no step decides by itself, and to go back to an older
version. The connection to MLflow is in AIRFLOW_CONN_<ID>.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tasks.models.by_hand import done
from tasks.models.versions import Registry, check_ready
from tasks.services.tracking import tracking, tracking_errors

if TYPE_CHECKING:
    from collections.abc import Sequence


def choose(model: str, version: int, connection: str) -> str:
    """Give a version the alias and the stage; the version that had the stage is archived."""
    registry = Registry(tracking(connection), connection, model)
    with tracking_errors(connection):
        chosen = registry.version(version)
        check_ready(chosen, registry)
        registry.make_production(chosen)
    return "it is Production, by its alias and its stage"


def main(arguments: Sequence[str]) -> int:
    """Do what the arguments say, and return the exit code."""
    return done(arguments, choose)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
