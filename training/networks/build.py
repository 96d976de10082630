"""Builds the network that a configuration names.

config, class count -> build_model -> (N, channels, S, S) normalised -> (N, C) logits
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from training.config.file import nearest
from training.config.groups import ModelSettings
from training.config.settings import TrainConfig
from training.data.statistics import IMAGENET_MEAN, IMAGENET_STD, Statistics
from training.errors import ConfigError, DataError
from training.networks.initialisation import initialise
from training.networks.small_cnns import GapCNN, SimpleCNN, TinyNet
from training.networks.transfer import replace_head
from training.networks.vgg import VGG16

OWN_ARCHITECTURES = ("simple-cnn", "tiny-net", "gap-cnn", "vgg16", "vgg16-bn", "efficientnet-lite0")
_WITH_WEIGHTS_HERE = ("efficientnet-lite0",)
_TORCHVISION, _TIMM = "torchvision/", "timm/"


def build_model(config: TrainConfig, class_count: int, *, load_pretrained: bool = True) -> nn.Module:
    """Builds the network that the configuration names, with pretrained or random weights.

    Random weights are drawn from torch's global generator, which the caller seeds.

    Args:
        config: the configuration of the run.
        class_count: the number of classes, C.
        load_pretrained: whether to load pretrained weights. False saves the work if those of a checkpoint follow.

    Returns:
        a module `(N, channels, S, S)` -> `(N, C)`, in training mode.

    Raises:
        ConfigError: there is no such architecture, it has no pretrained weights, or it does not fit the image size.
        DataError: the pretrained weights cannot be downloaded.
    """
    name = config.architecture
    if name in OWN_ARCHITECTURES:
        model = _own(config, class_count, load_pretrained)
    elif name.startswith(_TORCHVISION):
        model = _torchvision(config, name.removeprefix(_TORCHVISION), class_count, load_pretrained)
    elif name.startswith(_TIMM):
        model = _timm(config, name.removeprefix(_TIMM), class_count, load_pretrained)
    else:
        raise ConfigError(f"There is no architecture {name!r}.{nearest(name, _all_names(name))}")
    if not config.pretrained:
        initialise(model, config.initialisation)
    _check_size(model, config)
    return model.train()


def pretrained_statistics(config: ModelSettings) -> Statistics:
    """Returns the mean and std that the pretrained weights were trained with, for three channels."""
    if config.architecture == "efficientnet-lite0":
        return Statistics((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    if config.architecture.startswith(_TIMM):
        import timm

        pretrained = timm.get_pretrained_cfg(config.architecture.removeprefix(_TIMM))
        if pretrained is not None:
            return Statistics(tuple(pretrained.mean), tuple(pretrained.std))
    return Statistics(IMAGENET_MEAN, IMAGENET_STD)


def _own(config: TrainConfig, class_count: int, load_pretrained: bool) -> nn.Module:
    name = config.architecture
    if config.pretrained and name not in _WITH_WEIGHTS_HERE:
        raise ConfigError(
            f"{name} has no pretrained weights here: set pretrained: false, or take efficientnet-lite0 or a "
            "torchvision/NAME."
        )
    shape: dict[str, Any] = {"channels": config.channels, "image_size": config.image_size}
    blocks: dict[str, Any] = {
        "widths": config.widths,
        "convolutions_per_block": config.convolutions_per_block,
        "batchnorm": config.batchnorm,
        "dropout": config.dropout,
    }
    match name:
        case "simple-cnn":
            return SimpleCNN(class_count, **shape, **blocks, hidden_width=config.hidden_width)
        case "tiny-net":
            return TinyNet(class_count, **shape)
        case "gap-cnn":
            return GapCNN(class_count, **shape, **blocks)
        case "vgg16" | "vgg16-bn":
            return VGG16(class_count, channels=config.channels, batchnorm=name == "vgg16-bn", dropout=config.dropout)
    return _efficientnet_lite0(config, class_count, load_pretrained)


def _efficientnet_lite0(config: TrainConfig, class_count: int, load_pretrained: bool) -> nn.Module:
    import timm

    from training.networks.efficientnet_lite0 import efficientnet_lite0

    if not config.pretrained:
        model: nn.Module = timm.create_model(
            "tf_efficientnet_lite0", num_classes=class_count, in_chans=config.channels, scriptable=True
        )
        return model
    if config.channels != 3:
        raise ConfigError(
            "efficientnet-lite0's pretrained weights are for RGB: set channels: 3 (grey images work too)."
        )
    model = efficientnet_lite0() if load_pretrained else timm.create_model("tf_efficientnet_lite0", scriptable=True)
    return replace_head(model, class_count, dropout=config.dropout)


def _torchvision(config: TrainConfig, name: str, class_count: int, load_pretrained: bool) -> nn.Module:
    from torchvision import models

    if name not in models.list_models(module=models):
        raise ConfigError(f"torchvision has no model {name!r}.{nearest(name, models.list_models(module=models))}")
    options: dict[str, Any] = {}
    if name.startswith("vit_"):
        options["image_size"] = config.image_size
    if name in ("googlenet", "inception_v3"):
        options["init_weights"] = True  # silences a warning about a changed default
    if config.pretrained:
        _require_rgb(config)
        weights = "DEFAULT" if load_pretrained else None
        model = _downloaded(config.architecture, lambda: models.get_model(name, weights=weights, **options))
        return replace_head(_with_one_output(model), class_count, dropout=0.0)
    model = _with_one_output(models.get_model(name, weights=None, num_classes=class_count, **options))
    if config.channels != 3:
        _replace_first_convolution(model, config.channels)
    return model


def _timm(config: TrainConfig, name: str, class_count: int, load_pretrained: bool) -> nn.Module:
    import timm

    if not timm.is_model(name):
        raise ConfigError(f"timm has no model {name!r}.{nearest(name, timm.list_models())}")
    options: dict[str, Any] = {"num_classes": class_count, "in_chans": config.channels, "drop_rate": config.dropout}

    pretrained = config.pretrained and load_pretrained

    def create() -> nn.Module:
        try:  # transformers must be told the size; convolutional networks do not know the argument
            model: nn.Module = timm.create_model(
                name, pretrained=pretrained, scriptable=True, img_size=config.image_size, **options
            )
        except TypeError:
            model = timm.create_model(name, pretrained=pretrained, scriptable=True, **options)
        return model

    return _downloaded(config.architecture, create) if pretrained else create()


def _downloaded(architecture: str, create: Callable[[], nn.Module]) -> nn.Module:
    try:
        return create()
    except (
        OSError,
        RuntimeError,
    ) as error:  # URLError is an OSError; Hugging Face's and a wrong hash are RuntimeErrors
        raise DataError(
            f"The pretrained weights of {architecture} cannot be downloaded: {error}. Connect this machine to the "
            "network, take efficientnet-lite0 (its weights are installed already), or set pretrained: false."
        ) from error


def _require_rgb(config: TrainConfig) -> None:
    if config.channels != 3:
        raise ConfigError(f"{config.architecture}'s pretrained weights are for RGB: set channels: 3.")


class _MainLogits(nn.Module):
    """GoogLeNet or Inception with one output: scripted, they would return their auxiliary outputs too."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        for name in ("aux1", "aux2", "AuxLogits"):
            if hasattr(network, name):
                setattr(network, name, None)
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network._forward(self.network._transform_input(x))[0]  # type: ignore[operator]
        return logits


