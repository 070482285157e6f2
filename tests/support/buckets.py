"""Buckets that refuse."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from stack.objects import ObjectStore


@contextmanager
def refusing_writes(store: ObjectStore, bucket: str) -> Iterator[None]:
    """Let a bucket be read, but not written, for the block."""
    no_writes = {"Effect": "Deny", "Principal": "*", "Action": ["s3:PutObject"], "Resource": f"arn:aws:s3:::{bucket}/*"}
    store.client().put_bucket_policy(
        Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [no_writes]})
    )
    try:
        yield
    finally:
        store.client().delete_bucket_policy(Bucket=bucket)
