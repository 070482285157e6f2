"""How tasks reach the services, and which errors are worth a retry: one module per service."""
