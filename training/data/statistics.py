"""Computes the mean and standard deviation by which pixels are normalised, and the grey of RGB images.

resized training images -> channel_statistics, batch by batch -> mean, std -> normalise, Predictor
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch

# torchvision's weights and most of timm's were trained with these: https://docs.pytorch.org/vision/stable/models.html
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# ITU-R BT.601: the grey of Pillow's convert("L") and of the `Predictor`, which has its own, as it is scripted.
LUMA = (0.299, 0.587, 0.114)
# A channel that never varies, as in pictures of one colour, must not be divided by zero.
MIN_STD = 1 / 255


class Statistics(NamedTuple):
    """The mean and standard deviation of pixels, of values in [0, 1].

    Attributes:
        mean: the mean of each channel.
        std: the standard deviation of each channel.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]


def grey(images: torch.Tensor) -> torch.Tensor:
    """Returns the luma of RGB images, uint8 or float `(..., 3, H, W)`, as float `(..., 1, H, W)` in the same range."""
    weights = torch.tensor(LUMA, device=images.device).view(3, 1, 1)
    return (images * weights).sum(-3, keepdim=True)


def channel_statistics(batches: Iterable[torch.Tensor]) -> Statistics:
    """Computes mean and standard deviation over all pixels, holding one batch at a time.

    Sums of integers are exact, so that the order and size of batches do not matter.

    Args:
        batches: images, uint8 `(B, C, H, W)`.
    """
    count, total, total_of_squares = 0, torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
    for images in batches:
        values = images.transpose(0, 1).flatten(1).to(torch.int64)  # (C, B * H * W)
        count += values.shape[1]
        total = total + values.sum(1)
        total_of_squares = total_of_squares + (values * values).sum(1)
    mean = total.double() / count
    variance = total_of_squares.double() / count - mean**2
    std = (variance.clamp(min=0).sqrt() / 255).clamp(min=MIN_STD)
    return Statistics(tuple((mean / 255).tolist()), tuple(std.tolist()))
