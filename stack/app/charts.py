"""The plots of the page, as Altair charts: the browser draws them with what comes with Streamlit."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import altair as alt
import numpy as np
import pandas as pd

from stack.app.scoring import Explanation, Field, Unit, Value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

Layered = alt.LayerChart | alt.FacetChart

MORE, LESS, NEUTRAL, TRACK = "#C4553B", "#2B7A82", "#8A94A6", "#E6E9EF"
SHOWN = 12
"""Contributions beyond these are summed into one bar."""
MOST_IMPORTANT = 15
_AS_PROBABILITY = "format(1 / (1 + exp(-datum.value)), '.1~%')"
_INK = "#20242C"
_ROW_HEIGHT, _AXIS_HEIGHT = 30, 60
_NOTHING = 0.0005
"""Smaller contributions do not show in a probability."""
_MUCH = float(np.log(1000))
_TICKS = (0.01, 0.02, 0.05, 0.1, 0.2)
"""Distances between ticks, in probability."""


def gauge(value: float, threshold: float) -> Layered:
    """Return a bar from 0 to 1, filled up to a probability, with a mark at the threshold."""
    colour = MORE if value >= threshold else LESS
    axis = alt.Axis(format=".0%", values=[0, 0.25, 0.5, 0.75, 1], title=None, grid=False, domain=False, ticks=False)
    x = alt.X("value:Q", scale=alt.Scale(domain=[0, 1]), axis=axis)
    full, part = (alt.Chart(pd.DataFrame({"value": [end]})) for end in (1.0, value))
    at = alt.Chart(pd.DataFrame({"value": [threshold], "text": [f"threshold {threshold:.0%}"]}))
    return alt.layer(
        full.mark_bar(color=TRACK, height=24, cornerRadius=6).encode(x=x),
        part.mark_bar(color=colour, height=24, cornerRadius=6).encode(x=x),
        at.mark_tick(color=_INK, thickness=3, height=38).encode(x=x),
        at.mark_text(dy=-28, color=_INK, fontSize=12).encode(x=x, text="text:N"),
    ).properties(height=125)


def waterfall(explanation: Explanation, fields: Sequence[Field], values: Mapping[str, Value]) -> Layered:
    """Return how the values of a person lead from the typical score to their own, the largest step first.

    The steps are SHAP values, which add up; if they are log-odds, the axis shows the probabilities instead.
    """
    steps = _steps(explanation, fields, values)
    low, high = _room(steps, explanation.unit)
    scale, axis = alt.Scale(domain=[low, high], nice=False), alt.Axis(format=".0%", title=None)
    if explanation.unit == "log-odds":
        ticks = _round_probabilities(explanation.probability(low), explanation.probability(high))
        axis = alt.Axis(values=ticks, labelExpr=_AS_PROBABILITY, title=None)
    labels = alt.Axis(labelLimit=300, labelOverlap=False, ticks=False, domain=False)
    y = alt.Y("label:N", sort=list(steps["label"]), title=None, axis=labels)
    start, end = alt.X("start:Q", scale=scale, axis=axis), alt.X("end:Q", scale=scale, axis=axis)
    kinds = alt.Scale(domain=["more", "less", "none"], range=[MORE, LESS, NEUTRAL])
    colour = alt.Color("kind:N", scale=kinds, legend=None)
    tooltip = [
        alt.Tooltip("label:N", title="Value"),
        alt.Tooltip("part:Q", format="+.3f", title=explanation.unit.capitalize()),
    ]
    chart = alt.Chart(steps)
    right, left = (chart.transform_filter(f"datum.kind {sign} 'less'") for sign in ("!=", "=="))
    return alt.layer(
        *(_rule(at, start) for at in (explanation.base, explanation.score)),
        chart.mark_bar(height=18, cornerRadius=3).encode(y=y, x=start, x2="end:Q", color=colour, tooltip=tooltip),
        right.mark_text(align="left", dx=5, fontWeight="bold").encode(y=y, x=end, text="text:N", color=colour),
        left.mark_text(align="right", dx=-5, fontWeight="bold").encode(y=y, x=end, text="text:N", color=colour),
    ).properties(height=_ROW_HEIGHT * len(steps) + _AXIS_HEIGHT)


def _rule(at: float, x: alt.X) -> alt.Chart:
    rule: alt.Chart = alt.Chart(pd.DataFrame({"start": [at]})).mark_rule(color=NEUTRAL, strokeDash=[4, 4]).encode(x=x)
    return rule


def _room(steps: pd.DataFrame, unit: Unit) -> tuple[float, float]:
    """Return the ends of an axis that leaves room for the labels next to the bars."""
    low, high = float(steps[["start", "end"]].min().min()), float(steps[["start", "end"]].max().max())
    least = {"log-odds": 1.0, "probability": 0.2}[unit]
    room = max((high - low) * 0.12, (least - (high - low)) / 2, least / 10)
    return low - room, high + room


def _round_probabilities(first: float, last: float) -> list[float]:
    """Return the log-odds of about eight round probabilities between two probabilities."""
    distance = next((tick for tick in _TICKS if (last - first) / tick <= 8), _TICKS[-1])
    inside = {n * distance for n in range(1, round(1 / distance))}
    far = {0.001, 0.01, 0.05, 0.95, 0.99, 0.999} if distance >= 0.1 else set()
    shown = sorted({round(tick, 6) for tick in inside | far if first < tick < last})
    return [float(np.log(tick / (1 - tick))) for tick in shown]


def _steps(explanation: Explanation, fields: Sequence[Field], values: Mapping[str, Value]) -> pd.DataFrame:
    titles = {field.name: f"{field.title}: {written(values[field.name])}" for field in fields}
    ranked = _ranked(explanation)
    parts = [(titles[name], part) for name, part in ranked[:SHOWN]]
    if rest := ranked[SHOWN:]:
        parts.append((f"{len(rest)} others", sum(part for _, part in rest)))
    ends = explanation.base + np.cumsum([part for _, part in parts])
    return pd.DataFrame(
        {
            "label": [label for label, _ in parts],
            "part": [part for _, part in parts],
            "start": [explanation.base, *ends[:-1]],
            "end": ends,
            "kind": [_kind(part) for _, part in parts],
            "text": [_effect(part, explanation.unit) for _, part in parts],
        }
    )


def _ranked(explanation: Explanation) -> list[tuple[str, float]]:
    return sorted(explanation.contributions.items(), key=lambda part: -abs(part[1]))


def _kind(part: float) -> str:
    if abs(part) < _NOTHING:
        return "none"
    return "more" if part > 0 else "less"


def _effect(part: float, unit: Unit) -> str:
    if _kind(part) == "none":
        return "no effect"
    if unit == "probability":
        return f"{100 * part:+.1f}"
    return f"{'×' if part > 0 else '÷'} {_factor(part)}"


def _factor(part: float) -> str:
    """Return the factor by which log-odds change odds, up or down."""
    return f"{np.exp(abs(part)):.2f}" if abs(part) < _MUCH else f"over {np.exp(_MUCH):,.0f}"


def importance(values: Mapping[str, float], titles: Mapping[str, str]) -> alt.Chart:
    """Return the mean absolute SHAP values of the columns that matter most, the largest first."""
    first = sorted(values.items(), key=lambda item: -item[1])[:MOST_IMPORTANT]
    frame = pd.DataFrame([(titles.get(name, name), value) for name, value in first], columns=["column", "value"])
    chart: alt.Chart = (
        alt.Chart(frame)
        .mark_bar(color=LESS, height=16, cornerRadius=3)
        .encode(
            y=alt.Y(
                "column:N",
                sort="-x",
                title=None,
                axis=alt.Axis(labelLimit=300, labelOverlap=False, ticks=False, domain=False),
            ),
            x=alt.X("value:Q", title="Mean absolute SHAP value"),
            tooltip=[
                alt.Tooltip("column:N", title="Column"),
                alt.Tooltip("value:Q", format=".4f", title="Mean |SHAP|"),
            ],
        )
        .properties(height=26 * len(frame) + _AXIS_HEIGHT)
    )
    return chart


def histogram(counts: NDArray[np.int64], threshold: float) -> Layered:
    """Return the distribution of people's probabilities, coloured by the verdict."""
    edges = np.linspace(0, 1, len(counts) + 1)
    frame = pd.DataFrame({"start": edges[:-1], "end": edges[1:], "people": counts})
    frame["kind"] = np.where(frame["end"] - 1e-9 > threshold, "more", "less")
    colour = alt.Color("kind:N", scale=alt.Scale(domain=["more", "less"], range=[MORE, LESS]), legend=None)
    axis = alt.Axis(format=".0%", title="Probability of churn", grid=False)
    x = alt.X("start:Q", bin="binned", scale=alt.Scale(domain=[0, 1]), axis=axis)
    bars = (
        alt.Chart(frame)
        .mark_bar(stroke="white")
        .encode(x=x, x2="end:Q", y=alt.Y("people:Q", title="People"), color=colour)
    )
    rule = alt.Chart(pd.DataFrame({"start": [threshold]})).mark_rule(color="#20242C", strokeWidth=2).encode(x=x)
    return alt.layer(bars, rule).properties(height=280)


