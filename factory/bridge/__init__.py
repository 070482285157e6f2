"""From plan to Airflow and back: DAGs, what a worker runs, import errors, links and pages of the UI."""
