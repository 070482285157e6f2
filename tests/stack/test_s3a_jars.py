"""The jars that are fetched while the image is built, from a folder that stands for the repository."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from stack.paths import REPOSITORY
from stack.s3a_jars import JARS, Jar, fetch

JAR = Jar("org.example.parts", "part", "1.2.3", hashlib.sha1(b"content", usedforsecurity=False).hexdigest())


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with the one jar."""
    file = tmp_path / "repository" / "org/example/parts/part/1.2.3/part-1.2.3.jar"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"content")
    return tmp_path / "repository"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where jars are to be."""
    made = tmp_path / "jars"
    made.mkdir()
    return made


def test_jar_is_fetched(repository: Path, folder: Path) -> None:
    """The jar is put in its place, whole."""
    fetch(JAR, folder, repository.as_uri())
    assert {one.name: one.read_bytes() for one in folder.iterdir()} == {"part-1.2.3.jar": b"content"}


def test_other_content_is_refused(repository: Path, folder: Path) -> None:
    """What is not what was pinned is not kept; the message has both sums."""
    next(repository.rglob("*.jar")).write_bytes(b"other")
    with pytest.raises(ValueError, match="SHA-1") as caught:
        fetch(JAR, folder, repository.as_uri())
    other = hashlib.sha1(b"other", usedforsecurity=False).hexdigest()
    assert (
        str(caught.value) == f"{repository.as_uri()}/{JAR.path}: its SHA-1 is {other}, not {JAR.sha1}; it is not kept"
    )
    assert list(folder.iterdir()) == []


def test_sums_are_whole() -> None:
    """Each pin is a whole sum, and no two are the same."""
    assert {len(bytes.fromhex(jar.sha1)) for jar in JARS} == {20}
    assert len({jar.sha1 for jar in JARS}) == len(JARS)


def test_page_names_them() -> None:
    """The documentation has the versions that are fetched."""
    page = (REPOSITORY / "docs" / "shapes.md").read_text()
    assert [jar.artifact for jar in JARS if f"| `{jar.group}:{jar.artifact}` | {jar.version}" not in page] == []
