"""A sample of a stream of rows; memory depends on the sample's size, not on the stream's length.

Each row draws a number by its position; the rows with the smallest numbers are the sample. So all rows are equally
likely, and the same rows in the same order give the same sample, however they are split into batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tasks.draws import draws

if TYPE_CHECKING:
    import pyarrow as pa

    from tasks.draws import Numbers


@dataclass
class Sampler:
    """Keeps `size` of the rows that it is given, drawn by `key`."""

    size: int
    key: int
    seen: int = 0
    """Rows that it was given."""
    _rows: list[pa.Table] = field(default_factory=list)
    _numbers: list[Numbers] = field(default_factory=list)
    _held: int = 0
    _limit: int = 2**64 - 1
    """Rows with a larger number can no longer be in the sample."""

    def take(self, batch: pa.RecordBatch, prepare: Callable[[pa.Table], pa.Table]) -> None:
        """Take the rows of a batch; pass those that may be in the sample through `prepare` and keep them."""
        import numpy as np
        import pyarrow as pa

        numbers = draws(self.key, np.arange(self.seen, self.seen + len(batch), dtype=np.uint64))
        self.seen += len(batch)
        chosen = numbers <= np.uint64(self._limit)
        rows = pa.Table.from_batches([batch.filter(pa.array(chosen))])
        self._rows.append(prepare(rows))
        self._numbers.append(numbers[chosen])
        self._held += len(rows)
        if self._held > 2 * self.size:
            self._thin()

    def rows(self) -> pa.Table | None:
        """Return the sample in the order of the stream; None if there were no batches."""
        if self._held > self.size:
            self._thin()
        return _joined(self._rows) if self._rows else None

    def _thin(self) -> None:
        import numpy as np

        numbers = np.concatenate(self._numbers)
        kept = np.sort(np.argpartition(numbers, self.size - 1)[: self.size])
        self._rows, self._numbers = [_joined(self._rows).take(kept)], [numbers[kept]]
        self._held, self._limit = self.size, int(numbers[kept].max())


def _joined(tables: Iterable[pa.Table]) -> pa.Table:
    import pyarrow as pa

    return pa.concat_tables(tables).combine_chunks()
