"""Sessions of Spark: what they are set to, and what their errors say."""

from __future__ import annotations

import datetime as dt
import json
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex

import pytest
from pyspark.errors import AnalysisException
from pyspark.sql import SparkSession

from stack.java import Java
from stack.paths import REPOSITORY
from stack.service import running
from stack.spark import Spark, SparkKeys, SparkPorts, WorkerPorts
from tasks.contract import MissingResource, PermanentError, Run, TransientError
from tasks.spark.queries import Query, run_query
from tasks.spark.query_text import READING_FILES, RUNNING_CODE, harmless
from tasks.spark.session import spark_errors, spark_session
from tests.support.ports import free_port
from tests.support.spark_queries import HARMLESS, REFUSED_BY_SPARK

CONNECTION = "spark_default"


@pytest.fixture
def session(spark_connection: str) -> Iterator[SparkSession]:
    """An open session."""
    with spark_session(spark_connection, a_run()) as opened:
        yield opened


def a_run() -> Run:
    return Run("churn_training_dag", "manual__1", "clean", dt.date(2026, 1, 5))


def connect(monkeypatch: pytest.MonkeyPatch, host: str, port: int | None = None, **conf: object) -> None:
    """Let `spark_default` be another connection for this test."""
    written = {"conn_type": "spark", "host": host, "port": port, "extra": {"conf": conf}}
    monkeypatch.setenv("AIRFLOW_CONN_SPARK_DEFAULT", json.dumps(written))


def open_session() -> None:
    with spark_session(CONNECTION, a_run()):
        pass


def test_session_names_step(session: SparkSession) -> None:
    """The operator sees which step an application is; its days are those of UTC; the connection's `conf` wins."""
    conf = session.conf
    assert session.sparkContext.appName == "churn_training_dag.clean"
    assert (conf.get("spark.sql.session.timeZone"), conf.get("spark.sql.ansi.enabled")) == ("UTC", "true")
    assert conf.get("spark.sql.shuffle.partitions") == "2"


ERRORS = [
    (
        "SELEC 1",
        "q.sql: [PARSE_SYNTAX_ERROR] Syntax error at or near 'SELEC'. SQLSTATE: 42601 (line 1, pos 0)",
    ),
    (
        "SELECT id,\n  idd\nFROM range(3)",
        (
            "q.sql: [UNRESOLVED_COLUMN.WITH_SUGGESTION] A column, variable, or function parameter with name `idd`"
            " cannot be resolved. Did you mean one of the following? [`id`]. SQLSTATE: 42703; line 2 pos 2 (in 'idd')"
        ),
    ),
    (
        "SELECT * FROM nowhere",
        (
            "q.sql: [TABLE_OR_VIEW_NOT_FOUND] The table or view `nowhere` cannot be found. SQLSTATE: 42P01; line 1"
            " pos 14 (in 'nowhere')"
        ),
    ),
    (
        "SELECT sum(1 / id) FROM range(3)",
        (
            "q.sql: [DIVIDE_BY_ZERO] Division by zero. Use `try_divide` to tolerate divisor being 0 and return NULL"
            " instead. SQLSTATE: 22012 (in '1 / id')"
        ),
    ),
    (
        "SELECT * FROM parquet.`/nowhere.parquet`",
        "q.sql: [PATH_NOT_FOUND] Path does not exist: file:/nowhere.parquet. SQLSTATE: 42K03",
    ),
]


@pytest.mark.parametrize(("text", "problem"), ERRORS)
def test_mistake_is_permanent(session: SparkSession, text: str, problem: str) -> None:
    """A mistake in SQL, or a value that breaks it, is said in one line with its place, and no retry repeats it."""
    with pytest.raises(PermanentError) as raised, spark_errors("q.sql"):
        session.sql(text).collect()
    assert str(raised.value) == problem


def test_unseen_disk_is_told(session: SparkSession, tmp_path: Path) -> None:
    """A file that the driver listed and an executor does not find is no mistake of Spark's: the disk is not shared.

    Here it is gone in between. The same exception came from a cluster whose executors had another disk mounted there.
    """
    file = tmp_path / "a.csv"
    file.write_text("id\n1\n")
    frame = session.read.csv(file.as_uri(), schema="id LONG", header=True)
    file.unlink()
    with pytest.raises(PermanentError) as raised, spark_errors("a.csv"):
        frame.collect()
    assert str(raised.value) == (
        f"a.csv: Spark's executors do not see file:{file}; let the driver and the executors share that disk, use a"
        " Spark on one machine, or a bucket with `spark: s3a`"
    )


def test_broken_file_is_not_unseen(session: SparkSession, tmp_path: Path) -> None:
    """A file that is there, but is no table, is told as what it is."""
    (tmp_path / "a.parquet").write_text("no table, but long enough to be looked at")
    with pytest.raises(PermanentError, match=r"a.parquet is not a Parquet file"), spark_errors("a.parquet"):
        session.read.parquet((tmp_path / "a.parquet").as_uri())


def test_log_stays_short(session: SparkSession, capfd: pytest.CaptureFixture[str]) -> None:
    """A job that fails leaves no stack trace in the step's log: the error says it."""
    with pytest.raises(PermanentError), spark_errors("q.sql"):
        session.sql("SELECT sum(1 / id) FROM range(3)").collect()
    assert capfd.readouterr() == ("", "")


