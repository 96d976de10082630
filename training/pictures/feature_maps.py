"""Finds the filters of the first convolution, and its maps before and after activation and pooling.

Predictor -> first_filters; LayerRuns of an image -> first_feature_maps -> visualize
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from training.errors import NotDrawableError
from training.pictures.layers import LayerRun

_POOLINGS = (
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
    nn.LPPool2d,
    nn.FractionalMaxPool2d,
)
_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish)


def first_filters(model: nn.Module) -> tuple[str, torch.Tensor]:
    """Returns the name and the weights `(out, in, k, k)` of the first convolution.

    Raises:
        NotDrawableError: the network has no convolution.
    """
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d):
            return name, layer.weight.detach()
    raise NotDrawableError("The network has no convolution, and so no filters to show.")


def as_pictures(filters: torch.Tensor) -> torch.Tensor:
    """Scales each filter to [0, 1] for the eye; a weight of 0 becomes 0.5.

    Args:
        filters: the weights of a convolution, `(out, in, k, k)`.

    Returns:
        pictures in colour, `(out, k, k, 3)`, if there are three input channels; otherwise grey ones of the mean over
        the input channels, `(out, k, k)`.
    """
    filters = filters.permute(0, 2, 3, 1) if filters.shape[1] == 3 else filters.mean(dim=1)
    largest = filters.abs().flatten(1).amax(dim=1).clamp(min=1e-12)
    return 0.5 + 0.5 * filters / largest.view(-1, *[1] * (filters.ndim - 1))


def first_feature_maps(runs: Sequence[LayerRun]) -> list[LayerRun]:
    """Returns the first convolution, and the first activation and the first pooling after it, in calling order.

    Operations that are no modules, such as `torch.relu`, are not seen. What the network has none of is left out.

    Raises:
        NotDrawableError: the network has no convolution.
    """
    start = next((position for position, run in enumerate(runs) if isinstance(run.layer, nn.Conv2d)), None)
    if start is None:
        raise NotDrawableError("The network has no convolution, and so no feature maps to show.")
    later = runs[start + 1 :]
    maps = [run for run in later if run.output.ndim == 4 and run.output.shape[-1] > 1]  # 1 x 1: pooled globally
    activations = [run for run in maps if isinstance(run.layer, _ACTIVATIONS)]
    poolings = [run for run in maps if isinstance(run.layer, _POOLINGS)]
    chosen = {id(run) for run in activations[:1] + poolings[:1]}
    return [runs[start], *(run for run in maps if id(run) in chosen)]
