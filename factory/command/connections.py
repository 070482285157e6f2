"""The connections of the stack that runs here, for a run in this process."""

from __future__ import annotations

import os

from stack import assembly, paths


def use_running_stack() -> str | None:
    """Put the running stack's connections and settings into the environment; return its folder if there is one.

    What the environment has already is kept.
    """
    try:
        stack = assembly.existing(paths.home())
    except assembly.NotMade:
        return None
    if not stack.supervisor.is_running():
        return None
    stack.prepare_clients()
    os.environ.update({name: value for name, value in stack.exports().items() if name not in os.environ})
    return str(stack.home.root)
