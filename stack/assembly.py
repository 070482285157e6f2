"""The whole stack of a state folder: its services with their ports, logins and needs."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from stack import app_server, broker, credentials, database, objects, orchestrator, ports, profiles, tracking_server
from stack import java as javas
from stack import spark as sparks
from stack.airflow_api import AirflowApi
from stack.app_login import USER as APP_USER
from stack.app_server import AppServer
from stack.broker import Broker
from stack.database import HOST, SUPERUSER, Cluster, Database
from stack.objects import BUCKETS, ObjectPorts, ObjectStore, is_blocked
from stack.orchestrator import USERS, Airflow
from stack.page_tokens import PREFIX
from stack.paths import pipelines
from stack.profiles import Profile
from stack.spark import Spark, SparkKeys, SparkPorts, WorkerPorts
from stack.steps import Step
from stack.supervisor import Supervisor
from stack.tracking_server import QUIET, USER, Tracking, TrackingKeys
from stack.workers import LOGS, Workers

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from stack.credentials import Credentials
    from stack.java import Java
    from stack.paths import Home
    from stack.service import Service

WISHES = (
    *database.PORTS,
    *objects.PORTS,
    *sparks.PORTS,
    *tracking_server.PORTS,
    *orchestrator.PORTS,
    *app_server.PORTS,
)
"""Every port of the stack, by the name that pins it in TASKFLOW_PORTS."""

DISTRIBUTED_WISHES = (*broker.PORTS, *sparks.SECOND_WORKER_PORTS)
"""What the distributed profile adds."""

READY_SECONDS = 300
"""How long a service may take while its process is alive: together they need half a minute on two cores, or minutes on
a busy machine."""


class NotMade(Exception):
    """There is no stack in the state folder."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where people find a service, and how they log in."""

    service: str
    url: str
    login: str = ""
    secret: str = ""
    """The name of the password in the file of secrets."""