def over_time(values: Mapping[dt.date, float], title: str, limits: Mapping[dt.date, float] | None = None) -> Layered:
    """Return a line over dates, with a dashed line for the limits that it should stay below."""
    frame = pd.DataFrame({"date": pd.to_datetime(list(values)), "value": list(values.values())})
    x = alt.X("date:T", title=None, axis=alt.Axis(format="%-d %b %Y", labelOverlap=True, grid=False))
    y = alt.Y("value:Q", title=title, scale=alt.Scale(zero=True))
    tooltip = [
        alt.Tooltip("date:T", format="%-d %B %Y", title="Date"),
        alt.Tooltip("value:Q", format=".4~f", title=title),
    ]
    layers = [
        alt.Chart(frame)
        .mark_line(color=LESS, point=alt.OverlayMarkDef(size=70, color=LESS))
        .encode(x=x, y=y, tooltip=tooltip)
    ]
    if limits:
        limit = pd.DataFrame({"date": pd.to_datetime(list(limits)), "value": list(limits.values())})
        dashes = alt.Chart(limit).mark_line(color=MORE, strokeDash=[4, 4], point=len(limit) == 1).encode(x=x, y=y)
        layers.insert(0, dashes)
    return alt.layer(*layers).properties(height=260)


def sentences(explanation: Explanation, fields: Sequence[Field], values: Mapping[str, Value]) -> list[str]:
    """Return the three largest contributions in plain words."""
    titles = {field.name: field.title for field in fields}
    largest = [(name, part) for name, part in _ranked(explanation)[:3] if _kind(part) != "none"]
    return [f"**{titles[name]}: {written(values[name])}** {_does(part, explanation.unit)}." for name, part in largest]


def _does(part: float, unit: Unit) -> str:
    if unit == "probability":
        return f"{'raises' if part > 0 else 'lowers'} the probability of churn by {100 * abs(part):.1f} points"
    return f"{'multiplies' if part > 0 else 'divides'} the odds of churn by {_factor(part)}"


def written(value: Value) -> str:
    """Return a value as the page shows it."""
    if value is None:
        return "not known"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{round(value, 4):,.12g}" if isinstance(value, int | float) else value
