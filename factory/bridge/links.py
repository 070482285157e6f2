"""The buttons on a task in Airflow's UI: one for each output field that links to something the task made.

Knows Airflow's operator links and where `factory.bridge.plugin` shows the object store; it neither reads an object nor
knows what the links show.
"""

from __future__ import annotations

from functools import cache
from types import new_class
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from airflow.sdk.bases.operatorlink import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

ARTIFACTS = "/artifacts"
"""Where the API server shows the object store's objects, below its own root."""


class OutputLink(BaseOperatorLink):
    """The button of one output field: `data_docs` is shown as "Data docs"."""

    def __init__(self, field: str) -> None:
        self.field = field

    @property
    def name(self) -> str:
        """The text on the button."""
        return self.field.replace("_", " ").capitalize()

    @property
    def xcom_key(self) -> str:
        """The key under which the worker leaves the address for the UI."""
        return f"_link_{self.field}"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002  # Airflow's signature
        """Return the address in the task's output, or "" for no button: without an output, or for a local file.

        Airflow asks when a task ends, in any state: a gate that failed has an output, a skipped task does not.
        """
        from airflow.sdk.execution_time.xcom import XCom

        return _address_in(XCom.get_value(ti_key=ti_key, key="return_value"), self.field)


def _address_in(output: Any, field: str) -> str:
    value = output.get(field) if isinstance(output, dict) else None
    return address(value) if value and not value.startswith("/") else ""


def address(link: str) -> str:
    """Return the address that the UI opens for a link: a path for `s3://bucket/key`, an http address unchanged.

    An object's address has no host: the links of old runs still work when the UI's port changes, and they open under
    the host name that the user is logged in to.
    """
    scheme, _, rest = link.partition("://")
    if scheme == "s3":
        return f"{_root()}{ARTIFACTS}/{quote(rest)}"
    if scheme in {"http", "https"}:
        return link
    raise ValueError(f"a task returned the link {link!r}; it should be s3://bucket/key or an http address")


def _root() -> str:
    from airflow.sdk.configuration import conf

    base: str = conf.get("api", "base_url", fallback="")
    return urlsplit(base).path.rstrip("/")


@cache
def with_links(operator_class: type[BaseOperator], fields: tuple[str, ...]) -> type[BaseOperator]:
    """Return `operator_class` with a button for each of `fields`.

    The class has them, since a mapped task is made from its class in the worker. It keeps its name, so that only the
    links change in the serialized DAG.
    """
    links = tuple(OutputLink(field) for field in fields)
    attributes = {"__module__": operator_class.__module__, "operator_extra_links": links}
    return new_class(operator_class.__name__, (operator_class,), exec_body=lambda body: body.update(attributes))
