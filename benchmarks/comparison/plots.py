"""Draws the plots of a run: throughput of every server, and latency against load."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.comparison.results import Results
from benchmarks.comparison.workloads import Workload, compared_runs

_OURS, _EXPERT, _PEER, _CEILING = "#1b6ca8", "#e08e2b", "#9aa5b1", "#444444"
_PALETTE = ("#1b6ca8", "#e08e2b", "#7b5ea7", "#3d9970", "#c0504d", "#8c6d31", "#5b9bd5", "#777777")


def throughput(results: Results, workloads: list[Workload], path: Path) -> None:
    """Draws a panel for each workload: bars of median requests/s, lines of the spread, the ceiling dashed."""
    shown = [workload for workload in workloads if results.loads.get(workload.name)]
    if not shown:
        return
    columns = min(2, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure, panels = plt.subplots(rows, columns, figsize=(6.4 * columns, 3.3 * rows), squeeze=False)
    for axes, workload in zip(panels.flat, shown, strict=False):
        _bars(axes, results, workload)
    for axes in panels.flat[len(shown) :]:
        axes.set_visible(False)
    figure.suptitle("Requests a second: medians, lines from the lowest to the highest round; dashed: no HTTP")
    figure.tight_layout()
    _save(figure, path)


def latency_against_load(results: Results, path: Path) -> None:
    """Draws the median and the 99th percentile of latency, from the time when requests were due, against the rate."""
    figure, panels = plt.subplots(1, 2, figsize=(12, 4.4), sharey=True, sharex=True)
    for (name, measured), colour in zip(results.offered.items(), _PALETTE * 2, strict=False):
        answered = [(offered, load) for offered, load in measured if load.requests_per_s]
        rates = [offered for offered, _ in answered]
        style = {"marker": "o", "color": colour, "linewidth": 2.2 if name == "ours" else 1.3, "markersize": 4}
        panels[0].plot(rates, [load.p50_ms for _, load in answered], label=name, **style)
        panels[1].plot(rates, [load.p99_ms for _, load in answered], label=name, **style)
    for axes, title in zip(panels, ("median", "99th percentile"), strict=True):
        axes.set_title(title)
        axes.set_yscale("log")
        axes.set_xlabel("requests offered a second, evenly spaced")
        axes.grid(alpha=0.3, which="both")
    panels[0].set_ylabel("latency from the intended send time, ms")
    panels[1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    figure.suptitle("640x480 JPEG, EfficientNet-Lite0, open loop; a line ends where its server cannot follow")
    figure.tight_layout()
    _save(figure, path)


def _bars(axes: Axes, results: Results, workload: Workload) -> None:
    runs = [(run.name, name) for run in compared_runs(workload) for name in results.loads[run.name]]
    runs.sort(key=lambda run: results.rate(*run) or 0.0)
    names = [name for _, name in runs]
    rates = [results.rate(*run) or 0.0 for run in runs]
    spreads = [results.spread(*run) for run in runs]
    below = [rate - lowest for rate, (lowest, _) in zip(rates, spreads, strict=True)]
    above = [highest - rate for rate, (_, highest) in zip(rates, spreads, strict=True)]
    axes.barh(names, rates, xerr=(below, above), color=[_colour(name) for name in names], ecolor="#222222", capsize=3)
    ceiling = results.ceiling_rate(workload.name)
    if ceiling and workload.connections > 1:
        axes.axvline(ceiling, color=_CEILING, linestyle="--", linewidth=1.2)
    largest = max([*rates, ceiling or 0.0])
    for position, (rate, extra) in enumerate(zip(rates, above, strict=True)):
        axes.text(rate + extra + largest * 0.015, position, f"{rate:,.0f}", va="center", fontsize=9)
    axes.set_xlim(0, largest * 1.18)
    axes.set_title(workload.title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)


def _colour(name: str) -> str:
    return _OURS if name.startswith("ours") else _EXPERT if name.endswith("_openvino") else _PEER


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None})  # the same figures make the same file
    plt.close(figure)
