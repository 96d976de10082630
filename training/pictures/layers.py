"""Records what each layer of a network gives for an image, in the order of the calls.

Predictor, uint8 (1, 3, S, S) -> run_layers -> LayerRun per layer -> tables, feature maps
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from training.export.predictor import Predictor


@dataclass(frozen=True)
class LayerRun:
    """One call of a layer.

    Attributes:
        name: the name of the layer in the network, such as `blocks.0.conv`.
        layer: the layer itself.
        kind: the class of the layer, such as `Conv2d`.
        output: the output of the call, `(1, ...)`. It is a copy, since the next layer may work in place.
        parameter_count: how many numbers the layer learns.
    """

    name: str
    layer: nn.Module
    kind: str
    output: torch.Tensor
    parameter_count: int


def network_input(predictor: Predictor, images: torch.Tensor) -> torch.Tensor:
    """Returns what the network is given for images: uint8 `(N, 3, S, S)` -> normalised `(N, channels, S, S)`."""
    caught: list[torch.Tensor] = []

    def catch(_model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        caught.append(inputs[0])

    handle = predictor.model.register_forward_pre_hook(catch)
    try:
        predictor.classify(images)
    finally:
        handle.remove()
    return caught[0]


def run_layers(predictor: Predictor, image: torch.Tensor) -> list[LayerRun]:
    """Sends one image through the network, and returns each call of a layer that has no layers inside.

    Args:
        predictor: the model, in evaluation mode.
        image: one image, uint8 `(1, 3, S, S)`.
    """
    runs: list[LayerRun] = []
    handles: list[RemovableHandle] = []
    for name, layer in predictor.model.named_modules():
        if any(True for _ in layer.children()):
            continue

        def keep(layer: nn.Module, _inputs: object, output: torch.Tensor, name: str = name) -> None:
            count = sum(parameter.numel() for parameter in layer.parameters())
            runs.append(LayerRun(name, layer, type(layer).__name__, output.clone(), count))

        handles.append(layer.register_forward_hook(keep))
    try:
        predictor.classify(image)
    finally:
        for handle in handles:
            handle.remove()
    return runs


def layer_table(runs: list[LayerRun], parameter_count: int) -> str:
    """Returns name, kind, output shape and parameter count of each layer as lines of text.

    Args:
        runs: the calls of the layers, as `run_layers` returns them.
        parameter_count: how many numbers the whole network learns.
    """
    rows = [("layer", "kind", "output", "parameters")]
    for run in runs:
        shape = " x ".join(str(size) for size in run.output.shape[1:])
        rows.append(
            (run.name or "(network)", run.kind, shape, f"{run.parameter_count:,}" if run.parameter_count else "-")
        )
    rows.append(("total", "", "", f"{parameter_count:,}"))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        f"{name:<{widths[0]}}  {kind:<{widths[1]}}  {shape:>{widths[2]}}  {count:>{widths[3]}}"
        for name, kind, shape, count in rows
    )
