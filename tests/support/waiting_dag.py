"""A DAG in Python that waits for a file."""

DAG = '''
    """A dag of two tasks, the first of which waits for a file."""
    import pathlib
    import time
    from airflow.sdk import dag, task

    @dag(dag_id="{dag_id}", schedule=None, params={{"gate": "", "greeting": "hello"}})
    def made():
        @task(retries=2, retry_delay=1)
        def wait(params=None):
            while params["gate"] and not pathlib.Path(params["gate"]).exists():
                time.sleep(0.1)
            return params["greeting"]

        @task
        def tell(greeting):
            print("it said", greeting)

        tell(wait())

    made()
'''
