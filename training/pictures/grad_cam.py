"""Shows which parts of an image speak for a class: Grad-CAM (Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391).

uint8 (1, 3, S, S) -> last convolution's maps A and the gradient of a class's logit -> relu(sum of mean(gradient) * A)
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from training.errors import NotDrawableError
from training.export.predictor import Predictor
from training.pictures.layers import network_input, run_layers


def grad_cam(predictor: Predictor, image: torch.Tensor, class_index: int) -> torch.Tensor:
    """Computes how much each part of an image speaks for a class.

    Args:
        predictor: the model, in evaluation mode.
        image: one image, uint8 `(1, 3, S, S)`.
        class_index: the index of the class, from 0.

    Returns:
        the heat of each pixel, float `(S, S)` in [0, 1]; 0 everywhere if nothing speaks for the class.

    Raises:
        NotDrawableError: the network has no convolution.
    """
    convolutions = [run.layer for run in run_layers(predictor, image) if isinstance(run.layer, nn.Conv2d)]
    if not convolutions:
        raise NotDrawableError("The network has no convolution, and so no maps for Grad-CAM.")
    maps: list[torch.Tensor] = []

    def keep(_layer: nn.Module, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        # Made a leaf: the layers behind it may be frozen or work in place, and the gradient is the same.
        maps.append(output.detach().requires_grad_())
        return maps[-1].clone()

    handle = convolutions[-1].register_forward_hook(keep)
    try:
        with torch.enable_grad():
            logits = predictor.model(network_input(predictor, image))
            # `network_input` has run the network too, and its maps come first in the list.
            (gradient,) = torch.autograd.grad(logits[0, class_index], maps[-1])  # (1, K, h, w)
    finally:
        handle.remove()
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    heat = functional.relu((weights * maps[-1].detach()).sum(dim=1, keepdim=True))  # (1, 1, h, w)
    heat = functional.interpolate(heat, size=image.shape[-2:], mode="bilinear", align_corners=False)[0, 0]
    return heat / heat.max() if float(heat.max()) > 0 else heat


def overlay(image: torch.Tensor, heat: torch.Tensor) -> torch.Tensor:
    """Lays a heat map over an image.

    Args:
        image: one image, uint8 `(3, S, S)`.
        heat: the heat of each pixel, `(S, S)` in [0, 1].

    Returns:
        the picture, float `(S, S, 3)` in [0, 1]: the image in grey, and over it the colours of the heat.
    """
    from matplotlib import colormaps

    grey = image.float().mean(dim=0, keepdim=True).expand(3, -1, -1).permute(1, 2, 0) / 255
    colours = torch.from_numpy(colormaps["inferno"](heat.numpy())[..., :3]).float()
    strength = 0.75 * heat.unsqueeze(-1)
    return ((1 - strength) * grey + strength * colours).clamp(0, 1)
