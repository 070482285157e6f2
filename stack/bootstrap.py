"""Make the virtual environment from the lock file: `python3 -I stack/bootstrap.py [OPTION OF UV SYNC…]`.

Run by any Python that the machine has, so it uses only the standard library and syntax that an old Python can read.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

UV_VERSION = "0.13.9"
OLDEST, NEWEST = (3, 11), (3, 13)
REPOSITORY = Path(__file__).resolve().parent.parent
PRIVATE = REPOSITORY / ".taskflow"
UV_HOME = PRIVATE / f"uv-{UV_VERSION}"


def main(options: list[str]) -> None:
    """Install uv for this project alone, and let it install the packages in the lock file."""
    check_version()
    uv = install_uv()
    command = [str(uv), "sync", "--frozen", "--inexact", "--no-python-downloads", "--python", sys.executable, *options]
    if subprocess.run(command, cwd=REPOSITORY, env=environment(), check=False).returncode != 0:
        sys.exit("error: uv could not install the packages in uv.lock; see its message above")


def check_version() -> None:
    """Stop unless Airflow supports this Python."""
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        version = ".".join(map(str, sys.version_info[:3]))
        sys.exit(
            f"error: {sys.executable} is Python {version}; Airflow needs 3.11, 3.12 or 3.13. "
            "Choose one of these: make init PYTHON=/path/to/python3.12"
        )


def install_uv() -> Path:
    """Return the path of uv, installing it first if it is missing."""
    uv = UV_HOME / "bin" / "uv"
    if uv.exists():
        return uv
    PRIVATE.mkdir(mode=0o700, exist_ok=True)  # the stack will keep its passwords there
    print(f"Installing uv {UV_VERSION} into {UV_HOME}")
    shutil.rmtree(UV_HOME, ignore_errors=True)  # what an interrupted installation left
    made = subprocess.run([sys.executable, "-m", "venv", str(UV_HOME)], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        sys.exit(
            f"error: {sys.executable} cannot make a virtual environment:\n{made.stdout}{made.stderr}\n"
            "On Debian and Ubuntu, install the package python3-venv; "
            "or choose another Python: make init PYTHON=/path/to/python3.12"
        )
    pip = [str(UV_HOME / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if subprocess.run([*pip, f"uv=={UV_VERSION}"], env=environment(), check=False).returncode != 0:
        sys.exit(f"error: pip could not install uv {UV_VERSION}; see its message above")
    return uv


def environment() -> dict[str, str]:
    """Return the environment for pip and uv: with a writable cache, and without another virtual environment."""
    made = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    cache = Path(made.get("UV_CACHE_DIR") or usual_cache())
    if not os.access(nearest(cache), os.W_OK):
        cache = PRIVATE / "cache"
        made["UV_CACHE_DIR"] = str(cache)
        made["PIP_NO_CACHE_DIR"] = "1"
    if nearest(cache).stat().st_dev != REPOSITORY.stat().st_dev:
        made.setdefault("UV_LINK_MODE", "copy")  # what uv would do anyway, after a warning
    return made


def usual_cache() -> Path:
    """Return uv's default cache folder; in the project, for a user without a home."""
    try:
        home = Path.home()
    except RuntimeError:
        return PRIVATE / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "uv"


def nearest(path: Path) -> Path:
    """Return `path`, or the closest folder above it that exists."""
    while not path.exists():
        path = path.parent
    return path


if __name__ == "__main__":
    main(sys.argv[1:])
