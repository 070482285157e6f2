"""The object store that tests and stack share."""

from __future__ import annotations

import json
import stat
import urllib.error
import urllib.request

import boto3
import pytest
from botocore.exceptions import ClientError

from stack.objects import HOST, REGION, ObjectStore
from tests.support.inner_ports import opened


def get(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_object_comes_back(object_store: ObjectStore) -> None:
    """What is put into the bucket of the validations is read back with its type."""
    client = object_store.client()
    client.put_object(Bucket="ge-artifacts", Key="a/b.html", Body=b"<p>", ContentType="text/html")
    seen = client.get_object(Bucket="ge-artifacts", Key="a/b.html")
    assert (seen["Body"].read(), seen["ContentType"]) == (b"<p>", "text/html")


def test_connection_opens_store(object_store: ObjectStore) -> None:
    """The Airflow connection holds all that a client needs."""
    made = json.loads(object_store.airflow_connection)
    client = boto3.client(
        "s3", aws_access_key_id=made["login"], aws_secret_access_key=made["password"], **made["extra"]
    )
    assert "ge-artifacts" in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]


def test_wrong_key_refused(object_store: ObjectStore) -> None:
    """A client with the wrong secret is refused."""
    client = boto3.client(
        "s3",
        endpoint_url=object_store.endpoint,
        region_name=REGION,
        aws_access_key_id=object_store.keys.access,
        aws_secret_access_key="wrong",
    )
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        client.list_buckets()


def test_bucket_typo_refused(object_store: ObjectStore) -> None:
    """A misspelt bucket is an error, not a new bucket."""
    with pytest.raises(ClientError, match="NoSuchBucket"):
        object_store.client().put_object(Bucket="ge-artefacts", Key="k", Body=b"")


def test_inner_doors_closed(object_store: ObjectStore) -> None:
    """The inner ports, which know no S3 keys, serve nothing without the store's certificate, by HTTP or by gRPC."""
    assert opened(object_store.ports) == []


def test_settings_are_private(object_store: ObjectStore) -> None:
    """The certificate's key and the settings are readable only by their owner."""
    files = [object_store.folder / "security.toml", *object_store.certificates.folder.iterdir()]
    assert len(files) == 4
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_admin_asks_password(object_store: ObjectStore) -> None:
    """The admin interface shows its login page to a stranger, and its API nothing."""
    assert get(f"http://{HOST}:{object_store.ports.admin}/api/s3/buckets") == 401
