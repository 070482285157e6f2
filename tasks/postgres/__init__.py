"""Tables of Postgres: filled, rebuilt, merged, vacuumed."""
