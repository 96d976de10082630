"""Writes metrics as a few lines for a terminal.

Metrics -> summary -> train, evaluate, report print it
"""

from __future__ import annotations

from training.evaluation.metrics import Interval, Metrics

_WORST_CLASSES = 5


def summary(metrics: Metrics) -> str:
    """Returns lines with the main figures, their 95 % intervals, what guessing reaches, and the weakest classes."""
    lines = [
        f"Images         {metrics.image_count}",
        f"Accuracy       {_percent(metrics.accuracy)}  {_interval(metrics.accuracy_interval)}",
    ]
    if metrics.top5_accuracy is not None and metrics.top5_interval is not None:
        lines.append(f"Top-5          {_percent(metrics.top5_accuracy)}  {_interval(metrics.top5_interval)}")
    lines += [
        f"Macro F1       {_percent(metrics.macro_f1)}  {_interval(metrics.macro_f1_interval)}",
        f"NLL            {metrics.nll:7.3f}  ({metrics.nll_interval[0]:.3f} to {metrics.nll_interval[1]:.3f})",
        f"ECE            {_percent(metrics.ece)}",
        f"Guessing       {_percent(metrics.uniform_accuracy)}  (1/C)",
        f"Majority       {_percent(metrics.majority_accuracy)}  (always {metrics.majority_class})",
    ]
    weakest = sorted(
        (row for row in metrics.classes if row.recall is not None and row.recall < 1), key=lambda row: row.recall or 0.0
    )
    if weakest:
        named = ", ".join(f"{row.class_name} {_percent(row.recall or 0.0).strip()}" for row in weakest[:_WORST_CLASSES])
        lines.append(f"Weakest        {named}")
    return "\n".join(lines)


def _percent(part: float) -> str:
    return f"{100 * part:6.2f} %"


def _interval(interval: Interval) -> str:
    low, high = interval
    return f"({100 * low:.1f} to {100 * high:.1f})" if low < high else "(no spread in these images)"
