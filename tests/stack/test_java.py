"""The Java that Spark runs on."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from stack.java import Java, choose, is_accepted, make_shim, refuse_nameless, unfit

VERSIONS = {
    "1.8.0_392": False,
    "11.0.25": False,
    "17": True,
    "17.0.15": True,
    "18.0.2": False,
    "21.0.8": True,
    "24.0.1": False,
    "25": False,
    "25.0.2": False,
    "25.0.3": True,
    "25.0.10+8": True,
    "26": True,
}


def fake_java(home: Path, script: str) -> Path:
    """Return a JAVA_HOME whose bin/java is a script."""
    program = home / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o700)
    return home


@pytest.mark.parametrize(("version", "accepted"), VERSIONS.items())
def test_version_is_judged(version: str, accepted: object) -> None:
    """Spark runs on Java 17, on 21, and on 25 from the release on that does not corrupt data."""
    assert is_accepted(version) is accepted


def test_good_home_is_kept(tmp_path: Path) -> None:
    """The user's own Java is taken where Spark accepts it."""
    home = fake_java(tmp_path / "jdk", "echo 'openjdk version \"21.0.8\" 2025-07-15' >&2")
    assert choose(tmp_path / "java", str(home)) == Java(home, f"JAVA_HOME, {home}", is_shim=False)


@pytest.mark.parametrize(
    ("script", "fault"),
    [
        ("echo 'openjdk version \"11.0.2\" 2018-10-16' >&2", "which is Java 11.0.2; Spark needs 17, 21 or 25.0.3"),
        ("echo Module jdk.incubator.vector not found; exit 1", "refuses --add-modules=jdk.incubator.vector: Module"),
        ("echo hello", "prints no version: hello"),
    ],
)
def test_bad_home_is_told(tmp_path: Path, script: str, fault: str) -> None:
    """A Java that Spark does not accept is left, and what is wrong with it is said."""
    home = fake_java(tmp_path / "jdk", script)
    chosen = choose(tmp_path / "java", str(home))
    assert (chosen.home, chosen.is_shim) == (tmp_path / "java", True)
    assert f"because JAVA_HOME is {home}, " in chosen.origin
    assert fault in chosen.origin


def test_absent_home_is_told(tmp_path: Path) -> None:
    """A JAVA_HOME that names nothing is left, and said to."""
    chosen = choose(tmp_path / "java", str(tmp_path / "nothing"))
    assert chosen.origin.endswith("whose bin/java does not run: No such file or directory")


def test_own_home_is_no_choice(tmp_path: Path) -> None:
    """Our own folder, exported to a shell before, counts as no wish of the user's."""
    assert choose(tmp_path, str(tmp_path)) == choose(tmp_path, None)


def test_shim_drops_one_argument(tmp_path: Path) -> None:
    """The runtime gets every argument as it was, but for the module that it lacks, after that of its classes."""
    real = fake_java(tmp_path / "a runtime's $HOME", "printf '<%s>' \"$@\"") / "bin" / "java"
    make_shim(tmp_path / "java", real)
    command = [tmp_path / "java" / "bin" / "java", "-a", "--add-modules=jdk.incubator.vector", "two words", "", "*"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert told == f"<-XX:SharedArchiveFile={tmp_path}/java/classes.jsa><-a><two words><><*>"


def test_wheel_runs_behind_shim(tmp_path: Path) -> None:
    """The wheel's runtime accepts what Spark asks of it, and is a Java that Spark accepts."""
    choose(tmp_path / "java", None).prepare()
    assert unfit(tmp_path / "java") is None


def maps_archive(home: Path) -> bool:
    """Return whether Java takes the archive of its classes, without which it is told not to start."""
    asked = subprocess.run([home / "bin" / "java", "-Xshare:on", "-version"], capture_output=True, check=False)
    return asked.returncode == 0


def test_classes_are_archived(tmp_path: Path) -> None:
    """Java maps the archive of its classes; one that is broken, or of another runtime, is made anew."""
    made = choose(tmp_path / "java", None)
    made.prepare()
    assert maps_archive(made.home)
    archive = made.home / "classes.jsa"
    archive.write_bytes(archive.read_bytes()[:100_000])
    assert not maps_archive(made.home)
    assert unfit(made.home) is None  # it starts without
    made.prepare()
    assert maps_archive(made.home)
    assert {path.name for path in made.home.iterdir()} == {"bin", archive.name}


def test_shim_is_private(tmp_path: Path) -> None:
    """Only the owner may run or change the shim, and a second start leaves it and the archive alone."""
    made = choose(tmp_path / "java", None)
    made.prepare()
    program, archive = made.home / "bin" / "java", made.home / "classes.jsa"
    before = [(path.stat().st_ino, path.stat().st_mtime_ns) for path in (program, archive)]
    made.prepare()
    assert [(path.stat().st_ino, path.stat().st_mtime_ns) for path in (program, archive)] == before
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600
    assert {stat.S_IMODE(path.stat().st_mode) for path in (made.home, program.parent, program)} == {0o700}


def test_nameless_user_refused() -> None:
    """A user whom the system does not name is told what Spark needs."""
    with pytest.raises(OSError, match="Spark cannot run as user 54321, who has no name on this system"):
        refuse_nameless(54321)
    refuse_nameless(os.geteuid())


def test_spark_computes(spark_connection: str) -> None:
    """Spark runs on the Java of the session, on loopback, and reads back what it wrote."""
    script = """
        import json, os, tempfile
        from pyspark.sql import SparkSession
        wanted = json.loads(os.environ["AIRFLOW_CONN_SPARK_DEFAULT"])
        builder = SparkSession.builder.master(wanted["host"])
        for name, value in wanted["extra"]["conf"].items():
            builder = builder.config(name, value)
        spark = builder.getOrCreate()
        with tempfile.TemporaryDirectory() as folder:
            spark.range(1000).write.parquet(folder + "/numbers")
            total = spark.read.parquet(folder + "/numbers").groupBy().sum("id").first()[0]
        print(json.dumps([total, spark.sparkContext.master]))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [499_500, "local[2]"]
