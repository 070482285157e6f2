"""The SQL condition under which a row breaks an expectation.

Repeats for each row-wise expectation what Great Expectations asks Postgres: nulls only break rules about nulls, a
comparison with null is not a failure, and so on. Opens no connection and does not import the library; the tests
compare the two.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

from tasks.postgres.literals import literal
from tasks.quality.on_postgres.date_formats import matches_format
from tasks.quality.on_postgres.row_queries import condition_of

if TYPE_CHECKING:
    from pydantic import JsonValue

    from tasks.quality.suites import Expectation

Arguments = Mapping[str, "JsonValue"]

_TEMPLATE = re.compile(r"(?:(?<!\s)\s+)?(\{\{.*?(?:\}\}|\Z)|\{%.*?(?:%\}|\Z))\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class RowCondition:
    """`sql` is true for a row that breaks the rule, false or null for any other.

    It can use the row's own columns, those of `windows` (window functions over the batch) and those of `statistics`
    (aggregates of the whole batch).
    """

    sql: str
    windows: Mapping[str, str] = field(default_factory=dict)
    statistics: Mapping[str, str] = field(default_factory=dict)


class NotDerivableError(Exception):
    """No condition on a single row says the same as the expectation."""


def row_condition(expectation: Expectation) -> RowCondition | None:
    """Return when a row breaks `expectation`; None if a single row cannot tell, or SQL cannot."""
    rule = _RULES.get(expectation.type)
    if rule is None or _holds_nul(expectation.arguments):
        return None
    try:
        return rule(expectation.arguments)
    except NotDerivableError:
        return None


def can_quarantine(expectation: Expectation) -> bool:
    """Return whether the rows that break `expectation` can be identified, and so set aside."""
    filled = expectation.model_copy(update={"arguments": _filled(expectation.arguments)})
    return row_condition(filled) is not None


def _filled(value: Any) -> Any:
    """Return arguments with a 1 for each template: whatever its value, the condition has the same form."""
    if isinstance(value, dict):
        return {name: _filled(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_filled(part) for part in value]
    if isinstance(value, str):
        return 1 if _TEMPLATE.fullmatch(value) else _TEMPLATE.sub("1", value)
    return value


def _holds_nul(value: JsonValue | Arguments) -> bool:
    if isinstance(value, Mapping):
        return any(map(_holds_nul, value.values()))
    if isinstance(value, list):
        return any(map(_holds_nul, value))
    return isinstance(value, str) and "\0" in value


# --- One column -------------------------------------------------------------------------------------------------------


def _kept(keeps: Callable[[str, Arguments], str]) -> Callable[[Arguments], RowCondition]:
    """Return the rule for a column whose values meet a condition: a null breaks nothing."""

    def rule(arguments: Arguments) -> RowCondition:
        column = _column(arguments)
        return _within(arguments, f"{column} IS NOT NULL AND NOT ({keeps(column, arguments)})")

    return rule


def _is_between(value: str, arguments: Arguments) -> str:
    limits = []
    if (lowest := arguments.get("min_value")) is not None:
        limits.append(f"{value} {'>' if arguments.get('strict_min') else '>='} {_bound(lowest)}")
    if (highest := arguments.get("max_value")) is not None:
        limits.append(f"{value} {'<' if arguments.get('strict_max') else '<='} {_bound(highest)}")
    if not limits:
        raise NotDerivableError
    return " AND ".join(limits)


def _length_is_between(column: str, arguments: Arguments) -> str:
    return _is_between(f"length({column})", arguments)


def _length_is(column: str, arguments: Arguments) -> str:
    return f"length({column}) = {_bound(arguments['value'])}"


def _is_in_set(column: str, arguments: Arguments) -> str:
    known = [_scalar(value) for value in _list(arguments["value_set"]) if value is not None]
    return f"{column} IN {literal(known)}" if known else "FALSE"


def _is_not_in_set(column: str, arguments: Arguments) -> str:
    return f"NOT ({_is_in_set(column, arguments)})"


def _matches(operator: str, argument: str, *, negated: bool = False) -> Callable[[str, Arguments], str]:
    """Return the condition that a column matches a pattern, or any or all of several, by `match_on`."""

    def keeps(column: str, arguments: Arguments) -> str:
        patterns = _list(arguments.get(argument, "(?s).*"))
        escape = f" ESCAPE {literal(str(arguments['escape']))}" if arguments.get("escape") else ""
        tests = [f"{column} {operator} {literal(str(pattern))}{escape}" for pattern in patterns]
        if negated:
            return " AND ".join(f"NOT ({test})" for test in tests)
        return (" AND " if arguments.get("match_on") == "all" else " OR ").join(tests)

    return keeps


def _is_date(column: str, arguments: Arguments) -> str:
    matched = matches_format(column, str(arguments["strftime_format"]))
    if matched is None:
        raise NotDerivableError
    return matched


def _is_json(column: str, _arguments: Arguments) -> str:
    return f"CAST({column} AS text) IS JSON"


def _is_null(arguments: Arguments) -> RowCondition:
    return _within(arguments, f"{_column(arguments)} IS NOT NULL")


def _is_not_null(arguments: Arguments) -> RowCondition:
    return _within(arguments, f"{_column(arguments)} IS NULL")


# --- Several columns of one row ---------------------------------------------------------------------------------------

_IGNORED = {
    "both_values_are_missing": " AND ",
    "either_value_is_missing": " OR ",
    "all_values_are_missing": " AND ",
    "any_value_is_missing": " OR ",
    "neither": None,
    "never": None,
}
"""How `ignore_row_if` joins the tests for nulls in the columns."""


def _of_columns(breaks: Callable[[list[str], Arguments], str], ignored: str) -> Callable[[Arguments], RowCondition]:
    """Return the rule for a condition between columns, on the rows that `ignore_row_if` keeps."""

    def rule(arguments: Arguments) -> RowCondition:
        columns = _columns(arguments)
        joined = _IGNORED.get(str(arguments.get("ignore_row_if", ignored)))
        counted = "NOT (" + joined.join(f"{column} IS NULL" for column in columns) + ")" if joined else None
        return _within(arguments, *filter(None, (counted, f"({breaks(columns, arguments)})")))

    return rule


def _not_equal(columns: list[str], _arguments: Arguments) -> str:
    first, second = columns
    return f"NOT ({first} = {second} AND NOT ({first} IS NULL OR {second} IS NULL))"


def _not_greater(columns: list[str], arguments: Arguments) -> str:
    first, second = columns
    if arguments.get("or_equal"):
        return f"NOT ({first} >= {second} OR ({first} IS NULL AND {second} IS NULL))"
    return f"{first} <= {second}"


def _not_in_pairs(columns: list[str], arguments: Arguments) -> str:
    def equals(column: str, value: JsonValue) -> str:
        return f"{column} IS NULL" if value is None else f"{column} = {literal(_scalar(value))}"

    pairs = [_list(pair) for pair in _list(arguments["value_pairs_set"])]
    known = [" AND ".join(map(equals, columns, pair)) for pair in pairs]
    return "NOT (" + " OR ".join(f"({test})" for test in known) + ")"


def _sum_differs(columns: list[str], arguments: Arguments) -> str:
    return f"{' + '.join(('0', *columns))} <> {_bound(arguments['sum_total'])}"


def _values_differ(columns: list[str], _arguments: Arguments) -> str:
    first, *others = columns
    return " OR ".join(f"{first} IS DISTINCT FROM {other}" for other in others)


def _values_repeat(columns: list[str], _arguments: Arguments) -> str:
    pairs = combinations(columns, 2)
    return " OR ".join(f"{one} = {two} OR ({one} IS NULL AND {two} IS NULL)" for one, two in pairs)


# --- A row among the others -------------------------------------------------------------------------------------------


def _is_repeated(arguments: Arguments) -> RowCondition:
    """Return the rule for a key: one with a null is not equal to any other, as in a UNIQUE constraint."""
    columns = _columns(arguments)
    copies = f"count(*){_only(_filter(arguments))} OVER (PARTITION BY {', '.join(columns)})"
    name = _name(copies)
    known = [f"{column} IS NOT NULL" for column in columns]
    return replace(_within(arguments, *known, f"{name} > 1"), windows={name: copies})


def _is_far_from_mean(arguments: Arguments) -> RowCondition:
    column, threshold = _column(arguments), float(_number(arguments["threshold"]))
    only = _only(_filter(arguments))
    statistics = _statistics(_defined(f"avg(1.0 * {column}){only}"), _defined(f"stddev_samp({column}){only}"))
    mean, deviation = statistics
    score = f"({column} - {mean}) / CAST(NULLIF({deviation}, 0) AS double precision)"
    if arguments["double_sided"]:
        score, threshold = f"abs({score})", abs(threshold)
    condition = _within(arguments, f"{column} IS NOT NULL AND NOT ({score} < {literal(threshold)})")
    return replace(condition, statistics=statistics)


def _is_outlier(arguments: Arguments) -> RowCondition:
    by_method = _is_beyond_deviations if arguments.get("method", "iqr") == "std" else _is_beyond_quartiles
    column, multiplier = _column(arguments), literal(float(_number(arguments.get("multiplier", 1.5))))
    inside, statistics = by_method(column, multiplier, _only(_filter(arguments), f"{column} IS NOT NULL"))
    return replace(_within(arguments, f"{column} IS NOT NULL AND NOT ({inside})"), statistics=statistics)


def _is_beyond_quartiles(column: str, multiplier: str, only: str) -> tuple[str, dict[str, str]]:
    first, third = (
        _finite(f"percentile_cont({share}) WITHIN GROUP (ORDER BY {column}){only}") for share in (0.25, 0.75)
    )
    reach = f"{multiplier} * ({third} - {first})"
    statistics = _statistics(f"{first} - {reach}", f"{third} + {reach}")
    low, high = statistics
    return f"{column} >= {low} AND {column} <= {high}", statistics


def _is_beyond_deviations(column: str, multiplier: str, only: str) -> tuple[str, dict[str, str]]:
    number = f"(CAST({column} AS double precision)){only}"
    mean, deviation = _finite(f"avg{number}"), _finite(f"stddev_samp{number}")
    statistics = _statistics(mean, f"{multiplier} * {deviation}")
    mean, reach = statistics
    near = f"CASE WHEN {reach} <= 0 THEN {column} = {mean} ELSE abs({column} - {mean}) < {reach} END"
    return near, statistics


def _defined(number: str) -> str:
    """Return the SQL of a double, null for NaN."""
    return f"NULLIF(CAST({number} AS double precision), 'NaN')"


def _finite(number: str) -> str:
    """Return the SQL of a double, null unless it is finite."""
    return f"NULLIF(NULLIF({_defined(number)}, 'Infinity'), '-Infinity')"


def _statistics(*numbers: str) -> dict[str, str]:
    """Return named numbers about the batch, with the exact digits that they have as Python floats."""
    exact = [f"CAST(CAST(CAST({number} AS double precision) AS text) AS numeric)" for number in numbers]
    return {_name(number): number for number in exact}


def _only(*conditions: str | None) -> str:
    given = " AND ".join(filter(None, conditions))
    return f" FILTER (WHERE {given})" if given else ""


def _name(expression: str) -> str:
    return "__derived_" + hashlib.sha256(expression.encode()).hexdigest()[:12]


# --- A query ----------------------------------------------------------------------------------------------------------


def _is_returned(arguments: Arguments) -> RowCondition:
    condition = condition_of(str(arguments["unexpected_rows_query"]))
    if condition is None:
        raise NotDerivableError
    return RowCondition(condition)


# --- Arguments --------------------------------------------------------------------------------------------------------


def _column(arguments: Arguments) -> str:
    return quoted(str(arguments["column"]))


def _columns(arguments: Arguments) -> list[str]:
    if "column_list" in arguments:
        return [quoted(str(name)) for name in _list(arguments["column_list"])]
    names = ("column_A", "column_B") if "column_A" in arguments else ("column",)
    return [quoted(str(arguments[name])) for name in names]


def quoted(name: str) -> str:
    """Return the name of a column as SQL spells it."""
    return '"' + name.replace('"', '""') + '"'


def _list(value: JsonValue) -> list[JsonValue]:
    return value if isinstance(value, list) else [value]


def _scalar(value: JsonValue) -> str | float | bool | None:
    if isinstance(value, list | dict):
        raise NotDerivableError
    return value


def _number(value: JsonValue) -> float | str:
    return value if isinstance(value, int | float | str) else 0


def _bound(value: JsonValue) -> str:
    """Return a bound as a literal: Great Expectations reads a number as a float, and text as a date or a time."""
    if isinstance(value, int | float):
        return literal(float(value))
    return literal(as_moment(str(value)) or str(value))


def as_moment(text: str) -> dt.date | dt.datetime | None:
    """Return the date or time that `text` spells, or None."""
    for kind in (dt.date, dt.datetime):
        try:
            return kind.fromisoformat(text)
        except ValueError:
            continue
    return None


# --- The rows that a rule is about ------------------------------------------------------------------------------------

_TEXT_CONDITION = re.compile(
    r"""\s*col\("(?P<column>[^"]+)"\)\s*
    (?:(?P<notnull>\.notnull\(\))
      |(?P<operator>==|!=|<=|>=|<|>)\s*(?:(?P<number>[+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)
        |"(?P<double>[^"']+)"|'(?P<single>[^"']+)'|date\((?:"(?P<day>[^"']+)"|'(?P<date>[^"']+)')\)))\s*""",
    re.VERBOSE | re.IGNORECASE,
)
_OPERATORS = {"==": "=", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}


def _within(arguments: Arguments, *breaks: str) -> RowCondition:
    return RowCondition(" AND ".join(filter(None, (_filter(arguments), *breaks))))


def _filter(arguments: Arguments) -> str | None:
    """Return the SQL of `row_condition`, which says which rows the rule applies to."""
    given = arguments.get("row_condition")
    if given is None:
        return None
    if isinstance(given, Mapping):
        return f"({_condition(given)})"
    if not str(arguments.get("condition_parser", "")).startswith("great_expectations"):
        raise NotDerivableError
    return f"({_parsed(str(given))})"


def is_known_filter(text: str) -> bool:
    """Return whether the library reads all of the condition `text`: it ignores what it does not know."""
    return _TEXT_CONDITION.fullmatch(text) is not None


def _parsed(text: str) -> str:
    if (parts := _TEXT_CONDITION.fullmatch(text)) is None:
        raise NotDerivableError
    column = quoted(parts["column"])
    if parts["notnull"]:
        return f"{column} IS NOT NULL"
    words = parts["double"] or parts["single"] or parts["day"] or parts["date"]
    value = literal(words.lstrip()) if words else _number_literal(parts["number"])
    return f"{column} {_OPERATORS[parts['operator']]} {value}"


def _number_literal(text: str) -> str:
    return literal(int(text) if re.fullmatch(r"[+-]?\d+", text) else float(text))


def _condition(given: Mapping[str, JsonValue]) -> str:
    match given.get("type"):
        case "and" | "or" as kind:
            parts = [part for part in _list(given.get("conditions", [])) if isinstance(part, Mapping)]
            return f" {kind.upper()} ".join(f"({_condition(part)})" for part in parts)
        case "nullity":
            return f"{_condition_column(given)} IS {'' if given.get('is_null') else 'NOT '}NULL"
        case "comparison":
            return _comparison(_condition_column(given), str(given.get("operator")), given.get("parameter"))
        case _:
            raise NotDerivableError


def _condition_column(given: Mapping[str, JsonValue]) -> str:
    column = given.get("column")
    if not isinstance(column, Mapping):
        raise NotDerivableError
    return quoted(str(column.get("name")))


def _comparison(column: str, operator: str, parameter: JsonValue) -> str:
    if operator in ("IN", "NOT_IN"):
        values: Sequence[str | float | bool | None] = [_scalar(value) for value in _list(parameter)]
        inside = f"{column} IN {literal(values)}" if values else "FALSE"
        return inside if operator == "IN" else f"NOT ({inside})"
    if operator not in _OPERATORS:
        raise NotDerivableError
    return f"{column} {_OPERATORS[operator]} {literal(_scalar(parameter))}"


_RULES: Mapping[str, Callable[[Arguments], RowCondition]] = {
    "expect_column_pair_values_a_to_be_greater_than_b": _of_columns(_not_greater, "both_values_are_missing"),
    "expect_column_pair_values_to_be_equal": _of_columns(_not_equal, "both_values_are_missing"),
    "expect_column_pair_values_to_be_in_set": _of_columns(_not_in_pairs, "both_values_are_missing"),
    "expect_column_value_lengths_to_be_between": _kept(_length_is_between),
    "expect_column_value_lengths_to_equal": _kept(_length_is),
    "expect_column_value_z_scores_to_be_less_than": _is_far_from_mean,
    "expect_column_values_to_be_between": _kept(_is_between),
    "expect_column_values_to_be_in_set": _kept(_is_in_set),
    "expect_column_values_to_be_json_parseable": _kept(_is_json),
    "expect_column_values_to_be_null": _is_null,
    "expect_column_values_to_be_unique": _is_repeated,
    "expect_column_values_to_match_like_pattern": _kept(_matches("LIKE", "like_pattern")),
    "expect_column_values_to_match_like_pattern_list": _kept(_matches("LIKE", "like_pattern_list")),
    "expect_column_values_to_match_regex": _kept(_matches("~", "regex")),
    "expect_column_values_to_match_regex_list": _kept(_matches("~", "regex_list")),
    "expect_column_values_to_match_strftime_format": _kept(_is_date),
    "expect_column_values_to_not_be_in_set": _kept(_is_not_in_set),
    "expect_column_values_to_not_be_null": _is_not_null,
    "expect_column_values_to_not_be_outliers": _is_outlier,
    "expect_column_values_to_not_match_like_pattern": _kept(_matches("LIKE", "like_pattern", negated=True)),
    "expect_column_values_to_not_match_like_pattern_list": _kept(_matches("LIKE", "like_pattern_list", negated=True)),
    "expect_column_values_to_not_match_regex": _kept(_matches("~", "regex", negated=True)),
    "expect_column_values_to_not_match_regex_list": _kept(_matches("~", "regex_list", negated=True)),
    "expect_compound_columns_to_be_unique": _is_repeated,
    "expect_multicolumn_sum_to_equal": _of_columns(_sum_differs, "all_values_are_missing"),
    "expect_multicolumn_values_to_be_equal": _of_columns(_values_differ, "all_values_are_missing"),
    "expect_select_column_values_to_be_unique_within_record": _of_columns(_values_repeat, "all_values_are_missing"),
    "unexpected_rows_expectation": _is_returned,
}
