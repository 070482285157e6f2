"""An Airflow in a folder of its own; it needs none of the project's services, and is 3.3 or 3.4."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HELLO = """\
dag_id: hello
start_date: 2026-01-01
params:
  loud: {type: boolean, default: true}
  unused: {type: integer, default: 1}
  idle: {type: integer, default: 2}
steps:
  greet: {uses: messages.log, with: {message: "hello on {{ run.date }}"}}
  choose:
    needs: greet
    branch: [{if: "{{ params.loud }}", then: shout}, {else: whisper}]
  shout: {uses: messages.log, expand: {message: [HELLO, AGAIN]}}
  whisper: {uses: messages.log, with: {message: hello}}
  again:
    branch: [{if: "{{ not params.loud }}", then: repeat}, {else: null}]
  repeat: {uses: messages.log, with: {message: hello again}}
"""
BROKEN = "dag_id: broken\nsteps:\n  say: {uses: messages.lag, with: {message: hello}}\n"
TWIN = "steps:\n  say: {uses: messages.log, with: {message: hello}}\ndag_id: hello\n"
"""Has the dag_id of a spec that comes before it."""
BUNDLE = "specs"
LOCAL_BUNDLE = "airflow.dag_processing.bundles.local.LocalDagBundle"


@dataclass(frozen=True, slots=True)
class Airflow:
    """An Airflow in a folder of its own, with its metadata in SQLite."""

    root: Path

    @property
    def specs(self) -> Path:
        """The folder of its one bundle."""
        return self.root / "pipelines"

    @property
    def metadata(self) -> Path:
        """The database."""
        return self.root / "airflow.db"

    @property
    def settings(self) -> dict[str, str]:
        """What tells Airflow so; 3.3 does not know the last one."""
        bundle = {"name": BUNDLE, "classpath": LOCAL_BUNDLE, "kwargs": {"path": str(self.specs)}}
        return {
            "AIRFLOW_HOME": str(self.root),
            "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps([bundle]),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.metadata}",
            "AIRFLOW__DAG_PROCESSOR__DAG_IMPORTER_CONFIGS": '["factory.importer.YamlImporter"]',
        }

    def run(self, *arguments: str, code: int = 0) -> str:
        """Return what a command of Airflow prints; fail with all of it, where it ends with another exit code."""
        done = subprocess.run(
            [sys.executable, "-m", "airflow", *arguments],
            env={**os.environ, **self.settings},
            cwd=self.root,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, f"airflow {' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Return what the metadata database holds."""
        with closing(sqlite3.connect(self.metadata)) as opened:
            return opened.execute(query).fetchall()
