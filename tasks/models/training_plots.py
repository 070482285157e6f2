"""Plots of a trained classifier, as PNG files, drawn without a display."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tasks.models.explanations import Explained
    from tasks.models.scoring import Confusion, Curve, Floats

_BLUE, _GREY, _ORANGE = "#2563eb", "#9ca3af", "#ea580c"
_DOTS_PER_INCH = 120
_POINTS = 500
_GROUPS = 10
_SHOWN = 15


def draw(curve: Curve, confusion: Confusion, metrics: dict[str, float], explained: Explained, folder: Path) -> None:
    """Draw roc, pr, calibration, confusion, shap_summary and shap_bar into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = {
        "roc": _roc(curve, metrics["roc_auc"]),
        "pr": _precision_recall(curve, metrics["pr_auc"]),
        "calibration": _calibration(curve, metrics["brier"]),
        "confusion": _confusion(confusion, metrics),
        "shap_bar": _shap_bar(explained),
        "shap_summary": _shap_summary(explained),
    }
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=_DOTS_PER_INCH, bbox_inches="tight", metadata={"Software": None})


def _axes(title: str, across: str, up: str, size: tuple[float, float] = (5, 4)) -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size)
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set(title=title, xlabel=across, ylabel=up)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _thinned(*lines: Floats) -> list[Floats]:
    """Return enough points for a line, evenly spaced."""
    import numpy as np

    picked = np.unique(np.linspace(0, len(lines[0]) - 1, _POINTS).astype(int))
    return [line[picked] for line in lines]


def _roc(curve: Curve, area: float) -> Figure:
    alarm, recall, _ = curve.rates()
    figure, axes = _axes("ROC curve", "False positive rate", "Recall")
    alarm, recall = _thinned(alarm, recall)
    axes.plot([0, *alarm], [0, *recall], color=_BLUE, label=f"area {area:.4f}")
    axes.plot([0, 1], [0, 1], color=_GREY, linestyle="--", label="chance")
    axes.legend(frameon=False, loc="lower right")
    return figure


def _precision_recall(curve: Curve, area: float) -> Figure:
    _, recall, precision = curve.rates()
    figure, axes = _axes("Precision and recall", "Recall", "Precision")
    recall, precision = _thinned(recall, precision)
    share = curve.positives.sum() / curve.rows.sum()
    axes.plot(recall, precision, color=_BLUE, label=f"average precision {area:.4f}")
    axes.axhline(share, color=_GREY, linestyle="--", label=f"chance {share:.3f}")
    axes.set_ylim(0, 1.02)
    axes.legend(frameon=False, loc="upper right")
    return figure


def _calibration(curve: Curve, brier: float) -> Figure:
    """Draw the share of positives over the mean probability, in groups of about equal size."""
    import numpy as np

    group = np.minimum((curve.rows.cumsum() - curve.rows / 2) / curve.rows.sum() * _GROUPS, _GROUPS - 1).astype(int)
    rows, positives, scores = (np.bincount(group, values) for values in (curve.rows, curve.positives, curve.scores))
    some = rows > 0
    figure, axes = _axes("Calibration", "Mean probability", "Share that happened")
    axes.plot([0, 1], [0, 1], color=_GREY, linestyle="--", label="as promised")
    seen = f"tenths of the rows, Brier {brier:.4f}"
    axes.plot(scores[some] / rows[some], positives[some] / rows[some], "o-", color=_BLUE, label=seen)
    axes.legend(frameon=False, loc="upper left")
    return figure


def _confusion(confusion: Confusion, metrics: dict[str, float]) -> Figure:
    figure, axes = _axes(
        f"Threshold {metrics['threshold']:.3f}, accuracy {metrics['accuracy']:.4f}", "Predicted", "Actual"
    )
    cells = [
        [confusion.true_negatives, confusion.false_positives],
        [confusion.false_negatives, confusion.true_positives],
    ]
    axes.imshow(cells, cmap="Blues")
    darkest = max(map(max, cells))
    for row, counts in enumerate(cells):
        for column, count in enumerate(counts):
            color = "white" if count > darkest / 2 else "black"
            axes.text(column, row, f"{count:,}", ha="center", va="center", color=color)
    axes.set_xticks([0, 1], ["0", "1"])
    axes.set_yticks([0, 1], ["0", "1"])
    return figure


def _shap_bar(explained: Explained) -> Figure:
    most = list(explained.mean_absolute().items())[:_SHOWN][::-1]
    figure, axes = _axes(
        "Mean absolute SHAP values", f"Mean effect on a score ({explained.unit})", "", (6, 0.4 + 0.32 * len(most))
    )
    axes.barh([name for name, _ in most], [value for _, value in most], color=_BLUE)
    return figure


def _shap_summary(explained: Explained) -> Figure:
    """Draw shap's own beeswarm; texts are coloured by the alphabetical order of their levels."""
    import matplotlib as mpl

    mpl.use("Agg")
    import shap
    from matplotlib import pyplot as plt

    values = explained.rows.apply(_colourable)
    explanation = shap.Explanation(
        explained.contributions.to_numpy(),
        base_values=[explained.base_value] * len(values),
        data=values.to_numpy(dtype="float64"),
        feature_names=list(values.columns),
    )
    figure = plt.figure()
    try:
        axes = shap.plots.beeswarm(explanation, max_display=_SHOWN, show=False)
        axes.set_title("SHAP values of the holdout")
        axes.set_xlabel(f"Effect on a score ({explained.unit})")
        return figure
    finally:
        plt.close(figure)


def _colourable(column: pd.Series) -> pd.Series:
    if column.dtype == object or str(column.dtype) in ("string", "str"):
        return column.astype("category").cat.codes.astype("float64").where(column.notna())
    return column.astype("float64")
