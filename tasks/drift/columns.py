"""Which columns are compared, by which method, and the threshold at which a column has drifted.

Knows the methods by Evidently's names, and which kinds of column they suit; computes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from tasks.contract import Column, Model, TextKind

# Left out: methods for two categories only (z, fisher_exact), and those with random numbers that cannot be seeded
# (TVD, empirical_mmd), as a rerun would give another verdict.
NumericMethod = Literal[
    "wasserstein", "jensenshannon", "psi", "kl_div", "hellinger", "ed",
    "ks", "anderson", "cramer_von_mises", "es", "mannw", "t_test",
]  # fmt: skip
"""The first six are distances: drift at or above the threshold. The others give a p-value: drift below it."""
CategoricalMethod = Literal["jensenshannon", "psi", "kl_div", "hellinger", "chisquare", "g_test"]
"""The first four are distances: drift at or above the threshold. The others give a p-value: drift below it."""
Threshold = Annotated[float, Field(gt=0)]
NullThreshold = Annotated[float, Field(gt=0, le=1)]
"""The difference between two shares of rows without a value at which a column has drifted: 0.1 is from 2 % to 12 %."""
ComparedColumn = Annotated[Column, TextKind("column", of="current reference")]
"""A column of both sides; lint checks it if it knows a side's columns."""


class NumericTest(Model):
    """One numeric column's own threshold, or its own method with a threshold."""

    method: NumericMethod | None = None
    threshold: Threshold
    null_threshold: NullThreshold | None = None


class CategoricalTest(Model):
    """One categorical column's own threshold, or its own method with a threshold."""

    method: CategoricalMethod | None = None
    threshold: Threshold
    null_threshold: NullThreshold | None = None


class Numeric(Model):
    """Columns of numbers, or of true and false; numbers that a 64-bit one would round are rejected.

    A null and a NaN are no values: `method` compares the others, and `null_threshold` how many are missing.
    """

    columns: Annotated[list[ComparedColumn], Field(min_length=1)]
    method: NumericMethod = "wasserstein"
    threshold: Threshold = 0.1
    null_threshold: NullThreshold = 0.1
    own: dict[Column, NumericTest] | None = None
    """By column: what replaces `method`, `threshold` and `null_threshold`."""

    @model_validator(mode="after")
    def _known(self) -> Numeric:
        _check_columns(self.columns, self.own or {})
        return self


class Categorical(Model):
    """Columns whose values are categories: texts, dates, true and false, and numbers of any length.

    They are compared as texts, in which 5, 5.0 and 5.00 are the same. A null and a NaN are no values: `method` compares
    the others, and `null_threshold` how many are missing.
    """

    columns: Annotated[list[ComparedColumn], Field(min_length=1)]
    method: CategoricalMethod = "jensenshannon"
    threshold: Threshold = 0.1
    null_threshold: NullThreshold = 0.1
    own: dict[Column, CategoricalTest] | None = None
    """By column: what replaces `method`, `threshold` and `null_threshold`."""

    @model_validator(mode="after")
    def _known(self) -> Categorical:
        _check_columns(self.columns, self.own or {})
        return self


class Columns(Model):
    """The columns to compare; others are ignored."""

    numeric: Numeric | None = None
    categorical: Categorical | None = None

    @property
    def all(self) -> list[str]:
        """Their names."""
        return [*names(self.numeric), *names(self.categorical)]

    @model_validator(mode="after")
    def _some(self) -> Columns:
        if self.numeric is None and self.categorical is None:
            raise ValueError("should name numeric or categorical columns")
        if both := sorted(set(names(self.numeric)).intersection(names(self.categorical))):
            raise ValueError(f"should name a column once; {both[0]} is numeric and categorical")
        return self


@dataclass(frozen=True, slots=True)
class Test:
    """How one column is judged."""

    method: str
    threshold: float
    null_threshold: float
    is_numeric: bool

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods for columns of its kind."""
        return get_args(NumericMethod if self.is_numeric else CategoricalMethod)


def names(group: Numeric | Categorical | None) -> list[str]:
    """Return the columns of a group, none if there is no group."""
    return list(group.columns) if group else []


def tests(columns: Columns) -> dict[str, Test]:
    """Return how each column is judged."""
    groups = [group for group in (columns.numeric, columns.categorical) if group]
    return {name: _test(group, (group.own or {}).get(name)) for group in groups for name in group.columns}


def _test(group: Numeric | Categorical, own: NumericTest | CategoricalTest | None) -> Test:
    is_numeric = isinstance(group, Numeric)
    if own is None:
        return Test(group.method, group.threshold, group.null_threshold, is_numeric)
    nulls = own.null_threshold or group.null_threshold
    return Test(own.method or group.method, own.threshold, nulls, is_numeric)


def _check_columns(columns: list[str], own: Mapping[str, object]) -> None:
    if twice := sorted({name for name in columns if columns.count(name) > 1}):
        raise ValueError(f"should name each column once; {twice[0]} is there twice")
    if unknown := sorted(set(own) - set(columns)):
        raise ValueError(f"should have in `own` only names of `columns`; {unknown[0]} is not among them")
