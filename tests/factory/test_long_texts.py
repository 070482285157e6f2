"""Texts of a spec are read in one pass: a pattern that looks at each sign many times would be at it for hours here."""

import json
import re
from pathlib import Path

import pytest

from factory.compiler import compile_content
from factory.language import arguments, document, params
from tasks.postgres import file_text
from tasks.quality import expectations
from tasks.quality.on_postgres import conditions, row_queries
from tasks.spark import query_text

LENGTH = 50_000
PATTERNS = {
    name: pattern
    for module in (arguments, document, file_text, expectations, conditions, row_queries, query_text)
    for name, pattern in ((f"{module.__name__}.{key}", value) for key, value in vars(module).items())
    if isinstance(pattern, re.Pattern)
}
WHOLE = ("_DURATION_PART", "_TEXT_CONDITION")
"""Patterns that are only matched with a whole text, though they do not end in \\Z."""
HOSTILE = [
    "'\\",
    '"\\',
    "`",
    "/*",
    "--",
    ":a",
    "\\:",
    "1",
    "1_",
    "_",
    "1s",
    "1.",
    "1:",
    "{{",
    "{%",
    "{{ }}",
    " ",
    "%(",
    "a",
    "(",
]


@pytest.mark.parametrize("name", PATTERNS)
def test_patterns_are_linear(name: str) -> None:
    """No pattern needs more than a pass over a text of 50,000 signs, wherever it begins or ends."""
    pattern, is_whole = PATTERNS[name], PATTERNS[name].pattern.endswith("\\Z") or name.endswith(WHOLE)
    for sign in HOSTILE:
        text = (sign * LENGTH)[:LENGTH]
        for made in (f"{text}!", f"1{text}!", f"'{text}"):
            _ = pattern.match(made) if is_whole else pattern.sub("", made)


def test_long_list_is_refused_at_any_depth(tmp_path: Path) -> None:
    """Items are compared with each other to see whether they are unique: so a list in a default has 1,000 at most."""
    default = [{"a": [[number] for number in range(params.MAX_ITEMS + 1)]}]
    param = {"type": "array", "items": {"type": "object"}, "uniqueItems": True, "default": default}
    spec = json.dumps({"dag_id": "made", "params": {"x": param}})

    found = compile_content(spec.encode(), tmp_path / "made.yaml").report.diagnostics

    assert any(one.message.endswith("its default has a list of 1,001 items, more than 1,000") for one in found)
