"""Spark reads and writes a bucket itself: `spark: s3a`.

The object store, the cluster with its master, its worker and its executors, the tasks and the JVMs whose command lines
are looked at are real. hadoop-aws is not: Maven Central is not asked in tests. In its place is a small class of the
same name (`tests/stand_ins/S3AFileSystem.java`), which reads the same settings and speaks S3 with the store.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stack import s3a_jars
from stack.java import Java
from stack.objects import ObjectStore
from stack.paths import REPOSITORY
from stack.ports import HOST
from stack.service import running
from stack.spark import Spark, SparkKeys, SparkPorts, WorkerPorts
from tasks.contract import PermanentError
from tasks.files.run_files import files_of
from tasks.spark.s3a import COMPANIONS, store_settings
from tasks.spark.session import COMPILE_LESS, spark_session
from tests.support.ports import free_port
from tests.support.s3a import BUCKET, FILES, a_run

STAND_IN = Path(__file__).parents[1] / "stand_ins" / "S3AFileSystem.java"


@pytest.fixture(scope="module")
def classes(spark_connection: str, state: Path) -> Path:
    """A folder with the stand-in, compiled by the compiler that Spark brings."""
    folder = state / "s3a"
    with spark_session(spark_connection, a_run("compile")) as session:
        compiler: Any = session.sparkContext._jvm.org.codehaus.janino.SimpleCompiler()
        compiler.cook(STAND_IN.read_text())
        for name, code in compiler.getBytecodes().items():
            file = folder / f"{name.replace('.', '/')}.class"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(code)
    return folder


@pytest.fixture(scope="module")
def cluster(state: Path, java: Java, classes: Path) -> Iterator[dict[str, str]]:
    """What a driver needs in its environment to compute alone or on a cluster with the stand-in, or on one without."""
    one, two, three, four = (free_port() for _ in range(4))
    ports = SparkPorts(one, two, (WorkerPorts("spark-worker", three, four),))
    spark = Spark(state / "spark-s3a", ports, SparkKeys(token_hex(16), token_hex(48)), java, 700)
    master, worker = spark.services()
    conf = json.loads(spark.airflow_connection)["extra"]["conf"] | {
        "spark.driver.extraClassPath": str(classes),
        "spark.executor.extraJavaOptions": COMPILE_LESS,  # each session has new ones, which live for seconds
        "spark.hadoop.fs.s3a.bucket.other.secret.key": token_hex(16),
    }
    host, _, port = spark.master.rpartition(":")
    connection: dict[str, Any] = {"conn_type": "spark", "host": host, "port": int(port)}
    whole = connection | {"extra": {"conf": conf | {"spark.executor.extraClassPath": str(classes)}}}
    nobody = {"endpoint_url": f"http://{HOST}:{free_port()}"}
    alone = conf | {"spark.authenticate": "false"}  # it would leave a secret of its own in the JVM
    local = {"conn_type": "spark", "host": "local[2]", "extra": {"conf": alone}}
    down = {"conn_type": "aws", "login": token_hex(16), "password": token_hex(16), "extra": nobody}
    with running(master, state), running(worker, state):
        yield (
            os.environ
            | spark.driver_environment(state / "scratch")
            | {
                "AIRFLOW_CONN_SPARK_DEFAULT": json.dumps(whole),
                "AIRFLOW_CONN_STORE_DOWN": json.dumps(down),
                "AIRFLOW_CONN_SPARK_LOCAL": json.dumps(local),
                "AIRFLOW_CONN_SPARK_BARE": json.dumps(connection | {"extra": {"conf": conf}}),
            }
        )


def keys(store: ObjectStore) -> list[str]:
    found = store.client().list_objects_v2(Bucket=BUCKET, Prefix="s3a/").get("Contents", [])
    names = (one["Key"].removeprefix("s3a/") for one in found)
    return sorted(name for name in names if not name.startswith(".runs/records/"))


SCRIPT = """
import json, logging, sys, urllib.request
from dataclasses import replace
from pathlib import Path
import psutil
from stack.page_tokens import token
from tasks.contract import Before, PermanentError, TransientError
from tasks.spark.cleaning import CsvSource, FromSource, FromSql, clean_csv
from tasks.spark.features import build_table
from tasks.spark.parquet import read_frame
from tasks.spark.reach import reach_of
from tasks.spark.s3a import let_open
from tasks.spark.session import spark_errors, spark_session
from tests.support.s3a import FILES, a_run

