"""What a program imports, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

from stack.paths import REPOSITORY

HEAVY = (
    "apprise",
    "boto3",
    "evidently",
    "faker",
    "great_expectations",
    "matplotlib",
    "mlflow",
    "numpy",
    "pandas",
    "pyspark",
    "shap",
)


def loaded_after(code: str, names: tuple[str, ...]) -> set[str]:
    told = f"print('LOADED', *(n for n in {names!r} if n in sys.modules))"
    program = f"import sys; from pathlib import Path\n{code}\n{told}"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    return set(done.stdout.partition("LOADED")[2].split())
