"""Adapts a pretrained network to other classes: a new head, and a backbone that is frozen and thaws by stages.

pretrained -> replace_head -> set_trainable_stages(0), extract_features: train the head -> thaw, train on

The head is the last linear layer. In SqueezeNet, which is fully convolutional, it is the last convolution. All layers
before the head are the backbone.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn


def replace_head(model: nn.Module, class_count: int, *, dropout: float) -> nn.Module:
    """Replaces the last layer by a new one for `class_count` classes; dropout goes before it unless it is 0."""
    name, old = head_of(model)
    if isinstance(old, nn.Conv2d):
        new: nn.Module = nn.Conv2d(old.in_channels, class_count, kernel_size=1)
    else:
        assert isinstance(old, nn.Linear)
        new = nn.Linear(old.in_features, class_count)
    model.set_submodule(name, nn.Sequential(nn.Dropout(dropout), new) if dropout else new)
    return model


def head_of(model: nn.Module) -> tuple[str, nn.Module]:
    """Returns the name and the module of the last layer, with the dropout that `replace_head` put before it.

    Raises:
        ValueError: the model has no linear or convolutional layer.
    """
    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    if not layers:
        raise ValueError("The model has no linear or convolutional layer.")
    linear = [layer for layer in layers if isinstance(layer[1], nn.Linear)]
    name, module = layers[-1]
    if linear and not name.startswith("classifier"):
        name, module = linear[-1]
    parent_name, _, own_name = name.rpartition(".")
    parent = model.get_submodule(parent_name) if parent_name else model
    if isinstance(parent, nn.Sequential) and own_name == "1" and len(parent) == 2 and isinstance(parent[0], nn.Dropout):
        return parent_name, parent
    return name, module


def backbone_stages(model: nn.Module) -> list[list[nn.Parameter]]:
    """Returns the parameters of the backbone by stage, first to last.

    A stage is a child of the network; a child that is a sequence gives a stage for each of its own children.
    """
    head_parameters = {id(parameter) for parameter in head_of(model)[1].parameters()}
    children: list[nn.Module] = []
    for child in model.children():
        children += list(child.children()) if isinstance(child, nn.Sequential | nn.ModuleList) else [child]
    stages = []
    for child in children:
        parameters = [parameter for parameter in child.parameters() if id(parameter) not in head_parameters]
        if parameters:
            stages.append(parameters)
    return stages


def set_trainable_stages(model: nn.Module, count: int | None) -> None:
    """Freezes the backbone except for its last `count` stages; None thaws all of it. The head always learns."""
    stages = backbone_stages(model)
    frozen = [] if count is None else stages[: max(0, len(stages) - count)]
    model.requires_grad_(True)
    for parameters in frozen:
        for parameter in parameters:
            parameter.requires_grad_(False)


def set_training_mode(model: nn.Module) -> None:
    """Puts the model into training mode, but layers that are frozen into evaluation mode.

    New images must not move the statistics of a frozen batch normalisation: the frozen weights behind it would not
    follow.
    """
    model.train()
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()


@torch.no_grad()
def extract_features(model: nn.Module, batches: Iterable[torch.Tensor]) -> torch.Tensor:
    """Computes the features of images: what the head of the network takes.

    Args:
        model: a network whose head takes `(N, F)`.
        batches: normalised images, `(B, channels, S, S)` each.

    Returns:
        `(N, F)` float32, on the CPU.
    """
    features: list[torch.Tensor] = []

    def keep(_module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        features.append(inputs[0].float().cpu())

    hook = head_of(model)[1].register_forward_pre_hook(keep)
    training = model.training
    model.eval()
    try:
        for images in batches:
            model(images)
    finally:
        hook.remove()
        model.train(training)
    return torch.cat(features)
