"""Clients of a test's own for MLflow, with the login in the address."""

from __future__ import annotations

import mlflow

from stack.tracking_server import USER, Tracking


def open_address(server: Tracking) -> str:
    """Return the server's address with the admin's login in it."""
    return server.address.replace("://", f"://{USER}:{server.keys.admin_password}@")


def client_of(server: Tracking) -> mlflow.MlflowClient:
    """Return a client that knows the server's address and login and nothing else, whatever the process has set."""
    address = open_address(server)
    return mlflow.MlflowClient(address, address)
