"""A sample of a stream of rows, in memory that hangs on its size and not on the stream's length.

Each row draws a number by its position; the rows with the smallest numbers are the sample. So every row is as likely as
any other, and the same rows in the same order give the same sample, however they are cut into batches.
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
    """Keeps `size` rows of all that it is given, drawn by `key`."""

    size: int
    key: int
    seen: int = 0
    """Rows that it was given."""
    _rows: list[pa.Table] = field(default_factory=list)
    _numbers: list[Numbers] = field(default_factory=list)
    _held: int = 0
    _limit: int = 2**64 - 1
    """No row with a greater number can be in the sample any more."""

    def take(self, batch: pa.RecordBatch, prepare: Callable[[pa.Table], pa.Table]) -> None:
        """Take the rows of a batch; those that may be of the sample are kept as `prepare` makes them."""
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
        """Return the sample in the order of the stream; None where no batch came."""
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
