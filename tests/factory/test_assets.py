"""Assets: what lint says of one is what Airflow and its providers do with it."""

from urllib.parse import urlsplit

import pytest
from airflow.sdk import Asset
from airflow.sdk.providers_manager_runtime import ProvidersManagerTaskRuntime

from factory.language.arguments import AssetSpec
from factory.language.assets import asset_problems

REFUSED = [
    "", " ", "\t\n", "a" * 1501, "s3:", "s3://", "s3:///key", "S3://", "postgres://x", "postgres://h/a/b",
    "postgres://h/a/b/c/d", "postgresql:///a/b/c", "postgres://h:x/a/b/c", "postgres://h:99999/a/b/c", "redshift://h",
    "redshift://h/a/b/c/d", "airflow://x", "AIRFLOW:x", "http://[", "http://[::1", "http://[zz]/", "s3://\uff0f/x",
    "s3://a\u2100/x",
]  # fmt: skip
"""What Airflow, or a provider that is installed here, refuses."""
CHANGED = ["http://me:secret@host/x", "s3://me:@bucket/x", "s3://bucket/key#part"]
"""What Airflow takes, after it has dropped a part."""
ELSEWHERE = [
    "file:", "file://", "file:///", "gs://", "gs:///key", "mysql://h/a", "mariadb://h/a/b/c", "bigquery://p/d",
    "trino://h/a", "mssql://h/a/b", "sqlite://", "teradata://h", "azservicebus://n", "wasbs://c@a", "s3://b/\0",
    "my\0rows",
]  # fmt: skip
"""What means nothing, or is refused where the provider is installed."""
TAKEN = [
    "rows", "my rows", "bestände", "x-mine://", "x-mine:a#b", "s3://bucket/key", "s3://bucket", "s3://bucket/a?b=c",
    "s3://bücket/x", "postgres://h/a/b/c", "postgres://h:5433/a/b/c/", "postgres://me@h/a/b/c", "postgresql://h/a//c",
    "redshift://h/a/b/c", "file:///a", "file:///a/b.csv", "gs://b/k", "mysql://h/a/b", "bigquery://p/d/t",
    "trino://h/a/b/c", "mssql://h/i/a/b/c", "sqlite:///a", "http://host/x", "mailto:me", "anything://at/all", "a/b",
    "//x",
]  # fmt: skip


def is_taken(**given: str) -> bool:
    try:
        Asset(**given)
    except ValueError:
        return False
    return True


def problems(name: str, uri: str | None = None) -> list[tuple[str, str]]:
    return list(asset_problems(AssetSpec(name, uri)))


@pytest.mark.parametrize("text", REFUSED)
def test_lint_tells_before_airflow_raises(text: str) -> None:
    """What Airflow refuses as a name or as a URI has a problem, with what to write instead."""
    assert not is_taken(name=text)
    assert not is_taken(name="named", uri=text)
    assert problems(text)
    assert problems("named", text)


@pytest.mark.parametrize("text", [*CHANGED, *ELSEWHERE])
def test_lint_tells_what_airflow_does_not(text: str) -> None:
    """A URI of which a part would be dropped, or that another provider refuses, is a problem too."""
    assert problems("named", text)


@pytest.mark.parametrize("text", TAKEN)
def test_what_airflow_takes_is_no_problem(text: str) -> None:
    """What Airflow takes as it is has no problem."""
    assert is_taken(name=text)
    assert problems(text) == []
    assert problems("named", text) == []


@pytest.mark.parametrize("name", ["self", "context"])
def test_names_of_airflows_own_are_refused(name: str) -> None:
    """A name that Airflow reserves cannot be that of an asset, even with a URI."""
    assert not is_taken(name=name, uri="s3://bucket/key")
    assert problems(name, "s3://bucket/key")


def test_every_installed_rule_is_known() -> None:
    """The providers that are installed have rules for these schemes, and each refuses an address without a host."""
    rules = ProvidersManagerTaskRuntime().asset_uri_handlers

    assert {"postgres", "s3"} <= set(rules)
    for scheme, rule in rules.items():
        try:
            rule(urlsplit(f"{scheme}:"))
        except ValueError:
            assert problems("named", f"{scheme}:"), scheme
