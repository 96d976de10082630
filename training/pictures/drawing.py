"""Draws figures in one style, and saves them as PNG files or as SVG in the colours of a page.

panel, picture_grid -> matplotlib Figure -> save_png, to_svg -> visualize, report
"""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

# The colours of PNG files. In SVG the colours of the page stand instead.
INK, LINE = "#1b1d21", "#d5d8dd"

Picture = npt.NDArray[Any] | torch.Tensor
"""A picture, `(H, W)` or `(H, W, 3)`: uint8, or float in [0, 1]."""


def panel(width: float, height: float) -> tuple[Figure, Axes]:
    """Returns an empty figure and its axes; width and height are in inches."""
    with rc_context(_style()):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots()
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(visible=True, linewidth=0.8)
        axes.set_axisbelow(True)
    return figure, axes


def picture_grid(
    pictures: Sequence[Picture],
    *,
    titles: Sequence[str] = (),
    columns: int = 8,
    side: float = 1.0,
    colours: str = "gray",
) -> Figure:
    """Draws pictures side by side, in rows.

    Args:
        pictures: the pictures, at least one. A grey float picture is scaled from its lowest to its highest value.
        titles: a title for each picture, or none at all.
        columns: the number of pictures in a row.
        side: the side of a picture in inches.
        colours: the name of matplotlib's colour map for grey pictures.
    """
    columns = min(columns, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    height = side + (0.32 if titles else 0.08)
    with rc_context(_style()):
        figure = Figure(figsize=(columns * (side + 0.08), rows * height), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.04, h_pad=0.03)  # type: ignore[union-attr,call-arg]
        grid = figure.subplots(rows, columns, squeeze=False)
        for position, axes in enumerate(grid.flat):
            axes.axis("off")
            if position < len(pictures):
                picture = np.asarray(pictures[position])
                limits = (0, 255) if picture.dtype == np.uint8 else (None, None)
                axes.imshow(picture, cmap=colours, interpolation="nearest", vmin=limits[0], vmax=limits[1])
                if titles:
                    axes.set_title(titles[position], fontsize=7, color=INK, pad=3)
    return figure


def save_png(figure: Figure, path: Path) -> None:
    """Writes a figure as a PNG file, creating its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with rc_context(_style()):
        figure.savefig(path, dpi=160, facecolor="white", format="png")


def to_svg(figure: Figure) -> str:
    """Returns an `<svg>` element in the colours of the page that it is put into."""
    text = io.StringIO()
    with rc_context({**_style(), "svg.fonttype": "none"}):  # text stays text: small, searchable, in the page's font
        figure.savefig(text, format="svg", transparent=True)
    svg = re.sub(r"<metadata>.*?</metadata>", "", text.getvalue(), flags=re.DOTALL)
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor").replace(LINE, "var(--line)")
    # The picture is as wide as it was drawn, and narrower if the page is.
    return re.sub(r'<svg ([^>]*?)height="[^"]*" ', r"<svg \1", svg, count=1)


def data_uri(image: torch.Tensor) -> str:
    """Returns an image, uint8 `(3, H, W)`, as a PNG inside a `data:` address."""
    encoded = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(encoded, "PNG")
    return "data:image/png;base64," + base64.b64encode(encoded.getvalue()).decode("ascii")


def _style() -> Any:  # matplotlib's stubs want each key as a literal
    return {
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": 9,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": LINE,
        "xtick.color": INK,
        "ytick.color": INK,
        "grid.color": LINE,
        "svg.hashsalt": "image-predictor",  # the same figure gives the same bytes
    }
