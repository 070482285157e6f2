"""Expressions in templates: their values, their types, and what is said of wrong ones."""

import datetime as dt
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from factory.language.evaluation import CannotCompute, expression_types, expression_value, part_of
from factory.language.expressions import Path as DottedName
from factory.language.functions import FUNCTIONS
from factory.language.templates import Expression, Template, filled, pieces, whole_expression
from factory.language.tokens import MAX_NODES, TemplateProblem
from factory.language.value_types import Types, accepts, part_types, shown, types_of

VALUES: Mapping[str, Any] = {
    "params": {
        "n": 5,
        "zero": 0,
        "share": 0.25,
        "site": "BRASIL",
        "dry": False,
        "note": None,
        "sites": ["a", "b"],
        "items": 1,
        "keys": "k",
        "get": "g",
        "since": dt.date(2026, 1, 1),
        "deep": {"list": [{"name": "x"}, {"name": "y"}]},
    },
    "run": {"date": dt.date(2026, 3, 31), "logical_date": dt.datetime(2026, 3, 31, 6, 30, tzinfo=dt.UTC)},
}


def value_at(path: DottedName) -> object:
    found: object = VALUES
    for part in path.parts:
        found = part_of(found, part)
    return found


def types_at(path: DottedName) -> Types:
    return types_of(value_at(path))


def value_of(text: str) -> object:
    whole = whole_expression(text)
    assert whole is not None
    return expression_value(whole.node, value_at, text)


def types_of_text(text: str) -> Types:
    whole = whole_expression(text)
    assert whole is not None
    return expression_types(whole.node, types_at, text)


@pytest.mark.parametrize(
    ("expression", "value", "kind"),
    [
        ("1 + 2 * 3", 7, "an integer"),
        ("(1 + 2) * 3", 9, "an integer"),
        ("7 - 2 - 1", 4, "an integer"),
        ("7 // 2 * 2 + 7 % 2", 7, "an integer"),
        ("1 / 2", 0.5, "a number"),
        ("6 / 2", 3.0, "a number"),
        ("-params.n + +1", -4, "an integer"),
        ("- -1", 1, "an integer"),
        ("1 + 0.5", 1.5, "a number"),
        ("1e3", 1000.0, "a number"),
        ("'a' ~ 1 ~ 'b'", "a1b", "a text"),
        ("'n' ~ params.n * 2", "n10", "a text"),
        ("true ~ 0.5 ~ run.date", "true0.52026-03-31", "a text"),
        ("params.n > 3 and not params.dry", True, "a boolean"),
        ("true or params.n / 0 > 1", True, "a boolean"),
        ("false and params.n / 0 > 1", False, "a boolean"),
        ("not params.n == 5", False, "a boolean"),
        ("not not true", True, "a boolean"),
        ("1 == 1.0", True, "a boolean"),
        ("params.note == null", True, "a boolean"),
        ("params.site != null", True, "a boolean"),
        ("[1, 2] == [1, 2]", True, "a boolean"),
        ("'RAS' in params.site", True, "a boolean"),
        ("params.n not in [1, 2.5]", True, "a boolean"),
        ("params.since <= run.date", True, "a boolean"),
        ("'x' if params.dry else 'y'", "y", "a text"),
        ("1 if params.dry else 2 if params.n > 9 else 3", 3, "an integer"),
        ("'x' if params.dry else params.n", 5, "a text or an integer"),
        ("1 / params.zero if params.zero != 0 else 0", 0, "a number or an integer"),
        (r"'it\'s \\ \n \"'", "it's \\ \n \"", "a text"),
        ("'{{ }}'", "{{ }}", "a text"),
        ("'{%' ~ '#}'", "{%#}", "a text"),
        ("null", None, "null"),
        ("[1, 'a', [true]]", [1, "a", [True]], "a list"),
        ("[]", [], "a list"),
        ('params["site"]', "BRASIL", "a text"),
        ("params.deep.list[1].name", "y", "a text"),
        ("params.deep.list[-1]['name']", "y", "a text"),
        ("first(params.deep.list).name", "x", "anything"),
        ("params.items", 1, "an integer"),
        ("params.keys ~ params.get", "kg", "a text"),
        ("run.date | add_days(-1)", dt.date(2026, 3, 30), "a date"),
        ("run.date | add_days(-params.n)", dt.date(2026, 3, 26), "a date"),
        ("run.logical_date | add_days(1)", dt.datetime(2026, 4, 1, 6, 30, tzinfo=dt.UTC), "a datetime"),
        ("run.date | add_months(-1)", dt.date(2026, 2, 28), "a date"),
        ("add_months(run.date, 12)", dt.date(2027, 3, 31), "a date"),
        ("run.date | first_of_month", dt.date(2026, 3, 1), "a date"),
        ("run.logical_date | last_of_month", dt.date(2026, 3, 31), "a date"),
        ("weekday(run.date)", 2, "an integer"),
        ("days_between(params.since, run.date)", 89, "an integer"),
        ("run.date | format('%Y/%m/%d %j %u %G-W%V %%')", "2026/03/31 090 2 2026-W14 %", "a text"),
        ("run.logical_date | format('%y %H:%M:%S.%f %z')", "26 06:30:00.000000 +0000", "a text"),
        ("params.site | lower | upper", "BRASIL", "a text"),
        ("' a ' | trim", "a", "a text"),
        ("'a-b-c' | replace('-', '_')", "a_b_c", "a text"),
        ("'a,b' | split(',')", ["a", "b"], "a list"),
        ("params.sites | join(', ')", "a, b", "a text"),
        ("[1, true, run.date] | join(' ')", "1 true 2026-03-31", "a text"),
        ("run.logical_date | text", "2026-03-31T06:30:00+00:00", "a text"),
        ("-2 | abs", 2, "an integer"),
        ("0.125 | round(2)", 0.12, "a number"),
        ("2.6 | round", 3, "an integer"),
        ("min(params.n, 7)", 5, "an integer"),
        ("max([1, 2.5])", 2.5, "a number"),
        ("max(params.since, run.date)", dt.date(2026, 3, 31), "a date"),
        ("int('7') + int(2.9)", 9, "an integer"),
        ("number('0.5')", 0.5, "a number"),
        ("length(params.sites) + length('abc')", 5, "an integer"),
        ("params.sites | first ~ last(params.sites)", "ab", "a text"),
        ("sum([1, 2, 3])", 6, "an integer"),
        ("[0.5, 1] | sum", 1.5, "a number"),
        ("sum([])", 0, "an integer"),
        ("params.note | default('none')", "none", "a text"),
        ("params.n | default(0)", 5, "an integer"),
        ("params.deep.list[0].name | default('')", "x", "a text"),
    ],
)
def test_expression_has_value_and_type(expression: str, value: object, kind: str) -> None:
    """An expression has the value and the type that a reader of Jinja and Python expects."""
    text = f"{{{{ {expression} }}}}"

    assert value_of(text) == value
    assert type(value_of(text)) is type(value)
    assert shown(types_of_text(text)) == kind


