"""Which tests share a process where several run them side by side, and which are begun first.

A process has services of its own. Java and MLflow take long to start and a training needs both, so the files of either
share one process; any other file may go to any process. (xdist's own `loadgroup` does nothing with pytest 9.2: it
writes the group to the private `_nodeid`, which pytest no longer reads.)
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
SLOW_FIXTURES = {"java", "mlflow_server"}
LONG = (
    *WITH_JAVA_OR_MLFLOW,
    "tests/stack/test_lifecycle.py",
    "tests/tasks/test_load_model.py",
    "tests/test_airflow_3_4.py",
    "tests/factory/test_fuzz.py",
    "tests/factory/test_linear.py",
    "tests/bridge/test_bridge.py",
    "tests/tasks/test_quality.py",
    "tests/factory/test_cli.py",
    "tests/factory/test_ui.py",
)
"""The files that take long, and are begun before the others: what is begun last should be short."""


class WholeFiles(LoadScopeScheduling):
    """Gives a process whole files, and all those of Java and MLflow to one."""

    def _split_scope(self, nodeid: str) -> str:
        file = file_of(nodeid)
        return "java and mlflow" if file in WITH_JAVA_OR_MLFLOW else file


def rank(nodeid: str) -> int:
    """Return when the file of a test is begun: 0 is first."""
    file = file_of(nodeid)
    return LONG.index(file) if file in LONG else len(LONG)


def is_misplaced(nodeid: str, fixtures: tuple[str, ...]) -> bool:
    """Return whether a test would start Java or MLflow in a process that has none."""
    return not SLOW_FIXTURES.isdisjoint(fixtures) and file_of(nodeid) not in WITH_JAVA_OR_MLFLOW


def file_of(nodeid: str) -> str:
    return nodeid.partition("::")[0]
