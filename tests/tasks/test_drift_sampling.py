"""A sample of a stream: uniform, repeatable, and small however long the stream is."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pytest

from tasks.drift.sampling import Sampler
from tests.support.memory import peak_memory


def drawn(rows: int, size: int, key: int = 1, batch: int = 1000) -> list[int]:
    sampler = Sampler(size, key)
    for first in range(0, rows, batch):
        values = pa.array(range(first, min(first + batch, rows)))
        sampler.take(pa.record_batch([values], names=["v"]), lambda table: table)
    assert sampler.seen == rows
    found = sampler.rows()
    return [] if found is None else list(found["v"].to_pylist())


@pytest.mark.parametrize(("rows", "size"), [(10, 100), (100, 100), (101, 100), (30_000, 100)])
def test_sample_has_its_size(rows: int, size: int) -> None:
    """A sample has as many rows as were asked for, or all there are, each once and in their order."""
    found = drawn(rows, size)
    assert len(found) == min(rows, size)
    assert found == sorted(set(found))


def test_batches_do_not_matter() -> None:
    """However the rows are cut, the same key draws the same ones, and another key others."""
    assert drawn(5000, 300, batch=7) == drawn(5000, 300, batch=5000) != drawn(5000, 300, key=2)


def test_rows_are_equally_likely() -> None:
    """Over many keys, each tenth of the stream gives a tenth of the sample."""
    found = Counter(one // 100 for key in range(200) for one in drawn(1000, 50, key))
    assert all(900 < found[tenth] < 1100 for tenth in range(10))


def test_stream_length_costs_nothing() -> None:
    """A stream ten times as long needs no more memory."""
    peaks = []
    for rows in (100_000, 1_000_000):
        with peak_memory() as peak:
            drawn(rows, 2000, batch=20_000)
        peaks.append(peak())
    assert peaks[1] < 1.2 * peaks[0]