@dataclass(frozen=True, slots=True)
class Stack:
    """The services of a state folder."""

    home: Home
    pipelines: Path
    credentials: Credentials
    ports: Mapping[str, int]
    profile: Profile = Profile.LOCAL

    @property
    def supervisor(self) -> Supervisor:
        """What keeps the services running."""
        return Supervisor(self.home)

    @property
    def cluster(self) -> Cluster:
        """Postgres, with one database each for Airflow, the crypto pipeline and MLflow."""
        bare = Cluster(self.home.database, self.ports["postgres"], self.credentials.postgres_superuser)
        passwords = {
            "airflow": self.credentials.postgres_airflow,
            "crypto": self.credentials.postgres_crypto,
            "mlflow": self.credentials.postgres_mlflow,
        }
        return replace(bare, accounts=tuple(bare.account(name, password) for name, password in passwords.items()))

    @property
    def metadata(self) -> Database:
        """Airflow's own database."""
        return self.cluster.accounts[0]

    @property
    def crypto(self) -> Database:
        """The database of the crypto pipeline, opened as its owner."""
        return self.cluster.accounts[1]

    @property
    def store(self) -> ObjectStore:
        """The object store."""
        parts = {part: self.ports[f"objects-{part}"] for part in ("admin", "master", "volume", "filer")}
        places = ObjectPorts(s3=self.ports["objects"], **parts)
        buckets = (*BUCKETS, LOGS) if self.is_distributed else BUCKETS
        return ObjectStore(self.home.objects, self.home.sockets, places, self.credentials.objects, buckets)

    @property
    def is_distributed(self) -> bool:
        """Whether tasks run on Celery workers."""
        return self.profile is Profile.DISTRIBUTED

    @property
    def broker(self) -> Broker:
        """What hands tasks to the workers of the distributed profile."""
        return Broker(self.home.broker, self.ports["redis"], self.credentials.redis)

    @property
    def workers(self) -> Workers | None:
        """What runs the tasks in the distributed profile."""
        return Workers(self.home.workers, self.broker) if self.is_distributed else None

    @property
    def java(self) -> Java:
        """The Java for Spark, here and in tasks."""
        return javas.choose(self.home.java, os.environ.get("JAVA_HOME"))

    @property
    def spark(self) -> Spark:
        """The Spark cluster."""
        names = ("spark-worker", "spark-worker-2") if self.is_distributed else ("spark-worker",)
        workers = tuple(WorkerPorts(name, self.ports[name], self.ports[f"{name}-ui"]) for name in names)
        places = SparkPorts(self.ports["spark"], self.ports["spark-ui"], workers)
        keys = SparkKeys(self.credentials.spark_secret, self.credentials.spark_pages)
        return Spark(self.home.spark, places, keys, self.java, sparks.memory())

    @property
    def tracking(self) -> Tracking:
        """MLflow."""
        keys = TrackingKeys(self.credentials.mlflow_admin, self.credentials.mlflow_session)
        return Tracking(self.home.tracking, self.ports["mlflow"], self.cluster.accounts[2], self.store, keys)

    @property
    def app(self) -> AppServer:
        """The app that serves the Production model."""
        others = {**self.tracking.client_environment, "AIRFLOW__API__BASE_URL": self.airflow.address}
        return AppServer(self.home.app, self.ports["app"], self.credentials.app, others)

    @property
    def airflow(self) -> Airflow:
        """Airflow, with the connections to the other services."""
        return Airflow(
            home=self.home,
            pipelines=self.pipelines,
            port=self.ports["airflow"],
            metadata=self.metadata,
            credentials=self.credentials,
            connections=self.connections,
            clients=self.clients,
            workers=self.workers,
        )

    @property
    def clients(self) -> dict[str, str]:
        """The environment variables for the libraries of tasks, inside Airflow and outside."""
        return {**self.spark.driver_environment(self.home.scratch), **QUIET}

    @property
    def connections(self) -> dict[str, str]:
        """The Airflow connections to the stack's services, by id, as JSON."""
        return {
            "crypto_postgres": self.crypto.airflow_connection,
            "object_store": self.store.airflow_connection,
            "spark_default": self.spark.airflow_connection,
            "spark_pages": self.spark.pages_connection,
            "mlflow_default": self.tracking.airflow_connection,
        }

    def services(self) -> list[Service]:
        """Return every service, in the order they are listed; they are stopped in reverse."""
        return [
            self.cluster.service(),
            self.store.service(),
            *self.spark.services(),
            self.tracking.service(),
            *([self.broker.service()] if self.is_distributed else []),
            *self.airflow.services(),
            self.app.service(),
        ]

    def steps(self) -> list[Step]:
        """Return what must be done for the whole stack to be up."""
        metadata = Step("metadata", ("postgres",), "Airflow's metadata database to be migrated", self._prepare_metadata)
        java = Step("java", (), "a Java that Spark accepts", self._prepare_java)
        return [java, metadata, *(self._step(service) for service in self.services())]

    def groups(self) -> dict[str, list[str]]:
        """Return the names that choose services on the command line, with the services of each."""
        groups: dict[str, list[str]] = {}
        for service in self.services():
            groups.setdefault(service.group or service.name, []).append(service.name)
        return groups

    def addresses(self) -> list[Address]:
        """Return where people find the services, a line for each login."""
        server = f"{self.crypto.host}:{self.crypto.port}"
        databases = [account.dbname for account in (self.crypto, self.metadata, self.tracking.database)]
        broker = [Address("redis", f"{HOST}:{self.broker.port}", "default", "redis")] if self.is_distributed else []
        return [
            *(Address("postgres", f"{server}/{name}", name, f"postgres_{name}") for name in databases),
            Address("postgres", f"{server}/postgres", SUPERUSER, "postgres_superuser"),
            Address("objects", self.store.endpoint, self.store.keys.access, "objects_secret"),
            Address("objects", self.store.admin_address, "admin", "objects_admin"),
            Address("spark", self.spark.master),
            *(Address("spark", f"{self.airflow.address}{PREFIX}/", user, f"airflow_{user}") for user in USERS),
            Address("mlflow", self.tracking.address, USER, "mlflow_admin"),
            *broker,
            Address("airflow", self.airflow.address, "admin", "airflow_admin"),
            Address("airflow", self.airflow.address, "viewer", "airflow_viewer"),
            Address("app", self.app.address, APP_USER, "app"),
        ]

    def stop_order(self) -> list[list[Service]]:
        """Return the order to stop services in: each group is stopped together, once nothing needs it any more."""
        left, order = self.services(), []
        while left:
            needed = {name for service in left for name in (*service.needs, *service.uses)}
            order.append([service for service in left if service.name not in needed])
            left = [service for service in left if service.name in needed]
        return order

    def api(self, user: str = "admin") -> AirflowApi:
        """Return Airflow's API, as one of its users."""
        return AirflowApi(self.airflow.address, user, self.airflow.passwords()[user])

    def exports(self) -> dict[str, str]:
        """Return the environment that makes a task run outside Airflow as it does inside."""
        connections = {f"AIRFLOW_CONN_{name.upper()}": text for name, text in self.connections.items()}
        return {**connections, **self.clients}

    def prepare_clients(self) -> None:
        """Make what the environment of tasks points to."""
        self.java.prepare()
        self.spark.write_settings()

    def _step(self, service: Service) -> Step:
        def action() -> str:
            seconds = self.supervisor.run(service, seconds=READY_SECONDS)
            return "is up already" if seconds is None else ""

        return Step(service.name, service.needs, service.awaited, action)

    def _prepare_java(self) -> str:
        self.prepare_clients()
        return self.java.origin

    def _prepare_metadata(self) -> str:
        return "" if self.airflow.prepare_metadata() else "is up to date already"


