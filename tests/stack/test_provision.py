"""What the containers expect to find is made, in a real Postgres and a real object store."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex

import pytest

from stack.database import Cluster
from stack.objects import BUCKETS, ObjectStore
from stack.provision import DATABASES
from stack.service import running
from tests.support.ports import free_port


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Cluster]:
    """A Postgres of this test's own: its roles are those of the session's."""
    made = Cluster(tmp_path / "postgres", free_port(), token_hex(16))
    with running(made.service(), tmp_path):
        yield made


def provision(server: Cluster, store: ObjectStore, passwords: dict[str, str]) -> str:
    """Run the command as its container does, and return what it says."""
    environment = {
        "PATH": os.environ["PATH"],
        "AWS_ENDPOINT_URL_S3": store.endpoint,
        "AWS_ACCESS_KEY_ID": store.keys.access,
        "AWS_SECRET_ACCESS_KEY": store.keys.secret,
        "AWS_DEFAULT_REGION": "us-east-1",
        "POSTGRES_HOST": server.superuser.host,
        "POSTGRES_PORT": str(server.port),
        "POSTGRES_SUPERUSER_PASSWORD": server.password,
        **{f"POSTGRES_{name.upper()}_PASSWORD": password for name, password in passwords.items()},
    }
    command = [sys.executable, "-P", "-m", "stack.provision"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def test_everything_is_made(server: Cluster, object_store: ObjectStore) -> None:
    """Each database opens with its owner's password, and with a new one once that is set; the buckets are there."""
    first, second = ({name: token_hex(16) for name in DATABASES} for _ in range(2))
    for passwords in (first, second):
        said = provision(server, object_store, passwords)
        assert said.splitlines() == [
            *(f"database {name} is there" for name in DATABASES),
            f"buckets {', '.join(BUCKETS)} are there",
        ]
        for name, password in passwords.items():
            with server.account(name, password).connect():
                pass
    buckets = {one["Name"] for one in object_store.client().list_buckets()["Buckets"]}
    assert set(BUCKETS) <= buckets
