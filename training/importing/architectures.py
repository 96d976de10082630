"""Networks of timm and torchvision with given weights, and the preprocessing that they were made for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from app.store.manifest import Preprocessing
from training.config.file import nearest
from training.errors import SourceError
from training.importing.preprocessing import interpolation_named
from training.importing.weights import Tensors, fitted


def network_with(architecture: str, tensors: Tensors) -> tuple[nn.Module, Preprocessing | None]:
    """Builds a network and loads its weights.

    Args:
        architecture: `timm:NAME` or `torchvision:NAME`.
        tensors: the weights by name. The last layer says how many classes there are.

    Returns:
        the network, and the preprocessing of its library's own weights; None if the library has none.

    Raises:
        SourceError: there is no such architecture, or the weights do not fit it.
    """
    library, _, name = architecture.partition(":")
    makers: dict[str, Callable[[str, int], tuple[nn.Module, Preprocessing | None]]] = {
        "timm": _timm, "torchvision": _torchvision,
    }  # fmt: skip
    if library not in makers or not name:
        raise SourceError(f"{architecture!r} is not timm:NAME or torchvision:NAME, such as timm:resnet50.")
    with _without_memory():  # only the names are needed to find the number of classes
        names = makers[library](name, 10)[0].state_dict()
    tensors = fitted(tensors, names)
    class_count = _class_count(names, tensors)
    network, preprocessing = makers[library](name, class_count)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        reasons = [line.strip() for line in str(error).splitlines()[1:]]
        raise SourceError(f"The weights do not fit {architecture}: {_shortened(' '.join(reasons))}") from error
    return network.float().eval(), preprocessing


def _class_count(names: Tensors, tensors: Tensors) -> int:
    """Returns how many outputs the network has in which the weights fit: its last layer says it."""
    last = [name for name, tensor in names.items() if tensor.ndim and tensor.shape[0] == 10]
    found = {tensors[name].shape[0] for name in last if name in tensors and tensors[name].ndim}
    return found.pop() if len(found) == 1 else 10


def _timm(name: str, class_count: int) -> tuple[nn.Module, Preprocessing | None]:
    import timm
    from timm.data.config import resolve_data_config

    if not timm.is_model(name):
        raise SourceError(f"timm has no model {name!r}.{nearest(name, timm.list_models())}")
    network: nn.Module = timm.create_model(name, pretrained=False, num_classes=class_count, scriptable=True)
    own: dict[str, Any] = resolve_data_config({}, model=network)  # type: ignore[no-untyped-call]
    size, mode = own["input_size"][-1], own.get("crop_mode") or "center"
    if mode not in {"center", "squash"}:
        raise SourceError(f"timm's {name} prepares its images with crop mode {mode!r}, which is not computed here.")
    return network, Preprocessing(
        image_size=size,
        resize_size=size if mode == "squash" else math.floor(size / own["crop_pct"]),
        mean=own["mean"],
        std=own["std"],
        interpolation=interpolation_named(own["interpolation"]),
        fit="squash" if mode == "squash" else "crop",
    )


def _torchvision(name: str, class_count: int) -> tuple[nn.Module, Preprocessing | None]:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise SourceError(f"torchvision has no model {name!r}.{nearest(name, known)}")
    options = {"init_weights": False, "aux_logits": False} if name in {"googlenet", "inception_v3"} else {}
    network = models.get_model(name, weights=None, num_classes=class_count, **options)
    own = models.get_model_weights(name).DEFAULT.transforms()
    return network, Preprocessing(
        image_size=own.crop_size[0],
        resize_size=own.resize_size[0],
        mean=own.mean,
        std=own.std,
        interpolation=interpolation_named(own.interpolation.value),
    )


def torchvision_networks_like(tensors: Tensors) -> list[str]:
    """Returns the names of torchvision's classifiers that weights fit, whatever their number of classes.

    Args:
        tensors: the weights by name.
    """
    from torchvision import models

    found = []
    with _without_memory():
        for name in models.list_models(module=models):
            options = {"init_weights": False} if name in {"googlenet", "inception_v3"} else {}
            own = models.get_model(name, weights=None, num_classes=10, **options).state_dict()
            given = fitted(tensors, own)
            if given.keys() == own.keys() and all(_fits(given[key], own[key]) for key in own):
                found.append(name)
    return found


def _fits(given: torch.Tensor, own: torch.Tensor) -> bool:
    """Returns whether a weight has the shape that a network wants, if 10 stands for any number of classes."""
    pairs = zip(given.shape, own.shape, strict=False)
    return given.ndim == own.ndim and all(a == b or (place == 0 and b == 10) for place, (a, b) in enumerate(pairs))


@contextmanager
def _without_memory() -> Iterator[None]:
    """Makes networks that are built inside have parameters with shapes and no numbers.

    `torch.device("meta")` would do that to every tensor, and some networks compute their widths with tensors.
    """
    register = nn.Module.register_parameter

    def register_shape(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        register(module, name, parameter if parameter is None else nn.Parameter(parameter.to("meta")))

    nn.Module.register_parameter = register_shape  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


def _shortened(text: str, most: int = 300) -> str:
    return text if len(text) <= most else f"{text[:most]}..."
