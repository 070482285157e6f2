"""Made-up customers of whom some leave: columns of each type, with nulls, for the tests and benchmarks of training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

AMOUNTS = [f"amount_{n}" for n in range(12)]
COUNTS = [f"count_{n}" for n in range(6)]
CITIES = ["Bogotá", "Buenos Aires", "Córdoba", "México D.F.", "O'Higgins", "Río\\Norte", "São Paulo", "Lima"]
CARDS = ["debit", "credit", "none"]

FEATURES = {
    "numeric": [*AMOUNTS, *COUNTS, "age", "is_active"],
    "categorical": ["city", "card", "segment"],
}


def customers(rows: int, seed: int = 1) -> pa.Table:
    """Return `rows` customers: key `user_id`, label `churned`, the columns of FEATURES and one that nobody uses."""
    draw = np.random.default_rng(seed)
    amounts = draw.lognormal(3, 1, (len(AMOUNTS), rows))
    counts = draw.poisson(4, (len(COUNTS), rows))
    age = draw.integers(18, 90, rows)
    city, card, segment = (draw.integers(0, size, rows) for size in (len(CITIES), len(CARDS), 5))
    active = draw.random(rows) < 0.6
    odds = -0.6 * np.log(amounts[0]) + 0.3 * np.log(amounts[1]) - 0.25 * counts[0] + 0.15 * counts[1]
    odds += 0.02 * (age - 50) - 0.9 * active + 0.4 * (city == 4) - 0.5 * (card == 1) + 0.2 * segment + 1.5
    churned = draw.random(rows) < 1 / (1 + np.exp(-odds))
    unknown = draw.random((3, rows)) < [[0.05], [0.03], [0.04]]
    columns = {"user_id": pa.array(np.arange(1, rows + 1))}
    columns |= {name: pa.array(values) for name, values in zip(AMOUNTS, amounts, strict=True)}
    columns |= {name: pa.array(values.astype(np.int32)) for name, values in zip(COUNTS, counts, strict=True)}
    columns["amount_1"] = pa.array(amounts[1], mask=unknown[0])
    columns["age"] = pa.array(age, mask=unknown[1])
    columns["is_active"] = pa.array(active)
    columns["city"] = pa.array(np.array(CITIES)[city], mask=unknown[2])
    columns["card"] = pa.array(np.array(CARDS)[card])
    columns["segment"] = pa.array(segment)
    columns["note"] = pa.array(np.full(rows, "x"))
    columns["churned"] = pa.array(churned.astype(np.int32))
    return pa.table(columns)


def write_customers(path: Path, rows: int, seed: int = 1) -> Path:
    """Write `customers` as one parquet file, like a step's own: in row groups that Spark reads side by side."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(customers(rows, seed), path, row_group_size=131_072, compression="zstd")
    return path
