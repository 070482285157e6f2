"""Make what the containers expect to find: `python -m stack.provision`, once before the others start.

In a Postgres and an object store that are there already: the databases with the roles that own them, and the buckets.
All that it needs to know is in its environment. What exists is left as it is, but for a password that has changed.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from stack.database import SUPERUSER, Database, create
from stack.objects import BUCKETS, make_buckets

if TYPE_CHECKING:
    from collections.abc import Mapping

DATABASES = ("airflow", "crypto", "mlflow")


def login(environment: Mapping[str, str], dbname: str, user: str, password: str) -> Database:
    """Return the address of a database for `user`, whose password the variable `password` holds."""
    host, port = environment["POSTGRES_HOST"], int(environment["POSTGRES_PORT"])
    return Database(host, port, dbname, user, environment[password])


def main() -> None:
    """Make the databases and the buckets."""
    import boto3

    superuser = login(os.environ, "postgres", SUPERUSER, "POSTGRES_SUPERUSER_PASSWORD")
    for name in DATABASES:
        create(superuser, login(os.environ, name, name, f"POSTGRES_{name.upper()}_PASSWORD"))
        print(f"database {name} is there")
    make_buckets(boto3.client("s3"), BUCKETS)  # its address and its keys are in the environment
    print(f"buckets {', '.join(BUCKETS)} are there")


if __name__ == "__main__":
    main()
