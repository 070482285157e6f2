"""The Airflow connection that a step names: the only source of hosts and secrets.

In a task's process Airflow looks it up; elsewhere it is read from `AIRFLOW_CONN_<ID>`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.contract import MissingResource, PermanentError

if TYPE_CHECKING:
    from airflow.sdk import Connection


def airflow_connection(connection: str, conn_type: str) -> Connection:
    """Return an Airflow connection; raise MissingResource, or PermanentError if its type is another."""
    from airflow.sdk import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        conn: Connection = Connection.get(connection)
    except AirflowNotFoundException:
        remedy = f"create it in the UI under Admin > Connections, or set AIRFLOW_CONN_{connection.upper()}"
        raise MissingResource("connection", connection, "Airflow", remedy) from None
    if conn.conn_type != conn_type:
        problem = f"is of type {conn.conn_type!r}, not {conn_type!r}"
        raise PermanentError(f"connection {connection!r} {problem}; correct it in the UI under Admin > Connections")
    return conn
