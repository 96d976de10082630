"""Makes a Predictor around a small network, for tests of what is exported."""

from __future__ import annotations

import torch
from torch import nn

from training.export.predictor import Predictor

CLASS_NAMES = ["cat", "dog", "café au lait"]
RGB = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
GREY = {"mean": [0.5], "std": [0.25]}


class Convolutional(nn.Module):
    """A small network with weights from a seed."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.convolution = nn.Conv2d(channels, 4, 5, stride=3)
        self.head = nn.Linear(4, len(CLASS_NAMES))
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns logits `(N, 3)` for `(N, channels, S, S)`."""
        return self.head(self.dropout(torch.relu(self.convolution(x)).mean(dim=(2, 3))))  # type: ignore[no-any-return]


def predictor(
    *,
    image_size: int = 224,
    resize_size: int | None = 256,
    temperature: float = 1.0,
    grey: bool = False,
    interpolation: str = "bilinear",
    fit: str = "crop",
) -> Predictor:
    """Returns a Predictor around `Convolutional`, with the means and deviations of ImageNet or of grey images."""
    colours = GREY if grey else RGB
    return Predictor(
        Convolutional(1 if grey else 3),
        CLASS_NAMES,
        image_size=image_size,
        resize_size=resize_size,
        temperature=temperature,
        interpolation=interpolation,
        fit=fit,
        mean=colours["mean"],
        std=colours["std"],
    )