def is_readable(text: str) -> bool:
    """Return whether a text is one expression, right or wrong."""
    try:
        return whole_expression(text) is not None
    except TemplateProblem:
        return False


WRONG = Path(__file__).with_name("wrong_expressions.txt")
"""Texts that are wrong, each with the place, the message and the hint below it."""


def problem_of(text: str) -> TemplateProblem:
    with pytest.raises(TemplateProblem) as raised:
        [expression_types(piece.node, types_at, text) for piece in pieces(text) if isinstance(piece, Expression)]
    return raised.value


def shown_problem(text: str) -> str:
    problem = problem_of(text)
    start, end = problem.span
    carets = " " * start + "^" * (end - start)
    return "\n".join([text, carets, str(problem), *([f"hint: {problem.hint}"] if problem.hint else [])])


@pytest.mark.parametrize("block", WRONG.read_text().strip().split("\n\n"), ids=lambda block: block.partition("\n")[0])
def test_wrong_expression_names_place_and_remedy(block: str) -> None:
    """What does not fit is an error at its place, with the nearest right way to write it."""
    assert shown_problem(block.partition("\n")[0]) == block


@pytest.mark.parametrize(
    "text", [text for block in WRONG.read_text().strip().split("\n\n") if is_readable(text := block.partition("\n")[0])]
)
def test_worker_refuses_what_lint_refuses(text: str) -> None:
    """The worker stops at the same mistake with the same words, even where lint was not asked."""
    with pytest.raises(TemplateProblem) as raised:
        value_of(text)

    assert str(raised.value) == str(problem_of(text))


