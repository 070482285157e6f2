"""The connections that are written into Airflow's metadata database."""

from stack.metadata import connections_in


def test_environment_holds_connections() -> None:
    """A variable of Airflow's own form is a connection; no other is."""
    found = connections_in({"AIRFLOW_CONN_CRYPTO_POSTGRES": "{}", "AIRFLOW_HOME": "/x", "PATH": "/bin"})
    assert found == {"crypto_postgres": "{}"}
