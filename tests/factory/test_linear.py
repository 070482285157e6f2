"""Checking a spec takes work in proportion to its size, up to 5,000 steps: counted, not timed."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from factory.compiler import compile_content
from tests.support.large_specs import SHAPES, Shape, steps_apart

OURS = ("/factory/", "/tasks/")
SMALL, FACTOR = 80, 4


def counted(action: Callable[[], object]) -> int:
    """Return how many lines of this project and how many calls, of C functions too, `action` takes."""
    count = 0

    def on_line(_frame: FrameType, _event: str, _argument: Any) -> Any:
        nonlocal count
        count += 1
        return on_line

    def on_call(frame: FrameType, _event: str, _argument: Any) -> Any:
        nonlocal count
        count += 1
        return on_line if any(part in frame.f_code.co_filename for part in OURS) else None

    def on_c_call(_frame: FrameType, event: str, _argument: Any) -> None:
        nonlocal count
        count += event == "c_call"

    before = sys.gettrace(), sys.getprofile()
    sys.setprofile(on_c_call)
    sys.settrace(on_call)
    try:
        action()
    finally:
        sys.settrace(before[0])
        sys.setprofile(before[1])
    return count


def work(text: str, folder: Path) -> int:
    return counted(lambda: compile_content(text.encode(), folder / "made.yaml"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project with an empty `configs/`."""
    (tmp_path / "configs").mkdir()
    compile_content(SHAPES["loads_in_lines"](6).encode(), tmp_path / "made.yaml")  # imports and caches
    return tmp_path


@pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))
def test_work_grows_as_size_does(shape: Shape, folder: Path) -> None:
    """Four times as large takes four times the work, where a quadratic part would soon take sixteen times."""
    small = work(shape(SMALL), folder)

    assert work(shape(SMALL * FACTOR), folder) < 1.2 * FACTOR * small


def test_work_for_most_steps(folder: Path) -> None:
    """It is so up to the maximum of 5,000 steps."""
    small = work(steps_apart(500), folder)

    assert work(steps_apart(5_000), folder) < 1.1 * 10 * small


def test_work_for_most_unknown_keys(folder: Path) -> None:
    """Names are compared only for the mistakes that are shown: 20,000 more keys cost what reading them costs."""
    unknown = SHAPES["unknown_keys"]
    small = work(unknown(2_000), folder)

    assert work(unknown(20_000), folder) < 10 * small


@pytest.mark.parametrize(
    "statement",
    ["SELECT %(x)s;", "SELECT '%(a)s';", "SELECT 1; -- %(a)s", "SELECT FROM WHERE;", "COMMIT;", "SELECT '%', %(a)s;"],
)
def test_work_for_sql_file(statement: str, folder: Path) -> None:
    """So does the work for a SQL file, whatever is wrong in each of its statements."""
    (folder / "configs" / "sql").mkdir()
    given = "{connection: c, file: large.sql, values: {a: 1}}"
    spec = f"dag_id: large\nsteps: {{make: {{uses: postgres.run_sql, with: {given}}}}}\n"

    def checked(count: int) -> int:
        (folder / "configs" / "sql" / "large.sql").write_text(f"{statement}\n" * count)
        return work(spec, folder)

    small = checked(300)

    assert checked(300 * FACTOR) < 1.2 * FACTOR * small


def test_counter_sees_quadratic_work() -> None:
    """A search through a list for each of its items is seen."""

    def search(count: int) -> int:
        return counted(lambda: [any(one == index for one in range(count)) for index in range(count)])

    assert search(400) > 10 * search(100)
