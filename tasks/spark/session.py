"""A Spark session for a step, and what Spark's errors mean for a retry.

Knows the Airflow connection, the settings that every session shares and Spark's error classes; knows nothing about the
rows. The same step runs on `local[*]`, on a cluster on this machine and on a remote one: only the connection differs.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import socket
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, NoReturn

from tasks.contract import PermanentError, TransientError
from tasks.files.places import InBucket
from tasks.services.connection import airflow_connection
from tasks.spark.s3a import NO_S3A, let_open

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airflow.sdk import Connection
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    from tasks.contract import Run
    from tasks.files.places import Files

Setting = bool | float | int | str | None
"""A value that Spark's configuration accepts."""

_CONNECT_SECONDS = 5
_RESOURCES_TIME = "spark.scheduler.maxRegisteredResourcesWaitingTime"
"""How long a cluster may take to give the first executor; Spark itself does not stop waiting then."""

_LOG = Path(__file__).with_name("spark_log.properties")
_COLLECTOR = "-XX:+UseParallelGC"
"""For few processors and long-lived data, cached rows: fitting takes a third longer with Java's default."""
JAVA_OPTIONS = f"-Dlog4j2.configurationFile={_LOG.as_uri()} {_COLLECTOR}"
"""Start options of a driver's JVM, unless the connection's `conf` says otherwise."""
COMPILE_LESS = "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m"
"""For a JVM that computes little. The first alone leaves room for 48 MB of code, which a long session fills."""
_SETTINGS: dict[str, Setting] = {
    "spark.sql.session.timeZone": "UTC",  # a day means the same everywhere
    "spark.sql.variable.substitute": "false",  # ${env:…} in a query would be read from the environment
    "spark.sql.ansi.enabled": "true",  # an overflow or a bad cast is an error, never a silent null
    "spark.sql.adaptive.enabled": "true",
    "spark.sql.shuffle.partitions": "32",  # small ones are merged; on a few cores 200 cost too much
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    "spark.sql.inMemoryColumnarStorage.compressed": "false",  # rows are kept for seconds: compressing costs more
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",  # not INT96, which only old readers need
    "spark.sql.legacy.timeParserPolicy": "CORRECTED",  # else two parsers read a bad date, and it raises
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.memory": "1g",
    "spark.executor.memory": "1g",
    "spark.network.timeout": "60s",
    "spark.rpc.askTimeout": "30s",
    "spark.task.maxFailures": "2",
    _RESOURCES_TIME: "45s",
    "spark.driver.extraJavaOptions": JAVA_OPTIONS,
    "spark.executor.extraJavaOptions": _COLLECTOR,
}
"""The settings of every session, unless the connection's `conf` says otherwise."""

_LOCAL_SETTINGS: dict[str, Setting] = {
    "spark.driver.memory": "3g",  # the driver is also the executor: room for three fits at once on a million rows
    "spark.ui.enabled": "false",
}
_CLUSTER_SETTINGS: dict[str, Setting] = {
    # The driver makes plans and computes nothing: compiling its code further only takes processor time from the rest.
    "spark.driver.extraJavaOptions": f"{JAVA_OPTIONS} {COMPILE_LESS}",
}
_LOOPBACK_SETTINGS: dict[str, Setting] = {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}

_REMEDY_JAVA = "Spark needs Java 17 or 21: set JAVA_HOME for the workers (`make up` brings a Java of its own)"
SHARE_DISK = (
    "let the driver and the executors share that disk, use a Spark on one machine, or a bucket with `spark: s3a`"
)
"""What to do if the driver and the executors do not see the same files."""
_PLAN = re.compile(r"(?:;\n|\n== |JVM stacktrace:).*", re.DOTALL)
_ADVICE = re.compile(r" (?:Verify the spelling|If necessary set).*?(?=SQLSTATE|$)")
"""Spark's advice that does not apply here: the settings are ours, and views are not on a search path."""
_LOST = re.compile(
    r"ExecutorLostFailure|Master removed our application|All masters are unresponsive|SparkContext was shut down"
    r"|stopped SparkContext|FetchFailed|No space left on device|Checkpoint block|Connection reset|RpcTimeoutException"
    r"|java\.net\.(?:Connect|NoRouteToHost|SocketTimeout|UnknownHost)Exception"
    r"|\.AWS(?:ApiCallTimeout|ClientIO|NoResponse|ServiceThrottled|Status500)Exception"  # of s3a
)
_UNSEEN = re.compile(r"FileNotFoundException: File (file:\S+) does not exist")
"""A file that the driver listed, but an executor did not find."""
_SECRET = re.compile(r"secret|password|token|access[.]?key", re.IGNORECASE)
"""Spark's own `spark.redaction.regex`: settings that its pages and logs hide."""
_FULL = re.compile(r"OutOfMemoryError: .*|UNABLE_TO_ACQUIRE_MEMORY.*")


