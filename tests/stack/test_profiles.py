"""Which profile a start has, and what the distributed one is made of."""

from __future__ import annotations

from pathlib import Path

import pytest

from stack import broker
from stack.assembly import Stack, wishes
from stack.broker import Broker
from stack.credentials import Credentials
from stack.paths import Home
from stack.ports import next_free
from stack.profiles import Profile, choose, recall
from stack.workers import ENVIRONMENT, QUEUES


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """A distributed stack that nothing has started; the dependency group that brings its broker may be missing."""
    monkeypatch.setattr(broker, "program", lambda: Path("valkey-server"))
    ports = {wish.name: wish.usual for wish in wishes(Profile.DISTRIBUTED)}
    return Stack(Home(tmp_path), tmp_path, Credentials(), ports, Profile.DISTRIBUTED)


def test_profile_lasts_while_up(tmp_path: Path) -> None:
    """What is running keeps its profile; a fresh start is local unless told otherwise."""
    file = tmp_path / "profile"
    assert choose(None, file, running=False) is Profile.LOCAL
    assert choose(Profile.DISTRIBUTED, file, running=False) is Profile.DISTRIBUTED
    assert choose(None, file, running=True) is Profile.DISTRIBUTED
    assert recall(file) is Profile.DISTRIBUTED
    with pytest.raises(ValueError, match="is running in the profile distributed; `make down` first"):
        choose(Profile.LOCAL, file, running=True)
    assert choose(None, file, running=False) is Profile.LOCAL


def test_workers_share_no_folder(parts: Stack) -> None:
    """Every folder that a worker's environment names is below its own directory, and no other worker's."""
    services = {one.name: one for one in parts.services() if one.name in QUEUES}
    for name, service in services.items():
        named = {service.environment[one] for one in ("HOME", "AIRFLOW_HOME", "TMPDIR", "SPARK_LOCAL_DIRS")}
        own = Path(service.directory)
        assert own.name == name
        assert all(Path(one).is_relative_to(own) for one in named)
        other = next(str(one.directory) for one in services.values() if one is not service)
        assert [variable for variable, value in service.environment.items() if other in value] == []


def test_workers_stop_before_what_they_use(parts: Stack) -> None:
    """A task that ends while all is stopped can still tell so, and leave its log."""
    turns = {one.name: turn for turn, together in enumerate(parts.stop_order()) for one in together}
    for name in QUEUES:
        assert turns[name] < min(turns[one] for one in ("api-server", "redis", "objects", "postgres", "mlflow"))


def test_environment_is_that_of_the_profile(parts: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files go to the bucket unless the user names an environment of their own."""
    monkeypatch.delenv("TASKFLOW_ENVIRONMENT", raising=False)
    assert parts.airflow.environment()["TASKFLOW_ENVIRONMENT"] == ENVIRONMENT
    monkeypatch.setenv("TASKFLOW_ENVIRONMENT", "production")
    assert parts.airflow.environment()["TASKFLOW_ENVIRONMENT"] == "production"


def test_executors_share_the_memory(parts: Stack) -> None:
    """An application has the memory of one executor in the local profile, divided among two here."""
    assert parts.spark.executor_memory == max(parts.spark.memory // 2, 512)


def test_broker_is_private(tmp_path: Path) -> None:
    """The password stands in a file of its owner's, and on no command line."""
    made = Broker(tmp_path / "redis", next_free(22_800), "a secret")
    made.prepare()
    (settings,) = (tmp_path / "redis").glob("*.conf")
    assert settings.stat().st_mode & 0o777 == 0o600
    assert "requirepass a secret\n" in settings.read_text()


def test_missing_broker_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the wheel and without a server of the system's, the message says what brings one."""
    monkeypatch.setattr(broker.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(FileNotFoundError, match="`make up PROFILE=distributed` installs the wheel"):
        broker.program()
