"""A merge of `s.source` into `s.target`: for tests and for the processes they start."""

from __future__ import annotations

from typing import Any

from tasks.contract import Run
from tasks.postgres.merging import Deactivation, Merged, Timestamps
from tasks.postgres.tables import merge

CONNECTION = "crypto_postgres"
WINDOW = Deactivation(window="day BETWEEN DATE '2026-01-04' AND DATE '2026-01-05'", max_deactivated_share=1)
STAMPS = Timestamps(created="created_at", updated="updated_at")


def merged(run: Run, **change: Any) -> Merged:
    asked: dict[str, Any] = {
        "keys": ["site", "day"],
        "deactivate": WINDOW,
        "timestamps": STAMPS,
        "external_source": True,
    } | change
    return merge(CONNECTION, asked.pop("source", "s.source"), asked.pop("target", "s.target"), **asked, run=run)
