"""A look at how much memory a block needs."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pyarrow as pa


@contextmanager
def peak_memory() -> Iterator[Callable[[], int]]:
    """Give what returns the most bytes that Python, numpy and arrow held at once in the block."""
    default, pool = pa.default_memory_pool(), pa.proxy_memory_pool(pa.default_memory_pool())
    peaks: list[int] = []
    pa.set_memory_pool(pool)
    tracemalloc.start()
    try:
        yield lambda: peaks[0]
    finally:
        peaks.append(tracemalloc.get_traced_memory()[1] + pool.max_memory())
        tracemalloc.stop()
        pa.set_memory_pool(default)
