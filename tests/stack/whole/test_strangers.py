"""Another user of the machine, who tries every port, file and process of the running stack."""

from __future__ import annotations

import os

import pytest

from tests.support.applications import SUM, application
from tests.support.strangers import got_by_stranger
from tests.support.whole_stack import RunningStack

pytestmark = pytest.mark.stack


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_stranger_gets_nothing(stack: RunningStack) -> None:
    """Nothing answers without a login but what says that a service is up; nor does a Spark application at work."""
    with application(stack, "watched") as driver:
        assert driver.stdout.readline() == SUM
        assert got_by_stranger(stack, driver.pid) == []
