"""Pure functions on names and the names that each waits for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import reduce
from graphlib import CycleError, TopologicalSorter
from operator import and_, or_

Edges = Mapping[str, tuple[str, ...]]
"""The names that each name waits for."""

_SUCCESS_OF_ALL = frozenset({"all_success"})
_NO_FAILURE = frozenset({"none_failed", "none_failed_min_one_success"})
_SUCCESS_OF_ONE = frozenset({"one_success", "all_done_min_one_success"})


def cycle(upstream: Edges) -> list[str] | None:
    """Return the names of one cycle, each waiting for the one before it, or None. The smallest name comes first."""
    try:
        TopologicalSorter(upstream).prepare()
    except CycleError as error:
        ring: list[str] = error.args[1][:-1]
        start = ring.index(min(ring))
        return ring[start:] + ring[:start]
    return None


def order(upstream: Edges) -> list[str]:
    """Return the names, each after the names that it waits for."""
    return list(TopologicalSorter(upstream).static_order())


def stopped(upstream: Edges, rules: Mapping[str, str], start: Iterable[str], *, skipped: bool) -> set[str]:
    """Return every name that cannot run if the names in `start` fail, or are skipped.

    `rules` holds Airflow's trigger rules. All other names are assumed to succeed.
    """
    halted = halted_in(upstream, rules, dict.fromkeys(start, 1), skipped=skipped)
    return {name for name, cases in halted.items() if cases}


def halted_in(upstream: Edges, rules: Mapping[str, str], starts: Mapping[str, int], *, skipped: bool) -> dict[str, int]:
    """Answer many such questions in one walk: bit n of a number is case n, and `starts` has the cases a name starts.

    Return for every name the cases in which it cannot run.
    """
    halted: dict[str, int] = {}
    for name in order(upstream):
        waits = [halted[wait] for wait in upstream[name]]
        halted[name] = starts.get(name, 0) | _halted(rules[name], waits, skipped=skipped)
    return halted


def _halted(rule: str, waits: list[int], *, skipped: bool) -> int:
    """Return the cases in which a name cannot run, from those of what it waits for."""
    if not waits:
        return 0
    if rule in _SUCCESS_OF_ALL or (rule in _NO_FAILURE and not skipped):
        return reduce(or_, waits)
    if rule in _SUCCESS_OF_ONE or (rule == "none_failed_min_one_success" and skipped):
        return reduce(and_, waits)
    return 0


def ancestor_bits(upstream: Edges) -> dict[str, int]:
    """Return for every name all that it waits for, at once or in the end: bit n is the n-th name of `upstream`."""
    own = {name: 1 << index for index, name in enumerate(upstream)}
    found: dict[str, int] = {}
    for name in order(upstream):
        found[name] = reduce(or_, (found[wait] | own[wait] for wait in upstream[name]), 0)
    return found


def bits_of(cases: int) -> Iterator[int]:
    """Yield the positions of the bits that are set, the lowest first."""
    while cases:
        lowest = cases & -cases
        yield lowest.bit_length() - 1
        cases ^= lowest
