"""The bridge to Airflow: every YAML in the DAGs folder is a DAG file of its own."""
