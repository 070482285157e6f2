"""A sample of each side of a comparison, and the reasons why two sides do not match.

Knows which columns are compared and what their values may be; knows nothing about methods or scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from tasks.contract import DataRejected
from tasks.drift.columns import Columns, names
from tasks.drift.compared_rows import Family, Part
from tasks.drift.sampling import Sampler
from tasks.drift.values import as_categories, as_numbers

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_ALLOWED: Mapping[str, tuple[Family, ...]] = {
    "numeric": ("number", "boolean"),
    "categorical": ("number", "boolean", "text", "date"),
}
_NOUNS: Mapping[Family, str] = {
    "number": "a number",
    "boolean": "true or false",
    "text": "text",
    "date": "a date",
    "null": "null in every row",
    "other": "neither number, text nor date",
}


@dataclass(frozen=True, slots=True)
class Side:
    """What is known about the current rows, or about the reference."""

    name: str
    addresses: list[str]
    families: Mapping[str, Family]
    """Of the columns compared."""
    total: int
    rows: pd.DataFrame
    """The sample: numbers as floats, categories as texts."""

    @property
    def values(self) -> dict[str, int]:
        """How many rows of the sample have a value, by column."""
        return {name: int(count) for name, count in self.rows.count().items()}

    @property
    def nulls(self) -> dict[str, float]:
        """The share of the sample's rows without a value, by column."""
        return {name: 1 - count / self.used for name, count in self.values.items()}

    @property
    def used(self) -> int:
        """Rows of the sample."""
        return len(self.rows)


def read(name: str, parts: Iterator[Part], columns: Columns, sampler: Sampler, other: Side | None = None) -> Side:
    """Return a side with a sample of its rows, which match those of the `other`.

    Raises DataRejected for columns that are missing, differ in kind from the declaration or the other side, or have no
    values, and if there are no rows: all problems of a table at once.
    """
    schema = _schema(columns)
    known = (other.families, other.addresses[0]) if other else None
    addresses, families = [], dict[str, Family]()
    for part in parts:
        _refuse(_mismatches(part, columns, known), name, part.address)
        families = {column: part.families[column] for column in schema.names}
        known = known or (families, part.address)
        addresses.append(part.address)
        for batch in part.batches:
            sampler.take(batch, partial(_prepared, schema=schema, address=part.address, name=name))
    rows = sampler.rows()
    address = addresses[0] if len(addresses) == 1 else f"{addresses[0]} and the {len(addresses) - 1} after it"
    if rows is None or not len(rows):
        _refuse(["it has no rows"], name, address)
    assert rows is not None
    _refuse(_senseless(rows), name, address)
    return Side(name, addresses, families, sampler.seen, rows.to_pandas())


def _schema(columns: Columns) -> pa.Schema:
    import pyarrow as pa

    numbers = [(name, pa.float64()) for name in names(columns.numeric)]
    return pa.schema([*numbers, *((name, pa.string()) for name in names(columns.categorical))])


def _prepared(rows: pa.Table, schema: pa.Schema, address: str, name: str) -> pa.Table:
    """Return rows in the types of `schema`; raise DataRejected for values that would not survive."""
    import pyarrow as pa
    from pyarrow import types

    columns, problems = [], []
    for field in schema:
        convert = as_numbers if types.is_floating(field.type) else as_categories
        try:
            columns.append(convert(rows[field.name]))
        except ValueError as error:
            problems.append(f"{field.name}: {error}")
    _refuse(problems, name, address)
    return pa.table(columns, schema=schema)


def _mismatches(part: Part, columns: Columns, known: tuple[Mapping[str, Family], str] | None) -> Iterator[str]:
    kinds = dict.fromkeys(names(columns.numeric), "numeric") | dict.fromkeys(names(columns.categorical), "categorical")
    for name, kind in kinds.items():
        family = part.families.get(name)
        if family is None:
            yield f"it has no column {name}"
        elif known and known[0][name] != family:
            yield f"{name} is {_NOUNS[family]}, and {_NOUNS[known[0][name]]} in {known[1]}"
        elif family not in _ALLOWED[kind]:
            yield f"{name} is {_NOUNS[family]}, which cannot be compared as {kind}"


def _senseless(rows: pa.Table) -> Iterator[str]:
    import numpy as np

    for name in rows.schema.names:
        values = rows[name].to_pandas()
        if values.isna().all():
            yield f"{name} has no value in any of the {len(rows):,} rows that were drawn"
        elif values.dtype == float and np.isinf(values).any():
            yield f"{name} has infinite values"


def _refuse(problems: Iterator[str] | list[str], name: str, address: str) -> None:
    if reasons := list(problems):
        remedy = "fix the pipeline that writes it, or correct `columns` in the step"
        raise DataRejected(f"{name} ({address}) cannot be compared: {'; '.join(reasons)}; {remedy}")
