"""Which tests share a process where several run them side by side, and which are begun first.

A process has services of its own. Java and MLflow take long to start and a training needs both, so the files of either
share one process, and so do those that use `taskflow run`; any other file may go to any process. (xdist's own
`loadgroup` does nothing with pytest 9.2: it writes the group to the private `_nodeid`, which pytest no longer reads.)
"""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

WITH_JAVA_OR_MLFLOW = (
    "tests/tasks/test_training.py",
    "tests/tasks/test_models.py",
    "tests/tasks/test_s3a.py",
    "tests/tasks/test_spark.py",
    "tests/tasks/test_scoring.py",
    "tests/tasks/test_preparation.py",
    "tests/tasks/test_features.py",
    "tests/tasks/test_cleaning.py",
    "tests/tasks/test_parquet.py",
    "tests/strange/test_csv_files.py",
    "tests/strange/test_csv_differential.py",
    "tests/strange/test_models.py",
    "tests/tasks/test_drift_report.py",
    "tests/tasks/test_tracking.py",
    "tests/stack/test_app.py",
    "tests/stack/test_app_drift.py",
    "tests/stack/test_tracking.py",
    "tests/stack/test_tracking_login.py",
    "tests/stack/test_java.py",
    "tests/stack/test_spark.py",
    "tests/factory/test_spark_pages.py",
)
WITH_A_WARM_TASKFLOW = (
    "tests/factory/test_files_run.py",
    "tests/factory/test_local_run.py",
    "tests/strange/test_failures.py",
    "tests/factory/test_written_files.py",
    "tests/factory/test_cli.py",
)
SLOW_FIXTURES = {
    "java": WITH_JAVA_OR_MLFLOW,
    "mlflow_server": WITH_JAVA_OR_MLFLOW,
    "warm_taskflow": WITH_A_WARM_TASKFLOW,
}
LONG = (
    *WITH_JAVA_OR_MLFLOW,
    "tests/stack/test_lifecycle.py",
    "tests/tasks/test_load_model.py",
    "tests/test_airflow_3_4.py",
    "tests/factory/test_fuzz.py",
    "tests/factory/test_linear.py",
    "tests/bridge/test_bridge.py",
    "tests/tasks/test_quality.py",
    *WITH_A_WARM_TASKFLOW,
    "tests/factory/test_ui.py",
)
"""The files that take long, and are begun before the others: what is begun last should be short."""


LEFT_TO_MAKE_TEST = (
    *WITH_JAVA_OR_MLFLOW,
    "tests/stack/test_lifecycle.py",
    "tests/stack/test_preloading.py",
    "tests/tasks/test_load_model.py",
    "tests/factory/test_fuzz.py",
)
"""The files that `make check` leaves out: it is for every commit, and should take minutes."""


class WholeFiles(LoadScopeScheduling):
    """Gives a process whole files, and all those of Java and MLflow to one, and those of `taskflow run`."""

    def _split_scope(self, nodeid: str) -> str:
        file = file_of(nodeid)
        groups = {"java and mlflow": WITH_JAVA_OR_MLFLOW, "taskflow run": WITH_A_WARM_TASKFLOW}
        return next((name for name, files in groups.items() if file in files), file)


def rank(nodeid: str) -> int:
    """Return when the file of a test is begun: 0 is first."""
    file = file_of(nodeid)
    return LONG.index(file) if file in LONG else len(LONG)


def is_misplaced(nodeid: str, fixtures: tuple[str, ...]) -> bool:
    """Return whether a test would start what takes long in a process that has none of it."""
    return any(name in fixtures and file_of(nodeid) not in files for name, files in SLOW_FIXTURES.items())


def is_long(nodeid: str) -> bool:
    """Return whether a test is left to `make test`."""
    return file_of(nodeid) in LEFT_TO_MAKE_TEST


def file_of(nodeid: str) -> str:
    return nodeid.partition("::")[0]
