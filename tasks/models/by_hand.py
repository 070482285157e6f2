"""What people do to a registered version by hand: the arguments, the exit code, and what is printed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tasks.contract import MissingResource, PermanentError, TransientError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_USAGE = "expected the name of a registered model and a version, such as: churn-model 3"


def done(arguments: Sequence[str], act: Callable[[str, int, str], str]) -> int:
    """Let `act` do its work on a model's version through a connection, print what it says, return the exit code."""
    match arguments:
        case [model, version, *rest] if version.isdecimal() and len(rest) <= 1:
            (connection,) = rest or ["mlflow_default"]
        case _:
            sys.stderr.write(f"error   {_USAGE}\n")
            return 2
    try:
        said = act(model, int(version), connection)
    except (MissingResource, PermanentError, TransientError) as error:
        sys.stderr.write(f"error   {error}\n")
        return 1
    sys.stdout.write(f"{model}, version {version}: {said}\n")
    return 0
