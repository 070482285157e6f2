"""Who runs Postgres, which refuses root."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from stack.database import Cluster
from stack.identity import Identity
from stack.paths import private_folder
from stack.ports import next_free
from stack.service import running

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")


def owner(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


@as_root
@pytest.mark.parametrize(("identity", "uid"), [("namespace", 0), ("nobody", 65534)])
def test_root_runs_postgres(state: Path, identity: Identity, uid: int) -> None:
    """Below a folder that only root may enter, Postgres runs either way, and its data outlives a change of the way."""
    folder = private_folder(state / identity)
    server = Cluster(folder / "postgres", next_free(22_500), "password", identity=identity)
    with running(server.service(), folder) as process:
        assert owner(process.pid) == uid
        server.create(server.account("kept", "password"))
    other = replace(server, identity="namespace" if identity == "nobody" else "nobody")
    with running(other.service(), folder), other.account("kept", "password").connect() as opened:
        assert opened.status


def test_unknown_identity_refused(tmp_path: Path) -> None:
    """A misspelt identity is named, with those that there are."""
    command = [sys.executable, "-m", "stack.identity", "somebody", str(tmp_path), "/bin/true"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "'somebody' is not an identity; use auto, same, namespace, nobody\n")
