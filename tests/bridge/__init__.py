"""What becomes of specs in Airflow, whichever runs these tests: the project's own, or that of test_airflow_3_4."""
