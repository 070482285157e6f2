"""What the stack starts and stops, and in which order."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from stack.assembly import WISHES, Stack, ports_of, wishes
from stack.credentials import Credentials
from stack.paths import Home
from stack.profiles import Profile
from stack.steps import chosen_with_needs


@pytest.fixture
def parts(tmp_path: Path) -> Stack:
    """A stack that nothing has started."""
    return Stack(Home(tmp_path), tmp_path, Credentials(), {wish.name: wish.usual for wish in WISHES})


def test_ports_have_owners(parts: Stack) -> None:
    """Each port belongs to a service, so that one that is up keeps its own."""
    services = {service.name for service in parts.services()}
    assert {wish.name for wish in WISHES if ports_of(services, {wish.name: wish.usual}) == {}} == set()
    assert ports_of({"spark-master"}, parts.ports) == {"spark": 7077, "spark-ui": 8082}


def test_users_stop_first(parts: Stack) -> None:
    """Nothing is stopped before what needs it or may be using it."""
    stopped = {one.name: turn for turn, together in enumerate(parts.stop_order()) for one in together}
    services = parts.services()
    assert set(stopped) == {service.name for service in services}
    pairs = [(service.name, other) for service in services for other in (*service.needs, *service.uses)]
    assert [(user, used) for user, used in pairs if used in stopped and stopped[user] >= stopped[used]] == []


def test_every_login_is_listed(parts: Stack) -> None:
    """`make status PASSWORDS=1` shows each password that a person can log in with; the rest are keys of services."""
    ports = {wish.name: wish.usual for wish in wishes(Profile.DISTRIBUTED)}
    distributed = replace(parts, profile=Profile.DISTRIBUTED, ports=ports)
    shown = {address.secret for address in distributed.addresses()}
    keys = {name for name in Credentials.model_fields if re.search(r"_(jwt|session|fernet|write|read)$", name)}
    assert {*filter(None, shown)} == set(Credentials.model_fields) - keys - {"spark_secret", "spark_pages"}
    assert ("airflow", "viewer") in {(address.service, address.login) for address in parts.addresses()}


@pytest.mark.parametrize(
    ("chosen", "started"),
    [
        ("airflow", {"java", "postgres", "metadata", "api-server", "scheduler", "dag-processor", "triggerer"}),
        ("spark", {"java", "spark-master", "spark-worker"}),
        ("mlflow", {"postgres", "objects", "mlflow"}),
        ("app", {"postgres", "objects", "mlflow", "app"}),
    ],
)
def test_unused_stay_down(parts: Stack, chosen: str, started: set[str]) -> None:
    """Who asks for a group of services gets it with what it needs, and nothing else."""
    steps = chosen_with_needs(parts.steps(), parts.groups()[chosen])
    assert {step.name for step in steps} == started
