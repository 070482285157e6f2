"""Bring Airflow's metadata database up to date: `python -m stack.metadata`, with Airflow's environment.

Reads the stack's connections from standard input, as a JSON object of ids and connections, or with `--from-environment`
from the variables `AIRFLOW_CONN_…`, and writes those that are missing or managed by the stack. One process does both,
because importing Airflow takes longer than either.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "AIRFLOW_CONN_"
MANAGED = "managed by make up"
"""The description of connections that the stack may overwrite; change it to keep an edited connection."""


def write_connections(wanted: dict[str, str]) -> list[str]:
    """Write the connections that are missing or managed, and return the ids of those that were left alone."""
    from airflow.models.connection import Connection
    from airflow.utils.session import create_session
    from sqlalchemy import select

    left_alone: list[str] = []
    with create_session() as session:
        for conn_id, text in wanted.items():
            kept = session.scalar(select(Connection).where(Connection.conn_id == conn_id))
            if kept is not None and kept.description != MANAGED:
                left_alone.append(conn_id)
                continue
            fresh = Connection.from_json(text, conn_id=conn_id)
            target = kept or Connection(conn_id=conn_id)
            for field in ("conn_type", "host", "port", "login", "password", "schema", "extra"):
                setattr(target, field, getattr(fresh, field))
            target.description = MANAGED
            session.add(target)
    return left_alone


def connections_in(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the connections in an environment, by id."""
    return {name.removeprefix(PREFIX).lower(): text for name, text in environment.items() if name.startswith(PREFIX)}


def main() -> None:
    """Migrate, then write the connections from the environment or from standard input."""
    from airflow.utils.db import upgradedb

    wanted = connections_in(os.environ) if "--from-environment" in sys.argv[1:] else json.load(sys.stdin)
    upgradedb()
    for conn_id in write_connections(wanted):
        print(f'the connection {conn_id} was edited (its description is not "{MANAGED}"), so it is left unchanged')


if __name__ == "__main__":
    main()
