"""The buttons on a task in Airflow's UI: one for each output field that says where to look at what the task made.

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
"""Where the API server shows objects of the object store, below its own root."""


class OutputLink(BaseOperatorLink):
    """The button of one output field: `data_docs` is shown as "Data docs"."""

    def __init__(self, field: str) -> None:
        self.field = field

    @property
    def name(self) -> str:
        """What stands on the button."""
        return self.field.replace("_", " ").capitalize()

    @property
    def xcom_key(self) -> str:
        """Where the worker leaves the address for the UI."""
        return f"_link_{self.field}"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002  # Airflow's signature
        """Return the address that the task's output holds; none, and so no button, where it has no output or a file.

        Airflow asks when a task ends, in whatever state: a gate that failed has its output, a skipped task none.
        """
        from airflow.sdk.execution_time.xcom import XCom

        return _address_in(XCom.get_value(ti_key=ti_key, key="return_value"), self.field)


def _address_in(output: Any, field: str) -> str:
    value = output.get(field) if isinstance(output, dict) else None
    return address(value) if value and not value.startswith("/") else ""


def address(link: str) -> str:
    """Return what a browser on Airflow's UI opens for a link: `s3://bucket/key`, or an http address as it is.

    An object's address has no host: what was written into an old run holds when the port of the UI moves, and opens
    under the name by which the user reached the UI, which is where the login is.
    """
    scheme, _, rest = link.partition("://")
    if scheme == "s3":
        return f"{_root()}{ARTIFACTS}/{quote(rest)}"
    if scheme in {"http", "https"}:
        return link
    raise ValueError(f"a task returned the link {link!r}, where s3://bucket/key or an http address is expected")


def _root() -> str:
    from airflow.sdk.configuration import conf

    base: str = conf.get("api", "base_url", fallback="")
    return urlsplit(base).path.rstrip("/")


@cache
def with_links(operator_class: type[BaseOperator], fields: tuple[str, ...]) -> type[BaseOperator]:
    """Return `operator_class` with a button for each of `fields`.

    It is the class that has them, since a mapped task is made from its class in the worker. It keeps its name, so that
    nothing but the links changes in the serialized DAG.
    """
    links = tuple(OutputLink(field) for field in fields)
    attributes = {"__module__": operator_class.__module__, "operator_extra_links": links}
    return new_class(operator_class.__name__, (operator_class,), exec_body=lambda body: body.update(attributes))
