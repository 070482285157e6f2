"""The types that an expression may have."""

import pytest

from factory.language.templates import TemplateProblem
from factory.planning.inference import Sample, samples_of


@pytest.mark.parametrize(
    ("text", "types"),
    [
        ("{{ params.n }}", {int}),
        ("{{ params.n / 2 }}", {float}),
        ("{{ params.n > 1 }}", {bool}),
        ("{{ params.n | string }}", {str}),
        ("{{ 'a' if params.n > 1 else 2 }}", {str, int}),
        ("{{ params.n }} rows", {str}),
    ],
)
def test_types_are_inferred(text: str, types: set[type]) -> None:
    """The types of an expression follow from those of its names."""
    samples = samples_of(text, lambda _: (Sample(1),))

    assert samples is not None
    assert {type(one.value) for one in samples} == types


def test_unknown_call_is_not_judged() -> None:
    """Nothing is claimed about what a macro returns."""
    assert samples_of("{{ macros.random() }}", lambda _: None) is None


def test_date_minus_number_is_refused() -> None:
    """Python cannot subtract a number from a date, so lint says so."""
    with pytest.raises(TemplateProblem, match="cannot be combined"):
        samples_of("{{ run.date - 5 }}", lambda _: (Sample("2026-01-31"),))
