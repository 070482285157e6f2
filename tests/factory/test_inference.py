"""The samples with which lint computes."""

import pytest

from factory.language.expressions import Path
from factory.language.templates import whole_expression
from factory.language.tokens import TemplateProblem
from factory.language.value_types import DATE, INTEGER, NULL, TEXT, Types
from factory.planning.inference import Computation, Known, Sample, Samples

DAYS = Known((INTEGER,), (5, 1, 60))


def samples_of(text: str, types: Types, known: dict[str, Known], *, left: int = 10_000) -> Samples:
    whole = whole_expression(text)
    assert whole is not None
    paths = {Path(0, 0, tuple(name.split("."))): one for name, one in known.items()}
    return Computation(left).samples(whole.node, text, types, paths)


def values_of(samples: Samples) -> list[object]:
    return [one.value for one in samples or ()]


def test_bounds_are_computed() -> None:
    """An expression is computed for the default and the bounds of a param, so a bound is compared after the sum."""
    samples = samples_of("{{ params.days * 2 + 1 }}", (INTEGER,), {"params.days": DAYS})

    assert samples == (Sample(11, exact=True), Sample(3, exact=True), Sample(121, exact=True))


def test_params_are_combined() -> None:
    """Every bound of one param meets every bound of another."""
    known = {"params.a": DAYS, "params.b": Known((INTEGER,), (0, 9))}

    assert values_of(samples_of("{{ params.a - params.b }}", (INTEGER,), known)) == [5, -4, 1, -8, 60, 51]


def test_output_is_only_typed() -> None:
    """Of a step's output only the type is known: no value of it is claimed to occur."""
    assert samples_of("{{ steps.a.n + 1 }}", (INTEGER,), {"steps.a.n": Known((INTEGER,))}) == (Sample(1),)
    assert samples_of("{{ run.date | add_days(1) }}", (DATE,), {"run.date": Known((DATE,))}) == (Sample("2026-02-01"),)


def test_null_that_is_allowed_may_occur() -> None:
    """A param whose type allows null may be null, whatever its default."""
    samples = samples_of("{{ params.note }}", (TEXT, NULL), {"params.note": Known((TEXT, NULL), ("x",))})

    assert samples == (Sample("x", exact=True), Sample(None, exact=True))


def test_failure_names_values() -> None:
    """A value that the form allows and that cannot be computed with is named."""
    with pytest.raises(TemplateProblem, match=r"it divides by zero if params.n is 0"):
        samples_of("{{ 7 // params.n }}", (INTEGER,), {"params.n": Known((INTEGER,), (5, 0))})


def test_failure_of_output_is_not_judged() -> None:
    """A typical value is no real one: what fails with it may well work."""
    known = {"steps.a.text": Known((TEXT,))}

    assert samples_of("{{ int(steps.a.text) }}", (INTEGER,), known) == (Sample(1),)


def test_work_is_limited() -> None:
    """What would take too many steps is judged by its type alone."""
    samples = samples_of("{{ params.days * 2 }}", (INTEGER,), {"params.days": DAYS}, left=10)

    assert samples == (Sample(1),)
