"""Fetch the jars that let Spark read and write s3a:// addresses: `python stack/s3a_jars.py FOLDER`, in the image build.

The pip package of Spark 4.3.0 includes Hadoop's client 3.5.0, and hadoop-aws must be of exactly that release; it was
built with the other two below. Run before the project is installed, so it uses only the standard library.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

REPOSITORY = "https://repo.maven.apache.org/maven2"


@dataclass(frozen=True)
class Jar:
    """An artifact on Maven Central, with its published SHA-1."""

    group: str
    artifact: str
    version: str
    sha1: str

    @property
    def name(self) -> str:
        """The name of the file."""
        return f"{self.artifact}-{self.version}.jar"

    @property
    def path(self) -> str:
        """Where it is in a repository."""
        return f"{self.group.replace('.', '/')}/{self.artifact}/{self.version}/{self.name}"


JARS = (
    Jar("org.apache.hadoop", "hadoop-aws", "3.5.0", "9e594525d264c0db653c7f68da98b245f7d61ea5"),
    Jar("software.amazon.awssdk", "bundle", "2.35.4", "7252265e3970b214708e68a8b74a8fa8c875af1e"),
    Jar(
        "software.amazon.s3.analyticsaccelerator",
        "analyticsaccelerator-s3",  # S3A does not load without it, even if it is not used
        "1.3.1",
        "6c9bd0f6c440c9a78e82d272f5f0252d942419f6",
    ),
)


def fetch(jar: Jar, folder: Path, repository: str = REPOSITORY) -> None:
    """Put the jar into `folder`; raise ValueError if its checksum is not the pinned one, and leave nothing behind."""
    draft, digest = folder / f".{jar.name}", hashlib.sha1(usedforsecurity=False)
    with urlopen(f"{repository}/{jar.path}", timeout=60) as answer, draft.open("wb") as file:  # noqa: S310 - https above
        while block := answer.read(1 << 20):
            digest.update(block)
            file.write(block)
    if digest.hexdigest() != jar.sha1:
        draft.unlink()
        raise ValueError(f"{repository}/{jar.path}: its SHA-1 is {digest.hexdigest()}, not {jar.sha1}; it is not kept")
    draft.rename(folder / jar.name)


def main() -> None:
    """Fetch every jar."""
    for jar in JARS:
        fetch(jar, Path(sys.argv[1]))
        print(f"fetched {jar.name}")


if __name__ == "__main__":
    main()
