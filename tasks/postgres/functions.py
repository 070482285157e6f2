"""What comes with Postgres: the harmless functions, by the rules in `functions.sql`, and the catalogue's tables."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources


@dataclass(frozen=True, slots=True)
class Functions:
    """The names of harmless functions."""

    of_values: frozenset[str]
    """Those that return one value; they may stand in an expression."""
    of_rows: frozenset[str]
    """Those that return rows; they may stand in a query."""
    aggregates: frozenset[str]
    """Those of `of_values` that make one value of many rows."""
    of_one: frozenset[str]
    """Not harmless, and callable with one value: to Postgres `t.nextval` calls one if t has no column of that name."""


@cache
def harmless() -> Functions:
    """Return the functions of Postgres that are harmless."""
    names = json.loads(resources.files("tasks.postgres").joinpath("functions.json").read_text(encoding="utf-8"))
    return Functions(**{kind: frozenset(names[kind]) for kind in ("of_values", "of_rows", "aggregates", "of_one")})


@cache
def catalogue() -> frozenset[str]:
    """Return the names of the tables and views in Postgres' own schema."""
    return frozenset(json.loads(resources.files("tasks.postgres").joinpath("catalogue.json").read_text("utf-8")))
