"""From plan to Airflow and back: DAGs, what a worker runs, import errors, and links and pages in the UI."""
