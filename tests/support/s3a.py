"""Files in a bucket that Spark reads by s3a, and runs that use them: for tests and for the processes they start."""

from __future__ import annotations

import datetime as dt

from tasks.contract import Run
from tasks.files.places import InBucket

BUCKET = "pipeline-files"
FILES = InBucket(connection="object_store", bucket=BUCKET, prefix="s3a", spark="s3a")


def a_run(task: str) -> Run:
    return Run("some_dag", "manual__1", task, dt.date(2026, 1, 5))
