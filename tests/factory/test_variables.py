"""Declarations of Airflow's Variables in `configs/`."""

from pathlib import Path

import pytest

from factory.compiler import compile_content
from factory.language.errors import render
from factory.language.value_types import INTEGER
from factory.language.variables import Variable, read_variable

SPEC = b"dag_id: made\nsteps:\n  say: {uses: messages.log, with: {message: '{{ variables.region }}'}}\n"


def report_of(folder: Path, declared: str) -> str:
    (folder / "configs").mkdir()
    (folder / "configs" / "defaults.yaml").write_text(f"variables:\n  region: text\n  {declared}\n")
    return render(compile_content(SPEC, folder / "made.yaml").report.diagnostics)


def test_declaration_is_short_or_long() -> None:
    """A Variable is declared by its type, or with a default."""
    assert read_variable("rows", "integer") == Variable("rows", INTEGER)
    assert read_variable("rows", {"type": "integer", "default": 5}) == Variable("rows", INTEGER, 5)


@pytest.mark.parametrize(
    ("declared", "report"),
    [
        ("rows: int", "defaults.yaml:3:9: error: the type of the Variable \"rows\" is 'int' [wrong-value]"),
        ("rows: {type: list}", "defaults.yaml:3:16: error: the type of the Variable \"rows\" is 'list' [wrong-value]"),
        ("rows: {default: 5}", 'defaults.yaml:3:3: error: the type of the Variable "rows" is None [wrong-value]'),
        (
            "rows: {type: integer, default: x}",
            "defaults.yaml:3:34: error: its default 'x' is not an integer",
        ),
        ("rows: {type: number, default: .nan}", "defaults.yaml:3:33: error: .nan is not a finite number [wrong-value]"),
        ("rows: {type: text, descr: x}", 'defaults.yaml:3:29: error: "descr" is not a key of a Variable [unknown-key]'),
        ("slack_token: text", 'defaults.yaml:3:16: error: Airflow takes the Variable "slack_token" for a secret'),
        ('"a b": text', 'defaults.yaml:3:10: error: "a b" cannot be the name of a Variable here [wrong-value]'),
    ],
)
def test_wrong_declaration_is_reported(declared: str, report: str, tmp_path: Path) -> None:
    """A declaration that is wrong, or that would show a secret, is an error at its place."""
    assert report in report_of(tmp_path, declared)


def test_environment_declares_over_defaults(tmp_path: Path) -> None:
    """An environment may declare another type or default for a Variable."""
    environments = tmp_path / "configs" / "environments"
    environments.mkdir(parents=True)
    (tmp_path / "configs" / "defaults.yaml").write_text("variables: {region: integer}\n")
    (environments / "test.yaml").write_text("variables: {region: {type: text, default: EU}}\n")

    compiled = compile_content(SPEC, tmp_path / "made.yaml", environment="test")

    assert compiled.errors == []
    assert compiled.plan is not None
    assert compiled.plan.node("say").arguments["message"].sources[0].default == "EU"