def _with_one_output(model: nn.Module) -> nn.Module:
    if not hasattr(model, "aux_logits"):
        return model
    setattr(model, "aux_logits", False)  # noqa: B010 (typed as a submodule otherwise)
    return _MainLogits(model)


def _replace_first_convolution(model: nn.Module, channels: int) -> None:
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            first = nn.Conv2d(
                channels,
                module.out_channels,
                kernel_size=module.kernel_size,  # type: ignore[arg-type]
                stride=module.stride,  # type: ignore[arg-type]
                padding=module.padding,  # type: ignore[arg-type]
                bias=module.bias is not None,
            )
            model.set_submodule(name, first)
            return


def _check_size(model: nn.Module, config: TrainConfig) -> None:
    """Sends zeros through the network, so that an image size that does not fit is told before any work is done."""
    model.eval()
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model(torch.zeros(2, config.channels, config.image_size, config.image_size))
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"{config.architecture} does not work at image_size {config.image_size}: {reason}. Take a larger "
            "image_size (224 suits most), or simple-cnn, which takes any."
        ) from error


def _all_names(name: str) -> list[str]:
    import timm
    from torchvision import models

    candidates = list(OWN_ARCHITECTURES)
    for prefix, known in ((_TORCHVISION, models.list_models(module=models)), (_TIMM, timm.list_models())):
        if name in known:
            return [f"{prefix}{name}"]
        candidates.append(f"{prefix}NAME")
    return candidates