def wishes(profile: Profile) -> tuple[ports.Wish, ...]:
    """Return the ports that a profile needs."""
    return (*WISHES, *DISTRIBUTED_WISHES) if profile is Profile.DISTRIBUTED else WISHES


def plan(home: Home, profile: Profile | None = None) -> tuple[Stack, list[ports.Move]]:
    """Return the stack of `home`, making it if there is none, and the ports that moved.

    The profile defaults to the running one, else to local. Raises PortTaken and ValueError for pins that cannot be
    kept, and ValueError if another profile is running.
    """
    home.make()
    up = {name for name, process in Supervisor(home).processes().items() if process.is_up}
    chosen_profile = profiles.choose(profile, home.profile, running=bool(up))
    kept = ports.recall(home.ports)
    pins = ports.pinned(wish.name for wish in wishes(Profile.DISTRIBUTED))
    own = ports_of(up, kept)
    chosen, moves = ports.choose(
        wishes(chosen_profile),
        pins={**pins, **own},
        kept=kept,
        free=lambda port: _is_ours(port, own) or (ports.is_free(port) and not is_blocked(port)),
    )
    _refuse_to_move(pins, own)
    ports.note(home.ports, {**kept, **chosen})
    return Stack(home, pipelines(), credentials.load(home.secrets), chosen, chosen_profile), moves


def existing(home: Home) -> Stack:
    """Return the stack that was made in `home`; raises NotMade if there is none."""
    if not home.ports.exists() or not home.secrets.exists():
        raise NotMade(f"there is no stack in {home.root}; `make up` makes one")
    kept = profiles.recall(home.profile)
    return Stack(home, pipelines(), credentials.load(home.secrets), ports.recall(home.ports), kept)


def ports_of(up: Collection[str], kept: Mapping[str, int]) -> dict[str, int]:
    """Return the ports held by services that are up."""
    owners = {wish.name: wish.owner for wish in wishes(Profile.DISTRIBUTED)}
    return {name: port for name, port in kept.items() if owners.get(name) in up}


def _is_ours(port: int, own: Mapping[str, int]) -> bool:
    return any(port - own[wish.name] in {0, wish.twin} for wish in wishes(Profile.DISTRIBUTED) if wish.name in own)


def _refuse_to_move(pins: Mapping[str, int], own: Mapping[str, int]) -> None:
    for name, port in pins.items():
        if own.get(name, port) != port:
            raise ValueError(
                f"{ports.SETTING} pins {name} to {port}, but it is running at {own[name]}; `make down` first"
            )
