"""The small networks `simple-cnn`, `tiny-net` and `gap-cnn`, written to be read.

(N, channels, S, S) normalised -> blocks: convolution, pooling -> (N, F) features -> head -> (N, C) logits
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn


class TinyNet(nn.Module):
    """One convolution, one pooling, one linear layer: the least that is a convolutional network.

    Args:
        class_count: the number of classes, C.
        channels: the number of channels of the images.
        image_size: the side of the images in pixels, S.
        width: the number of channels that the convolution gives.
    """

    def __init__(self, class_count: int, *, channels: int, image_size: int, width: int = 8) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, width, kernel_size=3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.relu = nn.ReLU()
        self.head = nn.Linear(width * (image_size // 2) ** 2, class_count)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Computes logits `(N, C)` of images `(N, channels, S, S)`."""
        x = self.relu(self.pool(self.convolution(x)))  # (N, width, S/2, S/2)
        logits: torch.Tensor = self.head(x.flatten(1))
        return logits


class SimpleCNN(nn.Module):
    """Blocks of convolution, [batch normalisation,] max pooling, ReLU and dropout; then a multi-layer perceptron.

    ReLU follows the pooling. The result is the same as in the other order, and ReLU has a quarter of the values to do.

    Args:
        class_count: the number of classes, C.
        channels: the number of channels of the images.
        image_size: the side of the images in pixels, S.
        widths: the number of channels of each block. Each block halves the side until it is one pixel.
        convolutions_per_block: the number of convolutions before each pooling.
        hidden_width: the number of units of the hidden layer in the head.
        batchnorm: whether to normalise after each convolution.
        dropout: the probability of dropout in the head. Blocks drop whole channels with half of it.
    """

    def __init__(
        self,
        class_count: int,
        *,
        channels: int,
        image_size: int,
        widths: Sequence[int] = (16, 32, 64),
        convolutions_per_block: int = 1,
        hidden_width: int = 128,
        batchnorm: bool = True,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.blocks, channels, side = _pooling_blocks(
            channels, image_size, widths, convolutions_per_block, batchnorm=batchnorm, dropout=dropout / 2
        )
        self.head = nn.Sequential(
            OrderedDict(
                flatten=nn.Flatten(),
                hidden=nn.Linear(channels * side * side, hidden_width),
                relu=nn.ReLU(),
                dropout=nn.Dropout(dropout),
                output=nn.Linear(hidden_width, class_count),
            )
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Computes logits `(N, C)` of images `(N, channels, S, S)`."""
        logits: torch.Tensor = self.head(self.blocks(x))
        return logits


class GapCNN(nn.Module):
    """The blocks of `SimpleCNN`, then the mean over each channel: far fewer weights, and any input size.

    Lin et al. 2013, "Network in Network" (https://arxiv.org/abs/1312.4400).

    Args:
        class_count: the number of classes, C.
        channels: the number of channels of the images.
        image_size: the side of the images in pixels, S. It decides how many blocks pool.
        widths: the number of channels of each block.
        convolutions_per_block: the number of convolutions before each pooling.
        batchnorm: whether to normalise after each convolution.
        dropout: the probability of dropout before the head. Blocks drop whole channels with half of it.
    """

    def __init__(
        self,
        class_count: int,
        *,
        channels: int,
        image_size: int,
        widths: Sequence[int] = (16, 32, 64),
        convolutions_per_block: int = 1,
        batchnorm: bool = True,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.blocks, channels, _ = _pooling_blocks(
            channels, image_size, widths, convolutions_per_block, batchnorm=batchnorm, dropout=dropout / 2
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(channels, class_count)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Computes logits `(N, C)` of images `(N, channels, S, S)`."""
        x = self.pool(self.blocks(x)).flatten(1)  # (N, widths[-1])
        logits: torch.Tensor = self.head(self.dropout(x))
        return logits


def _pooling_blocks(
    channels: int, side: int, widths: Sequence[int], convolutions: int, *, batchnorm: bool, dropout: float
) -> tuple[nn.Sequential, int, int]:
    """Returns a block for each width, each halving the side while it can, and the channels and side that come out."""
    blocks = []
    for width in widths:
        blocks.append(_block(channels, width, convolutions, batchnorm=batchnorm, pool=side > 1, dropout=dropout))
        channels, side = width, max(side // 2, 1)
    return nn.Sequential(*blocks), channels, side


def _block(
    in_channels: int, width: int, convolutions: int, *, batchnorm: bool, pool: bool, dropout: float
) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number in range(1, convolutions + 1):
        # A bias before batch normalisation would be subtracted again.
        layers[f"convolution{number}"] = nn.Conv2d(in_channels, width, kernel_size=3, padding=1, bias=not batchnorm)
        if batchnorm:
            layers[f"batchnorm{number}"] = nn.BatchNorm2d(width)
        if number < convolutions:
            layers[f"relu{number}"] = nn.ReLU()
        in_channels = width
    if pool:
        layers["pool"] = nn.MaxPool2d(2)
    layers["relu"] = nn.ReLU()
    layers["dropout"] = nn.Dropout2d(dropout)
    return nn.Sequential(layers)
