"""`taskflow` in a process that has imported Airflow already, and forks for each command: a cold one takes 6 s of CPU.

What a cold process prints and imports is tested by those tests that start the installed command.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any


@dataclass(frozen=True, slots=True)
class Warm:
    """A process that runs commands, one after another."""

    process: subprocess.Popen[str]
    folder: Path

    def said(self) -> str:
        """Return what the command that runs now, or the last one, has printed."""
        return "".join((self.folder / name).read_text() for name in ("out", "err") if (self.folder / name).exists())

    def __call__(self, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `taskflow` with these arguments in a folder, and return how it ended."""
        out, err = self.folder / "out", self.folder / "err"
        asked = {"arguments": arguments, "cwd": str(cwd), "env": dict(os.environ), "out": str(out), "err": str(err)}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        code = int(self.process.stdout.readline())
        return subprocess.CompletedProcess(["taskflow", *arguments], code, out.read_text(), err.read_text())


@contextmanager
def warmed_up() -> Iterator[Warm]:
    """Yield a process that waits for commands."""
    with tempfile.TemporaryDirectory() as folder:
        outside = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW__DATABASE")}
        command = [sys.executable, "-m", __name__]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=outside) as process:
            yield Warm(process, Path(folder))
            assert process.stdin is not None
            process.stdin.close()


def serve() -> None:
    """Answer each command on stdin with its exit code."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _import()
    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if not child:
            _become(asked)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)


def _import() -> None:
    """Import what a run of a pipeline with a gate needs, and what Airflow needs to run it here."""
    os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "WARNING"  # as the command has it
    import airflow.sdk.execution_time.task_runner
    import airflow.utils.db  # noqa: F401
    from airflow.sdk.execution_time.supervisor import in_process_api_server

    from stack import preloading

    preloading.preload()
    asyncio.run(_ask(in_process_api_server().app))


async def _ask(app: Any) -> None:
    """Ask Airflow's API once: at its first request it makes its routes, which is most of what a run costs."""
    import httpx

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://here") as client:
        (await client.get("/health")).raise_for_status()


def _become(asked: dict[str, Any]) -> None:
    """Be the command: its folder, environment and streams. Airflow is given the database of this run."""
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    for name, stream in (("out", 1), ("err", 2)):
        opened: IO[str] = Path(asked[name]).open("w")  # noqa: SIM115  # it is the stream of this process until its end
        os.dup2(opened.fileno(), stream)
    sys.argv = ["taskflow", *asked["arguments"]]
    from factory.bridge import local
    from factory.command import cli

    configure = local._configure

    def configure_again(home: Path, file: Path) -> None:
        from airflow import settings

        configure(home, file)
        settings.dispose_orm()
        settings.configure_vars()
        settings.configure_orm()

    local._configure = configure_again
    code = 1
    try:
        cli.main()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(bool(ended.code))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve()