# --- limits and tricks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ " + "(" * 100_000 + "1" + ")" * 100_000 + " }}", "nested more than"),
        ("{{ " + "[" * 100_000 + "]" * 100_000 + " }}", "nested more than"),
        ("{{ " + "not " * 100_000 + "true }}", "nested more than"),
        ("{{ " + "-" * 100_000 + "1 }}", "nested more than|more than 500 parts"),
        ("{{ " + "1 if true else " * 20_000 + "1 }}", "nested more than"),
        ("{{ " + "1 + " * 50_000 + "1 }}", "more than 500 parts"),
        ("{{ params" + ".n" * 50_000 + " }}", "nested more than"),
        ("{{ params.n" + " | abs" * 50_000 + " }}", "nested more than"),
        ("{{ params.n" + ".x()" * 50_000 + " }}", "nested more than"),
        ("{{ [" + "1, " * 50_000 + "1] }}", "more than 500 parts"),
        ("{{ '" + "a" * 1_100_000 + "' }}", "more than 1,000,000 characters"),
        ("{{" * 50_000 + "}}", "more than 500 parts"),
        ("{{ '" + "\\" * 99_999 + "' }}", "no closing"),
        ("{{ 'a" * 50_000 + "' }}", "more than 500 parts"),
        ("{{ 'abc' | replace('', 'x') }}", "there is no text to replace"),
        ("{{ '" + "a" * 9_000 + "' | replace('a', '" + "b" * 9_000 + "') }}", "more than 1,000,000 characters"),
        ("{{ '" + "a" * 600_000 + "' | split('a') }}", "more than 1,000,000 items"),
        ("{{ '" + "a" * 600_000 + "' ~ '" + "a" * 600_000 + "' }}", "more than 1,000,000 characters"),
        ("{{ 9223372036854775807 + 1 }}", "more than 63 bits"),
        ("{{ 9223372036854775807 * 9223372036854775807 }}", "more than 63 bits"),
        ("{{ sum([9223372036854775807, 1]) }}", "more than 63 bits"),
        ("{{ 1e308 * 10 }}", "the number is too large"),
        ("{{ int(1e300) }}", "more than 63 bits"),
        ("{{ run.date | add_days(9223372036854775807) }}", "outside the years 1 to 9999"),
        ("{{ run.date | add_months(-9223372036854775807) }}", "outside the years 1 to 9999"),
        ("{{ 1 // 0 }}", "divides by zero"),
        ("{{ 1 % 0 }}", "divides by zero"),
        ("{{ 1 / params.zero }}", "divides by zero"),
        ("{{ [] | first }}", "the list is empty"),
        ("{{ max([]) }}", "the list is empty"),
        ("{{ params.sites[7] }}", r"the list has no item \[7\]: it has 2"),
        ("{{ int('1e5') }}", "'1e5' is not an integer"),
        ("{{ int('٣') }}", "'٣' is not an integer"),
        ("{{ number('nan') }}", "'nan' is not a number"),
        ("{{ run.date | format('%A') }}", "%A is not a directive"),
        ("{{ 1.5 | round(400) }}", "rounded to 0 to 15 digits"),
    ],
    ids=lambda value: value[:40],
)
def test_value_is_limited(text: str, message: str) -> None:
    """However large the text or its value would be, or if it has none, there is a short error."""
    with pytest.raises(TemplateProblem, match=message) as raised:
        value_of(text)

    assert len(str(raised.value)) < 200


ATTRIBUTES = ("__class__", "__init__", "__globals__", "__dict__", "__mro__", "mro", "format", "items", "keys", "copy")


@pytest.mark.parametrize("name", ATTRIBUTES)
@pytest.mark.parametrize("whole", ["params.site", "params.n", "params.sites", "run.date", "'x'", "[1]", "length('x')"])
def test_attributes_are_out_of_reach(whole: str, name: str) -> None:
    """Neither a dot, nor brackets, nor a call, nor a pipe reaches an attribute or a method of a Python object."""
    for tried in (f"{whole}.{name}", f'{whole}["{name}"]', f"{whole}.{name}()", f"{whole}.{name}.{name}()"):
        with pytest.raises(TemplateProblem):
            value_of(f"{{{{ {tried} }}}}")
    if name not in FUNCTIONS:
        with pytest.raises(TemplateProblem, match="there is no function"):
            value_of(f"{{{{ {whole} | {name} }}}}")


def test_text_is_linear() -> None:
    """A text of many expressions is read once, and one without any is a single piece."""
    assert len(pieces("a {{ 1 }} " * 10_000)) == 20_001
    assert pieces("}} { {" * 20_000) == ("}} { {" * 20_000,)


