"""The sessions of Airflow's Amazon hook, which share what boto3 knows of S3: each would read 1 MB of JSON by itself.

Airflow's option `[aws] session_factory` names the class, so the hook's module has to be imported before this one.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from airflow.providers.amazon.aws.hooks.base_aws import BaseSessionFactory

if TYPE_CHECKING:
    from boto3.session import Session
    from botocore.loaders import Loader


class SharingSessions(BaseSessionFactory):
    """Makes sessions with one loader of service descriptions."""

    def _create_basic_session(self, session_kwargs: dict[str, Any]) -> Session:
        return _session(**session_kwargs)


def read_descriptions() -> None:
    """Make a client that is not used, so that the loader has read all that a client of S3 needs."""
    keys = {"aws_access_key_id": "none", "aws_secret_access_key": "none"}  # else botocore would look for some
    _session(**keys, region_name="us-east-1").client("s3")


def _session(**arguments: Any) -> Session:
    import boto3
    from botocore.session import get_session

    inner = get_session()
    inner.register_component("data_loader", loader())
    return boto3.session.Session(botocore_session=inner, **arguments)


@cache
def loader() -> Loader:
    """Return the one loader."""
    from botocore.loaders import create_loader

    return create_loader()
