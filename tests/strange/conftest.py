"""What the tests of strange inputs share with the tests of tasks."""

from tests.tasks.conftest import gate, run, sql

__all__ = ["gate", "run", "sql"]
