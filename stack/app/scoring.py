"""The interface between the page and what answers: a registered model, or the heuristic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

FieldKind = Literal["number", "integer", "boolean", "text"]
Unit = Literal["log-odds", "probability"]
Value = float | int | bool | str | None


@dataclass(frozen=True, slots=True)
class Field:
    """One value to ask for: a column of the scored frame."""

    name: str
    kind: FieldKind
    example: Value = None
    levels: tuple[str, ...] = ()
    """The texts that the scorer knows; all others count as the same. Empty if any text will do."""
    optional: bool = False
    """Whether the value may be missing."""

    @property
    def title(self) -> str:
        """The column's name as words."""
        return self.name.replace("_", " ").strip().capitalize()

    @property
    def expected(self) -> str:
        """What a value must be, in words."""
        if self.levels:
            return f"a text: {', '.join(self.levels)}, or another"
        return {
            "number": "a number, such as 12.5",
            "integer": "a whole number",
            "boolean": "true or false",
            "text": "a text",
        }[self.kind]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a person got a score: what each value adds to the score of a typical person."""

    base: float
    contributions: Mapping[str, float]
    unit: Unit = "log-odds"

    @property
    def score(self) -> float:
        """The sum of base and contributions."""
        return self.base + sum(self.contributions.values())

    def probability(self, score: float) -> float:
        """Return a score in this unit as a probability."""
        with np.errstate(over="ignore"):
            return score if self.unit == "probability" else float(1 / (1 + np.exp(-score)))


class Scorer(Protocol):
    """A model that names the values it needs, scores them, and says why."""

    @property
    def title(self) -> str:
        """The name shown to people."""

    @property
    def fields(self) -> tuple[Field, ...]:
        """The columns of a frame to score."""

    @property
    def threshold(self) -> float:
        """The minimum probability that counts as churn."""

    def score(self, people: pd.DataFrame) -> pd.DataFrame:
        """Return the columns `probability` and `prediction` (1 is churn) of each row."""

    def explain(self, person: pd.DataFrame) -> Explanation:
        """Return why the only row of `person` got its score."""
