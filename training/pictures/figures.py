"""Draws the plots of the report, each as a matplotlib `Figure`.

history, Metrics -> Figure -> drawing.save_png, drawing.to_svg -> report
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from training.evaluation.calibration import ReliabilityBin
from training.pictures.drawing import INK, panel

BLUE, ORANGE = "#3b82d6", "#e07a2f"  # told apart with any colour vision, on white and on black
_MAX_WRITTEN_CLASSES = 20


def curves(
    epochs: Sequence[int], series: Mapping[str, Sequence[float]], *, title: str, best_epoch: int | None, percent: bool
) -> Figure:
    """Draws training against validation over the epochs.

    Args:
        epochs: the numbers of the epochs, from 1.
        series: the values of each epoch, by the name of the curve.
        title: the name of the values, such as `loss`.
        best_epoch: the epoch that is marked; None marks none.
        percent: whether the values are parts that are shown as percentages.
    """
    figure, axes = panel(5.2, 3.2)
    for (label, values), colour in zip(series.items(), (BLUE, ORANGE), strict=False):
        scaled = [100 * value for value in values] if percent else values
        axes.plot(epochs, scaled, color=colour, label=label, linewidth=2, marker="o" if len(epochs) < 3 else None)
    if best_epoch is not None:
        axes.axvline(best_epoch, color=INK, linewidth=1, linestyle=(0, (2, 3)), label="best epoch")
    axes.set_xlabel("epoch")
    axes.set_ylabel(f"{title}, %" if percent else title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, labelcolor=INK)
    return figure


def learning_rates(steps: Sequence[float], rates: Sequence[float], *, x_label: str) -> Figure:
    """Draws the learning rate over the steps or epochs of a run; `x_label` says which."""
    figure, axes = panel(5.2, 2.6)
    axes.plot(steps, rates, color=BLUE, linewidth=2)
    axes.set_xlabel(x_label)
    axes.set_ylabel("learning rate")
    axes.set_ylim(bottom=0)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    return figure


def confusion(matrix: Sequence[Sequence[int]], class_names: Sequence[str]) -> Figure:
    """Draws how often each class (a row) was taken for each class (a column), as a part of the row."""
    counts = np.array(matrix, dtype=float)
    parts = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(9.0, 2.2 + 0.42 * len(class_names)) if len(class_names) <= _MAX_WRITTEN_CLASSES else 6.5
    figure, axes = panel(side, side)
    axes.grid(visible=False)
    axes.imshow(parts, cmap="Blues", vmin=0, vmax=1, aspect="equal", interpolation="nearest")
    axes.set_xlabel("predicted")
    axes.set_ylabel("label")
    if len(class_names) <= _MAX_WRITTEN_CLASSES:
        positions = range(len(class_names))
        axes.set_xticks(positions, [_short(name) for name in class_names], rotation=45, ha="right")
        axes.set_yticks(positions, [_short(name) for name in class_names])
        for row, column in zip(*np.nonzero(counts), strict=True):
            colour = "#ffffff" if parts[row, column] > 0.5 else "#10243d"
            axes.text(column, row, f"{int(counts[row, column])}", ha="center", va="center", color=colour, fontsize=8)
    return figure


def reliability(bins: Sequence[ReliabilityBin]) -> Figure:
    """Draws accuracy against confidence. On the diagonal, an answer that is 80 % sure is right in 80 % of the cases."""
    figure, axes = panel(4.8, 4.0)
    axes.plot([0, 100], [0, 100], color=INK, linewidth=1, linestyle=(0, (2, 3)), label="perfectly calibrated")
    total = sum(row.image_count for row in bins)
    axes.bar(
        [50 * (row.lowest + row.highest) for row in bins],
        [100 * row.accuracy for row in bins],
        width=[94 * (row.highest - row.lowest) for row in bins],
        color=BLUE,
        alpha=0.35,
        label="accuracy",
    )
    sizes = [14 + 160 * row.image_count / total for row in bins]
    axes.scatter(
        [100 * row.confidence for row in bins],
        [100 * row.accuracy for row in bins],
        s=sizes,
        color=ORANGE,
        zorder=3,
        label="mean (size: images)",
    )
    axes.set_xlim(0, 102)
    axes.set_ylim(0, 105)
    axes.set_xlabel("confidence, %")
    axes.set_ylabel("accuracy, %")
    figure.legend(frameon=False, labelcolor=INK, loc="outside upper center", ncols=3, fontsize=7.5, columnspacing=1.2)
    return figure


def class_counts(counts: Mapping[str, int]) -> Figure:
    """Draws how many images each class has."""
    figure, axes = panel(5.2, max(1.6, min(9.0, 0.6 + 0.26 * len(counts))))
    axes.barh([_short(name) for name in counts], list(counts.values()), color=BLUE, height=0.65)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("images")
    if len(counts) > 2 * _MAX_WRITTEN_CLASSES:
        axes.set_yticks([])
    return figure


def _short(name: str) -> str:
    name = name.replace("$", r"\$")  # matplotlib takes what is between dollars for a formula
    return name if len(name) <= 18 else name[:17] + "…"
