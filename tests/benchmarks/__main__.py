"""`make bench`: run the benchmarks named, or all of them, and print their tables."""

from __future__ import annotations

import importlib
import sys

BENCHMARKS = (
    "parse",
    "processor",
    "quality",
    "crypto",
    "cleaning",
    "training",
    "features",
    "drift",
    "files",
    "throughput",
)


def main(names: list[str]) -> None:
    """Run the benchmarks `names`; all where none is named."""
    if unknown := [name for name in names if name not in BENCHMARKS]:
        sys.exit(f"there is no benchmark {unknown[0]}; there are {', '.join(BENCHMARKS)}")
    for name in names or BENCHMARKS:
        importlib.import_module(f"tests.benchmarks.{name}").main([])


if __name__ == "__main__":
    main(sys.argv[1:])