def test_many_nodes_are_allowed() -> None:
    """An expression may have as many parts as a person would write."""
    assert value_of("{{ length([" + "1, " * (MAX_NODES - 4) + "1]) }}") == MAX_NODES - 3


def test_value_is_not_read_again() -> None:
    """A value that looks like a template stays what it is, alone, in a longer text and in an expression."""
    evil = "{{ params.n }}{% raw %}{# x #}"

    for text, value in (("{{ x }}", evil), ("a {{ x }}", f"a {evil}"), ("{{ x ~ '!' }}", f"{evil}!")):
        assert filled(Template(text), lambda _: evil, str) == value


# --- lint and worker agree ------------------------------------------------------------------------------------------

LEAVES = {
    "integer": ("1", "0", "-7", "params.n", "length(params.sites)"),
    "number": ("0.5", "2.0", "params.share", "1 / 4"),
    "text": ("'a'", "''", "params.site", "params.sites[0]"),
    "boolean": ("true", "false", "params.dry"),
    "date": ("run.date", "params.since"),
    "datetime": ("run.logical_date",),
    "list": ("params.sites", "['x', 'y']", "['']"),
    "null": ("null", "params.note"),
}
FORMS = {
    "integer": ("({integer} + {integer})", "({integer} * {integer})", "-{integer}", "int({number})", "weekday({date})",
                "({integer} if {boolean} else {integer})", "days_between({date}, {datetime})",
                "max({integer}, {integer})",
                "length({text})", "length({list})", "({integer} // {integer})", "sum([{integer}, {integer}])"),
    "number": ("({number} - {integer})", "({integer} / {number})", "abs({number})", "min({number}, {integer})",
               "round({number}, 2)", "number({integer})", "({null} | default({number}))"),
    "text": ("({text} ~ {any})", "({date} | format('%Y-%m'))", "upper({text})", "replace({text}, 'a', {text})",
             "({list} | join({text}))", "text({any})", "({text} if {boolean} else {text})", "first({list})"),
    "boolean": ("({integer} < {number})", "({text} == {text})", "(not {boolean})", "({boolean} and {boolean})",
                "({text} in {list})", "({date} >= {date})", "({null} == null)", "({datetime} != {datetime})",
                "({boolean} or {boolean})", "({integer} not in [{integer}, {number}])"),
    "date": ("({date} | add_days({integer}))", "({date} | add_months({integer}))", "first_of_month({datetime})",
             "last_of_month({date})", "max({date}, {date})"),
    "datetime": ("({datetime} | add_days({integer}))", "max([{datetime}, {datetime}])"),
    "list": ("[{text}, {text}]", "split({text}, ',')", "({null} | default({list}))"),
    "null": ("(null if {boolean} else {null})",),
}  # fmt: skip


def grown(kind: str, depth: int, chance: random.Random) -> str:
    if kind == "any":
        kind = chance.choice(["integer", "number", "text", "boolean", "date", "datetime"])
    if depth == 0 or chance.random() < 0.2:
        return chance.choice(LEAVES[kind])
    form = chance.choice(FORMS[kind])
    for inner in (*LEAVES, "any"):
        while f"{{{inner}}}" in form:
            form = form.replace(f"{{{inner}}}", grown(inner, depth - 1, chance), 1)
    return form


@pytest.mark.parametrize("seed", range(20))
def test_lint_and_worker_agree(seed: int) -> None:
    """Of any expression that lint finds well typed, the worker's value has a type that lint named."""
    chance = random.Random(seed)
    computed = 0
    for _ in range(100):
        text = f"{{{{ {grown(chance.choice(list(LEAVES)), chance.randint(1, 4), chance)} }}}}"
        types = types_of_text(text)
        try:
            value = value_of(text)
        except CannotCompute:
            continue
        computed += 1
        assert accepts(types, value), (text, types, value)
    assert computed > 50


def test_part_of_any_value_agrees() -> None:
    """A part has the type that its whole says."""
    deep = types_of(VALUES["params"]["deep"]["list"])

    assert part_types(deep, 0) is not None
    assert part_types(deep, "name") is None


def test_functions_are_documented() -> None:
    """The guide's table has every function with its example and what it does, and the examples compute."""
    guide = (Path(__file__).parents[2] / "docs" / "guide.md").read_text()
    rows = [f"| `{one.example.replace('|', chr(92) + '|')}` | {one.does} |" for one in FUNCTIONS.values()]

    assert [row for row in rows if row not in guide] == []
