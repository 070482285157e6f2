"""What a spec could try, to run code, read a secret or get around a check: each gives the report beside it.

`python -m tests.test_attacks` rewrites the reports; read the difference before you commit it. An attack with an empty
report is inert: the tests of the worker show that.
"""

import re
from pathlib import Path

import pytest

from factory.compiler import compile_file
from factory.language.errors import render

ATTACKS = sorted((Path(__file__).parent / "attacks").glob("*.yaml"))


def report_of(spec: Path) -> str:
    text = render(compile_file(spec).report.diagnostics)
    return f"{text}\n" if text else ""


@pytest.mark.parametrize("spec", ATTACKS, ids=lambda path: path.stem)
def test_attack_is_refused_or_inert(spec: Path) -> None:
    """The whole report, with lines, carets and hints, is what stands beside the attack."""
    assert report_of(spec) == spec.with_suffix(".out").read_text()


TESTS = Path(__file__).parent
CLAIM = re.compile(r"^\| (?P<claim>[^|]+) \| (?P<document>[\w./]+\.md) \| (?P<attacks>.+) \|$", re.MULTILINE)


def test_claims_have_attacks() -> None:
    """Every claim of safety is where the table says, with attacks that exist; and every attack is for a claim."""
    claims = list(CLAIM.finditer((TESTS / "attacks" / "README.md").read_text()))
    named = {attack for claim in claims for attack in re.findall(r"`([^`]+)`", claim["attacks"])}

    assert len(claims) > 15
    for claim in claims:
        document = (TESTS.parent / claim["document"]).read_text()
        assert claim["claim"] in " ".join(document.split()), claim["claim"]
    assert [attack for attack in sorted(named) if not (TESTS / attack).is_file()] == []
    assert {f"attacks/{spec.name}" for spec in ATTACKS} <= named


if __name__ == "__main__":
    for path in ATTACKS:
        path.with_suffix(".out").write_text(report_of(path))
