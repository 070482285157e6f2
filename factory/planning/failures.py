"""Whether a run in which a step fails can end as success all the same: Airflow judges a run by its last steps alone.

Airflow decides about a step as soon as it can. Where one of the steps that it waits for fails and another is skipped,
whichever comes first counts: a step that is skipped never hears of the failure, nor does what comes after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import or_

from factory.planning.graph import bits_of, halted_in, order
from factory.planning.plan import Node
from factory.planning.skips import Skips

_SKIPPED_BY_ONE = frozenset({"all_success", "none_skipped", "all_done_min_one_success"})
_SKIPPED_BY_ALL = frozenset({"one_success", "none_failed_min_one_success", "one_done"})
_SUCCEEDS_BY_ONE = frozenset({"one_success", "all_done_min_one_success"})

_BITS_OF_A_RULE = 3
"""Of a step that is skipped by its trigger rule alone: two cases, and the free bit."""


@dataclass(frozen=True)
class Failures:
    """What follows from the failures of some steps of a plan: for each, by its position in `watched`."""

    watched: list[Node]
    skips: Skips

    @cached_property
    def last(self) -> list[str]:
        """The steps by which Airflow judges a run."""
        waited_for = {name for names in self.skips.guards.upstream.values() for name in names}
        return sorted(name for name in self.skips.guards.upstream if name not in waited_for)

    def ends(self, index: int) -> list[str]:
        """Return the last steps that fail if the watched step does, and nothing is skipped."""
        return [name for name in self.last if self._halted[name] >> index & 1]

    def unheard(self, index: int) -> int:
        """Return cases, as of `Skips`, in which all of these last steps are skipped, or succeed; 0 if there are none.

        More than one may have to come together. Where only a long look could rule them out, they count.
        """
        cases, upstream, rules = self._open(index), self.skips.guards.upstream, self.skips.guards.trigger_rules
        if not cases:
            return 0
        lost: dict[str, int] = {}
        for name in self._order:
            if not self._halted[name] >> index & 1:
                continue
            failing = [lost[wait] for wait in upstream[name] if wait in lost]
            lost[name] = 0 if name == self.watched[index].task_id else self.skips.starts.get(name, 0) & cases
            if failing:
                lost[name] |= reduce(or_, failing) if rules[name] in _SUCCEEDS_BY_ONE else self._together(failing)
            if failing and rules[name] in _SKIPPED_BY_ONE:
                lost[name] |= self._skipped[name] & cases
        return self._together(lost[name] for name in self.ends(index))

    @cached_property
    def _order(self) -> list[str]:
        return order(self.skips.guards.upstream)

    @cached_property
    def _halted(self) -> Mapping[str, int]:
        """The watched steps, as bits, whose failure stops each step."""
        starts = {node.task_id: 1 << index for index, node in enumerate(self.watched)}
        return halted_in(self.skips.guards.upstream, self.skips.guards.trigger_rules, starts, skipped=False)

    @cached_property
    def _skipped(self) -> Mapping[str, int]:
        """The cases that may skip each step, alone or together."""
        skipped: dict[str, int] = {}
        for name in self._order:
            waits, rule = [skipped[wait] for wait in self.skips.guards.upstream[name]], self._rule(name)
            skipped[name] = self.skips.starts.get(name, 0)
            if rule in _SKIPPED_BY_ONE:
                skipped[name] |= reduce(or_, waits, 0)
            elif rule in _SKIPPED_BY_ALL:
                skipped[name] |= self._together(waits)
        return skipped

    def _rule(self, name: str) -> str:
        return self.skips.guards.trigger_rules[name]

    def _open(self, index: int) -> int:
        """Return the cases that may come although the watched step runs, of choices that its failure leaves open."""
        open_cases = ~self.skips.cases[self.watched[index].task_id]
        for owner, cases in self.skips.cases_by_owner.items():
            if self._is_settled(owner, index, is_rule_alone=cases.bit_count() == _BITS_OF_A_RULE):
                open_cases &= ~cases
        return open_cases & self._all_cases

    @cached_property
    def _all_cases(self) -> int:
        return reduce(or_, self.skips.starts.values(), 0)

    def _is_settled(self, owner: str, index: int, *, is_rule_alone: bool) -> bool:
        """Return whether a choice is not made once the watched step has failed: the step stops, or surely runs.

        A step that runs may still skip itself, or others, unless its trigger rule is all that skips it.
        """
        waits = [self._halted[wait] >> index & 1 for wait in self.skips.guards.upstream[owner]]
        surely_runs = {"one_failed": any(waits), "all_failed": all(waits)}.get(self._rule(owner), False)
        return bool(self._halted[owner] >> index & 1) or (surely_runs and is_rule_alone)

    def _together(self, many: Iterable[int]) -> int:
        """Return the cases of `many` if there may be one of each at once: a choice has one outcome."""
        sets, alone = list(many), dict[str, int]()
        for cases in sets:
            maker = self.skips.owners[next(bits_of(cases))].task_id if cases else ""
            if cases and not cases & ~self.skips.cases_by_owner[maker]:
                alone[maker] = alone.get(maker, cases) & cases
        return reduce(or_, sets, 0) if all(sets) and all(alone.values()) else 0
