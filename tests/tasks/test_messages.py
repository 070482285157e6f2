"""messages.log."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import get_args

import pytest

from tasks.contract import Run
from tasks.messages import Level, Logged, log


@pytest.mark.parametrize("level", get_args(Level))
def test_message_is_logged(run: Run, caplog: pytest.LogCaptureFixture, level: Level) -> None:
    """The message stands in the run's log as it was given, percent signs and all, at the level asked for."""
    run = replace(run, log=logging.getLogger("test.messages"))
    with caplog.at_level(logging.DEBUG, logger="test.messages"):
        assert log("100 %s done", level, run=run) == Logged(message="100 %s done")
    assert caplog.record_tuples == [("test.messages", logging.getLevelName(level.upper()), "100 %s done")]
