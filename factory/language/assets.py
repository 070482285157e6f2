"""Which assets Airflow refuses: by its own rules, and by those of its providers for the URIs of their schemes.

Airflow raises where a DAG is built, and drops parts of a URI without an error; here both are mistakes. Airflow is not
imported: a test compares these rules with the functions of the installed providers. Those of other schemes are asked
where Airflow is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import SplitResult, urlsplit

from factory.language.arguments import AssetSpec

MAX_LENGTH = 1500
_RESERVED_NAMES = ("context", "self")
_RESERVED_SCHEME = "airflow"
_OWN_SCHEME = "x-"
"""Schemes that begin with it have no rules."""

Problem: TypeAlias = tuple[str, str]
"""What is wrong, and what to write instead."""


@dataclass(frozen=True, slots=True)
class _Form:
    """What the URIs of a scheme look like, and whether one does."""

    shown: str
    fits: Callable[[SplitResult], bool]


def asset_problems(asset: AssetSpec) -> Iterator[Problem]:
    """Yield why Airflow would refuse an asset, or change its URI; without a URI, its name is its URI."""
    hint = "use another name or URI"
    uri = asset.name if asset.uri is None else asset.uri
    for what, text in {"name": asset.name, "URI": uri}.items():
        if len(text) > MAX_LENGTH:
            yield f"an asset has a name or URI of {len(text)} characters; Airflow allows {MAX_LENGTH}", hint
        if not text or text.isspace():
            yield f"the {what} of an asset has no characters but blanks", hint
        if "\0" in text:
            yield f"the {what} of an asset contains the character NUL", "remove it"
    if asset.name in _RESERVED_NAMES:
        yield f'"{asset.name}" cannot be the name of an asset', f"Airflow reserves {' and '.join(_RESERVED_NAMES)}"
    yield from _uri_problems(uri)


def _uri_problems(uri: str) -> Iterator[Problem]:
    try:
        parts = urlsplit(uri)
        _ = parts.port  # it is read here
    except ValueError as error:
        yield f"the asset {uri} is not a URI: {error}", "correct it, or use a name without ://"
        return
    scheme = parts.scheme.lower()
    if not scheme or scheme.startswith(_OWN_SCHEME):
        return
    if scheme == _RESERVED_SCHEME:
        yield f"the asset {uri} has a URI of Airflow's own", "use another name or URI"
    if parts.password is not None:
        yield "the URI of an asset has a password in it, which Airflow would drop", "remove it: no spec holds secrets"
    if parts.fragment:
        yield f"the asset {uri} has a part after #, which Airflow would drop", "remove it, or use a name without ://"
    form = _FORMS.get(scheme)
    if form and not form.fits(parts._replace(path=parts.path.rstrip("/") or "/")):
        yield f"the asset {uri} is not a URI of {scheme}", f"write {form.shown}, or a name without ://"


def is_for_providers(asset: AssetSpec) -> bool:
    """Return whether the scheme of a sound URI is one whose rules only its provider knows, if one is installed."""
    scheme = urlsplit(asset.name if asset.uri is None else asset.uri).scheme.lower()
    return bool(scheme) and not scheme.startswith(_OWN_SCHEME) and scheme not in _FORMS


def _has_names(count: int) -> Callable[[SplitResult], bool]:
    """Return whether there is a host, and below it exactly so many names."""
    return lambda parts: bool(parts.netloc) and len(parts.path.split("/")) == count + 1


def _has_host(parts: SplitResult) -> bool:
    return bool(parts.netloc)


def _has_path(parts: SplitResult) -> bool:
    return len(parts.path) > 1


def _has_both(parts: SplitResult) -> bool:
    return _has_host(parts) and _has_path(parts)


_TABLE = {"mysql": 2, "mariadb": 2, "postgres": 3, "postgresql": 3, "redshift": 3, "trino": 3}
_FORMS: Mapping[str, _Form] = {
    "azservicebus": _Form("azservicebus://namespace/queue", _has_both),
    "bigquery": _Form("bigquery://project/dataset/table", _has_names(2)),
    "file": _Form("file:///path", _has_path),
    "gs": _Form("gs://bucket/key", _has_host),
    "mssql": _Form("mssql://host/database/schema/table", lambda parts: _has_names(3)(parts) or _has_names(4)(parts)),
    "s3": _Form("s3://bucket/key", _has_host),
    "sqlite": _Form("sqlite:///path/table", _has_path),
    "teradata": _Form("teradata://host/database/table", _has_both),
    "wasb": _Form("wasb://container@account/path", _has_both),
    "wasbs": _Form("wasbs://container@account/path", _has_both),
    **{
        scheme: _Form(f"{scheme}://host/database/{'schema/' * (names - 2)}table", _has_names(names))
        for scheme, names in _TABLE.items()
    },
}
"""The URIs that providers check, by their schemes."""
