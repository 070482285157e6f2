"""The README's first command, as it is written."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from stack.paths import REPOSITORY
from tests.conftest import command_line, stack_environment

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.stack
def test_demo_goes_as_told(state: Path) -> None:
    """`make demo` runs the pipelines and shows what stops bad rows and what a shift does."""
    workspace = state / "demo"
    for folder in ("pipelines", "configs"):
        shutil.copytree(REPOSITORY / folder, workspace / folder)
    environment = stack_environment(state / "d", workspace / "pipelines")
    try:
        done = subprocess.run(
            ["make", "demo"], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
        )
    finally:
        command_line(environment, "destroy")
    printed = done.stdout + done.stderr

    assert done.returncode == 0, printed
    assert re.search(r"^  success +notify_success$", printed, re.MULTILINE), printed
    assert re.search(r"^  failed +ge_validate_raw$", printed, re.MULTILINE), printed
    assert re.search(r"invalid_site_id +│ +\d+ │", printed), printed
    assert "unchanged by the second run" in printed
    verdicts = re.findall(r"│ (no drift|drift) +│ +[\d.]+ │ [\d,]+ of [\d,]+ +│ (drift-reports/\S+\.html)", printed)
    assert [verdict for verdict, _ in verdicts] == ["no drift", "drift"], printed
    assert len({key for _, key in verdicts}) == 2, printed
    assert re.search(r"airflow +http://127\.0\.0\.1:\d+ +admin +[0-9a-f]{20,}", printed), printed
