"""The Airflow connection that a step names: hosts and secrets come from there and from nowhere else.

In a task's process Airflow looks it up; in a plain one it stands in `AIRFLOW_CONN_<ID>`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.contract import MissingResource, PermanentError

if TYPE_CHECKING:
    from airflow.sdk import Connection


def airflow_connection(connection: str, conn_type: str) -> Connection:
    """Return an Airflow connection; raise MissingResource, or PermanentError for one of another type."""
    from airflow.sdk import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        found: Connection = Connection.get(connection)
    except AirflowNotFoundException:
        remedy = f"create it in the UI under Admin > Connections, or set AIRFLOW_CONN_{connection.upper()}"
        raise MissingResource("connection", connection, "Airflow", remedy) from None
    if found.conn_type != conn_type:
        problem = f"is of type {found.conn_type!r}, where {conn_type!r} is expected"
        raise PermanentError(f"connection {connection!r} {problem}; correct it in the UI under Admin > Connections")
    return found
