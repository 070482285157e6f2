"""The bridge on a pre-release of Airflow 3.4, in an environment of its own, by tests that 3.3 passes in this one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stack import bootstrap

pytestmark = pytest.mark.airflow_3_4

ROOT = Path(__file__).parents[1]
REQUIREMENTS = ROOT / "tests" / "airflow_3_4" / "requirements.txt"
TESTS = ("tests/bridge", "tests/factory/test_arguments.py", "tests/factory/test_dag.py")
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR")
CONFIGURED = {"AIRFLOW__DAG_PROCESSOR__DAG_IMPORTER_CONFIGS": '["factory.importer.YamlImporter"]'}


@pytest.fixture(scope="module")
def python_3_4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python that has the pre-release, and this project without what it pins."""
    environment = tmp_path_factory.mktemp("airflow-3.4") / "venv"
    uv, python = bootstrap.install_uv(), environment / "bin" / "python"
    for command in (
        ("venv", "--python", sys.executable, "--no-python-downloads", environment),
        ("pip", "install", "--python", python, "--no-deps", "--requirement", REQUIREMENTS),
        ("pip", "install", "--python", python, "--no-deps", "--editable", ROOT),
    ):
        told([uv, *command], bootstrap.environment())
    return python


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The environment variables of both: none that this session sets for its own Airflow."""
    return {name: os.environ[name] for name in INHERITED if name in os.environ} | {"AIRFLOW_HOME": str(tmp_path)}


def told(command: list[str | Path], environment: dict[str, str]) -> str:
    """Return what a command prints; fail with all of it, where the command fails."""
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def outline(python: str | Path, environment: dict[str, str]) -> dict[str, dict[str, list[str]]]:
    printed = told([python, "-m", "tests.support.outline", "pipelines"], environment | CONFIGURED)
    found: dict[str, dict[str, list[str]]] = json.loads(printed.rpartition("OUTLINE ")[2])
    return found


def test_bridge_passes(python_3_4: Path, environment: dict[str, str]) -> None:
    """Every test of the bridge passes there, of Airflow's arguments and of the DAGs; none is skipped."""
    options = ("-q", "--confcutdir", "tests/bridge", "-p", "no:cacheprovider")  # without the services of tests/conftest

    said = told([python_3_4, "-m", "pytest", *options, *TESTS], environment)

    assert " passed" in said
    assert "skipped" not in said, said


def test_airflow_is_3_4(python_3_4: Path, environment: dict[str, str]) -> None:
    """It is a release 3.4 that passes them, and this session runs another."""
    version = "from importlib.metadata import version; print(version('apache-airflow-core'))"

    assert told([python_3_4, "-c", version], environment).startswith("3.4.")
    assert told([sys.executable, "-c", version], environment).startswith("3.3.")


def test_dags_are_same(python_3_4: Path, environment: dict[str, str]) -> None:
    """Each shipped pipeline has the same tasks, of the same kinds and dependencies, on both."""
    here, there = outline(sys.executable, environment), outline(python_3_4, environment)

    assert set(here) == {"churn_drift_monitor_w", "churn_training_dag", "crypto_events_dag", "import_errors"}
    assert here["import_errors"] == {}
    assert there == here


def test_missing_option_is_told(python_3_4: Path, environment: dict[str, str]) -> None:
    """Airflow 3.4 reads no spec unless its configuration says so: who forgot the option is told of it."""
    done = subprocess.run(
        [python_3_4, "-m", "airflow", "version"], env=environment, capture_output=True, text=True, check=True
    )

    assert 'set [dag_processor] dag_importer_configs to ["factory.importer.YamlImporter"]' in done.stdout + done.stderr
