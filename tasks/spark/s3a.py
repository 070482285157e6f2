"""A session that opens s3a:// addresses of a bucket, with the login of an Airflow connection.

Knows Hadoop's settings for s3a and the jars that it needs; knows nothing about files.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tasks.contract import PermanentError
from tasks.services.objects import store_access

if TYPE_CHECKING:
    from collections.abc import Iterator

    from py4j.protocol import Py4JJavaError
    from pyspark.sql import SparkSession

    from tasks.files.places import InBucket

COMPANIONS = {
    "3.5.0": (
        "software.amazon.awssdk:bundle 2.35.4",
        "software.amazon.s3.analyticsaccelerator:analyticsaccelerator-s3 1.3.1",
    )
}
"""The libraries that each release of hadoop-aws was built with, and cannot load without."""

NO_S3A = "org.apache.hadoop.fs.s3a.S3AFileSystem"
"""A class of hadoop-aws."""
_NO_CLASS = re.compile(r"(?:ClassNotFoundException|NoClassDefFoundError|UnsupportedFileSystemException): .*")


def let_open(session: SparkSession, files: InBucket) -> None:
    """Let the session open s3a:// addresses of a bucket; raise PermanentError if it lacks the jars.

    Address and login go into the Hadoop configuration that the running session passes to its executors: start options
    would be visible on a command line, and Spark's own settings on its web page. They apply to this bucket only. The
    s3a settings of the Spark connection and of the cluster's spark-defaults.conf stay.
    """
    from py4j.protocol import Py4JJavaError

    context = session.sparkContext
    java: Any = context._jvm  # noqa: SLF001
    hadoop = context._jsc.hadoopConfiguration()  # noqa: SLF001
    given = {name for name, _ in context.getConf().getAll()}
    for name, value in store_settings(files, given):
        hadoop.set(f"fs.s3a.bucket.{files.bucket}.{name}", value)
    try:
        java.org.apache.hadoop.fs.FileSystem.get(java.java.net.URI(f"s3a://{files.bucket}/"), hadoop)
    except Py4JJavaError as error:
        release = str(java.org.apache.hadoop.util.VersionInfo.getVersion())
        raise _refusal(error, files.bucket, release) from None


def store_settings(files: InBucket, given: set[str]) -> Iterator[tuple[str, str]]:
    """Yield the settings of the Airflow connection, except groups that Spark already has a setting of."""
    access = store_access(files.connection)
    path_style = "true" if access.endpoint else None
    groups = (
        {"endpoint": access.endpoint, "endpoint.region": access.region, "path.style.access": path_style},
        {"access.key": access.access_key, "secret.key": access.secret_key, "session.token": access.token},
    )
    scopes = ("spark.hadoop.fs.s3a.", f"spark.hadoop.fs.s3a.bucket.{files.bucket}.")
    for group in groups:
        if given.isdisjoint(f"{scope}{name}" for scope in scopes for name in group):
            yield from ((name, value) for name, value in group.items() if value)


def _refusal(error: Py4JJavaError, bucket: str, release: str) -> PermanentError:
    problem = _NO_CLASS.search(str(error))
    if problem is None:
        raise error
    jars = (f"org.apache.hadoop:hadoop-aws {release}", *COMPANIONS.get(release, ("what it was built with",)))
    return PermanentError(
        f"this Spark cannot open s3a://{bucket} ({problem[0].strip()}); give the driver and the executors the jars"
        f" {', '.join(jars)} (docs/shapes.md), or write `spark: copy` in `files`"
    )
