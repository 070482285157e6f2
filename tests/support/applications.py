"""Applications that use the Spark of a running stack."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.whole_stack import RunningStack

APPLICATION = """
    import json, os, sys
    from pyspark.sql import SparkSession
    wanted = json.loads(os.environ["AIRFLOW_CONN_SPARK_DEFAULT"])
    builder = SparkSession.builder.appName(sys.argv[1]).master(f'{wanted["host"]}:{wanted["port"]}')
    for name, value in wanted["extra"]["conf"].items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    print("total", spark.range(1000).selectExpr("sum(id) AS total").first()["total"], flush=True)
    sys.stdin.read()  # until whoever started it has seen enough
    spark.stop()
"""
SUM = "total 499500\n"
"""What the application prints when the cluster has computed for it."""


@contextmanager
def application(stack: RunningStack, name: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """Start an application on the stack's cluster; it computes one sum and stays until its standard input ends."""
    command = [sys.executable, "-c", textwrap.dedent(APPLICATION), name]
    environment = {**os.environ, **stack.services.exports(), **variables}
    driver = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield driver
    finally:
        driver.kill()
        driver.communicate()


def compile_less(stack: RunningStack) -> None:
    """Let executors compile their code once: they are new for each step, and the tables of the tests small."""
    extra = json.loads(stack.services.connections["spark_default"])["extra"]
    extra["conf"]["spark.executor.extraJavaOptions"] = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1"
    changed = {"connection_id": "spark_default", "conn_type": "spark", "extra": json.dumps(extra)}
    stack.api.request("PATCH", "/connections/spark_default", changed, update_mask="extra")
