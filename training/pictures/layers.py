"""What happens inside a network, layer by layer: the output of each in the order of the calls.

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
        name: where it is in the network, such as `blocks.0.conv`.
        layer: itself.
        kind: its class, such as `Conv2d`.
        output: `(1, ...)`, a copy: the next layer may work in place.
        parameter_count: of the numbers that it learns.
    """

    name: str
    layer: nn.Module
    kind: str
    output: torch.Tensor
    parameter_count: int


def network_input(predictor: Predictor, images: torch.Tensor) -> torch.Tensor:
    """Returns what `classify` gives its network: `(N, 3, S, S)` uint8 -> `(N, channels, S, S)` normalised."""
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
    """Sends one image through the network and keeps what each layer without layers of its own gives.

    Args:
        predictor: in evaluation mode.
        image: uint8 `(1, 3, S, S)`.
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
        runs: of the layers.
        parameter_count: of the whole network.
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
