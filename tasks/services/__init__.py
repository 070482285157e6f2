"""How tasks reach the services, and what their errors mean for a retry: one module for each service."""
