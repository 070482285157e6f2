"""The documentation says what is so: its examples pass lint, its commands exist, its numbers are right."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from factory.compiler import compile_file
from factory.language.codes import CODES
from factory.language.errors import render

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/guide.md", "docs/shapes.md", "docs/coming-from-dag-factory.md")


def examples() -> list[tuple[str, str]]:
    blocks = [
        (page, one) for page in PAGES for one in re.findall(r"```yaml\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    ]
    return [(f"{page}-{index}", text) for index, (page, text) in enumerate(blocks)]


@pytest.mark.parametrize(
    "text", [text for _, text in examples()], ids=[name.replace("/", "-") for name, _ in examples()]
)
def test_example_passes_lint(text: str, tmp_path: Path) -> None:
    """A spec that the documentation shows is a right one."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    (tmp_path / "example.yaml").write_text(text)

    assert render(compile_file(tmp_path / "example.yaml").report.diagnostics) == ""


def test_shown_report_is_real(tmp_path: Path) -> None:
    """The report in the README is what lint says of that mistake."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    (tmp_path / "pipelines").mkdir()
    spec = (ROOT / "pipelines" / "crypto_events.yaml").read_text().replace("quality.validate", "quality.validat", 1)
    (tmp_path / "pipelines" / "crypto_events.yaml").write_text(spec)

    report = render(compile_file(tmp_path / "pipelines" / "crypto_events.yaml").report.diagnostics)

    assert report in (ROOT / "README.md").read_text()


def test_number_of_mistakes_is_right() -> None:
    """The README counts the kinds of mistakes that lint finds."""
    assert f"{len(CODES)} kinds of mistakes" in (ROOT / "README.md").read_text()


def test_make_targets_exist() -> None:
    """Every `make …` that the documentation names is a target."""
    named = {
        one
        for page in (*PAGES, "CONTRIBUTING.md")
        for one in re.findall(r"(?:`|^)make ([a-z-]+)", (ROOT / page).read_text(), re.MULTILINE)
    }
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert {one for one in named if f"make {one} " not in listed} == set()


def test_ci_runs_readme_command() -> None:
    """Continuous integration runs the README's test command as it is written, and the pipelines distributed."""
    commands = re.search(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert commands is not None
    demo, test = (line.partition("#")[0].strip() for line in commands[1].strip().splitlines())

    assert demo == "make demo"
    assert f"&& {test} && exec make test-distributed" in (ROOT / ".ci" / "run").read_text()


def test_links_lead_somewhere() -> None:
    """Every file that a page links to is there."""
    for page in (*PAGES, "CONTRIBUTING.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text()):
            assert ((ROOT / page).parent / target).exists(), f"{page} links to {target}"