before = Before(files={"people.parquet": "clean"})
run = replace(a_run("build"), configs=Path(sys.argv[1]), before=before)
reach = reach_of(FILES, run)

def build(spark, sql, output):
    inputs = {"people": "people.parquet"}
    return build_table(spark, inputs, sql, ["id"], output, FILES, run=run).model_dump()

def failure(act):
    try:
        act()
    except (PermanentError, TransientError) as error:
        return f"{type(error).__name__}: {error}"

def bare():
    with spark_session("spark_bare", run, FILES) as session, reach.read("old.parquet") as old, spark_errors("a.csv"):
        read_frame(session, old).count()

def down(session):
    let_open(session, FILES.model_copy(update={"connection": "store_down", "bucket": "down"}))
    with spark_errors("b.txt"):
        session.read.text("s3a://down/b.txt").collect()

def looked():
    with spark_session("spark_default", run, FILES) as session, reach.read("people.parquet") as people:
        frame = read_frame(session, people)
        frame.count()
        page = f"{session.sparkContext.uiWebUrl}/api/v1/applications/{session.sparkContext.applicationId}/environment"
        key = session.sparkContext.getConf().get("spark.org.apache.spark.ui.JWSFilter.param.secretKey")
        with urllib.request.urlopen(urllib.request.Request(page, headers=token(key))) as answer:
            environment = answer.read().decode()
        commands = [" ".join(one.info["cmdline"] or ()) for one in psutil.process_iter(["cmdline"])]
        return {
            "read": frame.inputFiles(),
            "commands": [one for one in commands if "org.apache.spark" in one],
            "environment": environment,
            "down": failure(lambda: down(session)),
            "conf": session.sparkContext.getConf().get("spark.hadoop.fs.s3a.bucket.other.secret.key"),
        }

columns = {"id": {"type": "integer", "required": True}, "name": {"type": "text"}}
source = CsvSource.model_validate({"file": "raw/people.csv", "columns": columns})
outputs = {"people.parquet": FromSource(source="people"), "names.parquet": FromSql(sql="names.sql")}
told = {
    "bare": failure(bare),
    "cleaned": clean_csv(
        "spark_local", {"people": source}, outputs, "report.json", FILES, run=replace(run, task_id="clean")
    ).model_dump(),
    "built": build("spark_default", "twice.sql", "twice.parquet"),
    "failed": failure(lambda: build("spark_local", "broken.sql", "old.parquet")),
    "looked": looked(),
}
print("TOLD", json.dumps(told))
"""
SQL = {
    "names.sql": "SELECT name, count(*) AS many FROM people GROUP BY name",
    "twice.sql": "SELECT id, 2 * id AS twice FROM people",
    "broken.sql": "SELECT id, 1 / (id - 3) AS broken FROM people",
}


@pytest.fixture(scope="module")
def told(cluster: dict[str, str], object_store: ObjectStore, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What tasks told, in a process of its own: a JVM has the classes that it was started with."""
    configs = tmp_path_factory.mktemp("project") / "configs"
    (configs / "sql").mkdir(parents=True)
    for name, text in SQL.items():
        (configs / "sql" / name).write_text(text)
    store = object_store.client()
    lines = "".join(f"{number},{'ab'[number % 2]}\n" for number in range(1000))
    store.put_object(Bucket=BUCKET, Key="s3a/raw/people.csv", Body=f"id,name\n{lines}x,c\n".encode())
    pq.write_table(pa.table({"id": [1]}), configs / "old.parquet")
    store.upload_file(str(configs / "old.parquet"), BUCKET, "s3a/old.parquet")
    command = [sys.executable, "-c", SCRIPT, str(configs)]
    done = subprocess.run(command, cwd=REPOSITORY, env=cluster, capture_output=True, text=True, check=False)
    found = [line.removeprefix("TOLD ") for line in done.stdout.splitlines() if line.startswith("TOLD ")]
    assert found, done.stderr
    return json.loads(found[0])


def read(store: ObjectStore, key: str, folder: Path) -> pa.Table:
    store.client().download_file(BUCKET, f"s3a/{key}", str(folder / "one"))
    return pq.read_table(folder / "one")


