"""Values of any type as they are compared: numbers as 64-bit ones, categories as texts.

Knows Arrow's types; a value that would not survive is an error, never rounded.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pyarrow as pa

EXACT = 2**53
"""Up to here every whole number is a 64-bit one."""


def as_numbers(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return numbers, or true and false, as 64-bit numbers, NaN as null; raise ValueError if one would be rounded."""
    import pyarrow as pa
    from pyarrow import compute, types

    kind = values.type
    if types.is_integer(kind) or types.is_decimal(kind):
        _check_exact(value for value in values.to_pylist() if value is not None)
    return compute.if_else(compute.is_nan(numbers := _wide(values)), pa.scalar(None, pa.float64()), numbers)


def _wide(values: pa.ChunkedArray) -> pa.ChunkedArray:
    import pyarrow as pa

    return values.cast(pa.float64(), safe=False)


def _check_exact(values: Iterable[int | Decimal]) -> None:
    rounded = [value for value in values if is_rounded(value)]
    if rounded:
        counted = f"{len(rounded):,} of its numbers have more digits than a 64-bit number keeps ({rounded[0]})"
        raise ValueError(f"{counted}; compare it as categorical, or round it where it is made")


def is_rounded(value: int | Decimal) -> bool:
    """Return whether a 64-bit number would be another one. Of a fraction, what it is written as counts: 0.1 is 0.1."""
    if isinstance(value, int):
        return abs(value) > EXACT and int(float(value)) != value
    return value.is_finite() and Decimal(repr(float(value))) != value


def as_categories(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return values as texts: a number or a time reads the same whatever its width, and NaN is null."""
    import pyarrow as pa
    from pyarrow import types

    kind = values.type
    if types.is_dictionary(kind):
        return as_categories(values.cast(kind.value_type))
    if types.is_floating(kind) or types.is_decimal(kind):
        return pa.chunked_array([pa.array([_number(value) for value in values.cast(pa.string()).to_pylist()])])
    if types.is_timestamp(kind):
        return _times(values.cast(pa.timestamp(kind.unit)))
    return values.cast(pa.string())


def _number(text: str | None) -> str | None:
    if text is None or text == "nan":
        return None
    number = Decimal(text)
    return f"{number.normalize():f}" if number.is_finite() else text


def _times(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return times, of UTC where they have a zone, without the fraction's last zeros; a midnight is a date."""
    import pyarrow as pa
    from pyarrow import compute

    texts = compute.replace_substring_regex(values.cast(pa.string()), r"\.(\d*?)0+$", r".\1")
    return compute.replace_substring_regex(texts, r"( 00:00:00)?\.?$", "")
