"""YAML text to values and spans."""

from factory.language.document import Document, read
from factory.language.errors import Diagnostic


def read_text(text: str) -> tuple[Document, list[Diagnostic]]:
    return read(text.encode(), "x.yaml")


def test_values_are_plain() -> None:
    """Numbers, booleans, nulls and texts are read as YAML 1.2 has them."""
    text = "a: 1\nb: -2.5\nc: true\nd: ~\ne: 'no'\nf: 1e5\ng: [x, 0.5]\nh: |\n  two\n  lines\n"
    document, found = read_text(text)

    assert found == []
    assert document.value == {
        "a": 1, "b": -2.5, "c": True, "d": None, "e": "no", "f": 1e5, "g": ["x", 0.5], "h": "two\nlines\n",
    }  # fmt: skip


def test_alias_gives_same_value() -> None:
    """An alias stands for what its anchor names."""
    document, found = read_text("a: &x {b: 1}\nc: *x\n")

    assert (document.value, found) == ({"a": {"b": 1}, "c": {"b": 1}}, [])


def test_span_of_value_and_key() -> None:
    """A value and its key each have a place of their own."""
    document, _ = read_text("steps:\n  say: {uses: messages.log}\n")

    value, key = document.span(("steps", "say", "uses")), document.span(("steps", "say", "uses"), key=True)

    assert (value.line, value.column, value.end) == (2, 15, 27)
    assert (key.line, key.column, key.end) == (2, 9, 13)


def test_span_of_missing_value() -> None:
    """What is not there is shown at the key that should hold it."""
    document, _ = read_text("steps:\n  say: {uses: messages.log}\n")

    span = document.span(("steps", "say", "with"))

    assert (span.line, span.column) == (2, 3)


def test_span_inside_text() -> None:
    """Characters of the text at a path are found in its line."""
    document, _ = read_text('a: "{{ params.x }}"\nb: "run {{ params.x }}"\n')

    span = document.span_within(("b",), 7, 15)

    assert (span.line, span.column, span.end) == (2, 12, 20)


def test_billion_laughs_end_early() -> None:
    """Aliases that expand without bounds are one error, found at once."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]

    _, found = read_text("\n".join(lines))

    assert [one.code for one in found] == ["endless-value"]


def test_bytes_must_be_utf8() -> None:
    """A file in another encoding is refused at the byte."""
    _, found = read(b"dag_id: caf\xe9\n", "x.yaml")

    assert [(one.span.line, one.span.column, one.message) for one in found] == [(1, 12, "the byte 0xe9 is not UTF-8")]


def test_control_character_is_named() -> None:
    """A character that YAML forbids is named with its place."""
    _, found = read_text("a: b\nc: \x07\n")

    assert [(one.span.line, one.span.column, one.message) for one in found] == [
        (2, 4, "the character U+0007 is not allowed in YAML")
    ]