@dataclass(frozen=True, slots=True)
class Master:
    """Where a connection's Spark is."""

    url: str
    """`local[n]`, `spark://host:port`, or another that Spark knows."""
    connection: str

    def __str__(self) -> str:
        return f"Spark at {self.url} (connection {self.connection!r})"

    @property
    def local(self) -> bool:
        """Whether Spark runs inside the task."""
        return self.url.startswith("local")

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """The hosts and ports of a standalone cluster's masters; empty for other kinds of cluster."""
        pairs = re.findall(r"([^/,]+):(\d+)", self.url.removeprefix("spark://"))
        return [(host, int(port)) for host, port in pairs] if self.url.startswith("spark://") else []

    @property
    def loopback(self) -> bool:
        """Whether only this machine has to reach the driver."""
        return self.local or {host for host, _ in self.addresses} <= {"127.0.0.1", "localhost"}


@contextmanager
def spark_session(connection: str, run: Run, files: Files | None = None) -> Iterator[SparkSession]:
    """Open a Spark session for the block, named `<dag_id>.<task_id>`; it is stopped however the block ends.

    It opens s3a:// addresses if `files` says that Spark reads and writes the bucket itself.

    The connection is of type spark: its host is `local[*]`, or `spark://host` with a port; `conf` in its extra has
    Spark settings, which override those of this module. Spark's errors in the block are translated as in
    `spark_errors`. Raises PermanentError if there is no Java, and TransientError, within about a minute, for a master
    that does not answer or gives no executor.
    """
    conn = airflow_connection(connection, "spark")
    master = _master(conn)
    _check_java()
    _check_reachable(master)
    for talkative in ("py4j", "SQLQueryContextLogger"):
        logging.getLogger(talkative).setLevel(logging.CRITICAL)  # `spark_errors` reports each error once, in short
    with tempfile.TemporaryDirectory(prefix="taskflow-") as scratch, spark_errors(str(master)):
        settings = {"spark.sql.warehouse.dir": scratch} | _settings(conn, master)  # else made in the working folder
        session = _started(master, settings, f"{run.dag_id}.{run.task_id}")
        try:
            if not master.local:
                _await_executor(session, master)
            if isinstance(files, InBucket) and files.spark == "s3a":
                let_open(session, files)
            yield session
        finally:
            _stop(session)


@contextmanager
def spark_errors(what: str) -> Iterator[None]:
    """Translate Spark's errors in the block: short, without the JVM's stack trace, beginning with `what`.

    A mistake in SQL, a missing column or file and a value that breaks an expression are PermanentErrors; a lost
    executor or JVM is a TransientError.
    """
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    try:
        yield
    except (PySparkException, Py4JError, ConnectionError) as error:
        _raise_translated(error, what)


def _raise_translated(error: Exception, what: str) -> NoReturn:
    from py4j.protocol import Py4JNetworkError
    from pyspark.errors import PySparkException

    text = str(error)
    if full := _FULL.search(text):
        remedy = "raise spark.driver.memory or spark.executor.memory in the connection's conf"
        raise PermanentError(f"{what}: out of memory ({full[0].strip()[:120]}); {remedy}") from error
    if isinstance(error, Py4JNetworkError | ConnectionError):
        raise TransientError(what, "the JVM of the driver ended; the log above may say why") from error
    if _LOST.search(text):
        raise TransientError(what, _short(text) if isinstance(error, PySparkException) else _cause(text)) from None
    if unseen := _UNSEEN.search(text):
        raise PermanentError(f"{what}: Spark's executors do not see {unseen[1]}; {SHARE_DISK}") from None
    if NO_S3A in text:
        remedy = "give them the jars that the driver has (docs/shapes.md), or write `spark: copy` in `files`"
        raise PermanentError(f"{what}: Spark's executors cannot open s3a:// without {NO_S3A}; {remedy}") from None
    if isinstance(error, PySparkException):
        raise PermanentError(f"{what}: {_short(text)}{_fragment(error)}") from error
    raise PermanentError(f"{what}: {_cause(text)}") from None  # its text is the JVM's stack trace


def _short(text: str) -> str:
    """Return the message without the plan, the statement and the stack that Spark adds."""
    return _ADVICE.sub(" ", " ".join(_PLAN.sub("", text.strip()).split()))[:1000]


def _fragment(error: PySparkException) -> str:
    """Return the part of the SQL where a value broke an expression; for a mistake in the text Spark names the line."""
    from pyspark.errors import QueryContextType

    contexts = [context for context in error.getQueryContext() if context.contextType() == QueryContextType.SQL]
    return f" (in {contexts[0].fragment()!r})" if contexts else ""


def _cause(text: str) -> str:
    """Return the innermost cause of a Java stack trace."""
    causes = re.findall(r"^(?:: |Caused by: )(.*)$", text, re.MULTILINE)
    return str(causes[-1])[:1000] if causes else _short(text)


