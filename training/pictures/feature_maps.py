"""What the first layers look for and find: filters, and maps before and after activation and pooling.

Predictor -> first_filters; LayerRuns of an image -> first_feature_maps -> figures
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
    """Scales filters for the eye: each to [0, 1], 0.5 being 0.

    Args:
        filters: `(out, in, k, k)`.

    Returns:
        `(out, k, k, 3)` where in is 3; otherwise the mean over the input channels, `(out, k, k)`.
    """
    filters = filters.permute(0, 2, 3, 1) if filters.shape[1] == 3 else filters.mean(dim=1)
    largest = filters.abs().flatten(1).amax(dim=1).clamp(min=1e-12)
    return 0.5 + 0.5 * filters / largest.view(-1, *[1] * (filters.ndim - 1))


def first_feature_maps(runs: Sequence[LayerRun]) -> list[LayerRun]:
    """Returns the first convolution, and the first activation and the first pooling after it, in calling order.

    Layers that a network calls as functions, without a module, are not seen; what is not there is left out.

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
