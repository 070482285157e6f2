"""The form that asks for one person: a widget for each field, filled in with the example's value."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pandas as pd
import streamlit as st

from stack.app.scoring import Field, Value

if TYPE_CHECKING:
    from collections.abc import Sequence

COLUMNS = 2
SHOWN = 12
"""Fields beyond these are folded away, if there are more than a few."""
_FEW = 4
_ANSWERS: dict[str, bool | None] = {"Yes": True, "No": False}
_UNKNOWN: dict[str, bool | None] = {"Unknown": None}


def ask(fields: Sequence[Field], *, key: str) -> dict[str, Value]:
    """Show the form and return the values last submitted, at first those of the example.

    `key` keeps the forms of different models apart: a new version starts with its own example.
    """
    shown = len(fields) if len(fields) <= SHOWN + _FEW else SHOWN
    with st.form(f"person {key}", border=True):
        values = _grid(fields[:shown], key)
        if rest := fields[shown:]:
            with st.expander(f"{len(rest)} more values, which matter less"):
                values |= _grid(rest, key)
        st.form_submit_button("Score", type="primary", width="stretch")
    return values


def _grid(fields: Sequence[Field], key: str) -> dict[str, Value]:
    values: dict[str, Value] = {}
    columns = st.columns(COLUMNS)
    for position, field in enumerate(fields):
        with columns[position % COLUMNS]:
            values[field.name] = _WIDGETS[field.kind](field, f"{key} {field.name}")
    return values


def problems(fields: Sequence[Field], values: dict[str, Value]) -> list[str]:
    """Return what is wrong with the values, a sentence for each field."""
    empty = [field for field in fields if values[field.name] in {None, ""} and not field.optional]
    return [f"{field.title} is empty; it must be {field.expected}." for field in empty]


def person(values: dict[str, Value]) -> pd.DataFrame:
    """Return the values as a frame of one row."""
    return pd.DataFrame([values])


def _number(field: Field, key: str) -> float | None:
    start = None if field.example is None else float(field.example)
    whole = start is None or start.is_integer()
    return st.number_input(
        field.title, value=start, step=1.0 if whole else None, format="%.10g", key=key, help=_help(field)
    )


def _integer(field: Field, key: str) -> int | None:
    start = None if field.example is None else int(field.example)
    return st.number_input(field.title, value=start, step=1, key=key, help=_help(field))


def _boolean(field: Field, key: str) -> bool | None:
    answers = _ANSWERS | _UNKNOWN if field.optional else _ANSWERS
    start = list(answers.values()).index(None if field.example is None else bool(field.example))
    return answers[st.selectbox(field.title, list(answers), index=start, key=key, help=_help(field))]


def _text(field: Field, key: str) -> str | None:
    start = "" if field.example is None else str(field.example)
    if not field.levels:
        return st.text_input(field.title, value=start, key=key, help=_help(field)).strip() or None
    position = field.levels.index(start) if start in field.levels else None
    return st.selectbox(field.title, field.levels, index=position, key=key, help=_help(field), accept_new_options=True)


_WIDGETS: dict[str, Callable[[Field, str], Value]] = {
    "number": _number,
    "integer": _integer,
    "boolean": _boolean,
    "text": _text,
}


def _help(field: Field) -> str:
    return f"Column `{field.name}`: {field.expected}{', or empty if not known' if field.optional else ''}."
