"""Items one after another, in blocks of a bounded size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def blocks(items: Iterable[T], text: Callable[[T], str], *, most: int, characters: int) -> Iterator[list[T]]:
    """Yield lists of at most `most` items; a list ends with the item that takes its texts beyond `characters`."""
    block, size = list[T](), 0
    for item in items:
        block.append(item)
        size += len(text(item))
        if len(block) == most or size > characters:
            yield block
            block, size = [], 0
    if block:
        yield block