def test_missing_connection_fails(spark_connection: str) -> None:
    """A connection that does not exist is said to be missing."""
    with pytest.raises(MissingResource, match=r"^connection 'spark_other' does not exist in Airflow; create it"):
        spark_session("spark_other", a_run()).__enter__()


REFUSED = [
    (
        {"conn_type": "aws"},
        "connection 'spark_default' is of type 'aws', not 'spark'; correct it in the UI",
    ),
    ({"conn_type": "spark"}, r"connection 'spark_default' has no host; enter local\[\*\], or spark://host and a port"),
    (
        {"conn_type": "spark", "host": "local", "extra": {"conf": "x"}},
        "connection 'spark_default': `conf` in its extra must be a mapping of Spark settings",
    ),
]


@pytest.mark.parametrize(("connection", "problem"), REFUSED)
def test_unfit_connection_fails(
    spark_connection: str, monkeypatch: pytest.MonkeyPatch, connection: dict[str, object], problem: str
) -> None:
    """A connection that no session can be made of is refused, with what it should be."""
    monkeypatch.setenv("AIRFLOW_CONN_SPARK_DEFAULT", json.dumps(connection))
    with pytest.raises(PermanentError, match=f"^{problem}"):
        open_session()


def test_missing_java_fails(spark_connection: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without Java the way to one is said."""
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(
        PermanentError, match=r"but there is no bin/java in it; Spark needs Java 17 or 21: set JAVA_HOME"
    ):
        open_session()
    monkeypatch.delenv("JAVA_HOME")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PermanentError, match=r"^there is no Java: JAVA_HOME is not set and java is not on PATH; Spark"):
        open_session()


def test_silent_master_is_transient(spark_connection: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A master that does not answer is named, with its connection, and a retry may find it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    connect(monkeypatch, "spark://127.0.0.1", port)
    with pytest.raises(TransientError) as raised:
        open_session()
    assert str(raised.value) == (
        f"Spark at spark://127.0.0.1:{port} (connection 'spark_default'): the master does not answer (Connection"
        " refused); is it up (`make status`), and is the connection right?"
    )


def test_query_is_read_before_it_runs(session: SparkSession) -> None:
    """Spark's own parser has the last word on what a query may do: what lint's overlooks does not run."""
    session.range(3).createOrReplaceTempView("t")
    for text in HARMLESS:
        assert run_query(session, Query("some.sql", text, {"n": 1} if ":n" in text else {}), ["t"]).collect()
    for text, reason in REFUSED_BY_SPARK.items():
        with pytest.raises(PermanentError, match=reason):
            run_query(session, Query("some.sql", text, {"n": "t"} if ":n" in text else {}), ["t"])


def test_functions_are_sparks(session: SparkSession) -> None:
    """The functions that queries may call are Spark's own, without those that run code or read other files."""
    there = {row["function"] for row in session.sql("SHOW SYSTEM FUNCTIONS").collect()}

    assert harmless() == there - RUNNING_CODE - READING_FILES
    allowed = Query("some.sql", "SELECT my_own(1)", functions=frozenset({"my_own"}))
    with pytest.raises(AnalysisException, match="UNRESOLVED_ROUTINE"):
        run_query(session, allowed, [])


def test_session_is_stopped(spark_connection: str) -> None:
    """No session outlives its block, however it ends."""
    with pytest.raises(ZeroDivisionError), spark_session(spark_connection, a_run()) as opened:
        _ = 1 / 0
    assert opened.sparkContext._jsc is None


DEAD_JVM = """
    import datetime as dt
    from tasks.contract import TransientError
    from tasks.contract import Run
    from tasks.spark.session import spark_session

    run = Run("churn_training_dag", "manual__1", "clean", dt.date(2026, 1, 5))
    try:
        with spark_session("spark_default", run) as session:
            session.sparkContext._jvm.java.lang.Runtime.getRuntime().halt(1)
    except TransientError as error:
        print('TOLD', error)
    with spark_session("spark_default", run) as session:
        print('TOLD', session.range(3).count())
"""
"""In a process of its own: libraries keep objects of the JVM that they saw first."""


def test_dead_jvm_is_transient(spark_connection: str) -> None:
    """A JVM that ends in the middle is no mistake of the step: a retry starts another."""
    command = [sys.executable, "-c", textwrap.dedent(DEAD_JVM)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    told = [line.removeprefix("TOLD ") for line in done.stdout.splitlines() if line.startswith("TOLD ")]
    ended = "Spark at local[2] (connection 'spark_default'): the JVM of the driver ended; the log above may say why"
    assert told == [ended, "3"], done.stderr


def test_cluster_without_workers(state: Path, java: Java, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster that takes the application but gives it no executor is given up, not waited for."""
    one, two, three, four = (free_port() for _ in range(4))
    ports = SparkPorts(one, two, (WorkerPorts("spark-worker", three, four),))
    spark = Spark(state / "spark-empty", ports, SparkKeys(token_hex(16), token_hex(48)), java, 512)
    for name, value in spark.driver_environment(state / "scratch").items():
        monkeypatch.setenv(name, value)
    waiting = {"spark.scheduler.maxRegisteredResourcesWaitingTime": "2s"}
    waiting |= {"spark.authenticate": "true", "spark.authenticate.secret": spark.keys.secret}
    connect(monkeypatch, spark.master.rpartition(":")[0], ports.master, **waiting)
    with running(spark.services()[0], state), pytest.raises(TransientError, match="gave no executor with 1g of memory"):
        open_session()