def _master(conn: Connection) -> Master:
    host = (conn.host or "").rstrip("/")
    if not host:
        raise PermanentError(f"connection {conn.conn_id!r} has no host; enter local[*], or spark://host and a port")
    if not (host.startswith("local") and "." not in host) and "://" not in host and host != "yarn":
        host = f"spark://{host}"
    return Master(f"{host}:{conn.port}" if conn.port else host, conn.conn_id)


def _settings(conn: Connection, master: Master) -> dict[str, Setting]:
    conf = conn.extra_dejson.get("conf", {})
    if not isinstance(conf, dict):
        raise PermanentError(f"connection {conn.conn_id!r}: `conf` in its extra must be a mapping of Spark settings")
    own = _LOCAL_SETTINGS if master.local else _CLUSTER_SETTINGS
    return _SETTINGS | own | (_LOOPBACK_SETTINGS if master.loopback else {}) | conf


def _check_java() -> None:
    home = os.environ.get("JAVA_HOME")
    if home and not os.access(f"{home}/bin/java", os.X_OK):
        raise PermanentError(f"JAVA_HOME is {home}, but there is no bin/java in it; {_REMEDY_JAVA}")
    if not home and not shutil.which("java"):
        raise PermanentError(f"there is no Java: JAVA_HOME is not set and java is not on PATH; {_REMEDY_JAVA}")


def _check_reachable(master: Master) -> None:
    """Raise TransientError unless a master is listening: Spark itself would try for long and say little."""
    problems = []
    for address in master.addresses:
        try:
            socket.create_connection(address, timeout=_CONNECT_SECONDS).close()
        except OSError as error:
            problems.append(f"{error.strerror or error}")
        else:
            return
    if problems:
        remedy = "is it up (`make status`), and is the connection right?"
        raise TransientError(str(master), f"the master does not answer ({'; '.join(problems)}); {remedy}")


def _started(master: Master, settings: Mapping[str, Setting], name: str) -> SparkSession:
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkRuntimeError
    from pyspark.sql import SparkSession

    if master.loopback:
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")  # the JVM's web page looks only here
    named = {**settings, "spark.master": master.url, "spark.app.name": name}
    try:
        _launch(named)
        session: SparkSession = SparkSession.builder.config(map=named).getOrCreate()
    except Py4JJavaError as error:
        if "stopped SparkContext" not in str(error):
            raise
        remedy = "is it the same release of Spark, and is its spark.authenticate.secret in the connection's conf?"
        raise TransientError(str(master), f"the master did not accept the application; {remedy}") from None
    except PySparkRuntimeError as error:
        if error.getCondition() != "JAVA_GATEWAY_EXITED":
            raise
        raise PermanentError(f"Java did not start Spark ({_java_version()}); {_REMEDY_JAVA}") from error
    return session


def _launch(settings: Mapping[str, Setting]) -> None:
    """Start the JVM without the secret settings: a builder would put them on its command line.

    They are added when the context is made, in the running JVM.
    """
    from pyspark import SparkConf, SparkContext
    from pyspark.sql.utils import to_str

    public = [(name, to_str(value) or "") for name, value in settings.items() if not _SECRET.search(name)]
    SparkContext._ensure_initialized(conf=SparkConf(loadDefaults=False).setAll(public))  # noqa: SLF001


def _stop(session: SparkSession) -> None:
    from py4j.protocol import Py4JError
    from pyspark import SparkContext

    try:
        session.stop()
    except (Py4JError, ConnectionError):  # the JVM has died: pyspark would use it as long as the process lives
        SparkContext._gateway = SparkContext._jvm = None  # noqa: SLF001
        SparkContext._active_spark_context = None  # noqa: SLF001


def _java_version() -> str:
    home = os.environ.get("JAVA_HOME")
    java = f"{home}/bin/java" if home else "java"
    answer = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    return f"{java} says: {(answer.stderr or answer.stdout).strip().splitlines()[:1]}"


_CANCEL_AGAIN_SECONDS = 0.5


def _await_executor(session: SparkSession, master: Master) -> None:
    """Run one small job, to report a cluster without a free executor now; Spark would wait for ever."""
    gave_up, ended = Event(), Event()
    seconds = int(session.sparkContext.getConf().get(_RESOURCES_TIME, "").removesuffix("s"))

    def give_up() -> None:
        if ended.wait(seconds):
            return
        gave_up.set()
        while not ended.is_set():  # Spark forgets to cancel a job that it has not been given yet
            session.sparkContext.cancelAllJobs()
            ended.wait(_CANCEL_AGAIN_SECONDS)

    watch = Thread(target=give_up, name="await executor")
    watch.start()
    try:
        session.range(1).count()
    except Exception as error:
        if not gave_up.is_set():
            raise
        wanted = session.conf.get("spark.executor.memory")
        problem = f"it gave no executor with {wanted} of memory within {seconds} s"
        remedy = "are workers up and free? Another application may have taken them all: its page lists both"
        raise TransientError(str(master), f"{problem}; {remedy}") from error
    finally:
        ended.set()
        watch.join()
