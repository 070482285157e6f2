"""The reusable tasks that a step of a pipeline may name. Nothing here knows YAML or Airflow's DAGs."""
