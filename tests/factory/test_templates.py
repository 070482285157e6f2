"""Texts with expressions in them: their pieces, and where they are in their file."""

import pytest

from factory.language.document import read
from factory.language.templates import (
    Expression,
    Template,
    filled,
    pieces,
    sql_pieces,
    whole_expression,
)
from factory.language.tokens import TemplateProblem
from tasks.postgres.expressions import filled_expression, filled_query

SQL = {"sql": filled_expression, "query": filled_query}


def shape(text: str) -> list[str]:
    return [piece if isinstance(piece, str) else text[piece.start : piece.end] for piece in pieces(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", ["plain"]),
        ("", []),
        ("{{ 1 }}", ["{{ 1 }}"]),
        ("a{{1}}b {{ 'x' }}", ["a", "{{1}}", "b ", "{{ 'x' }}"]),
        ("{{ '}}' }}", ["{{ '}}' }}"]),
        ("{{ '{{ 1 }}' }}", ["{{ '{{ 1 }}' }}"]),
        ('{"json": {"a": 1}}', ['{"json": {"a": 1}}']),
        ("}} % } #}", ["}} % } #}"]),
        ("{{ 1\n+ 2 }}", ["{{ 1\n+ 2 }}"]),
    ],
)
def test_text_has_pieces(text: str, expected: list[str]) -> None:
    """A text is plain pieces and expressions; braces that open none are plain."""
    assert shape(text) == expected


def test_sql_is_cut_at_its_values() -> None:
    """SQL is judged in pieces of plain text, with a value between each two."""
    assert sql_pieces("a > {{ 1 }} - {{ 2 }} + 1") == ("a > ", " - ", " + 1")
    assert sql_pieces("{{ 1 }}{{ 2 }}") == ("", "", "")


def test_text_is_not_whole() -> None:
    """Two expressions, or text around one, are not one whole expression."""
    assert whole_expression("{{ 1 }}{{ 2 }}") is None
    assert whole_expression("{{ 1 }} ") is None
    assert isinstance(whole_expression("{{ 1 }}"), Expression)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{{ [1, 'a'] }}", [1, "a"]),
        ("{{ null }}", None),
        ("{{ true }} {{ false }}", "true false"),
        ("{{ 0.1 }} {{ 1e22 }} {{ 3 }}", "0.1 1e+22 3"),
    ],
)
def test_value_is_written(text: str, value: object) -> None:
    """A whole expression keeps its type; in a longer text booleans are YAML's and numbers are short."""
    assert filled(Template(text), lambda _: None, SQL) == value


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (Template("a {{ null }}"), "null cannot be put into a text"),
        (Template("a {{ [1] }}"), "a list cannot be put into a text"),
        (Template("a {{ x }}"), "an object cannot be put into a text"),
        (Template("a = {{ x }}", sql="sql"), "an object cannot be put into SQL"),
        (Template("a = {{ '\\n' ~ y }}", sql="sql"), "SQL text cannot contain the character NUL"),
    ],
)
def test_value_that_no_text_holds_is_refused(template: Template, message: str) -> None:
    """Null, lists and objects have no text; SQL takes null and lists, but no NUL."""
    with pytest.raises(TemplateProblem, match=message):
        filled(template, lambda path: {} if path.parts == ("x",) else "\0", SQL)


def test_sql_takes_null_and_lists() -> None:
    """In SQL a list is what follows IN, and null is NULL."""
    template = Template("a IN {{ [1, 'x'] }} OR b = {{ null }}", sql="sql")

    assert filled(template, lambda _: None, SQL) == "a IN ((1), ('x')) OR b = (NULL)"


@pytest.mark.parametrize(
    "source",
    [
        'x: "a {{ here }} b"',
        "x: 'a {{ here }} b'",
        "x: a {{ here }} b",
        "x: 'it''s {{ here }}'",
        r'x: "a \" \\ \t é \u00e9 \x41 {{ here }}"',
        "x: >-\n  folded\n  text {{ here }}\n  more",
        "x: |\n  kept\n\n    deeper {{ here }}\n",
        'x: "a\n   folded {{ here }}"',
        'x: "a \\\n   continued {{ here }}"',
        "x: plain\n  over two {{ here }} lines",
        "# comment\nx: # another\n  'late {{ here }}'",
        "x: [1, {y: 'é {{ here }}'}]",
    ],
)
def test_place_in_text_is_place_in_file(source: str) -> None:
    """Whatever the style of a text, its quotes, escapes and line breaks, a diagnostic points into it exactly."""
    document, problems = read(source.encode(), "f.yaml")
    path: tuple[str | int, ...] = ("x", 1, "y") if "[1" in source else ("x",)
    text = document.value["x"] if len(path) == 1 else document.value["x"][1]["y"]  # type: ignore[index,call-overload]
    start = text.index("here")

    span = document.span_within(path, start, start + 4)

    assert problems == []
    assert document.lines[span.line - 1][span.column - 1 : span.end - 1] == "here"
