"""What a template names, and how its SQL is seen."""

from factory.language.templates import mentions, sql_skeleton, unknown_names, whole_expression


def test_chains_are_found() -> None:
    """Dotted names are found wherever they stand, by attribute or by key."""
    text = "{{ steps.a.b + params['c'] }} {% if run.date %}{{ x(steps.d.e) }}{% endif %}"

    assert mentions(text).chains == (("steps", "a", "b"), ("params", "c"), ("run", "date"), ("steps", "d", "e"))


def test_own_variables_are_known() -> None:
    """A loop's variable is no unknown name."""
    assert unknown_names("{% for x in y %}{{ x }}{% endfor %}{{ ds }}{{ params.z }}") == ["y"]


def test_sql_skeleton_has_nulls() -> None:
    """SQL is checked with NULL for each value."""
    assert sql_skeleton("a > {{ x }} - {{ y }}") == "a > NULL - NULL"


def test_text_is_not_whole() -> None:
    """Two expressions, or text around one, are not one whole expression."""
    assert whole_expression("{{ a }}{{ b }}") is None
    assert whole_expression("{{ a }} ") is None
