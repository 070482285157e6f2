"""The README's first command, as it is written."""

from __future__ import annotations

import re

import pytest

from tests.support.demo import Demo

pytestmark = pytest.mark.stack

SEEN = {
    "crypto runs green": r"^  success +notify_success$",
    "the gate stops bad rows": r"^  failed +ge_validate_raw$",
    "rejects are told by reason": r"invalid_site_id +│ +\d+ │",
    "prod is as it was": r"unchanged by the second run",
    "a model is promoted": r"^  success +promote_model$",
    "the same data skips": r"^  success +skip_promotion$",
    "logins are told": r"airflow +http://127\.0\.0\.1:\d+ +admin +[0-9a-f]{20,}",
}


@pytest.mark.parametrize("what", SEEN)
def test_demo_shows_it(demo: Demo, what: str) -> None:
    """`make demo` runs the pipelines, shows what came of them, and says where to look."""
    assert re.search(SEEN[what], demo.printed, re.MULTILINE), demo.printed


def test_shift_is_drift(demo: Demo) -> None:
    """The monitor finds no drift in the features as they are and drift in shifted ones, a report each."""
    verdicts = re.findall(
        r"│ (no drift|drift) +│ +[\d.]+ │ [\d,]+ of [\d,]+ +│ (drift-reports/\S+\.html)", demo.printed
    )
    assert [verdict for verdict, _ in verdicts] == ["no drift", "drift"], demo.printed
    assert len({key for _, key in verdicts}) == 2, demo.printed
