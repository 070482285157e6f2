"""The rule of thumb that answers while there is no Production model.

It was not learned from data. Log-odds of churn =

    -1 + 0.05 × days since the last payment - 0.15 × payments + 0.02 × days since the last login

with at most 90 days and 20 payments counted: a person who pays often and paid last week stays, a person who has neither
paid nor logged in for months leaves. The explanation compares with an average person.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from stack.app.scoring import Explanation, Field


@dataclass(frozen=True, slots=True)
class Term:
    """How one value counts."""

    field: Field
    weight: float
    limit: float
    """The maximum that counts."""
    typical: float


TERMS = (
    Term(Field("days_since_last_payment", "number", 45.0), weight=0.05, limit=90, typical=20),
    Term(Field("payments", "number", 2.0), weight=-0.15, limit=20, typical=4),
    Term(Field("days_since_login", "number", 30.0), weight=0.02, limit=90, typical=10),
)
START = -1.0
FORMULA = (
    "log-odds = -1 + 0.05 × days since the last payment - 0.15 × payments + 0.02 × days since the last login "
    "(days count up to 90, payments up to 20)"
)


@dataclass(frozen=True, slots=True)
class Heuristic:
    """The rule of thumb as a scorer."""

    title: str = "Heuristic (no model)"
    fields: tuple[Field, ...] = tuple(term.field for term in TERMS)
    threshold: float = 0.5

    def score(self, people: pd.DataFrame) -> pd.DataFrame:
        """Return the columns `probability` and `prediction` of each row."""
        log_odds = START + sum(term.weight * _counted(term, people) for term in TERMS)
        probability = 1 / (1 + np.exp(-log_odds))
        churn = (probability >= self.threshold).astype("int64")
        return pd.DataFrame({"probability": probability, "prediction": churn}, index=people.index)

    def explain(self, person: pd.DataFrame) -> Explanation:
        """Return what each value adds to the score of a typical person."""
        base = START + sum(term.weight * term.typical for term in TERMS)
        parts = {t.field.name: t.weight * (float(_counted(t, person).iloc[0]) - t.typical) for t in TERMS}
        return Explanation(base, parts)


def _counted(term: Term, people: pd.DataFrame) -> pd.Series[float]:
    return people[term.field.name].astype("float64").clip(0, term.limit)
