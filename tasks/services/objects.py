"""How to reach the object store, and which errors are worth a retry. Knows nothing about the objects."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

from tasks.contract import MissingResource, PermanentError, TransientError
from tasks.services.connection import airflow_connection

if TYPE_CHECKING:
    from collections.abc import Iterator

    from botocore.exceptions import ClientError
    from mypy_boto3_s3 import S3Client

_REFUSED_KEYS = {"403", "AccessDenied", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"}
_MISSING_BUCKET = {"404", "NoSuchBucket"}


def object_store(connection: str) -> S3Client:
    """Return an S3 client for an Airflow connection of type aws; `endpoint_url` and `region_name` are in its extra.

    Its errors are translated by `bucket_errors`.
    """
    from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
    from botocore.config import Config

    airflow_connection(connection, "aws")  # else the hook would use the machine's own credentials
    config = Config(connect_timeout=5, read_timeout=60, retries={"total_max_attempts": 3, "mode": "standard"})
    client: S3Client = AwsBaseHook(aws_conn_id=connection, client_type="s3", config=config).get_conn()
    return client


@dataclass(frozen=True, slots=True)
class StoreAccess:
    """Where an object store is and how to log in, for another program."""

    endpoint: str | None
    """None is AWS. With an endpoint, the bucket goes into the path, as `object_store` does."""
    region: str | None
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    token: str | None = field(repr=False)
    """Set for a role's keys, which expire within hours."""


def store_access(connection: str) -> StoreAccess:
    """Return the settings of an Airflow connection of type aws; Airflow masks its secrets in logs."""
    from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook

    airflow_connection(connection, "aws")
    hook = AwsBaseHook(aws_conn_id=connection, client_type="s3")
    keys = hook.get_credentials() if hook.get_session().get_credentials() else None
    if keys is None or keys.access_key is None or keys.secret_key is None:
        raise PermanentError(f"connection {connection!r} has no keys; correct it in the UI under Admin > Connections")
    endpoint = hook.conn_config.get_service_endpoint_url("s3")
    return StoreAccess(endpoint, hook.region_name, keys.access_key, keys.secret_key, keys.token)


@contextmanager
def bucket_errors(connection: str, bucket: str) -> Iterator[None]:
    """Translate what boto3 raises in the block: a missing bucket, refused keys, or a store that does not answer."""
    from boto3.exceptions import S3TransferFailedError, S3UploadFailedError
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, ParamValidationError

    try:
        yield
    except (ClientError, S3UploadFailedError, S3TransferFailedError) as error:
        refusal = error if isinstance(error, ClientError) else error.__context__
        if not isinstance(refusal, ClientError):
            raise
        _raise_for_refusal(refusal, connection, bucket)
    except (NoCredentialsError, ParamValidationError) as error:
        raise PermanentError(f"bucket {bucket!r} in {_store(connection)}: {error}") from error
    except BotoCoreError as error:
        raise TransientError(_store(connection), str(error)) from error


def _raise_for_refusal(refusal: ClientError, connection: str, bucket: str) -> NoReturn:
    code = refusal.response.get("Error", {}).get("Code", "")
    store = _store(connection)
    if code in _MISSING_BUCKET:
        raise MissingResource("bucket", bucket, store, "create it, or correct the name in the step") from refusal
    if code in _REFUSED_KEYS:
        remedy = f"check the keys of connection {connection!r} and their rights to the bucket"
        raise PermanentError(f"{store} refused access to bucket {bucket!r} ({code}); {remedy}") from refusal
    if 400 <= refusal.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500) < 500:
        raise PermanentError(f"{store} refused a request for bucket {bucket!r}: {refusal}") from refusal
    raise TransientError(store, str(refusal)) from refusal


def _store(connection: str) -> str:
    endpoint = airflow_connection(connection, "aws").extra_dejson.get("endpoint_url", "AWS")
    return f"object store at {endpoint} (connection {connection!r})"
