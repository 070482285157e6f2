"""The Postgres that tests and stack share."""

from __future__ import annotations

import os
import subprocess

import psycopg2
import pytest

from stack.database import Cluster, Database, binaries


def query(database: Database, sql: str) -> list[tuple[object, ...]]:
    with database.connect() as opened, opened.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


def test_owner_is_ordinary(database: Database) -> None:
    """The pipelines' role owns its database and has no rights beyond it."""
    rows = query(database, "SELECT rolsuper, rolcreatedb, rolcreaterole FROM pg_roles WHERE rolname = current_user")
    assert rows == [(False, False, False)]
    query(database, "CREATE SCHEMA raw; SELECT 1")


def test_other_role_refused(cluster: Cluster, database: Database) -> None:
    """A role may not open a database that it does not own."""
    stranger = cluster.account("stranger", "another-password")
    cluster.create(stranger)
    with pytest.raises(psycopg2.OperationalError, match='permission denied for database "test_'):
        query(stranger.named(database.dbname), "SELECT 1")


def test_wrong_password_refused(database: Database) -> None:
    """A password is asked for even on loopback."""
    wrong = Database(database.host, database.port, database.dbname, database.user, "wrong")
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        query(wrong, "SELECT 1")


def test_settings_are_fixed(database: Database) -> None:
    """Text sorts and clocks tell the time alike on every machine."""
    names = "current_setting('TimeZone'), datcollate, datlocale, pg_encoding_to_char(encoding)"
    rows = query(database, f"SELECT {names} FROM pg_database WHERE datname = current_database()")
    assert rows == [("UTC", "C", "C.UTF-8", "UTF8")]


def test_create_is_repeatable(cluster: Cluster, database: Database) -> None:
    """Making an account that exists changes its password and nothing else."""
    query(database, "CREATE TABLE kept (n int); SELECT 1")
    cluster.create(database)
    assert query(database, "SELECT count(*) FROM kept") == [(0,)]


def test_psql_finds_a_database(postgres: Database) -> None:
    """The environment of an account opens its database in the server's own psql, without a password on the line."""
    command = [str(binaries() / "psql"), "-Atc", "SELECT current_user, current_database()"]

    done = subprocess.run(command, env=os.environ | postgres.environment, capture_output=True, text=True, check=True)

    assert done.stdout == f"{postgres.user}|{postgres.dbname}\n"
