"""The network VGG-16: configuration D of Simonyan & Zisserman 2014, https://arxiv.org/abs/1409.1556.

(N, channels, S, S) normalised -> 13 convolutions in 5 blocks -> 7 x 7 x 512 -> 3 linear layers -> (N, C) logits

The modules have the names of torchvision's, so that its weights fit.
"""

from __future__ import annotations

import torch
from torch import nn

# The channels of the convolutions in each block. Each block ends in a pooling.
_BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
_POOLED_SIDE = 7  # the side of the last feature maps at 224 x 224, in pixels
_HIDDEN_WIDTH = 4096


class VGG16(nn.Module):
    """VGG-16 with a head for any number of classes.

    Args:
        class_count: the number of classes, C.
        channels: the number of channels of the images.
        batchnorm: whether to normalise after each convolution (`vgg16-bn`).
        dropout: the probability of dropout between the linear layers; 0.5 in the paper.
    """

    def __init__(self, class_count: int, *, channels: int = 3, batchnorm: bool = False, dropout: float = 0.5) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for block in _BLOCKS:
            for width in block:
                layers.append(nn.Conv2d(channels, width, kernel_size=3, padding=1))
                if batchnorm:
                    layers.append(nn.BatchNorm2d(width))
                layers.append(nn.ReLU(inplace=True))
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        # At 224 x 224 the maps are 7 x 7 already; those of other image sizes are averaged or spread to that.
        self.avgpool = nn.AdaptiveAvgPool2d(_POOLED_SIDE)
        self.classifier = nn.Sequential(
            nn.Linear(channels * _POOLED_SIDE**2, _HIDDEN_WIDTH),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(_HIDDEN_WIDTH, _HIDDEN_WIDTH),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(_HIDDEN_WIDTH, class_count),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Computes logits `(N, C)` of images `(N, channels, S, S)`, S at least 32."""
        x = self.avgpool(self.features(x))  # (N, 512, 7, 7)
        logits: torch.Tensor = self.classifier(x.flatten(1))
        return logits