def test_tasks_use_the_bucket(told: Any, object_store: ObjectStore, tmp_path: Path) -> None:
    """A CSV and tables are read in the bucket, and what is made of them lies there as single files."""
    own = files_of(FILES, a_run("build"))
    assert told["looked"]["read"] == [f"s3a://{BUCKET}/s3a/{own.own('people.parquet')}"]
    assert told["cleaned"]["rows_kept"] == {"people": 1000}
    assert told["cleaned"]["rows_written"] == {"people.parquet": 1000, "names.parquet": 2}
    assert told["built"] == {"rows": 1000, "columns": 2, "path": own.address("twice.parquet")}
    assert read(object_store, "twice.parquet", tmp_path)["twice"].to_pylist() == list(range(0, 2000, 2))


def test_scratch_is_emptied(told: Any, object_store: ObjectStore, tmp_path: Path) -> None:
    """Nothing but the files is left, after an error neither, which leaves the old file."""
    assert told["failed"].startswith("PermanentError: configs/sql/broken.sql: [DIVIDE_BY_ZERO]")
    written = ["names.parquet", "people.parquet", "report.json", "twice.parquet"]
    own = [files_of(FILES, a_run("build")).own(name) for name in written]
    assert keys(object_store) == sorted([*own, *written, "old.parquet", "raw/people.csv"])
    assert read(object_store, "old.parquet", tmp_path)["id"].to_pylist() == [1]


def test_secrets_are_nowhere_to_see(told: Any, object_store: ObjectStore) -> None:
    """Neither the keys of the store nor a secret of the connection's `conf` is on a command line or Spark's page."""
    commands = told["looked"]["commands"]
    assert any("SparkSubmit" in one for one in commands)
    assert any("CoarseGrainedExecutorBackend" in one for one in commands)
    assert "spark.hadoop.fs.s3a.bucket.other.secret.key" in told["looked"]["environment"]
    for hidden in (object_store.keys.access, object_store.keys.secret, told["looked"]["conf"]):
        assert len(hidden) >= 32
        assert not any(hidden in one for one in [*commands, told["looked"]["environment"]])


def test_executors_without_jars_are_told(told: Any) -> None:
    """Jars that only the driver has are an error with a remedy, not a stack trace."""
    assert told["bare"] == (
        "PermanentError: a.csv: Spark's executors cannot open s3a:// without org.apache.hadoop.fs.s3a.S3AFileSystem;"
        " give them the jars that the driver has (docs/shapes.md), or write `spark: copy` in `files`"
    )


def test_silent_store_is_transient(told: Any) -> None:
    """A store that does not answer Spark may answer a retry."""
    assert told["looked"]["down"] == "TransientError: b.txt: java.net.ConnectException: Connection refused"


def test_missing_jars_are_named(spark_connection: str, object_store: ObjectStore) -> None:
    """A Spark without hadoop-aws is refused at once, with the jars of its own release of Hadoop."""
    with pytest.raises(PermanentError) as raised, spark_session(spark_connection, a_run("none"), FILES):
        pytest.fail("the session opened")
    assert str(raised.value) == (
        "this Spark cannot open s3a://pipeline-files (ClassNotFoundException: Class"
        " org.apache.hadoop.fs.s3a.S3AFileSystem not found); give the driver and the executors the jars"
        " org.apache.hadoop:hadoop-aws 3.5.0, software.amazon.awssdk:bundle 2.35.4,"
        " software.amazon.s3.analyticsaccelerator:analyticsaccelerator-s3 1.3.1 (docs/shapes.md), or write"
        " `spark: copy` in `files`"
    )


def test_jars_are_those_of_image() -> None:
    """The error names what the image of the stack brings."""
    hadoop, *others = s3a_jars.JARS
    assert COMPANIONS[hadoop.version] == tuple(f"{one.group}:{one.artifact} {one.version}" for one in others)


def test_given_settings_stay(object_store: ObjectStore) -> None:
    """An address or a login that Spark was given, for the bucket or for all, is not mixed with the connection's."""
    address = [("endpoint", object_store.endpoint), ("endpoint.region", "us-east-1"), ("path.style.access", "true")]
    login = [("access.key", object_store.keys.access), ("secret.key", object_store.keys.secret)]
    assert list(store_settings(FILES, set())) == address + login
    assert list(store_settings(FILES, {"spark.hadoop.fs.s3a.endpoint"})) == login
    assert list(store_settings(FILES, {f"spark.hadoop.fs.s3a.bucket.{BUCKET}.access.key"})) == address
    assert list(store_settings(FILES, {"spark.hadoop.fs.s3a.bucket.other.access.key"})) == address + login
