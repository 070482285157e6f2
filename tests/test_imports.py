"""Parsing a spec is cheap: it imports no heavy library, and lint does not even import Airflow."""

import subprocess
import sys
import textwrap
from pathlib import Path

from tests.support.imports import HEAVY, loaded_after

ROOT = Path(__file__).parents[1]


def test_lint_imports_nothing_heavy() -> None:
    """Checking every shipped spec needs neither Airflow nor a library that a task uses."""
    each = "for p in Path('pipelines').glob('*.yaml'): assert compile_file(p).plan"
    code = f"from factory.compiler import compile_file\n{each}"

    assert loaded_after(code, (*HEAVY, "airflow", "psycopg2", "sqlalchemy")) == set()


def test_dags_import_nothing_heavy() -> None:
    """Building every shipped DAG imports nothing that Airflow itself does not."""
    build = "from factory import load_dag\nfor p in Path('pipelines').glob('*.yaml'): load_dag(p)"
    airflow_alone = loaded_after("import airflow.sdk; airflow.sdk.DAG; airflow.sdk.task", HEAVY)

    assert loaded_after(build, HEAVY) <= airflow_alone


def test_packages_are_ours() -> None:
    """The names factory, tasks and stack mean this project, whatever else is installed."""
    import factory
    import stack
    import tasks

    assert {Path(str(one.__file__)).parents[1] for one in (factory, stack, tasks)} == {ROOT}


def test_layers_hold() -> None:
    """A stage imports earlier stages only, and the packages keep apart."""
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports"], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout


def test_parser_shares_protobuf() -> None:
    """The server's parser works in one process with the other libraries that bring messages of protobuf's."""
    code = """
        import mlflow.protos.service_pb2
        import pyspark.sql.connect.proto.base_pb2
        from tasks.postgres.grammar import statements, tokens

        print(len(statements("SELECT 1; SELECT 2")), len(tokens("a + 1")))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.stdout == "2 3\n", done.stderr
