"""The server of the app."""

from __future__ import annotations

from pathlib import Path

import httpx
import psutil
import pytest

from stack.app_server import AppServer
from stack.ports import HOST, next_free
from stack.service import running


def server(folder: Path, script: Path) -> AppServer:
    return AppServer(folder / "app", next_free(22_700), {"MLFLOW_TRACKING_URI": "http://127.0.0.1:1"}, script)


def test_script_is_served(tmp_path: Path) -> None:
    """A page is served on loopback, by one process that knows where MLflow is."""
    script = tmp_path / "page.py"
    script.write_text("import streamlit\nstreamlit.title('a page')\n")
    made = server(tmp_path, script)
    with running(made.service(), tmp_path) as process:
        assert "<title>Streamlit</title>" in httpx.get(made.address, trust_env=False).text
        own = psutil.Process(process.pid)
        listening = [one.laddr for one in own.net_connections() if one.status == psutil.CONN_LISTEN]
        assert listening == [(HOST, made.port)]
        assert own.environ()["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:1"


def test_missing_script_is_told(tmp_path: Path) -> None:
    """Without a script the server does not start, and says what is missing."""
    made = server(tmp_path, tmp_path / "nothing.py")
    with (
        pytest.raises(FileNotFoundError, match=r"the app is not there: no .*/nothing\.py"),
        running(made.service(), tmp_path),
    ):
        pytest.fail("it started")
