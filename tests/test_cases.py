"""Every YAML of tests/cases/ gives exactly the report that stands beside it.

`python -m tests.test_cases` rewrites the reports; read the difference before you commit it.
"""

from pathlib import Path

import pytest

from factory.compiler import compile_file
from factory.language.codes import CODES
from factory.language.errors import render

CASES = Path(__file__).parent / "cases"
SPECS = sorted(CASES.glob("*.yaml"))
SHOWN_ELSEWHERE = {
    "duplicate-dag-id",
    "unknown-environment",
}  # of several files, or of the caller: tests/factory/test_cli.py


def report_of(spec: Path) -> str:
    text = render(compile_file(spec).report.diagnostics)
    return f"{text}\n" if text else ""


@pytest.mark.parametrize("spec", SPECS, ids=lambda path: path.stem)
def test_report_is_exact(spec: Path) -> None:
    """The whole report, with lines, carets and hints, is what stands beside the spec."""
    assert report_of(spec) == spec.with_suffix(".out").read_text()


def test_every_code_has_case() -> None:
    """No diagnostic exists that no case shows."""
    shown = {code for code in CODES for out in CASES.glob("*.out") if f"[{code}]" in out.read_text()}

    assert set(CODES) - shown == SHOWN_ELSEWHERE


def test_good_spec_is_silent() -> None:
    """A spec with nothing wrong gives no report."""
    assert report_of(CASES / "good.yaml") == ""


if __name__ == "__main__":
    for path in SPECS:
        path.with_suffix(".out").write_text(report_of(path))
