"""Draws the random weights that a network without pretrained weights starts from.

build_model -> initialise -> Trainer
"""

from __future__ import annotations

from torch import nn

from training.config.groups import Initialisation

_WITH_WEIGHTS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def initialise(model: nn.Module, scheme: Initialisation) -> None:
    """Draws the weights of convolutions and linear layers anew; sets their biases to zero.

    `kaiming` keeps the variance of activations through ReLU layers (He et al. 2015, https://arxiv.org/abs/1502.01852),
    `xavier` through linear ones (Glorot & Bengio 2010); `default` keeps what torch's layers drew when they were made.
    """
    if scheme == "default":
        return
    for module in model.modules():
        if isinstance(module, _WITH_WEIGHTS):
            if scheme == "kaiming":
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            else:
                nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
