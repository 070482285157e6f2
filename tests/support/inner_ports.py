"""The object store's inner ports, as a stranger finds them: no certificate, no key, whatever the protocol."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request

import grpc

from stack.objects import GRPC_OFFSET, HOST, ObjectPorts

CALLS = {
    "master": "/master_pb.Seaweed/GetMasterConfiguration",
    "volume": "/volume_server_pb.VolumeServer/VolumeServerStatus",
    "filer": "/filer_pb.SeaweedFiler/GetFilerConfiguration",
    "s3": "/s3_pb.SeaweedS3/Configure",
    "admin": "/worker_pb.WorkerService/WorkerStream",
}
"""A gRPC call of each part that needs no argument."""
PAGES = {"master": "/dir/assign", "volume": "/status", "filer": "/buckets/"}
SECONDS = 5


def called(port: int, call: str) -> str:
    """Return what came of a gRPC call without encryption: "answered", or the status of the refusal."""
    with grpc.insecure_channel(f"{HOST}:{port}") as channel:
        try:
            channel.unary_unary(call)(b"", timeout=SECONDS)
        except grpc.RpcError as error:
            return str(error.code().name)
    return "answered"


def fetched(url: str) -> int | str:
    """Return the status of a page for a client that trusts any server and shows no certificate, or "refused"."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with urllib.request.urlopen(url, timeout=SECONDS, context=context) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (urllib.error.URLError, ssl.SSLError, ConnectionError):
        return "refused"


def opened(ports: ObjectPorts) -> list[str]:
    """Return the inner ports that let a stranger in, each with what it answered."""
    calls = {call: called(getattr(ports, part) + GRPC_OFFSET, call) for part, call in CALLS.items()}
    urls = [f"{scheme}://{HOST}:{getattr(ports, part)}{page}" for part, page in PAGES.items() for scheme in _SCHEMES]
    pages = {url: fetched(url) for url in urls}
    return [f"{call}: {seen}" for call, seen in calls.items() if seen != "UNAVAILABLE"] + [
        f"{url}: {seen}" for url, seen in pages.items() if seen not in {400, "refused"}
    ]


_SCHEMES = ("http", "https")
