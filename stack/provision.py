"""Create what the containers expect to find: `python -m stack.provision`, run before the others start.

Creates the databases with the roles that own them, and the buckets, in a running Postgres and object store. All its
settings are in its environment. What exists is left as it is, except for a changed password.
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
    """Return the login of `user` for a database; `password` names the variable with the password."""
    host, port = environment["POSTGRES_HOST"], int(environment["POSTGRES_PORT"])
    return Database(host, port, dbname, user, environment[password])


def main() -> None:
    """Create the databases and the buckets."""
    import boto3

    superuser = login(os.environ, "postgres", SUPERUSER, "POSTGRES_SUPERUSER_PASSWORD")
    for name in DATABASES:
        create(superuser, login(os.environ, name, name, f"POSTGRES_{name.upper()}_PASSWORD"))
        print(f"database {name} is there")
    make_buckets(boto3.client("s3"), BUCKETS)  # with the address and keys in the environment
    print(f"buckets {', '.join(BUCKETS)} are there")


if __name__ == "__main__":
    main()
