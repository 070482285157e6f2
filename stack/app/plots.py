"""The plots of the page, as Altair charts: drawn by the browser with what Streamlit brings along."""

from __future__ import annotations

from typing import TYPE_CHECKING

import altair as alt
import numpy as np
import pandas as pd

from stack.app.scoring import Explanation, Field, Value, probability

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

Layered = alt.LayerChart | alt.FacetChart

MORE, LESS, NEUTRAL, TRACK = "#C4553B", "#2B7A82", "#8A94A6", "#E6E9EF"
SHOWN = 12
"""Contributions beyond these are drawn as one."""
_AS_PROBABILITY = "format(1 / (1 + exp(-datum.value)), '.0%')"
_ROW_HEIGHT = 30


def gauge(value: float, threshold: float) -> Layered:
    """Return a bar from 0 to 1, filled up to a probability, with a mark at the threshold."""
    colour = MORE if value >= threshold else LESS
    axis = alt.Axis(format=".0%", values=[0, 0.25, 0.5, 0.75, 1], title=None, grid=False, domain=False, ticks=False)
    scale = alt.X("value:Q", scale=alt.Scale(domain=[0, 1]), axis=axis)
    base = alt.Chart(pd.DataFrame({"value": [1.0]}))
    track = base.mark_bar(color=TRACK, height=26, cornerRadius=6).encode(x=scale)
    filled = (
        alt.Chart(pd.DataFrame({"value": [value]})).mark_bar(color=colour, height=26, cornerRadius=6).encode(x=scale)
    )
    at = alt.Chart(pd.DataFrame({"value": [threshold], "text": [f"threshold {threshold:.0%}"]}))
    mark = at.mark_tick(color="#20242C", thickness=3, height=40).encode(x=scale)
    label = at.mark_text(dy=-29, color="#20242C", fontSize=12).encode(x=scale, text="text:N")
    return alt.layer(track, filled, mark, label).properties(height=90)


def waterfall(explanation: Explanation, fields: Sequence[Field], values: Mapping[str, Value]) -> Layered:
    """Return how the values of a person lead from the average score to their own, the largest step first.

    The steps are those of SHAP, in log-odds, which add up; the axis is labelled with the probabilities that they
    stand for.
    """
    steps = _steps(explanation, fields, values)
    order = list(steps["label"])
    y = alt.Y("label:N", sort=order, title=None, axis=alt.Axis(labelLimit=280, ticks=False, domain=False))
    # The scale is open at both ends of the data, so that the labels beside the bars have room.
    low, high = steps[["start", "end"]].min().min(), steps[["start", "end"]].max().max()
    room = max((high - low) * 0.12, 0.1)
    scale = alt.Scale(domain=[low - room, high + room], nice=False)
    x = alt.X(
        "start:Q", scale=scale, axis=alt.Axis(labelExpr=_AS_PROBABILITY, title="Probability of churn", tickCount=7)
    )
    colour = alt.Color("kind:N", scale=alt.Scale(domain=["more", "less"], range=[MORE, LESS]), legend=None)
    tooltip = [alt.Tooltip("label:N", title="Value"), alt.Tooltip("part:Q", format="+.3f", title="Log-odds")]
    chart = alt.Chart(steps)
    bars = chart.mark_bar(height=18, cornerRadius=3).encode(y=y, x=x, x2="end:Q", color=colour, tooltip=tooltip)
    end = alt.X("end:Q", scale=scale)
    more = chart.transform_filter("datum.kind == 'more'").mark_text(align="left", dx=5, color=MORE, fontWeight="bold")
    less = chart.transform_filter("datum.kind == 'less'").mark_text(align="right", dx=-5, color=LESS, fontWeight="bold")
    texts = [one.encode(y=y, x=end, text="text:N") for one in (more, less)]
    rules = [_rule(explanation.base, scale), _rule(explanation.log_odds, scale)]
    return alt.layer(*rules, bars, *texts).properties(height=_ROW_HEIGHT * len(steps) + 45)


def _rule(at: float, scale: alt.Scale) -> alt.Chart:
    line = alt.Chart(pd.DataFrame({"start": [at]})).mark_rule(color=NEUTRAL, strokeDash=[4, 4])
    drawn: alt.Chart = line.encode(x=alt.X("start:Q", scale=scale))
    return drawn


def _steps(explanation: Explanation, fields: Sequence[Field], values: Mapping[str, Value]) -> pd.DataFrame:
    ranked = sorted(explanation.contributions.items(), key=lambda part: -abs(part[1]))
    titles = {field.name: f"{field.title}: {written(values[field.name])}" for field in fields}
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
            "kind": ["more" if part > 0 else "less" for _, part in parts],
            "text": [f"×{np.exp(part):.2g}" for _, part in parts],
        }
    )


def importance(values: Mapping[str, float], titles: Mapping[str, str]) -> alt.Chart:
    """Return the mean absolute SHAP value of each column, the largest first."""
    frame = pd.DataFrame({"column": [titles.get(name, name) for name in values], "value": list(values.values())})
    chart: alt.Chart = (
        alt.Chart(frame)
        .mark_bar(color=LESS, height=16, cornerRadius=3)
        .encode(
            y=alt.Y("column:N", sort="-x", title=None, axis=alt.Axis(labelLimit=260, ticks=False, domain=False)),
            x=alt.X("value:Q", title="Mean |SHAP| (log-odds)"),
            tooltip=[
                alt.Tooltip("column:N", title="Column"),
                alt.Tooltip("value:Q", format=".4f", title="Mean |SHAP|"),
            ],
        )
        .properties(height=26 * len(frame) + 45)
    )
    return chart


def histogram(counts: NDArray[np.int64], threshold: float) -> Layered:
    """Return how many people have which probability, coloured by the verdict."""
    edges = np.linspace(0, 1, len(counts) + 1)
    frame = pd.DataFrame({"start": edges[:-1], "end": edges[1:], "people": counts})
    frame["kind"] = np.where(frame["end"] - 1e-9 > threshold, "more", "less")
    colour = alt.Color("kind:N", scale=alt.Scale(domain=["more", "less"], range=[MORE, LESS]), legend=None)
    x = alt.X("start:Q", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format=".0%", title="Probability of churn"))
    bars = (
        alt.Chart(frame)
        .mark_bar(stroke="white")
        .encode(x=x, x2="end:Q", y=alt.Y("people:Q", title="People"), color=colour)
    )
    rule = alt.Chart(pd.DataFrame({"start": [threshold]})).mark_rule(color="#20242C", strokeWidth=2).encode(x=x)
    return alt.layer(bars, rule).properties(height=280)


def sentences(
    explanation: Explanation, fields: Sequence[Field], values: Mapping[str, Value], count: int = 3
) -> list[str]:
    """Return the largest contributions in plain words."""
    titles = {field.name: field.title for field in fields}
    ranked = sorted(explanation.contributions.items(), key=lambda part: -abs(part[1]))
    return [_sentence(titles[name], values[name], part) for name, part in ranked[:count] if abs(part) >= 0.005]


def _sentence(title: str, value: Value, part: float) -> str:
    does = "raises" if part > 0 else "lowers"
    return f"**{title}** of {written(value)} {does} the odds of churn to {np.exp(part):.2g} times the average person's."


def average(explanation: Explanation) -> str:
    """Return the average person's probability."""
    return f"{probability(explanation.base):.0%}"


def written(value: Value) -> str:
    """Return a value as the page shows it."""
    if value is None:
        return "not known"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,.10g}" if isinstance(value, int | float) else value
