"""Airflow's own DagBag and file discovery, with specs in the folder."""

from pathlib import Path
from urllib.parse import SplitResult

import pytest
from airflow.dag_processing.dagbag import BundleDagBag
from airflow.sdk.providers_manager_runtime import ProvidersManagerTaskRuntime
from airflow.utils.file import list_py_file_paths

GOOD = "dag_id: good\nsteps:\n  say: {uses: messages.log, with: {message: hello}}\n"
BROKEN = "dag_id: broken\nsteps:\n  say: {uses: messages.lag, with: {message: hello}}\n  more: {usos: x}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "defaults.yaml").write_text("dag: {tags: [x]}\n")
    pipelines = tmp_path / "pipelines"
    pipelines.mkdir()
    (pipelines / "good.yaml").write_text(GOOD)
    (pipelines / "broken.yaml").write_text(BROKEN)
    (pipelines / "good.test.yaml").write_text("run: {}\n")
    return pipelines


def bag(folder: Path) -> BundleDagBag:
    return BundleDagBag(dag_folder=str(folder), bundle_path=folder, bundle_name="specs")


def test_discovery_finds_specs(folder: Path) -> None:
    """The dag-processor sees every spec, and no test of a pipeline."""
    assert sorted(Path(path).name for path in list_py_file_paths(folder)) == ["broken.yaml", "good.yaml"]


def test_configs_are_no_specs(folder: Path) -> None:
    """The files of configs/ are no DAG files even where the whole project is the DAGs folder."""
    names = sorted(Path(path).name for path in list_py_file_paths(folder.parent))

    assert names == ["broken.yaml", "good.yaml"]


def test_broken_spec_stays_alone(folder: Path) -> None:
    """A broken spec is one import error under its own name; the others are loaded."""
    found = bag(folder)

    assert list(found.dags) == ["good"]
    assert list(found.import_errors) == ["broken.yaml"]


def test_import_error_is_report(folder: Path) -> None:
    """The import error holds every diagnostic with its line, its carets and its hint."""
    report = bag(folder).import_errors["broken.yaml"]

    assert report == (
        'pipelines/broken.yaml:3:15: error: there is no task "messages.lag" [unknown-task]\n'
        "3 |   say: {uses: messages.lag, with: {message: hello}}\n"
        "  |               ^^^^^^^^^^^^\n"
        '  hint: did you mean "messages.log"?\n'
        "\n"
        'pipelines/broken.yaml:4:3: error: step "more" needs exactly one of uses, branch or steps '
        "[step-form]\n"
        "4 |   more: {usos: x}\n"
        "  |   ^^^^\n"
        "\n"
        'pipelines/broken.yaml:4:10: error: "usos" is not a key of step "more" [unknown-key]\n'
        "4 |   more: {usos: x}\n"
        "  |          ^^^^\n"
        '  hint: did you mean "uses"?'
    )


def _accounts(parts: SplitResult) -> SplitResult:
    if parts.netloc not in {"savings", "current"}:
        raise ValueError(f"no account {parts.netloc or 'of that name'}")
    return parts


def test_provider_refuses_assets(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An asset that only a provider of this Airflow refuses is an error with its line and what to write."""
    monkeypatch.setitem(ProvidersManagerTaskRuntime().asset_uri_handlers, "ledger", _accounts)
    (folder / "good.yaml").write_text(
        GOOD.replace("hello}", "hello}, outlets: ['ledger://savings', 'ledger://shares']")
        + "schedule: {assets: {any: [rows, {name: a, uri: 'Ledger:other'}]}}\n"
    )
    assert bag(folder).import_errors["good.yaml"] == (
        "pipelines/good.yaml:3:83: error: the provider of its scheme refuses the asset "
        '"ledger://shares": no account shares [wrong-value]\n'
        "3 |   say: {uses: messages.log, with: {message: hello}, outlets: ['ledger://savings', 'ledger://shares']}\n"
        "  |                                                                                   ^^^^^^^^^^^^^^^^^\n"
        "  hint: correct its URI as its provider wants it, or use a name without ://\n"
        "\n"
        "pipelines/good.yaml:4:33: error: the provider of its scheme refuses the asset "
        '"Ledger:other": no account of that name [wrong-value]\n'
        "4 | schedule: {assets: {any: [rows, {name: a, uri: 'Ledger:other'}]}}\n"
        "  |                                 ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^\n"
        "  hint: correct its URI as its provider wants it, or use a name without ://"
    )


def test_dag_is_its_yaml(folder: Path) -> None:
    """The DAG's file is the spec, so that the Code tab shows it and a worker parses nothing else."""
    dag = bag(folder).dags["good"]

    assert (dag.fileloc, dag.relative_fileloc) == (str(folder / "good.yaml"), "good.yaml")


def test_defaults_reach_dag(folder: Path) -> None:
    """configs/defaults.yaml applies in Airflow as it does in lint."""
    assert bag(folder).dags["good"].tags == {"x"}


def test_environment_lies_over_defaults(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment named by TASKFLOW_ENVIRONMENT lies over the defaults; an unknown one is an error."""
    environments = folder.parent / "configs" / "environments"
    environments.mkdir()
    (environments / "production.yaml").write_text("dag: {tags: [prod]}\n")
    monkeypatch.setenv("TASKFLOW_ENVIRONMENT", "production")
    assert bag(folder).dags["good"].tags == {"prod"}

    monkeypatch.setenv("TASKFLOW_ENVIRONMENT", "prodution")
    assert 'there is no environment "prodution" [unknown-environment]' in bag(folder).import_errors["good.yaml"]
