"""Makes the loss, the optimiser with its groups of parameters, and the average of the weights.

config, model -> make_optimiser (head | backbone, decayed | not) -> Trainer steps it
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from training.config.groups import OptimSettings
from training.config.settings import TrainConfig
from training.networks.transfer import backbone_stages


def make_loss(config: OptimSettings, labels: torch.Tensor, class_count: int) -> nn.CrossEntropyLoss:
    """Returns cross-entropy; with `class_weights: balanced`, each class weighs N / (C * its count) (King & Zeng 2001).

    Args:
        config: the settings of the optimisation.
        labels: the labels of the training split, int64 `(N,)`.
        class_count: the number of classes, C.
    """
    weight = None
    if config.class_weights == "balanced":
        counts = torch.bincount(labels, minlength=class_count).clamp(min=1)
        weight = len(labels) / (class_count * counts.to(torch.float32))
    return nn.CrossEntropyLoss(weight=weight, label_smoothing=config.label_smoothing)


def make_optimiser(config: TrainConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Builds the optimiser that the configuration names.

    Weight decay leaves out norms and biases, which are the parameters of one dimension (He et al. 2018,
    https://arxiv.org/abs/1812.01187, 3.1). A pretrained backbone has a learning rate of its own.
    """
    groups = parameter_groups(config, model)
    match config.optimiser:
        case "sgd":
            return torch.optim.SGD(groups, momentum=config.momentum, nesterov=config.nesterov)
        case "rmsprop":
            return torch.optim.RMSprop(groups, momentum=config.momentum)
        case "adam":
            return torch.optim.Adam(groups, fused=True)
        case "adamw":
            return torch.optim.AdamW(groups, fused=True)


def parameter_groups(config: TrainConfig, model: nn.Module) -> list[dict[str, Any]]:
    """Returns up to four groups of parameters, each with its learning rate and its weight decay."""
    scaled: set[int] = set()
    if config.pretrained:
        scaled = {id(parameter) for stage in backbone_stages(model) for parameter in stage}
    members: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        scale = config.backbone_learning_rate_scale if id(parameter) in scaled else 1.0
        decay = config.weight_decay if parameter.ndim > 1 else 0.0
        members.setdefault((config.learning_rate * scale, decay), []).append(parameter)
    return [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in members.items()]


def make_average(model: nn.Module, decay: float) -> AveragedModel:
    """Returns a copy of the model that keeps the moving average of its weights (Polyak & Juditsky 1992).

    The decay warms up as (1 + n) / (10 + n) after n steps, as TensorFlow's `ExponentialMovingAverage` does, so that
    short runs are not held back by their random start. Buffers, such as batch normalisation's, are copied.

    Args:
        model: the network that is trained.
        decay: the part of the average that each step keeps, once it has warmed up; in [0, 1).
    """

    @torch.no_grad()
    def follow(averages: Sequence[torch.Tensor], current: Sequence[torch.Tensor], step: torch.Tensor | int) -> None:
        steps = int(step)
        torch._foreach_lerp_(list(averages), list(current), 1 - min(decay, (1 + steps) / (10 + steps)))

    return AveragedModel(model, multi_avg_fn=follow)
