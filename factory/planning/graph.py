"""Pure functions on names and the names that each waits for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter

Edges = Mapping[str, tuple[str, ...]]
"""The names that each name waits for."""

_SUCCESS_OF_ALL = frozenset({"all_success", "none_skipped"})
_NO_FAILURE = frozenset({"none_failed", "none_failed_min_one_success"})


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


def ancestors(upstream: Edges, name: str) -> set[str]:
    """Return all names that `name` waits for, at once or in the end."""
    found: set[str] = set()
    open_names = list(upstream.get(name, ()))
    while open_names:
        one = open_names.pop()
        if one not in found:
            found.add(one)
            open_names += upstream.get(one, ())
    return found


def stopped(upstream: Edges, rules: Mapping[str, str], start: Iterable[str], *, skipped: bool) -> set[str]:
    """Return every name that cannot run if the names in `start` fail, or are skipped.

    `rules` holds Airflow's trigger rules. All other names are assumed to succeed.
    """
    halted = set(start)
    for name in order(upstream):
        waits = upstream[name]
        if (
            name not in halted
            and waits
            and _is_stopped(rules[name], [wait in halted for wait in waits], skipped=skipped)
        ):
            halted.add(name)
    return halted


def _is_stopped(rule: str, halted: list[bool], *, skipped: bool) -> bool:
    if rule in _SUCCESS_OF_ALL:
        return any(halted)
    if rule in _NO_FAILURE:
        return any(halted) if not skipped else rule == "none_failed_min_one_success" and all(halted)
    return rule in ("one_success", "all_done_min_one_success") and all(halted)
